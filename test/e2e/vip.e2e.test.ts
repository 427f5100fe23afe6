// SPDX-License-Identifier: Apache-2.0
// A service answers inside its network by a virtual address and by its name, wherever client and containers are, and each
// container sees the client's own address. Who asks, over which protocol and family; what stays while containers come and
// go; and what the address is not.
import t, { type Test } from 'tap'
import { idle, openLab } from './lab.ts'

/**
 * `serve NAME PORT` answers every line and datagram with `NAME ADDRESS`. `ask PROTO ADDRESS PORT TIMES [BYTES]`
 * prints answers of new connections, to questions as long as themselves; `hold PROTO SECONDS SOURCE-PORT ADDRESS,PORT…` asks all on one connection each;
 * `rate ADDRESS PORT SECONDS` makes 50 connections a second and prints how many failed.
 */
const perl = String.raw`
use strict; use warnings; use IO::Handle; use Socket qw(:all); use Time::HiRes qw(time sleep); $| = 1; $SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
sub plain { my $t = inet_ntop(AF_INET6, (unpack_sockaddr_in6($_[0]))[1]); $t =~ s/^::ffff://; $t }
sub listening {
  my ($type, $port) = @_; socket(my $s, AF_INET6, $type, 0) or die; setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, pack_sockaddr_in6($port, IN6ADDR_ANY)) or die "bind: $!\n"; $s
}
sub dial {
  my ($proto, $address, $port, $source) = @_;
  my ($e, $a) = getaddrinfo($address, $port, { socktype => $proto eq 'tcp' ? SOCK_STREAM : SOCK_DGRAM, flags => AI_NUMERICHOST }); die $e if $e;
  socket(my $s, $a->{family}, $a->{socktype}, 0) or die "socket: $!\n";
  if ($source) {
    setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($s, $a->{family} == AF_INET ? pack_sockaddr_in($source, INADDR_ANY) : pack_sockaddr_in6($source, IN6ADDR_ANY)) or die "bind: $!\n";
  }
  connect($s, $a->{addr}) or die "connect: $!\n"; $s
}
sub exchange {
  my ($s, $bytes) = @_; defined send($s, '?' x ($bytes || 1), 0) or die "send: $!\n"; defined recv($s, my $b, 65535, 0) or die "receive: $!\n";
  die "closed\n" if $b eq ''; die "cut off\n" if length $b < ($bytes || 1); $b =~ s/\s+$//; $b
}
sub within { my ($seconds, $work) = @_; my $got = eval { local $SIG{ALRM} = sub { die "no answer\n" }; alarm $seconds; my $b = $work->(); alarm 0; $b } // $@; alarm 0; chomp $got; $got }
my ($what, @rest) = @ARGV;
if ($what eq 'serve') {
  my ($name, $port) = @rest; my ($t, $u) = (listening(SOCK_STREAM, $port), listening(SOCK_DGRAM, $port)); listen($t, 512);
  if (fork) {
    while (my $from = accept(my $c, $t)) { next if fork; my $b = ''; while (defined recv($c, $b, 1000, 0) && $b ne '') { syswrite($c, "$name " . plain($from) . "\n") } exit }
  } else { while (defined(my $from = recv($u, my $b, 65535, 0))) { send($u, "$name " . plain($from) . ' ' x length $b, 0, $from) } }
} elsif ($what eq 'hold') {
  my ($proto, $seconds, $source, @to) = @rest; my $from = time;
  my @s = map { my ($address, $port) = split /,/; within(5, sub { dial($proto, $address, $port, $source) }) } @to;
  while (time - $from < $seconds) { for my $i (0 .. $#to) { my $s = $s[$i]; print "$to[$i] ", (ref $s ? within(5, sub { exchange($s) }) : $s), "\n" } sleep 0.2 }
} elsif ($what eq 'rate') {
  my ($address, $port, $seconds) = @rest; my ($n, %by) = (0); my $from = time;
  while (time - $from < $seconds) {
    my $answer = within(5, sub { exchange(dial('tcp', $address, $port)) }); $by{$answer}++; $n++;
    my $rest = $from + $n / 50 - time; sleep $rest if $rest > 0;
  }
  print "$by{$_} $_\n" for sort keys %by;
} else {
  my ($proto, $address, $port, $times, $bytes) = @rest;
  print within($proto eq 'tcp' ? 10 : 3, sub { exchange(dial($proto, $address, $port), $bytes) }), "\n" for 1 .. $times
}
`
/** Asks a DNS server; prints what it found as JSON. */
const resolver = `
const { Resolver } = require('node:dns/promises')
const [name, type] = process.argv.slice(1)
const resolver = new Resolver({ timeout: 4000, tries: 1 })
resolver.setServers(['127.0.0.11'])
const ask = type === 'PTR' ? resolver.reverse(name) : resolver.resolve(name, type)
ask.then(found => found.sort(), error => [error.code]).then(found => console.log(JSON.stringify(found)))`

const lab = await openLab('vip', 3)
t.teardown(() => lab.close())

const { within } = lab
const run = async (host: string, name: string, ...options: string[]): Promise<void> => {
  await lab.docker(host, 'run', '-d', '--name', name, '--network', 'app', ...options, 'busybox', ...idle)
}
const serve = (host: string, name: string): Promise<string> =>
  within(host, name, 'sh', '-c', `setsid perl -e "$1" serve ${name} 80 < /dev/null > /dev/null 2>&1 &`, 'sh', perl)
const addressOf = (host: string, container: string, six: boolean): Promise<string> => {
  const field = six ? 'GlobalIPv6Address' : 'IPAddress'
  return lab.docker(host, 'inspect', '-f', `{{.NetworkSettings.Networks.app.${field}}}`, container)
}
const addresses = async (host: string, container: string): Promise<string[]> => [
  await addressOf(host, container, false),
  await addressOf(host, container, true),
]

interface Service {
  name: string
  vips: string[]
  backends: { container: string; state: string }[]
}
const services = async (): Promise<Service[]> =>
  JSON.parse(await lab.weft('h3', 'service', 'ls', '-o', 'json')) as Service[]
const vipsOf = async (name: string): Promise<string[]> =>
  (await services()).find(service => service.name === name)?.vips ?? []

await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 app'.split(' '))
for (const host of ['h2', 'h3']) await lab.shows(host, 'app')
const web = ['--label', 'weft.service=web', '-p', '8080:80', '-p', '8080:80/udp']
await run('h1', 'one', ...web)
await run('h2', 'two', ...web)
await run('h1', 'near')
await run('h3', 'far')
const homes: Readonly<Record<string, string>> = { one: 'h1', two: 'h2', three: 'h3', near: 'h1', far: 'h3' }
for (const name of ['one', 'two']) await serve(homes[name]!, name)
await lab.until(async () => (await vipsOf('web')).length === 2, 30_000)
const [vip4 = '', vip6 = ''] = await vipsOf('web')

const ask = async (who: string, proto: string, address: string, times = 6, bytes = 1): Promise<string[]> => {
  const out = await within(
    homes[who]!,
    who,
    'perl',
    '-e',
    perl,
    'ask',
    proto,
    address,
    '80',
    String(times),
    String(bytes),
  )
  return [...new Set(out.split('\n'))].sort()
}
/** Asks until the answers are these, for at most 20 s: a host follows the cluster. */
const sees = async (t: Test, who: string, proto: string, address: string, expected: string[]): Promise<void> => {
  let got: string[] = []
  await lab.until(async () => {
    got = await ask(who, proto, address)
    return JSON.stringify(got) === JSON.stringify(expected)
  }, 20_000)
  t.same(got, expected, `${who} asks ${address} over ${proto}`)
}

t.test('each container of the service gets connections, and sees the client', async t => {
  const gateways = (JSON.parse(await lab.weft('h1', 'network', 'show', 'app', '-o', 'json')) as Pools).pools
  for (const [i, vip] of [vip4, vip6].entries())
    for (const proto of ['tcp', 'udp']) {
      for (const who of ['near', 'far']) {
        const own = (await addresses(homes[who]!, who))[i]!
        await sees(t, who, proto, vip, [`one ${own}`, `two ${own}`])
      }
      for (const [who, other] of [
        ['one', 'two'],
        ['two', 'one'],
      ] as const) {
        const own = (await addresses(homes[who]!, who))[i]!
        // who gets its own call sees the gateway
        await sees(t, who, proto, vip, [`${other} ${own}`, `${who} ${gateways[i]!.gateway}`].sort())
      }
    }
})
type Pools = { pools: { gateway: string }[] }

t.test('as the service was said to be served', async t => {
  const say = (...how: string[]): Promise<string> =>
    lab.weft('h1', 'service', 'create', 'web', '--network', 'app', ...how)
  const whom = async (address: string): Promise<string[]> =>
    (await ask('far', 'tcp', address, 12)).map(answer => answer.split(' ')[0]!)
  await say('--scheduler', 'sh')
  for (const address of [vip4, vip6])
    t.ok(await lab.until(async () => (await whom(address)).length === 1, 20_000), `sh: one client, one container`)
  await say('--scheduler', 'rr')
  for (const address of [vip4, vip6])
    t.ok(await lab.until(async () => (await whom(address)).length === 2, 20_000), `rr: both again`)
  await lab.weft('h1', 'service', 'rm', 'web', '--network', 'app')
})

t.test('ping is answered by one of them', async t => {
  for (const who of ['near', 'far', 'one'])
    for (const vip of [vip4, vip6]) {
      const { out } = await lab.try(
        ...[
          'exec',
          homes[who]!,
          'nsenter',
          '-t',
          await pidOf(who),
          '-n',
          'ping',
          '-c',
          '3',
          '-i',
          '0.2',
          '-W',
          '5',
          vip,
        ],
      )
      t.match(out, /3 received/, `${who} pings ${vip}`)
    }
})
const pidOf = (name: string): Promise<string> => lab.docker(homes[name]!, 'inspect', '-f', '{{.State.Pid}}', name)

/** What a name gives, asked by Docker's own server. */
const named = async (who: string, name: string, type = 'A'): Promise<string[]> =>
  JSON.parse(await within(homes[who]!, who, process.execPath, '-e', resolver, name, type)) as string[]
const gives = async (t: Test, who: string, name: string, type: string, expected: string[]): Promise<void> => {
  let got: string[] = []
  await lab.until(async () => {
    got = await named(who, name, type)
    return JSON.stringify(got) === JSON.stringify(expected)
  })
  t.same(got, expected, `${who}: ${name} ${type}`)
}

t.test('datagrams in fragments arrive whole, both ways', async t => {
  for (const [i, vip] of [vip4, vip6].entries())
    for (const who of ['near', 'far', 'one']) {
      const own = (await addresses(homes[who]!, who))[i]
      const got = await ask(who, 'udp', vip, 6, 20_000)
      t.ok(got.length === 2 && got.includes(`two ${own}`), `${who} asks ${vip}: ${got.join(', ')}`)
    }
})

t.test('nothing is lost while the client looks again for who has the address', async t => {
  for (const vip of [vip4, vip6]) await ask('far', 'udp', vip, 1)
  const held = hold('far', 'udp', 15, 40_003, `${vip4},80`, `${vip6},80`)
  const over = new Promise(resolve => held.child.once('close', resolve))
  await lab.until(async () => held.lines().length > 4, 20_000)
  // nothing confirms a neighbour to UDP: after 5 s it is asked by unicast, then by all
  for (const vip of [vip4, vip6]) {
    const found = await within('h3', 'far', ...`ip -j neigh show ${vip} dev eth0`.split(' '))
    const [{ lladdr }] = JSON.parse(found) as [{ lladdr: string }]
    await within('h3', 'far', ...`ip neigh replace ${vip} lladdr ${lladdr} dev eth0 nud stale`.split(' '))
  }
  await over
  for (const vip of [vip4, vip6]) {
    const answers = held.answers(`${vip},80`)
    t.match(answers, [/^(one|two) /])
    t.equal(answers.length, 1, answers.join(', '))
  }
  t.ok(held.lines().length > 60, `${held.lines().length} answers`)
})

t.test('by name', async t => {
  const [one, two] = [await addresses('h1', 'one'), await addresses('h2', 'two')]
  for (const name of ['web', 'web.app.weft']) {
    await gives(t, 'far', name, 'A', [vip4])
    await gives(t, 'near', name, 'AAAA', [vip6])
  }
  for (const name of ['tasks.web', 'tasks.web.app.weft']) await gives(t, 'far', name, 'A', [one[0]!, two[0]!].sort())
  await gives(t, 'far', vip4, 'PTR', ['web.app.weft'])
  await run('h2', 'web')
  const container = await addressOf('h2', 'web', false)
  await gives(t, 'far', 'web', 'A', [container])
  await gives(t, 'far', 'web.app.weft', 'A', [container])
  await lab.docker('h2', 'rm', '-f', 'web')
  await gives(t, 'far', 'web', 'A', [vip4])
})

/** Holds connections from one container, and gives what was answered so far: target → answers, repetitions left out. */
const hold = (who: string, proto: string, seconds: number, source: number, ...to: string[]) => {
  const script = `p=$(docker inspect -f "{{.State.Pid}}" ${who}); exec nsenter -t "$p" -n perl -e "$1" hold ${proto} ${seconds} ${source} ${to.join(' ')}`
  const running = lab.background('exec', homes[who]!, 'sh', '-c', script, 'sh', perl)
  const lines = (): string[] => running.out().trim().split('\n').filter(Boolean)
  return {
    ...running,
    lines,
    answers: (target: string): string[] => [
      ...new Set(lines().flatMap(line => (line.startsWith(`${target} `) ? [line.slice(target.length + 1)] : []))),
    ],
  }
}

for (const proto of ['tcp', 'udp'])
  t.test(`${proto}: virtual address, published port and container by one source port at once`, async t => {
    const source = proto === 'tcp' ? 40_000 : 40_001
    const [own] = await addresses('h3', 'far')
    const [one] = await addresses('h1', 'one')
    const to = [`${vip4},80`, `${one},80`, '10.9.0.1,8080']
    const held = hold('far', proto, 5, source, ...to)
    await lab.until(async () => held.lines().length >= 15, 20_000)
    await held.stop()
    t.match(held.answers(to[0]!), [/^(one|two) /])
    t.match(held.answers(to[0]!)[0], own!)
    t.same(held.answers(to[1]!), [`one ${own}`])
    t.match(held.answers(to[2]!), [/^(one|two) 10\.9\.0\.3$/])
  })

t.test('an open connection stays with its container while others come and go', async t => {
  const held = hold('far', 'tcp', 300, 0, `${vip4},80`)
  const datagrams = hold('far', 'udp', 300, 40_002, `${vip6},80`)
  await lab.until(async () => held.lines().length > 2 && datagrams.lines().length > 2, 20_000)
  const first = held.answers(`${vip4},80`)
  const owner = first[0]!.split(' ')[0]!
  const udpOwner = datagrams.answers(`${vip6},80`)[0]!.split(' ')[0]!
  const own = (await addresses('h3', 'far'))[0]
  await run('h3', 'three', ...web)
  await serve('h3', 'three')
  await sees(
    t,
    'near',
    'tcp',
    vip4,
    await Promise.all(['one', 'two', 'three'].map(seenBy('near'))).then(all => all.sort()),
  )
  for (const name of [owner, udpOwner]) await lab.weft('h1', 'service', 'drain', 'web', name)
  const left = ['one', 'two', 'three'].filter(name => name !== owner && name !== udpOwner)
  await sees(t, 'near', 'tcp', vip4, await Promise.all(left.map(seenBy('near'))).then(all => all.sort()))
  const before = held.lines().length
  await lab.until(async () => held.lines().length > before + 5, 20_000)
  t.same(held.answers(`${vip4},80`), [`${owner} ${own}`], 'it goes on')
  t.equal(datagrams.answers(`${vip6},80`).length, 1, 'UDP too')
  for (const name of new Set([owner, udpOwner])) await lab.weft('h1', 'service', 'drain', '--undo', 'web', name)
  // its container dies: told at once over TCP, over UDP the next one answers
  await lab.docker(homes[owner]!, 'rm', '-f', owner)
  const ended = await lab.until(async () => held.lines().some(line => /reset|closed/.test(line)), 20_000)
  t.ok(ended, held.lines().slice(-3).join(' | '))
  await held.stop()
  if (owner !== udpOwner) await lab.docker(homes[udpOwner]!, 'rm', '-f', udpOwner)
  const elsewhere = async (): Promise<boolean> => {
    const last = datagrams.lines().at(-1) ?? ''
    return / (one|two|three) /.test(last) && !last.includes(` ${udpOwner} `)
  }
  t.ok(await lab.until(elsewhere, 40_000), datagrams.lines().at(-1) ?? 'no answer at all')
  await datagrams.stop()
  for (const name of new Set([owner, udpOwner])) {
    await run(homes[name]!, name, ...web)
    await serve(homes[name]!, name)
  }
  await sees(
    t,
    'near',
    'tcp',
    vip4,
    await Promise.all(['one', 'two', 'three'].map(seenBy('near'))).then(all => all.sort()),
  )
})
const seenBy =
  (who: string) =>
  async (name: string): Promise<string> =>
    `${name} ${(await addresses(homes[who]!, who))[0]}`

t.test('a container that is stopped in its time loses nobody a connection', async t => {
  for (const who of ['far', 'near']) {
    const script = `p=$(docker inspect -f "{{.State.Pid}}" ${who}); exec nsenter -t "$p" -n perl -e "$1" rate ${vip4} 80 12`
    const rate = lab.background('exec', homes[who]!, 'sh', '-c', script, 'sh', perl)
    const ended = new Promise(resolve => rate.child.once('close', resolve))
    await lab.docker('h2', 'stop', '-t', '4', 'two')
    await ended
    const answers = rate.out().trim().split('\n')
    t.comment(answers.join(', '))
    t.ok(answers.length >= 2 && answers.every(line => /^\d+ (one|two|three) /.test(line)), answers.join(', '))
    await lab.docker('h2', 'start', 'two')
    await serve('h2', 'two')
    await sees(
      t,
      'near',
      'tcp',
      vip4,
      await Promise.all(['one', 'two', 'three'].map(seenBy('near'))).then(all => all.sort()),
    )
  }
})

t.test('a node that does not answer gets no new connections, and no UDP, while another does', async t => {
  const datagrams = hold('far', 'udp', 300, 0, ...Array<string>(6).fill(`${vip4},80`))
  await lab.until(async () => datagrams.answers(`${vip4},80`).some(answer => answer.startsWith('two ')), 20_000)
  await lab.exec('router', 'ip', 'link', 'set', 'ph2', 'down')
  await sees(t, 'far', 'tcp', vip4, await Promise.all(['one', 'three'].map(seenBy('far'))))
  const from = datagrams.lines().length
  t.ok(
    await lab.until(async () => {
      const last = datagrams.lines().slice(from).slice(-12)
      return last.length === 12 && last.every(line => / (one|three) /.test(line))
    }, 60_000),
    datagrams.lines().slice(-12).join(' | '),
  )
  await datagrams.stop()
  await lab.exec('router', 'ip', 'link', 'set', 'ph2', 'up')
  await sees(t, 'far', 'tcp', vip4, await Promise.all(['one', 'three', 'two'].map(seenBy('far'))))
})

t.test('while none is active the connection is refused', async t => {
  const names = ['one', 'two', 'three']
  for (const name of names) await lab.weft('h2', 'service', 'drain', 'web', name)
  for (const who of ['far', 'one'])
    for (const vip of [vip4, vip6]) {
      await sees(t, who, 'tcp', vip, ['connect: Connection refused'])
      t.same(await ask(who, 'udp', vip, 1), ['no answer'])
    }
  for (const name of names) await lab.weft('h2', 'service', 'drain', '--undo', 'web', name)
  await sees(t, 'near', 'tcp', vip4, await Promise.all(names.map(seenBy('near'))).then(all => all.sort()))
})

t.test('nobody else gets the address, and it is no source', async t => {
  const taken = await lab.tryDocker('h3', ...'run --rm --network app --ip'.split(' '), vip4, 'busybox', 'true')
  t.match(taken.err, /is the virtual address of service web: choose another --ip/)
  await within('h3', 'far', 'ip', 'address', 'add', `${vip4}/32`, 'dev', 'eth0')
  const pid = await pidOf('far')
  const near = await addressOf('h1', 'near', false)
  const ping = await lab.try('exec', 'h3', 'nsenter', '-t', pid, '-n', 'ping', '-c', '1', '-W', '2', '-I', vip4, near)
  t.match(ping.out, /0 received/)
  await within('h3', 'far', 'ip', 'address', 'del', `${vip4}/32`, 'dev', 'eth0')
  await sees(
    t,
    'near',
    'tcp',
    vip4,
    await Promise.all(['one', 'two', 'three'].map(seenBy('near'))).then(all => all.sort()),
  )
})

t.test('who has one, and for how long', async t => {
  await run('h1', 'lone', '-p', '8081:80')
  await lab.until(async () => (await services()).some(({ name }) => name === 'lone'))
  t.same(await vipsOf('lone'), [], 'a container by itself has none')
  await lab.docker('h1', 'rm', '-f', 'lone')
  t.match(await lab.weft('h2', 'service', 'show', 'web'), new RegExp(`^VIP: +${vip4}$`, 'm'))
  await run('h2', 'alone', '--label', 'weft.service=inner')
  await serve('h2', 'alone')
  t.equal(await lab.until(async () => (await vipsOf('inner')).length, 20_000), 2, 'a label is enough')
  const [inner = ''] = await vipsOf('inner')
  await sees(t, 'far', 'tcp', inner, [`alone ${(await addresses('h3', 'far'))[0]}`])
  await lab.docker('h2', 'rm', '-f', 'alone')
  await lab.until(async () => (await vipsOf('inner')).length === 0)
  t.same(await named('far', 'inner.app.weft'), ['ENOTFOUND'], 'without a container it has no name')
  await run('h3', 'again', '--label', 'weft.service=inner')
  await lab.until(async () => (await vipsOf('inner')).length > 0, 20_000)
  t.same((await vipsOf('inner'))[0], inner, 'and comes back with its address')
  await lab.docker('h3', 'rm', '-f', 'again')
})
t.test('on an internal network too, where who gets its own call sees the service', async t => {
  await lab.docker('h1', ...'network create -d weft --ipam-driver weft --internal inside'.split(' '))
  await lab.shows('h2', 'inside')
  const label = ['--network', 'inside', '--label', 'weft.service=deep']
  for (const [host, name] of [
    ['h1', 'in1'],
    ['h2', 'in2'],
  ] as const) {
    await lab.docker(host, 'run', '-d', '--name', name, ...label, 'busybox', ...idle)
    await serve(host, name)
  }
  await lab.until(async () => (await vipsOf('deep')).length > 0, 20_000)
  const [deep = ''] = await vipsOf('deep')
  const [pool] = (JSON.parse(await lab.weft('h1', 'network', 'show', 'inside', '-o', 'json')) as Pools).pools
  const own = await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.inside.IPAddress}}', 'in1')
  const expected = [`in1 ${pool?.gateway || deep}`, `in2 ${own}`]
  let got = ''
  await lab.until(async () => {
    const out = await within('h1', 'in1', 'perl', '-e', perl, 'ask', 'tcp', deep, '80', '6', '1')
    got = [...new Set(out.split('\n'))].sort().join(', ')
    return got === expected.join(', ')
  }, 20_000)
  t.equal(got, expected.join(', '))
  await lab.docker('h1', 'rm', '-f', 'in1')
  await lab.docker('h2', 'rm', '-f', 'in2')
  await lab.weft('h1', 'network', 'rm', 'inside')
})

t.test('a weftd that is restarted writes nothing, and the connections go on', async t => {
  const held = hold('far', 'tcp', 120, 0, `${vip4},80`)
  await lab.until(async () => held.lines().length > 2, 20_000)
  const operations = async (host: string): Promise<string> => {
    const { out } = await lab.try('weft', host, 'status', '-o', 'json')
    return String((JSON.parse(out) as { reconciler: { operations: string | number } }).reconciler.operations)
  }
  for (const host of ['h1', 'h3']) {
    await lab.ok('stop', host, 'weftd')
    await lab.ok('start', host, 'weftd')
  }
  const before = held.lines().length
  await lab.until(async () => held.lines().length > before + 5, 20_000)
  for (const host of ['h1', 'h3']) t.equal(await operations(host), '0', host)
  t.equal(held.answers(`${vip4},80`).length, 1)
  await held.stop()
})

t.test('it goes with its network', async t => {
  for (const [host, name] of Object.entries(homes).map(([name, host]) => [host, name] as const))
    await lab.docker(host, 'rm', '-f', name)
  t.equal((await lab.until(() => lab.try('weft', 'h1', 'network', 'rm', 'app'))).code, 0)
  const kept = async (): Promise<string> =>
    lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/vips/', '--keys-only')
  t.ok(await lab.until(async () => (await kept()).trim() === ''), await kept())
})

// SPDX-License-Identifier: Apache-2.0
// A published port answers on every host, and the container sees the client: who asks, by which host, over which
// protocol and family, and what address the container sees then.
import t, { type Test } from 'tap'
import { idle, openLab } from './lab.ts'

/** `serve NAME PORT` answers every line and datagram with `NAME ADDRESS`. `ask PROTO ADDRESS PORT TIMES` prints answers, `flow` asks on. */
const perl = String.raw`
use strict; use warnings; use IO::Handle; use Socket qw(:all); use Time::HiRes qw(time sleep); $| = 1; $SIG{PIPE} = 'IGNORE';
sub plain { my (undef, undef, $ip) = (0, unpack_sockaddr_in6($_[0])); my $t = inet_ntop(AF_INET6, (unpack_sockaddr_in6($_[0]))[1]); $t =~ s/^::ffff://; $t }
sub listening {
  my ($type, $port) = @_; socket(my $s, AF_INET6, $type, 0) or die; setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, pack_sockaddr_in6($port, IN6ADDR_ANY)) or die "bind: $!\n"; $s
}
my ($what, @rest) = @ARGV;
if ($what eq 'serve') {
  my ($name, $port) = @rest; my ($t, $u) = (listening(SOCK_STREAM, $port), listening(SOCK_DGRAM, $port)); listen($t, 512);
  if (fork) { while (my $from = accept(my $c, $t)) { syswrite($c, "$name " . plain($from) . "\n"); close $c } }
  else { while (defined(my $from = recv($u, my $b, 65535, 0))) { send($u, "$name " . plain($from) . "\n", 0, $from) } }
} elsif ($what eq 'flow') { # one UDP socket, ten datagrams a second: when (ms) each answer came, and from whom
  my ($address, $port, $seconds) = @rest; my $from = time;
  my ($e, $a) = getaddrinfo($address, $port, { socktype => SOCK_DGRAM, flags => AI_NUMERICHOST }); die $e if $e;
  socket(my $s, $a->{family}, SOCK_DGRAM, 0) or die; connect($s, $a->{addr}) or die; $s->blocking(0);
  while (time - $from < $seconds) {
    send($s, "?\n", 0); sleep 0.1;
    while (defined recv($s, my $b, 1000, 0)) { chomp $b; printf("%d %s\n", 1000 * time, $b) }
  }
} else {
  my ($proto, $address, $port, $times) = @rest;
  my ($e, $a) = getaddrinfo($address, $port, { socktype => $proto eq 'tcp' ? SOCK_STREAM : SOCK_DGRAM, flags => AI_NUMERICHOST }); die $e if $e;
  for (1 .. $times) {
    my $answer = eval {
      local $SIG{ALRM} = sub { die "no answer\n" }; alarm 10;
      socket(my $s, $a->{family}, $a->{socktype}, 0) or die "socket: $!\n"; connect($s, $a->{addr}) or die "connect: $!\n";
      send($s, "?\n", 0) if $proto eq 'udp'; defined recv($s, my $b, 1000, 0) or die "receive: $!\n"; $b
    } // $@; alarm 0; chomp $answer; print "$answer\n"
  }
}
`

const lab = await openLab('mesh', 3)
t.teardown(() => lab.close())

const v4 = (host: string): string => `10.9.0.${host.slice(1)}`
const v6 = (host: string): string => `fd09::${host.slice(1)}`
/** The host's end of its link to the network's gateway: what it asks itself by. */
const link = { 4: '169.254.1.1', 6: 'fd69:7765:6674::1' }

const within = (host: string, container: string, ...command: string[]): Promise<string> =>
  lab.exec(
    host,
    'sh',
    '-c',
    'p=$(docker inspect -f "{{.State.Pid}}" "$1"); shift; exec nsenter -t "$p" -n "$@"',
    'sh',
    container,
    ...command,
  )
const run = async (host: string, name: string, ...options: string[]): Promise<void> => {
  await lab.docker(host, 'run', '-d', '--name', name, ...options, 'busybox', ...idle)
}
const serve = (host: string, name: string, port = 80): Promise<string> =>
  within(host, name, 'sh', '-c', `setsid perl -e "$1" serve ${name} ${port} < /dev/null > /dev/null 2>&1 &`, 'sh', perl)

interface Asker {
  readonly who: string
  readonly ask: (...question: string[]) => Promise<string>
}
const byHost = (who: string): Asker => ({ who, ask: (...q) => lab.exec(who, 'perl', '-e', perl, 'ask', ...q) })
const byContainer = (host: string, name: string): Asker => ({
  who: name,
  ask: (...q) => within(host, name, 'perl', '-e', perl, 'ask', ...q),
})
const answers = async (asker: Asker, proto: string, address: string, port = 8080, times = 4): Promise<string[]> => [
  ...new Set((await asker.ask(proto, address, String(port), String(times))).split('\n')),
]

await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 app'.split(' '))
await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 other'.split(' '))
for (const host of ['h2', 'h3'])
  for (const name of ['app', 'other'])
    await lab.until(async () => (await lab.docker(host, 'network', 'ls', '-q', '-f', `name=^${name}$`)) !== '')
const publish = ['-p', '8080:80', '-p', '8080:80/udp']
await run('h1', 'one', '--network', 'app', '--label', 'weft.service=web', ...publish)
await run('h2', 'two', '--network', 'app', '--label', 'weft.service=web', ...publish)
await run('h3', 'near', '--network', 'app')
await run('h1', 'near1', '--network', 'app')
await run('h3', 'far', '--network', 'other')
await run('h3', 'plain')
await serve('h1', 'one')
await serve('h2', 'two')

const both = (address: string): string[] => [`one ${address}`, `two ${address}`]
/** Asks until the answers are these, for at most 10 s: a host follows the cluster. */
const sees = async (
  t: Test,
  asker: Asker,
  proto: string,
  address: string,
  expected: readonly string[],
  port = 8080,
): Promise<void> => {
  let got: string[] = []
  await lab.until(async () => {
    got = (await answers(asker, proto, address, port)).sort()
    return JSON.stringify(got) === JSON.stringify(expected)
  })
  t.same(got, expected, `${asker.who} by ${address} port ${port} over ${proto}`)
}
const nobody = ['connect: Connection refused']

for (const proto of ['tcp', 'udp'])
  t.test(`${proto}: what the containers see`, async t => {
    const client = byHost('client')
    for (const host of ['h1', 'h2', 'h3']) {
      await sees(t, client, proto, v4(host), both('192.0.2.10'))
      await sees(t, client, proto, v6(host), both('2001:db8::10'))
      for (const from of ['h1', 'h2', 'h3']) {
        await sees(t, byHost(from), proto, v4(host), both(v4(from)))
        await sees(t, byHost(from), proto, v6(host), both(v6(from)))
      }
      await sees(t, byHost(host), proto, '127.0.0.1', both(link[4]))
    }
    if (proto === 'tcp') t.same(await answers(byHost('h1'), proto, '::1', 8080, 1), ['connect: Connection refused'])
    for (const asker of [byContainer('h3', 'near'), byContainer('h3', 'far'), byContainer('h3', 'plain')]) {
      // masqueraded on its way out of its own host
      await sees(t, asker, proto, v4('h1'), both(v4('h3')))
      await sees(t, asker, proto, v4('h3'), both(link[4]))
      if (asker.who === 'plain') continue // Docker's own bridge has no IPv6
      await sees(t, asker, proto, v6('h1'), both(v6('h3')))
      await sees(t, asker, proto, v6('h3'), both(link[6]))
    }
  })

/** Where Docker's events are late the call succeeds in doubt, as documented: on a busy machine it is asked again. */
const refused = async (t: Test, host: string, message: RegExp, ...options: string[]): Promise<void> => {
  let err = ''
  for (let i = 0; i < 3 && !message.test(err); i++) {
    ;({ err } = await lab.tryDocker(host, 'run', '-d', '--name', 'refused', ...options, 'busybox', ...idle))
    await lab.tryDocker(host, 'rm', '-f', 'refused')
  }
  t.match(err, message, options.join(' '))
}
/** A process of the host itself that has the port, and answers. */
const occupy = (host: string, port: number) =>
  lab.background('exec', host, 'perl', '-e', perl, 'serve', 'process', String(port))

t.test('who asks for a port that is taken is told by whom', async t => {
  const app = ['--network', 'app']
  const web = /8080\/tcp is not free: container one on host h1 has it, as service web of network app/
  await refused(t, 'h3', web, ...app, '-p', '8080:80')
  await refused(t, 'h1', web, '--network', 'other', '-p', '8080:80')
  await refused(t, 'h1', /container one on host h1 has it on every host/, ...app, '-p', '127.0.0.1:8080:80')
  await refused(t, 'h1', /8473\/udp is not free: it is reserved/, ...app, '-p', '8473:80/udp')
  await refused(t, 'h1', /::1 is not possible/, ...app, '-p', '[::1]:8085:80')
  await refused(t, 'h1', /this host has no address 10.9.0.99/, ...app, '-p', '10.9.0.99:8085:80')
})

t.test('a port that a process of a host has is left to it', async t => {
  const client = byHost('client')
  const process = occupy('h3', 9999)
  await lab.until(async () => (await answers(client, 'tcp', v4('h3'), 9999, 1))[0]!.startsWith('process'))
  await refused(t, 'h3', /9999\/tcp is not free: a process of this host has it/, '--network', 'app', '-p', '9999:80')
  await run('h1', 'beside', '--network', 'app', '-p', '9999:80')
  await serve('h1', 'beside')
  await sees(t, client, 'tcp', v4('h2'), ['beside 192.0.2.10'], 9999)
  t.same(await answers(client, 'tcp', v4('h3'), 9999), ['process 192.0.2.10'])
  const problems = async (): Promise<string> => (await lab.try('weft', 'h3', 'status')).out
  const sentence = /tcp\/9999 is not answered on this host: a process of this host has it/
  await lab.until(async () => sentence.test(await problems()))
  t.match(await problems(), sentence)
  t.match(await lab.weft('h3', 'service', 'show', 'beside'), /9999\/tcp +not on this host: a process/)
  await process.stop()
  await sees(t, client, 'tcp', v4('h3'), ['beside 192.0.2.10'], 9999)
  t.notMatch(await problems(), sentence)
  const bind = (port: number): Promise<string> =>
    lab.exec(
      'h3',
      'perl',
      '-e',
      'use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);' +
        'print bind($s, pack_sockaddr_in($ARGV[0], INADDR_ANY)) && listen($s, 1) ? "bound" : $!',
      String(port),
    )
  t.equal(await bind(8080), 'Address already in use', 'held, as by docker-proxy')
  await lab.docker('h1', 'rm', '-f', 'beside')
  t.ok(await lab.until(async () => (await bind(9999)) === 'bound'), 'and let go')
  t.same(await answers(byHost('h3'), 'tcp', v4('h3'), 9999, 1), nobody)
})

t.test('weft service and weft port say it', async t => {
  t.match(await lab.weft('h3', 'service', 'ls'), /^web +app +8080\/tcp 8080\/udp +2\/2$/m)
  const shown = JSON.parse(await lab.weft('h3', 'service', 'show', 'web', '-o', 'json')) as {
    network: string
    backends: { container: string; node: string; state: string }[]
  }
  t.equal(shown.network, 'app')
  const backends = shown.backends.map(({ container, node, state }) => `${container} ${node} ${state}`)
  t.same(backends.sort(), ['one h1 active', 'two h2 active'])
  t.match(await lab.weft('h1', 'service', 'show', 'web'), /^two +h2 +active +10\./m)
  t.match(await lab.weft('h2', 'port', 'one'), /^80\/tcp -> 0\.0\.0\.0:8080 {2}every host$/m)
  for (const args of [
    ['port', 'nobody'],
    ['service', 'show', 'nobody'],
  ])
    t.equal((await lab.try('weft', 'h1', ...args)).code, 4)
})

t.test('-p in every form', async t => {
  const client = byHost('client')
  await run(
    'h2',
    'forms',
    '--network',
    'app',
    '-p',
    '127.0.0.1:7001:80',
    '-p',
    '10.9.0.2:7002:80',
    '-p',
    '7010-7012:80',
  )
  await serve('h2', 'forms')
  await sees(t, byHost('h2'), 'tcp', '127.0.0.1', [`forms ${link[4]}`], 7001)
  await sees(t, client, 'tcp', v4('h2'), ['forms 192.0.2.10'], 7002)
  await sees(t, client, 'tcp', v4('h1'), ['forms 192.0.2.10'], 7010)
  for (const [host, port] of [
    ['h2', 7001],
    ['h1', 7002],
    ['h1', 7011],
  ] as const)
    t.same(await answers(client, 'tcp', v4(host), port, 1), nobody, `${host}:${port}`)
  await run('h3', 'again', '--network', 'app', '-p', '7010-7012:80')
  await serve('h3', 'again')
  await sees(t, client, 'tcp', v4('h1'), ['again 192.0.2.10'], 7011)
  await lab.docker('h3', 'rm', '-f', 'again')
  await lab.docker('h2', 'rm', '-f', 'forms')
  for (const port of [7002, 7010]) t.same(await answers(client, 'tcp', v4('h2'), port, 1), nobody)
  const twice = ['-p', '127.0.0.1:7030:80', '-p', '10.9.0.2:7030:80']
  const both = ['-p', '0.0.0.0:7032:80', '-p', '[::]:7032:80']
  await run('h2', 'more', '--network', 'app', ...twice, ...both, '-p', '[::]:7031:80', '-p', '0.0.0.0:7033:80')
  await serve('h2', 'more')
  await sees(t, byHost('h2'), 'tcp', '127.0.0.1', [`more ${link[4]}`], 7030)
  await sees(t, client, 'tcp', v4('h2'), ['more 192.0.2.10'], 7030)
  await sees(t, client, 'tcp', v6('h1'), ['more 2001:db8::10'], 7031)
  await sees(t, client, 'tcp', v6('h1'), ['more 2001:db8::10'], 7032)
  await sees(t, client, 'tcp', v4('h1'), ['more 192.0.2.10'], 7032)
  await sees(t, client, 'tcp', v4('h1'), ['more 192.0.2.10'], 7033)
  t.same(await answers(client, 'tcp', v4('h1'), 7031, 1), nobody, '[::] is IPv6 alone')
  t.same(await answers(client, 'tcp', v6('h1'), 7033, 1), nobody, '0.0.0.0 is IPv4 alone')
  await lab.docker('h2', 'rm', '-f', 'more')
  await run('h1', 'any', '--network', 'app', '--expose', '80', '-P')
  await serve('h1', 'any')
  const [, port] = /^80\/tcp -> 0\.0\.0\.0:(\d+)/.exec(await lab.weft('h1', 'port', 'any'))!
  await sees(t, client, 'tcp', v4('h3'), ['any 192.0.2.10'], Number(port))
  await lab.docker('h1', 'rm', '-f', 'any')
})

t.test('clients are kept out as docs/mesh.md says', async t => {
  const rule = 'PREROUTING -p tcp --dport 8080 ! -s 10.9.0.0/24 -j DROP'.split(' ')
  await lab.exec('h3', 'iptables', '-t', 'mangle', '-A', ...rule)
  await sees(t, byHost('h2'), 'tcp', v4('h3'), both(v4('h2')))
  t.same(await answers(byHost('client'), 'tcp', v4('h3'), 8080, 1), ['no answer'])
  await lab.exec('h3', 'iptables', '-t', 'mangle', '-D', ...rule)
  await sees(t, byHost('client'), 'tcp', v4('h3'), both('192.0.2.10'))
})

t.test('weft.publish=local: each host answers for its own containers', async t => {
  const client = byHost('client')
  await lab.docker('h1', ...'network create -d weft --ipam-driver weft -o weft.publish=local own'.split(' '))
  await lab.until(async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=^own$')) !== '')
  for (const host of ['h1', 'h2']) {
    await run(host, `own-${host}`, '--network', 'own', '-p', '7020:80')
    await serve(host, `own-${host}`)
  }
  for (const host of ['h1', 'h2']) await sees(t, client, 'tcp', v4(host), [`own-${host} 192.0.2.10`], 7020)
  t.same(await answers(client, 'tcp', v4('h3'), 7020, 1), nobody)
  for (const host of ['h1', 'h2']) await lab.docker(host, 'rm', '-f', `own-${host}`)
})

const udpFlow = async (t: Test, stopped: boolean): Promise<void> => {
  const flow = lab.background('exec', 'client', 'perl', '-e', perl, 'flow', v4('h3'), '8080', stopped ? '14' : '7')
  const lines = (): string[][] =>
    flow
      .out()
      .trim()
      .split('\n')
      .map(line => line.split(' '))
  await lab.until(async () => lines().length > 5)
  const first = lines()[0]![1]!
  const [host, name] = first === 'one' ? ['h1', 'one'] : ['h2', 'two']
  if (stopped) await lab.ok('stop', 'h3', 'weftd')
  await lab.docker(host, 'kill', name)
  if (stopped) await lab.ok('start', 'h3', 'weftd')
  const killed = Date.now()
  await new Promise(resolve => flow.child.once('close', resolve))
  const other = lines().find(([, who]) => who !== first)
  t.ok(other, `${lines().length} answers`)
  t.comment(`after ${Number(other?.[0]) - killed} ms`)
  t.ok(Number(other?.[0]) - killed < 5000, 'and not only when the entry of the kernel has run out')
  t.equal(lines().at(-1)?.[2], '192.0.2.10')
  await lab.docker(host, 'start', name)
  await serve(host, name)
  await sees(t, byHost('client'), 'udp', v4('h3'), both('192.0.2.10'))
}
t.test('a UDP flow goes on with another backend when its own dies', t => udpFlow(t, false))
t.test('the same when weftd was not there to see it, as soon as it is back', t => udpFlow(t, true))

t.test('a backend that goes and comes back; a weftd that is restarted', async t => {
  const client = byHost('client')
  await lab.docker('h2', 'rm', '-f', 'two')
  await sees(t, client, 'tcp', v4('h3'), ['one 192.0.2.10'])
  await lab.docker('h1', 'restart', '-t', '0', 'one')
  await serve('h1', 'one')
  await sees(t, client, 'tcp', v4('h2'), ['one 192.0.2.10'])
  await run('h3', 'three', '--network', 'app', '--label', 'weft.service=web', ...publish)
  await serve('h3', 'three')
  await sees(t, client, 'udp', v4('h2'), ['one 192.0.2.10', 'three 192.0.2.10'])
  await lab.ok('stop', 'h2', 'weftd')
  await lab.ok('start', 'h2', 'weftd')
  await sees(t, client, 'tcp', v4('h2'), ['one 192.0.2.10', 'three 192.0.2.10'])
})

// SPDX-License-Identifier: Apache-2.0
// Connections on which nobody says anything, and those that one side has closed: through a published port and through a
// virtual address. In the VM one host balances by IPVS and one by nftables, and the silence is the 16 minutes after which
// others forget; here it is as long as the kernel's own time for half-closed connections.
// $WEFT_SILENCE: seconds.
import t from 'tap'
import { idle, openLab } from './lab.ts'

const emulated = process.env['WEFT_VM'] !== undefined
const silence = Number(process.env['WEFT_SILENCE'] ?? (emulated ? 960 : 100))
/** One side has closed, and the other says its last word after this. */
const late = Math.min(silence, 300)
t.setTimeout((silence + 2400) * 1000)

/**
 * `serve PORT` answers: `hello` with the address it sees; `late S` after S seconds with a lot, though the client has
 * closed;
 * `closing S` by closing, and notes what comes then. `ask ADDRESS PORT WORD SECONDS` is the client.
 */
const perl = String.raw`
use strict; use warnings; use IO::Handle; use Socket qw(:all); $| = 1; $SIG{CHLD} = 'IGNORE'; $SIG{PIPE} = 'IGNORE';
my ($what, @rest) = @ARGV;
if ($what eq 'serve') {
  socket(my $l, AF_INET6, SOCK_STREAM, 0) or die; setsockopt($l, IPPROTO_IPV6, IPV6_V6ONLY, 0); setsockopt($l, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($l, pack_sockaddr_in6($rest[0], IN6ADDR_ANY)) or die "bind: $!\n"; listen($l, 100);
  while (my $from = accept(my $c, $l)) {
    if (fork) { close $c; next }
    my $seen = inet_ntop(AF_INET6, (unpack_sockaddr_in6($from))[1]); $seen =~ s/^::ffff://; $c->autoflush;
    while (my $line = <$c>) {
      if ($line =~ /^late (\d+)/) { 1 while <$c>; sleep $1; print $c "x" x 300_000, "\nlate $seen\n"; exit }
      if ($line =~ /^closing/) { print $c "closing $seen\n"; shutdown($c, 1); print while <$c>; exit }
      print $c "$seen\n"
    }
    exit
  }
} else {
  my ($address, $port, $word, $seconds) = @rest; $SIG{ALRM} = sub { print "no answer\n"; exit }; alarm $seconds + 120;
  my ($e, $a) = getaddrinfo($address, $port, { socktype => SOCK_STREAM, flags => AI_NUMERICHOST }); die $e if $e;
  socket(my $s, $a->{family}, SOCK_STREAM, 0) or die; connect($s, $a->{addr}) or die "connect: $!\n"; $s->autoflush;
  if ($word eq 'hello') { print $s "hello\n"; print scalar(<$s>) // "closed\n"; sleep $seconds; print $s "hello\n"; print scalar(<$s>) // "closed\n" }
  elsif ($word eq 'late') { print $s "late $seconds\n"; shutdown($s, 1); my $all = join "", <$s>; print length $all, substr $all, 300_000 }
  else { print $s "closing\n"; print while <$s>; sleep $seconds; print $s "last words of $address\n"; shutdown($s, 1); print "closed\n" }
}
`

/** What the container of a service noted. */
const notes = (name: string): string => `/tmp/weft-idle-${process.pid}-${name}`

const lab = await openLab('idle', 2, ...(emulated ? ['--weftd-args', '--lb ipvs'] : []))
t.teardown(async () => {
  for (const { name, host } of services) await lab.try('exec', host, 'rm', '-f', notes(name))
  await lab.close()
})
if (emulated) {
  await lab.ok('stop', 'h2', 'weftd')
  await lab.ok('start', 'h2', 'weftd', '--weftd-args', '--lb nft')
}
// what hosts have for others is none of ours
for (const host of ['h1', 'h2'])
  await lab.exec(host, 'sysctl', '-qw', 'net.netfilter.nf_conntrack_tcp_timeout_established=50')
await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 --subnet 10.80.0.0/24 app'.split(' '))
await lab.shows('h2', 'app')

/** The container of each is on the other host than the one that is asked. */
const services = [
  { name: 'one', entry: 'h1', host: 'h2', port: 8081, lb: emulated ? 'ipvs' : 'nft' },
  { name: 'two', entry: 'h2', host: 'h1', port: 8082, lb: 'nft' },
]
for (const { name, host, port } of services) {
  const options = ['--network', 'app', '--label', `weft.service=${name}`, '-p', `${port}:80`]
  await lab.docker(host, 'run', '-d', '--name', name, ...options, 'busybox', ...idle)
  const start = `setsid perl -e "$1" serve 80 < /dev/null > $2 2>&1 &`
  await lab.within(host, name, 'sh', '-c', start, 'sh', perl, notes(name))
}
await lab.docker('h1', 'run', '-d', '--name', 'asks', '--network', 'app', 'busybox', ...idle)
const asks = await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'asks')
type Shown = { name: string; vips: string[] }[]
const vipOf = async (name: string): Promise<string | undefined> =>
  (JSON.parse(await lab.weft('h1', 'service', 'ls', '-o', 'json')) as Shown)
    .find(service => service.name === name)
    ?.vips.find(vip => !vip.includes(':'))
if (!(await lab.until(async () => (await vipOf('one')) && (await vipOf('two')), 30_000)))
  throw new Error('no virtual addresses')

const noted = (name: string, host: string): Promise<string> => lab.exec(host, 'cat', notes(name))
const vni = await lab.vni('h1', 'app')
const ways = [
  ...services.map(({ name, entry, host, port, lb }) => ({
    what: `through ${entry} (${lb})`,
    name,
    host,
    lb,
    seen: '192.0.2.10',
    ask: (...q: string[]) =>
      lab.background('exec', 'client', 'perl', '-e', perl, 'ask', `10.9.0.${entry.slice(1)}`, `${port}`, ...q),
  })),
  ...(await Promise.all(
    services.map(async ({ name, host }) => {
      const vip = (await vipOf(name))!
      const pid = await lab.docker('h1', 'inspect', '-f', '{{.State.Pid}}', 'asks')
      const enter = ['exec', 'h1', 'nsenter', '-t', pid, '-n', 'perl', '-e', perl, 'ask', vip, '80']
      return {
        what: `through the virtual address of ${name}`,
        name,
        host,
        lb: 'the switch',
        seen: asks,
        ask: (...q: string[]) => lab.background(...enter, ...q),
      }
    }),
  )),
]
const ended = (process: { child: import('node:child_process').ChildProcess; out: () => string }): Promise<string> =>
  new Promise(resolve => {
    if (process.child.exitCode !== null) resolve(process.out().trim())
    else process.child.once('close', () => resolve(process.out().trim()))
  })

// all at once, as they wait
const rows = ways.map(way => ({
  ...way,
  hello: ended(way.ask('hello', `${silence}`)),
  late: ended(way.ask('late', `${late}`)),
  closing: ended(way.ask('closing', `${late}`)),
}))

t.test('what the kernel still gives them', async t => {
  // a while after the handshakes
  await new Promise(resolve => setTimeout(resolve, 20_000))
  const daysLeft = async (host: string, ...inside: string[]): Promise<number[]> => {
    const list = await lab.exec(host, ...inside, 'conntrack', '-L', '-p', 'tcp', '--state', 'ESTABLISHED')
    return [...list.matchAll(/^tcp +6 (\d+) ESTABLISHED .*dport=(80|808\d) /gm)].map(
      ([, seconds]) => Number(seconds) / 86_400,
    )
  }
  for (const { host, entry, lb } of services) {
    const trackers: [string, string[]][] = [
      [entry, []],
      ...(lb === 'ipvs' ? [] : [[entry, ['ip', 'netns', 'exec', `weft-m${vni}`]] as [string, string[]]]),
      [host, ['ip', 'netns', 'exec', `weft-n${vni}`]],
    ]
    for (const [where, inside] of trackers) {
      const left = await daysLeft(where, ...inside)
      t.ok(left.length > 0, `${where} ${inside.at(-1) ?? 'itself'} tracks`)
      t.ok(
        left.every(days => days > 4.9),
        `days: ${left}`,
      )
    }
    if (lb !== 'ipvs') continue
    const list = await lab.inside(entry, 'm', vni, 'ipvsadm', '-Lnc')
    const left = [...list.matchAll(/^TCP +(\d+):\d\d +ESTABLISHED/gm)].map(([, minutes]) => Number(minutes) / 1440)
    t.ok(left.length > 0, list)
    t.ok(
      left.every(days => days > 4.9),
      `days: ${left}`,
    )
  }
})

for (const row of rows)
  t.test(row.what, async t => {
    t.equal(
      await row.late,
      `${300_007 + row.seen.length}\nlate ${row.seen}`,
      'the client has closed, and the answer comes late',
    )
    t.equal(await row.closing, `closing ${row.seen}\nclosed`)
    t.equal(await row.hello, `${row.seen}\n${row.seen}`, `goes on after ${silence} s`)
  })

t.test('what comes after the container has closed arrives', async t => {
  for (const { name, host } of services) {
    const expected = ways.filter(way => way.name === name).length
    const arrived = async (): Promise<number> => (await noted(name, host)).match(/^last words/gm)?.length ?? 0
    await lab.until(async () => (await arrived()) === expected)
    t.equal(await arrived(), expected, await noted(name, host))
  }
})

// SPDX-License-Identifier: Apache-2.0
// A host with a backend is cut off its underlay while clients ask through another host: who still fails, and for how
// long; what is kept, and what comes back.
import t, { type Test } from 'tap'
import { balancerFlags, byIpvs, idle, openLab } from './lab.ts'

/**
 * `serve NAME` answers every line and datagram with NAME. `load REQUESTS` makes them, 50 a second at most, each a connection:
 * START NAME for each, and after how many ms. `flow SECONDS` and `hold SECONDS`: one UDP socket, one TCP connection, ten lines a
 * second: WHEN NAME for each answer.
 */
const perl = String.raw`
use strict; use warnings; use IO::Handle; use Socket qw(:all); use Time::HiRes qw(time sleep alarm); $| = 1; $SIG{PIPE} = 'IGNORE'; $SIG{CHLD} = 'IGNORE';
my ($what, @rest) = @ARGV;
sub line { my ($s) = @_; my $all = ''; while ($all !~ /\n/) { my $n = sysread($s, $all, 100, length $all); defined $n or die "read: $!\n"; $n or die "closed\n" } chomp $all; $all }
sub reach { my ($type) = @_; socket(my $s, AF_INET, $type, 0) or die; connect($s, pack_sockaddr_in(8080, inet_aton('10.9.0.3'))) or die "connect: $!\n"; $s }
if ($what eq 'serve') {
  my ($name) = @rest; my @s;
  for my $type (SOCK_STREAM, SOCK_DGRAM) {
    socket(my $s, AF_INET, $type, 0) or die; setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, pack_sockaddr_in(80, INADDR_ANY)) or die "bind: $!\n"; push @s, $s
  }
  listen($s[0], 512);
  if (!fork) { while (defined(my $from = recv($s[1], my $b, 1000, 0))) { send($s[1], "$name\n", 0, $from) } exit }
  while (accept(my $c, $s[0])) { if (!fork) { while (eval { line($c) }) { syswrite($c, "$name\n") } exit } close $c }
} elsif ($what eq 'load') {
  my ($from, $n) = (time, 0);
  while ($n < $rest[0]) {
    $n++;
    if (!fork) {
      my $at = time;
      my $said = eval { local $SIG{ALRM} = sub { die "too slow\n" }; alarm 5; my $s = reach(SOCK_STREAM); syswrite($s, "?\n"); line($s) } // "failed: $@";
      chomp $said; printf("%d %s %d\n", 1000 * $at, $said, 1000 * (time - $at)); exit
    }
    my $wait = $from + $n * 0.02 - time; sleep($wait) if $wait > 0
  }
  sleep 6
} elsif ($what eq 'flow') {
  my ($from, $s) = (time, reach(SOCK_DGRAM)); $s->blocking(0);
  while (time - $from < $rest[0]) { send($s, "?\n", 0); sleep 0.1; while (defined recv($s, my $b, 1000, 0)) { chomp $b; printf("%d %s\n", 1000 * time, $b) } }
} else {
  my ($from, $s) = (time, reach(SOCK_STREAM));
  eval { while (time - $from < $rest[0]) { syswrite($s, "?\n"); my $b = line($s); printf("%d %s\n", 1000 * time, $b); sleep 0.1 } };
  printf("%d %s", 1000 * time, $@) if $@
}
`

const lab = await openLab('death', 3, ...balancerFlags)
t.teardown(() => lab.close())
await lab.docker('h1', ...'network create -d weft --ipam-driver weft app'.split(' '))
for (const host of ['h2', 'h3']) await lab.shows(host, 'app')
const vni = await lab.vni('h3', 'app')

const start = async (host: string, name: string): Promise<void> => {
  const publish = ['--network', 'app', '--label', 'weft.service=web', '-p', '8080:80', '-p', '8080:80/udp']
  await lab.docker(host, 'run', '-d', '--name', name, ...publish, 'busybox', ...idle)
  const into = 'p=$(docker inspect -f "{{.State.Pid}}" "$1"); exec nsenter -t "$p" -n setsid perl -e "$2" serve "$1"'
  await lab.exec(host, 'sh', '-c', `(${into}) < /dev/null > /dev/null 2>&1 &`, 'sh', name, perl)
}
const states = async (): Promise<string> => {
  const { out } = await lab.try('weft', 'h3', 'service', 'show', 'web', '-o', 'json')
  const { backends } = JSON.parse(out || '{"backends":[]}') as { backends: { node: string; state: string }[] }
  return backends
    .map(({ node, state }) => `${node} ${state}`)
    .sort()
    .join(', ')
}
const become = async (t: Test, wanted: string, ms = 10_000): Promise<void> => {
  await lab.until(async () => (await states()) === wanted, ms)
  t.equal(await states(), wanted)
}
/** Pulls a host's cable at the switch; answers when, ms. */
const cut = async (host: string): Promise<number> =>
  Number(await lab.exec('router', 'sh', '-c', `date +%s%3N; ip link set p${host} down`))
const mend = (host: string): Promise<string> => lab.exec('router', 'ip', 'link', 'set', `p${host}`, 'up')
const client = (...what: string[]) => {
  const running = lab.background('exec', 'client', 'perl', '-e', perl, ...what)
  const over = new Promise(resolve => running.child.once('close', resolve))
  const lines = (): { at: number; said: string; ms: number }[] =>
    running
      .out()
      .split('\n')
      .filter(line => line !== '')
      .map(line => /^(\d+) (.*?)(?: (\d+))?$/.exec(line) ?? [])
      .map(([, at, said, ms]) => ({ at: Number(at), said: said ?? '', ms: Number(ms) }))
  return { over, lines, stop: () => running.stop() }
}
const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
/** One that talks to this backend. */
const talking = async (what: 'flow' | 'hold', to: string, seconds: number): Promise<ReturnType<typeof client>> => {
  for (let i = 0; i < 10; i++) {
    const one = client(what, String(seconds))
    await lab.until(async () => one.lines().length > 2)
    if (one.lines()[0]?.said === to) return one
    await one.stop()
  }
  throw new Error(`no ${what} reaches ${to}`)
}
/** Where h3 sends new connections of the port. */
const planned = byIpvs
  ? ['sh', '-c', 'ipvsadm -Sn | grep -v -e "-w 0"']
  : 'nft list chain inet weft tcp_8080'.split(' ')
const plan = (): Promise<string> => lab.inside('h3', 'm', vni, ...planned)
/** What that becomes from now on. */
const watching = byIpvs ? ['sh', '-c', `while ${planned[2]}; do sleep 0.1; done`] : ['nft', 'monitor']
const addressOf = async (host: string, name: string): Promise<string> =>
  lab.docker(host, 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', name)

await start('h1', 'one')
await start('h2', 'two')
await lab.until(async () => (await states()) === 'h1 active, h2 active', 20_000)
const one = await addressOf('h1', 'one')
const two = await addressOf('h2', 'two')

t.test('a node is cut off: no request of a second later fails, and its connections move', async t => {
  let last = 0
  for (let i = 0; i < 3; i++) {
    const kept = await talking('hold', 'one', 20)
    const lost = await talking('hold', 'two', 20)
    const flow = await talking('flow', 'two', 14)
    const load = client('load', '500')
    await lab.until(async () => load.lines().length > 50)
    const at = await cut('h2')
    await load.over
    await flow.over
    await become(t, 'h1 active, h2 silent')
    const lines = load.lines()
    t.equal(lines.length, 500, 'every request has an end')
    t.ok(lines.filter(({ at: when, said }) => when > at + 1000 && said === 'one').length > 150, 'most after the cut')
    const failed = lines.filter(({ said }) => said.startsWith('failed'))
    last = Math.max(0, ...failed.map(({ at: when }) => when - at))
    t.comment(
      `${failed.length} failed, the last of them ${last} ms after the cut: ${failed.map(({ at: when, said }) => `${when - at} ${said}`).join('; ')}`,
    )
    t.ok(failed.length < 60, 'no more than a second of them')
    t.comment(`the slowest took ${Math.max(...lines.map(({ ms }) => ms))} ms`)
    const moved = flow.lines().find(({ said }) => said === 'one')
    t.comment(`the UDP flow moved after ${Number(moved?.at) - at} ms`)
    t.ok(Number(moved?.at) - at < 5000, 'a UDP flow moves, though it never pauses')
    await Promise.all([kept.over, lost.over])
    const end = lost.lines().at(-1)
    t.comment(`a connection to it ended after ${Number(end?.at) - at} ms`)
    t.equal(end?.said, 'read: Connection reset by peer', 'one that cannot go on says so')
    t.ok(
      kept.lines().every(({ said }) => said === 'one'),
      'a connection to a node that lives is the one it was',
    )
    t.ok(Number(kept.lines().at(-1)?.at) - at > 5000, 'and goes on')
    if (last < 1000) break
    await mend('h2')
    await become(t, 'h1 active, h2 active')
  }
  t.ok(last < 1000, `the last that failed began ${last} ms after the cut`)
  const { out, code } = await lab.try('weft', 'h3', 'status')
  t.equal(code, 1)
  t.match(out, /^problem +node h2 does not answer in network app since \d{4}-/m)
})

t.test('a weftd that is restarted meanwhile leaves it out all the time, until it is back', async t => {
  const changes = lab.background('exec', 'h3', 'ip', 'netns', 'exec', `weft-m${vni}`, ...watching)
  const load = client('load', '600')
  await lab.until(async () => load.lines().length > 20)
  await lab.ok('kill', 'h3', 'weftd')
  await lab.ok('start', 'h3', 'weftd')
  await become(t, 'h1 active, h2 silent', 20_000)
  await load.over
  t.equal(load.lines().length, 600)
  t.same([...new Set(load.lines().map(({ said }) => said))], ['one'])
  t.notMatch(changes.out(), two)

  const second = client('load', '500')
  await lab.until(async () => second.lines().length > 5)
  const at = Date.now()
  await mend('h2')
  await become(t, 'h1 active, h2 active')
  await second.over
  const again = second.lines().find(({ said }) => said === 'two')
  t.comment(`its first connection after ${Number(again?.at) - at} ms`)
  t.ok(again && again.at - at < 10_000)
  t.same(
    second.lines().filter(({ said }) => said.startsWith('failed')),
    [],
  )
  t.match(changes.out(), two, 'what the kernel is told is seen')
  await changes.stop()
})

t.test('the store is away meanwhile', async t => {
  await lab.ok('stop', 's1', 'etcd')
  await cut('h2')
  await become(t, 'h1 active, h2 silent')
  await lab.until(async () => !(await plan()).includes(two))
  t.notMatch(await plan(), two)
  await mend('h2')
  await become(t, 'h1 active, h2 active')
  await lab.until(async () => (await plan()).includes(two))
  t.match(await plan(), two)
  await lab.ok('start', 's1', 'etcd')
})

t.test('a host that sees nobody keeps its plan and its connections', async t => {
  const kept = [await talking('hold', 'one', 40), await talking('hold', 'two', 40)]
  await cut('h3')
  await become(t, 'h1 silent, h2 silent')
  await pause(2000)
  for (const address of [one, two]) t.match(await plan(), address)
  await mend('h3')
  await become(t, 'h1 active, h2 active')
  const mended = Date.now()
  await Promise.all(kept.map(({ over }) => over))
  for (const [i, name] of ['one', 'two'].entries()) {
    t.same([...new Set(kept[i]!.lines().map(({ said }) => said))], [name])
    t.ok(Number(kept[i]!.lines().at(-1)?.at) > mended, `the connection to ${name} goes on`)
  }
})

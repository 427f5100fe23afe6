// SPDX-License-Identifier: Apache-2.0
// 50 requests a second by a host without a backend, while backends come and go, and everything else is restarted.
import t, { type Test } from 'tap'
import { openLab } from './lab.ts'

/** `stream ADDRESS PORT SECONDS`: a line for each request that failed: when (s), and why; then how many there were. */
const perl = String.raw`
use strict; use warnings; use Socket qw(:all); use Time::HiRes qw(time sleep); $| = 1; $SIG{CHLD} = 'IGNORE'; $SIG{PIPE} = 'IGNORE';
my ($address, $port, $seconds) = @ARGV; my ($e, $a) = getaddrinfo($address, $port, { socktype => SOCK_STREAM }); my ($from, $n) = (time, 0);
while (time - $from < $seconds) {
  $n++;
  if (!fork) {
    my $at = time;
    my $ok = eval {
      local $SIG{ALRM} = sub { die "too slow\n" }; alarm 5;
      socket(my $s, $a->{family}, SOCK_STREAM, 0) or die "socket: $!\n"; connect($s, $a->{addr}) or die "connect: $!\n";
      syswrite($s, "GET / HTTP/1.0\r\n\r\n"); my $all = ''; 
      while (1) { my $got = sysread($s, $all, 4096, length $all); defined $got or die "read: $!\n"; last if !$got }
      $all =~ /hello$/ or die length($all) . " bytes\n"; 1
    };
    printf("%.1f %s", $at - $from, $@) if !$ok; exit 0
  }
  my $next = $from + $n * 0.02; sleep($next - time) if $next > time
}
sleep 6; print "$n requests\n"
`

const lab = await openLab('live', 3)
t.teardown(() => lab.close())
await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 app'.split(' '))
for (const host of ['h2', 'h3'])
  await lab.until(async () => (await lab.docker(host, 'network', 'ls', '-q', '-f', 'name=^app$')) !== '')

/** Answers for so long after SIGTERM, s. */
const polite = (seconds: number): string =>
  `echo hello > /tmp/index.html; httpd -p 80 -h /tmp; trap "sleep ${seconds}; exit 0" TERM; while :; do sleep 1 & wait $!; done`
const start = (host: string, name: string, seconds = 0.2): Promise<string> =>
  lab.docker(
    host,
    ...['run', '-d', '--name', name, '--network', 'app', '--label', 'weft.service=web', '-p', '8080:80'],
    ...['busybox', 'sh', '-c', polite(seconds)],
  )
const active = async (): Promise<number> => {
  const { out } = await lab.try('weft', 'h3', 'service', 'show', 'web', '-o', 'json')
  return (JSON.parse(out || '{"backends":[]}') as { backends: { state: string }[] }).backends.filter(
    ({ state }) => state === 'active',
  ).length
}

/** Requests by h3, while this happens. Answers those that failed. */
const during = async (t: Test, what: string, seconds: number, happens: () => Promise<unknown>): Promise<string[]> => {
  const stream = lab.background('exec', 'client', 'perl', '-e', perl, '10.9.0.3', '8080', String(seconds))
  await new Promise(resolve => setTimeout(resolve, 1000))
  await happens()
  await new Promise(resolve => stream.child.once('close', resolve))
  const lines = stream.out().trim().split('\n')
  t.match(lines.pop(), /^\d\d\d+ requests$/, what)
  return lines
}

/** None failed. What depends on fractions of a second has three tries: the machine may have stood still in one. */
const noneFails = async (
  t: Test,
  what: string,
  seconds: number,
  happens: () => Promise<unknown>,
  undo: () => Promise<unknown>,
) => {
  let failed: string[] = []
  for (let i = 0; i < 3; i++) {
    if (i > 0) await undo()
    failed = await during(t, what, seconds, happens)
    if (failed.length === 0) break
    t.comment(`try ${i + 1}: ${failed.join('; ')}`)
  }
  t.same(failed, [], what)
}

await start('h1', 'aa')
await start('h2', 'bb')
await start('h1', 'cc')
await lab.until(async () => (await active()) === 3)

t.test('a backend is stopped, and one starts', async t => {
  const again = async (): Promise<void> => {
    await lab.docker('h2', 'start', 'bb')
    await lab.until(async () => (await active()) === 3)
  }
  await noneFails(t, 'docker stop', 6, () => lab.docker('h2', 'stop', 'bb'), again)
  await noneFails(
    t,
    'docker start',
    5,
    () => lab.docker('h2', 'start', 'bb'),
    () => lab.docker('h2', 'stop', 'bb'),
  )
})

t.test('a backend with a stop signal of its own', async t => {
  const own = polite(0.2).replace('TERM', 'WINCH')
  const options = ['--name', 'own', '--network', 'app', '--label', 'weft.service=web', '-p', '8080:80']
  await lab.docker('h2', 'run', '-d', '--stop-signal', 'SIGWINCH', ...options, 'busybox', 'sh', '-c', own)
  await lab.until(async () => (await active()) === 4)
  await noneFails(
    t,
    'docker stop by SIGWINCH',
    5,
    () => lab.docker('h2', 'stop', 'own'),
    async () => {
      await lab.docker('h2', 'start', 'own')
      await lab.until(async () => (await active()) === 4)
    },
  )
  await lab.docker('h2', 'rm', '-f', 'own')
})

t.test('a backend is drained, then killed', async t => {
  const failed = await during(t, 'drain', 6, async () => {
    t.equal(await lab.weft('h3', 'service', 'drain', 'web', 'cc'), 'cc drained')
    await lab.until(async () => (await active()) === 2)
    await new Promise(resolve => setTimeout(resolve, 500)) // what had begun
    await lab.docker('h1', 'kill', 'cc')
  })
  t.same(failed, [])
  await lab.docker('h1', 'start', 'cc')
  await lab.until(async () => (await active()) === 2)
})

t.test('a backend is killed: who had not been answered is', async t => {
  const failed = await during(t, 'docker kill', 6, () => lab.docker('h2', 'kill', 'bb'))
  t.ok(failed.length <= 3, `failed: ${failed.join('; ')}`)
  await lab.docker('h2', 'start', 'bb')
})

// seven at once on two cores take longer than 200 ms
t.test('3 to 10 to 3', async t => {
  const more = ['h1', 'h2', 'h3', 'h1', 'h2', 'h3', 'h1'].map((host, i) => [host, `more${i}`] as const)
  const remove = () => Promise.all(more.map(([host, name]) => lab.docker(host, 'rm', '-f', name)))
  const scale = async (): Promise<void> => {
    await Promise.all(more.map(([host, name]) => start(host, name, 2)))
    await lab.until(async () => (await active()) >= 9)
    await Promise.all(more.map(([host, name]) => lab.docker(host, 'stop', name)))
  }
  await noneFails(t, 'scale', 25, scale, remove)
  await remove()
})

t.test('weftd, dockerd and etcd are restarted', async t => {
  const again = async (who: string, what: string): Promise<void> => {
    await lab.ok('kill', who, what)
    await lab.ok('start', who, what)
  }
  for (const [who, what] of [
    ['h3', 'weftd'],
    ['h1', 'weftd'],
    ['h3', 'dockerd'],
  ] as const)
    t.same(await during(t, `${what} of ${who}`, 6, () => again(who, what)), [])
  const failed = await during(t, 'etcd is away', 12, async () => {
    await lab.ok('stop', 's1', 'etcd')
    await new Promise(resolve => setTimeout(resolve, 8000))
    await lab.ok('start', 's1', 'etcd')
  })
  t.same(failed, [])
})

// SPDX-License-Identifier: Apache-2.0
// 50 requests a second by a host without a backend, while backends come and go, and everything else is restarted.
// $WEFT_STREAM: for so many seconds around each, instead of a few.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openLab, slowness } from './lab.ts'

/**
 * `stream ADDRESS PORT RATE SECONDS FILE`: so many a second, so long and until there is FILE; a line for each request that failed: when (s), and
 * why; then how many there were. One process, as in emulation one for each request would be load enough by itself.
 */
const client = String.raw`
use strict; use warnings; use Socket qw(:all); use Fcntl; use Errno; use Time::HiRes qw(time); $| = 1; $SIG{PIPE} = 'IGNORE';
my ($address, $port, $rate, $seconds, $done) = @ARGV; my ($e, $a) = getaddrinfo($address, $port, { socktype => SOCK_STREAM });
my ($from, $n, %open) = (time, 0);
sub failed { my ($fd, $why) = @_; my $one = delete $open{$fd}; printf("%.1f %s\n", $one->{at} - $from, $why); close $one->{socket} }
while (1) {
  my $next = $from + $n / $rate;
  my $over = $next - $from >= $seconds && -e $done;
  if (!$over && time >= $next) {
    $n++;
    socket(my $socket, $a->{family}, SOCK_STREAM, 0) or die "socket: $!\n";
    fcntl($socket, F_SETFL, fcntl($socket, F_GETFL, 0) | O_NONBLOCK);
    $open{fileno $socket} = { socket => $socket, at => time, all => '', asked => 0 };
    connect($socket, $a->{addr}) or $!{EINPROGRESS} or failed(fileno $socket, "connect: $!");
    next
  }
  last if $over && !%open;
  my ($reads, $writes, $wait) = ('', '', $next - time);
  for my $fd (keys %open) { if ($open{$fd}{asked}) { vec($reads, $fd, 1) = 1 } else { vec($writes, $fd, 1) = 1 } }
  select($reads, $writes, undef, $wait > 0 && $wait < 0.02 ? $wait : 0.02);
  for my $fd (keys %open) {
    my $one = $open{$fd};
    if (vec($writes, $fd, 1)) {
      if (my $error = unpack('i', getsockopt($one->{socket}, SOL_SOCKET, SO_ERROR))) { $! = $error; failed($fd, "connect: $!"); next }
      syswrite($one->{socket}, "GET / HTTP/1.0\r\n\r\n"); $one->{asked} = 1
    } elsif (vec($reads, $fd, 1)) {
      my $got = sysread($one->{socket}, $one->{all}, 4096, length $one->{all});
      if (!defined $got) { failed($fd, "read: $!"); next }
      if ($got == 0) {
        if ($one->{all} =~ /hello$/) { delete $open{$fd}; close $one->{socket} } else { failed($fd, length($one->{all}) . " bytes") }
        next
      }
    }
    failed($fd, "too slow") if time - $one->{at} > 5
  }
}
print "$n requests\n"
`

/**
 * `serve SIGNAL SECONDS`: port 80, on for so many seconds after the signal. One process with a long queue: busybox's httpd
 * has room for nine and drops the tenth without a word, which in emulation is what a container's start makes of it.
 */
const server = String.raw`
use strict; use warnings; use Socket qw(:all); use Time::HiRes qw(time); $SIG{PIPE} = 'IGNORE';
my ($signal, $seconds) = @ARGV; my ($end, %open); $SIG{$signal} = sub { $end //= time + $seconds };
socket(my $listener, AF_INET6, SOCK_STREAM, 0) or die "socket: $!\n"; setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
bind($listener, pack_sockaddr_in6(80, IN6ADDR_ANY)) && listen($listener, 1024) or die "port 80: $!\n";
until (defined $end && time > $end) {
  my $reads = ''; vec($reads, fileno $_, 1) = 1 for $listener, values %open;
  next unless select($reads, undef, undef, 0.05) > 0;
  if (vec($reads, fileno $listener, 1) && accept(my $socket, $listener)) { $open{fileno $socket} = $socket }
  for my $fd (grep { vec($reads, $_, 1) } keys %open) {
    my $socket = delete $open{$fd};
    syswrite($socket, "HTTP/1.0 200 OK\r\n\r\nhello") if sysread($socket, my $asked, 4096);
    close $socket
  }
}
`

const lab = await openLab('live', 3)
t.teardown(() => lab.close())
await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 app'.split(' '))
for (const host of ['h2', 'h3']) await lab.shows(host, 'app')

const emulated = process.env['WEFT_VM'] !== undefined
/** Answers for so long after the signal, s; in emulation, where every step takes longer, for almost all of the stop grace. */
const polite = (seconds: number, signal = 'TERM'): string[] => [
  ...['perl', '-e', server, signal, `${emulated ? 8 : seconds}`],
]
/** Perl is the machine's: libraries and all. */
const volumes = ['/usr:/usr:ro', '/usr/lib:/lib:ro', '/usr/lib64:/lib64:ro']
const volume = volumes.flatMap(one => ['-v', one])
const start = (host: string, name: string, seconds = 0.2): Promise<string> =>
  lab.docker(
    host,
    ...['run', '-d', '--name', name, '--network', 'app', '--label', 'weft.service=web', '-p', '8080:80'],
    ...[...volume, 'busybox', ...polite(seconds)],
  )
const active = async (service = 'web'): Promise<number> => {
  const { out } = await lab.try('weft', 'h3', 'service', 'show', service, '-o', 'json')
  return (JSON.parse(out || '{"backends":[]}') as { backends: { state: string }[] }).backends.filter(
    ({ state }) => state === 'active',
  ).length
}

const longer = Number(process.env['WEFT_STREAM'] ?? 0)
t.setTimeout((emulated ? 2700 : 600 + 20 * longer) * 1000)

const notes = await mkdtemp(join(tmpdir(), 'weft-live-'))
t.teardown(() => rm(notes, { recursive: true }))
let streams = 0

/** Requests by h3, while this happens and at least for so many seconds. Answers those that failed. */
const during = async (
  t: Test,
  what: string,
  seconds: number,
  happens: () => Promise<unknown>,
  port = 8080,
  rate = 50,
): Promise<string[]> => {
  const done = join(notes, String(streams++))
  const about = ['10.9.0.3', ...[port, rate, Math.max(seconds, longer)].map(String), done]
  const stream = lab.background('exec', 'client', 'perl', '-e', client, ...about)
  const closed = new Promise(resolve => stream.child.once('close', resolve))
  await sleep(1000)
  await happens()
  await sleep(2000) // what comes of it
  await writeFile(done, '')
  await closed
  const lines = stream.out().trim().split('\n')
  t.ok(Number.parseInt(lines.pop() ?? '', 10) >= rate * seconds, what)
  return lines
}

/** None failed. What depends on fractions of a second has three tries: the machine may have stood still in one. */
const noneFails = async (
  t: Test,
  what: string,
  seconds: number,
  happens: () => Promise<unknown>,
  undo: () => Promise<unknown>,
  port = 8080,
) => {
  let failed: string[] = []
  for (let i = 0; i < 3; i++) {
    if (i > 0) await undo()
    failed = await during(t, what, seconds, happens, port)
    if (failed.length === 0) break
    t.comment(`try ${i + 1}: ${failed.length} failed: ${failed.slice(0, 20).join('; ')}`)
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
  const options = ['--name', 'own', '--network', 'app', '--label', 'weft.service=web', '-p', '8080:80', ...volume]
  await lab.docker('h2', 'run', '-d', '--stop-signal', 'SIGWINCH', ...options, 'busybox', ...polite(0.2, 'WINCH'))
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
    await sleep(500) // what had begun
    await lab.docker('h1', 'kill', 'cc')
  })
  t.same(failed, [])
  await lab.docker('h1', 'start', 'cc')
  t.ok(await lab.until(async () => (await active()) === 3), 'a new life is not drained')
})

t.test('a backend is killed: who had not been answered is', async t => {
  // where everything takes longer, as many are on their way when so many fewer are asked
  const rate = 50 / slowness
  const failed = await during(t, 'docker kill', 6, () => lab.docker('h2', 'kill', 'bb'), 8080, rate)
  t.ok(failed.length <= 3, `failed: ${failed.join('; ')}`)
  await lab.docker('h2', 'start', 'bb')
  t.ok(await lab.until(async () => (await active()) === 3))
})

// seven at once on two cores take longer than 200 ms; in emulation they leave nothing for the requests
t.test('3 to 10 to 3', async t => {
  const more = ['h1', 'h2', 'h3', 'h1', 'h2', 'h3', 'h1'].map((host, i) => [host, `more${i}`] as const)
  const each = async (work: (host: string, name: string) => Promise<unknown>): Promise<void> => {
    if (!emulated) await Promise.all(more.map(one => work(...one)))
    else for (const one of more) await work(...one)
  }
  const remove = () => each((host, name) => lab.docker(host, 'rm', '-f', name))
  const scale = async (): Promise<void> => {
    await each((host, name) => start(host, name, 2))
    t.ok(await lab.until(async () => (await active()) === 10, 30_000), 'ten')
    await each((host, name) => lab.docker(host, 'stop', name))
  }
  await noneFails(t, 'scale', 5, scale, remove)
  await remove()
})

t.test('docker-compose rolls a new version out, host by host', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'weft-roll-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const file = join(folder, 'compose.json')
  const roll = async (host: string, version: number): Promise<void> => {
    const web = {
      image: 'busybox',
      command: polite(0.2).map(word => word.replaceAll('$', () => '$$')),
      volumes,
      ports: ['8081:80'],
      networks: ['app'],
      labels: { version: String(version) },
    }
    await writeFile(file, JSON.stringify({ version: '2.4', services: { web }, networks: { app: { external: true } } }))
    await lab.ok('exec', host, 'docker-compose', '-p', 'roll', '-f', file, 'up', '-d')
    await lab.until(async () => (await active('roll/web')) === 2)
  }
  for (const host of ['h1', 'h2']) await roll(host, 1)
  let version = 1
  const all = async (): Promise<void> => {
    version++
    for (const host of ['h1', 'h2']) await roll(host, version)
  }
  await noneFails(t, 'rolling update', 5, all, async () => {}, 8081)
  const rolled = (host: string) => lab.docker(host, 'ps', '-aq', '-f', 'label=com.docker.compose.project=roll')
  const label = ['inspect', '-f', '{{.Config.Labels.version}}']
  t.equal(await lab.docker('h2', ...label, await rolled('h2')), String(version))
  for (const host of ['h1', 'h2']) await lab.docker(host, 'rm', '-f', await rolled(host))
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
  const failed = await during(t, 'etcd is away', 5, async () => {
    await lab.ok('stop', 's1', 'etcd')
    await sleep(8000)
    await lab.ok('start', 's1', 'etcd')
  })
  t.same(failed, [])
})

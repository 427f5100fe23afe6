// SPDX-License-Identifier: Apache-2.0
// Floating addresses on real hosts: a client outside reaches the service by them, whatever happens to the host that has
// them. All the while somebody on the underlay asks who has them, and every host's kernel is looked at: at no moment two.
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { answererOf, etherTypes, probeFrame } from '../../src/floating/frames.ts'
import { openHostAddresses } from '../../src/kernel/host-addresses.ts'
import { parseAddress } from '../../src/model/address.ts'
import { openPacketSocket } from '../../src/netlink/packet.ts'
import { idle, openLab } from './lab.ts'

const hosts = ['h1', 'h2', 'h3'] as const
const addresses = ['10.9.0.100', 'fd09::100'] as const
const lab = await openLab('float', hosts.length)
const netns = (who: string): string => `/run/netns/float-${who}`
const macOf = (host: string): string => `02:09:00:00:00:0${host.slice(1)}`
const hostOf = new Map<string, string>(hosts.map(host => [macOf(host), host]))
const script = (name: string): string => fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url))
const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

// the switch drops what is not a host's own, as a cloud would: there an operator allows the address
for (const rule of ['ip saddr 10.9.0.100', 'ip6 saddr fd09::100'])
  await lab.exec('router', 'nft', 'insert', 'rule', 'bridge', 'spoof', 'in', ...rule.split(' '), 'accept')

/** One answer, or one look at a kernel, in ms of this process. */
interface Seen {
  readonly at: number
  readonly host: string
}

/** Asks the underlay for an address each 10 ms, and looks into every host's kernel. */
const watch = async (address: string) => {
  const target = parseAddress(address)
  const protocol = etherTypes[target.family]
  const asker = openHostAddresses(netns('u'))
  const link = (await asker.link('ubr'))!
  await asker.close()
  const socket = await openPacketSocket({ netns: netns('u'), ifindex: link.index, protocol })
  const answers: Seen[] = []
  const twice: string[] = []
  let stopped = false
  const listen = (): void => {
    for (let frame = socket.receive(); frame; frame = socket.receive()) {
      const mac = answererOf(frame, target)
      if (mac !== undefined && mac !== link.mac) answers.push({ at: performance.now(), host: hostOf.get(mac) ?? mac })
    }
  }
  const ask = async (): Promise<void> => {
    while (!stopped) {
      socket.send(probeFrame(link.mac, target))
      await sleep(10)
      listen()
    }
    socket.close()
  }
  const look = async (): Promise<void> => {
    // a socket per host and life of its namespace: a reboot makes another
    while (!stopped) {
      const open = hosts.map(host => openHostAddresses(netns(host)))
      for (let i = 0; i < 50 && !stopped; i++) {
        const has = await Promise.all(
          open.map(async (one, n) => {
            const ours = await one.ours().catch(() => [])
            return ours.some(found => found.address.split('/')[0] === address) ? [hosts[n]] : []
          }),
        )
        if (has.flat().length > 1) twice.push(has.flat().join(' and '))
        await sleep(10)
      }
      await Promise.all(open.map(one => one.close()))
    }
  }
  const running = Promise.all([ask(), look()])
  return {
    answers,
    /** Two kernels at once, or one that answered after another had begun to. */
    twice: (): string[] => {
      const first = new Map<string, number>()
      const again: string[] = []
      let current = ''
      for (const { at, host } of answers) {
        if (host === current) continue
        if (current !== '' && (first.get(host) ?? 0) > (first.get(current) ?? 0)) again.push(`${host} at ${at}`)
        first.set(host, at)
        current = host
      }
      return [...twice, ...again]
    },
    async stop() {
      stopped = true
      await running
    },
  }
}

/** A connection each 50 ms, with 200 ms for its answer: when (ms) it came, and from whom. */
const client = String.raw`
use strict; use warnings; use Socket qw(:all); use Time::HiRes qw(time sleep alarm); $| = 1;
my ($address, $port) = @ARGV;
my ($e, $a) = getaddrinfo($address, $port, { socktype => SOCK_STREAM, flags => AI_NUMERICHOST }); die $e if $e;
for (;;) {
  my $name = eval {
    local $SIG{ALRM} = sub { die "no\n" }; alarm 0.2;
    socket(my $s, $a->{family}, SOCK_STREAM, 0) or die; connect($s, $a->{addr}) or die "no\n";
    my $got = ''; while (sysread($s, my $part, 100)) { $got .= $part } alarm 0; $got
  }; alarm 0;
  if (defined $name && $name =~ /(\w+)/) { printf("%d %s\n", 1000 * time, $1) }
  sleep 0.05;
}
`
const ask = (address: string) => lab.background('exec', 'client', 'perl', '-e', client, address, '8080')
const timesOf = (out: string): number[] =>
  out
    .split('\n')
    .filter(Boolean)
    .map(line => Number(line.split(' ')[0]))

const serve = ['sh', '-c', 'while :; do hostname | nc -l -p 80; done']
await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 app'.split(' '))
for (const host of hosts) {
  await lab.shows(host, 'app')
  const name = `web${host.slice(1)}`
  const options = [
    '--name',
    name,
    '--hostname',
    name,
    '--network',
    'app',
    '--label',
    'weft.service=web',
    '-p',
    '8080:80',
  ]
  await lab.docker(host, 'run', '-d', '--restart', 'always', ...options, 'busybox', ...serve)
}
await lab.docker('h2', 'run', '-d', '--name', 'near', '--network', 'app', 'busybox', ...idle)

const create = (...flags: string[]) => lab.try('weft', 'h1', 'service', 'create', 'web', '--network', 'app', ...flags)
type Shown = { options: { addresses: { address: string; node: string; since: string; problem: string }[] } }
const shown = async (host = 'h1') =>
  (JSON.parse(await lab.weft(host, 'service', 'show', 'web', '--network', 'app', '-o', 'json')) as Shown).options
    .addresses

t.test('what cannot be is refused by name', async t => {
  await lab.exec('router', 'ip', 'addr', 'add', '10.9.0.200/24', 'dev', 'ubr')
  const [pool] = JSON.parse(await lab.weft('h1', 'network', 'show', 'app', '-o', 'json')).pools as { gateway: string }[]
  for (const [flags, code, err] of [
    [
      ['--address', '10.9.0.200/24', '--dev', 'eth0'],
      1,
      /10.9.0.200\/24 is not free: 02:09:00:00:00:fe answers for it on eth0/,
    ],
    [['--address', '10.9.0.2/24', '--dev', 'eth0'], 1, /is of node h2: give one that nobody has/],
    [['--address', `${pool!.gateway}/24`, '--dev', 'eth0'], 1, /is of network app/],
    [
      ['--address', '203.0.113.9/24', '--dev', 'eth0'],
      4,
      /no live host has an address of 203.0.113.0\/24 on a device eth0/,
    ],
    [
      ['--address', '10.9.0.100/24', '--dev', 'eth7'],
      4,
      /no live host has an address of 10.9.0.0\/24 on a device eth7/,
    ],
    [['--address', '10.9.0.100/24'], 2, /--address 10.9.0.100\/24: give --dev as well/],
    [['--address', '127.0.0.1/8', '--dev', 'eth0'], 2, /is 127.0.0.0\/8 \(loopback\)/],
  ] as const)
    t.match(await create(...flags), { code, err }, flags.join(' '))
  await lab.exec('router', 'ip', 'addr', 'del', '10.9.0.200/24', 'dev', 'ubr')
})

const watchers = new Map<string, Awaited<ReturnType<typeof watch>>>()
/** Who has both; undefined while they are apart or away. */
const holderOf = async (address: string): Promise<string | undefined> => {
  const since = performance.now() - 300
  const recent = [
    ...new Set(
      watchers
        .get(address)!
        .answers.filter(({ at }) => at > since)
        .map(({ host }) => host),
    ),
  ]
  return recent.length === 1 ? recent[0] : undefined
}
const gaps: string[] = []

/** What happens to the holder of the IPv4 address: how long nobody answered for each of the addresses, and the client waited. */
const during = async (
  t: Test,
  what: string,
  work: (holder: string) => Promise<void>,
  ms: number,
): Promise<{ before: string; after: string }> => {
  for (const address of addresses) t.ok(await lab.until(async () => holderOf(address), 30_000), `${address} is there`)
  const before = (await holderOf(addresses[0]))!
  const asking = addresses.map(ask)
  const from = performance.now()
  await sleep(1000)
  await work(before)
  const left = ms - (performance.now() - from)
  if (left > 0) await sleep(left)
  for (const address of addresses)
    t.ok(await lab.until(async () => holderOf(address), 30_000), `${address} is there again`)
  await sleep(1000)
  const words = addresses.map((address, i) => {
    const times = watchers
      .get(address)!
      .answers.map(({ at }) => at)
      .filter(at => at > from)
    const asked = timesOf(asking[i]!.out())
    const longest = (list: readonly number[]) => Math.round(Math.max(0, ...list.slice(1).map((at, n) => at - list[n]!)))
    t.ok(asked.length > 10, `${address} serves`)
    return `${address}: nobody answered for ${longest(times)} ms, the client waited ${longest(asked)} ms`
  })
  for (const one of asking) await one.stop()
  const after = (await holderOf(addresses[0]))!
  gaps.push(`${what} (${before} to ${after}): ${words.join('; ')}`)
  t.comment(gaps.at(-1))
  for (const [address, { twice }] of watchers) t.same(twice(), [], `${address}: at no moment two`)
  return { before, after }
}

const weftdOf = async (host: string): Promise<number> => {
  const { hosts: all } = JSON.parse(await lab.ok('status', '--output', 'json')) as {
    hosts: { name: string; weftd: number }[]
  }
  return all.find(({ name }) => name === host)!.weftd
}

t.test('one host has them, and answers to everybody', async t => {
  for (const address of addresses) watchers.set(address, await watch(address))
  const made = await create('--address', '10.9.0.100/24', '--address', 'fd09::100/64', '--dev', 'eth0')
  t.equal(made.code, 0, made.err)
  for (const address of addresses) t.ok(await lab.until(async () => holderOf(address)), address)
  await lab.until(async () => (await shown('h3')).every(({ node }) => node !== ''))
  for (const one of await shown('h3')) {
    t.equal(one.node, await holderOf(one.address.split('/')[0]!), `${one.address} as service show says`)
    t.ok(Date.parse(one.since) > Date.now() - 600_000)
  }
  for (const address of addresses) {
    const asking = ask(address)
    t.ok(await lab.until(async () => timesOf(asking.out()).length > 3), `client by ${address}`)
    await asking.stop()
    const inside = ['exec', 'near', 'nc', '-w', '5', address, '8080']
    t.match(await lab.until(async () => (await lab.tryDocker('h2', ...inside)).out), /web\d/, `container by ${address}`)
  }
  const again = await create(
    '--address',
    '10.9.0.100/24',
    '--address',
    'fd09::100/64',
    '--dev',
    'eth0',
    '--scheduler',
    'rr',
  )
  t.equal(again.code, 0, 'what is there already is not asked for again')
})

t.test('weftd stopped and started: nobody notices', async t => {
  const { before, after } = await during(
    t,
    'weftd restarted',
    async holder => {
      await lab.ok('stop', holder, 'weftd')
      await lab.ok('start', holder, 'weftd')
    },
    15_000,
  )
  t.equal(after, before)
})

t.test('weftd stopped for longer', async t => {
  let stopped = ''
  const { before, after } = await during(
    t,
    'weftd stopped',
    async holder => {
      stopped = holder
      await lab.ok('stop', holder, 'weftd')
    },
    16_000,
  )
  t.not(after, before)
  await lab.ok('start', stopped, 'weftd')
})

t.test('weftd killed', async t => {
  const { before, after } = await during(
    t,
    'weftd killed',
    async holder => void (await lab.ok('kill', holder, 'weftd')),
    9000,
  )
  t.not(after, before)
  await lab.ok('start', before, 'weftd')
})

t.test('weftd frozen, and awake again', async t => {
  let pid = 0
  const { before, after } = await during(
    t,
    'weftd frozen',
    async holder => {
      pid = await weftdOf(holder)
      process.kill(pid, 'SIGSTOP')
      await sleep(9000)
      process.kill(pid, 'SIGCONT')
    },
    14_000,
  )
  t.not(after, before)
})

t.test('the host cut off, and back', async t => {
  const { before, after } = await during(
    t,
    'host cut off',
    async holder => {
      await lab.exec('router', 'ip', 'link', 'set', `p${holder}`, 'down')
      await sleep(9000)
      await lab.exec('router', 'ip', 'link', 'set', `p${holder}`, 'up')
    },
    14_000,
  )
  t.not(after, before)
})

t.test('the host dies', async t => {
  const { before, after } = await during(t, 'host killed', async holder => void (await lab.ok('reboot', holder)), 9000)
  t.not(after, before)
})

/** When etcd was ready again. */
let storeBack = 0

t.test('the store away and back', async t => {
  await during(
    t,
    'etcd away for 8 s',
    async () => {
      await lab.ok('kill', 'store', 'etcd')
      await sleep(8000)
      await lab.ok('start', 'store', 'etcd')
      storeBack = performance.now()
    },
    14_000,
  )
})

t.test('held again soon after the store is back', async t => {
  for (const [address, { answers }] of watchers) {
    const first = answers.find(({ at }) => at > storeBack)?.at ?? Number.NaN
    t.ok(first - storeBack < 10_000)
    t.comment(`${address}: answered ${Math.round(first - storeBack)} ms after etcd was ready`)
  }
})

t.test('a drained host gives it to another', async t => {
  const { before, after } = await during(
    t,
    'drained',
    async holder => void (await lab.weft(holder, 'node', 'drain', holder)),
    5000,
  )
  t.not(after, before)
  await lab.weft(before, 'node', 'drain', before, '--undo')
})

t.test('weft service rm: nobody has them any more', async t => {
  await lab.weft('h2', 'service', 'rm', 'web', '--network', 'app')
  for (const address of addresses) {
    const last = (): number => performance.now() - (watchers.get(address)!.answers.at(-1)?.at ?? 0)
    t.ok(await lab.until(async () => last() > 1000), `${address} is quiet`)
  }
  for (const host of hosts) t.notMatch(await lab.exec(host, 'ip', 'addr'), /10\.9\.0\.100|fd09::100/, host)
  t.notMatch(await lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/floating/'), /./)
  t.match((await lab.try('weft', 'h1', 'service', 'show', 'web')).out, /web1/, 'the containers stay a service')
  for (const [address, watcher] of watchers) {
    await watcher.stop()
    t.same(watcher.twice(), [], `${address}: at no moment two`)
  }
  t.comment(gaps.join('\n'))
})

t.test('weftd --purge takes away what a stopped weftd left', async t => {
  const made = await create('--address', '10.9.0.100/24', '--dev', 'eth0')
  t.equal(made.code, 0, made.err)
  const held = async (): Promise<string> => (await shown('h2'))[0]?.node ?? ''
  const holder = await lab.until(held)
  const has = async (): Promise<boolean> => (await lab.exec(holder, 'ip', 'addr')).includes('10.9.0.100')
  t.ok(await lab.until(has))
  await lab.ok('stop', holder, 'weftd')
  t.ok(await has(), 'it waits for the next weftd')
  const data = (JSON.parse(await lab.ok('status', '--output', 'json')) as { hosts: { name: string; data: string }[] })
    .hosts
  const dir = `${data.find(({ name }) => name === holder)!.data}/weft`
  const out = await lab.exec(holder, script('node'), script('../dist/main.js'), '--purge', '--data-dir', dir)
  t.match(out, /address 10\.9\.0\.100\/24 dev eth0/)
  t.notOk(await has())
})

t.teardown(async () => {
  for (const watcher of watchers.values()) await watcher.stop()
  await lab.close()
})

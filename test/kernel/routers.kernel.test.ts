// SPDX-License-Identifier: Apache-2.0
// What a host has from its routers stays when weft switches IPv6 forwarding on: with routers that advertise.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { until } from '../until.ts'
import { inOwnHost, openReconciled } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { readIdentity } = await import('../../src/daemon/identity.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { bootId, readHostFacts } = await import('../../src/kernel/host-facts.ts')
  const { listening, readSettings } = await import('../../src/kernel/host-settings.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const dir = '/run/weft-data'
  const patienceMs = process.env['WEFT_VM'] ? 60_000 : 10_000
  const settings = (): string =>
    sh('cd /proc/sys/net/ipv6/conf && grep -H . all/forwarding eth[0-3]/accept_ra eth[0-3]/forwarding')
  const defaults = (): string[] =>
    [...sh('ip -6 route show default').matchAll(/^default .*dev (\S+) proto ra /gm)].map(match => match[1]!).sort()
  const addresses = (): string[] =>
    [...sh('ip -6 -o address show scope global dynamic').matchAll(/^\d+: (\S+)/gm)].map(match => match[1]!).sort()
  const same = (now: readonly string[], wanted: readonly string[]): boolean => now.join() === wanted.join()

  /** A router advertisement (RFC 4861, 4.2) from `wire` of namespace r<n>: itself as router for so long, 2001:db8:<n>::/64. */
  const advertise = (n: number, seconds: number): void => {
    const perl = `use Socket qw(:all);
      my ($n, $seconds, $index) = @ARGV;
      socket(my $s, AF_INET6, SOCK_RAW, 58) or die "socket: $!";
      setsockopt($s, 41, 18, pack('i', 255)) or die "hop limit: $!";
      setsockopt($s, 41, 17, pack('i', $index)) or die "device: $!";
      my $prefix = pack('CCCCNNNa16', 3, 4, 64, 0xc0, 86400, 14400, 0, inet_pton(AF_INET6, "2001:db8:$n::"));
      my $body = pack('CCnCCnNN', 134, 0, 0, 64, 0, $seconds, 0, 0) . $prefix;
      send($s, $body, 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, 'ff02::1'), $index)) or die "send: $!"`
    const index = sh(`ip netns exec r${n} cat /sys/class/net/wire/ifindex`).trim()
    execFileSync('ip', ['netns', 'exec', `r${n}`, 'perl', '-e', perl, String(n), String(seconds), index])
  }
  const plug = (n: number): void => {
    sh(`ip netns add r${n} && ip link add wire netns r${n} type veth peer name eth${n}`)
    sh(`sysctl -qw net.ipv6.conf.eth${n}.accept_dad=0 net.ipv6.conf.eth${n}.accept_ra=1`)
    sh(`ip netns exec r${n} sysctl -qw net.ipv6.conf.wire.accept_dad=0`)
    sh(`ip -n r${n} link set wire up && ip link set eth${n} up`)
  }
  /** As weftd does at its start. */
  const live = async () => {
    let facts = await readHostFacts({ dev: 'eth0', vtep: '192.0.2.1' })
    const found = await readSettings('eth0', facts.advertised)
    const { before } = await readIdentity(dir, await bootId(), found, facts.underlay.address)
    facts = await readHostFacts({ dev: 'eth0', vtep: '192.0.2.1', listening: listening(before) })
    const snapshot = testCluster()
    snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
    const { reconciler, close } = openReconciled(snapshot, testHost(new Map(), { acceptsRa: facts.acceptsRa }))
    await reconciler.start()
    t.same(reconciler.status().failing, [])
    return { before, facts, close }
  }

  t.test('default routes and addresses of every uplink', async t => {
    sh('sysctl -qw net.ipv6.conf.all.forwarding=0 && ip link del eth0')
    for (const n of [0, 1, 2, 3]) plug(n)
    sh('ip address add 192.0.2.1/24 dev eth0 && sysctl -qw net.ipv6.conf.eth3.accept_ra=2')
    advertise(0, 1800)
    advertise(1, 1800)
    advertise(2, 0) // a prefix alone
    const uplinks = ['eth0', 'eth1']
    const addressed = ['eth0', 'eth1', 'eth2']
    t.ok(
      await until(() => same(defaults(), uplinks) && same(addresses(), addressed), patienceMs),
      'what the routers say',
    )
    const before = settings()

    const first = await live()
    t.same([...first.facts.advertised].sort(), addressed)
    t.same([...listening(first.before)].sort(), addressed, 'and not eth3, which had 2 already')
    t.match(settings(), /all\/forwarding:1/)
    t.same(defaults(), uplinks, 'none of them went')
    await first.close()
    const again = await live()
    t.same(again.facts.acceptsRa, first.facts.acceptsRa, 'a restart goes on with them')
    await again.close()

    sh('ip -6 route flush proto ra; ip -6 address flush dynamic scope global')
    for (const n of [0, 1]) advertise(n, 1800)
    advertise(2, 0)
    t.ok(
      await until(() => same(defaults(), uplinks) && same(addresses(), addressed), patienceMs),
      'the next ones count too',
    )

    sh('ip link del eth1')
    const without = await readHostFacts({ dev: 'eth0', listening: listening(first.before) })
    t.same([...without.acceptsRa].sort(), ['eth0', 'eth2'], 'a device that is gone is not written to')
    await purge(dir)
    t.equal(settings(), before.replace(/^eth1.*\n/gm, ''))
    t.same(defaults(), ['eth0'])
  })

  t.test('a device that does not listen is not made to', async t => {
    sh('sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.eth0.accept_ra=1')
    const before = settings()
    const { facts, close } = await live()
    t.same(facts.acceptsRa, [])
    t.equal(settings(), before)
    await close()
    await purge(dir)
  })
}

// SPDX-License-Identifier: Apache-2.0
// The whole way from records to this machine's kernel and back, in a host of its own: a network, mount and PID-less
// namespace with an own /run. What was made is found again as wanted, by us and by ip, bridge and nft.
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const self = fileURLToPath(import.meta.url)

if (process.env['WEFT_TEST_HOST'] === undefined) {
  const prepare =
    'mount -t tmpfs run /run && mkdir -p /run/netns && ip link set lo up && ip link add eth0 type veth peer name wire && ip link set eth0 up && ip link set wire up && ip address add 192.0.2.1/24 dev eth0 && exec "$@"'
  t.spawn(
    'unshare',
    ['--net', '--mount', 'sh', '-c', prepare, 'sh', process.execPath, self],
    { env: { ...process.env, WEFT_TEST_HOST: '1' }, timeout: 600_000 },
    'in a host of its own',
  )
} else {
  const { systemClock } = await import('../../src/base/clock.ts')
  const { silentLog } = await import('../../src/base/log.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { probeKernel } = await import('../../src/kernel/host-facts.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')
  const { guestRulesOf } = await import('../../src/overlay/host-plan.ts')
  const { openReconciler } = await import('../../src/reconcile/reconciler.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  await probeKernel()
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  snapshot.putNode({ name: 'b', vtep: '192.0.2.2' })
  snapshot.putNode({ name: 'c', vtep: '192.0.2.3' })
  snapshot.putNetwork({ id: 'n1' })
  snapshot.putNetwork({ id: 'n2', internal: true })
  for (let i = 0; i < 20; i++) snapshot.putEndpoint({ id: `remote${i}`, network: 'n1', node: i % 2 ? 'b' : 'c' })
  const local = 'local0000000'
  snapshot.putEndpoint({
    id: local,
    network: 'n1',
    node: 'a',
    gateway: true,
    ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
    service: 'web',
  })
  // with a container elsewhere, so that the balancer has a choice
  const { record: other } = snapshot.endpoints('n1').get('remote1')!
  snapshot.putEndpoint({ ...other, gateway: true, ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }], service: 'web' })
  snapshot.putPort('tcp/8080', { cluster: { network: 'n1', service: 'web', holders: [local, other.id] }, local: [] })
  const bound = new Map([
    ['n1', { slot: 0 }],
    ['n2', { slot: 1 }],
  ])
  let tell: (keys: readonly (readonly string[])[]) => void = () => {}
  const open = () => {
    const kernel = openLinuxKernel(silentLog)
    const mirror = {
      snapshot,
      status: { available: true, error: undefined, damaged: new Map<string, string>(), records: 0 },
      ready: async () => {},
      subscribe(to: (keys: readonly (readonly string[])[] | 'all') => void) {
        tell = to
        return () => {}
      },
      onAvailability: () => () => {},
      reached: async () => {},
      async close() {},
    }
    const reconciler = openReconciler({
      mirror,
      kernel,
      host: () => testHost(bound),
      clock: systemClock,
      log: silentLog,
    })
    return {
      reconciler,
      async close() {
        await reconciler.close()
        await kernel.close()
      },
    }
  }
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const inN = 'ip netns exec weft-n1048576'
  const inM = inN.replace('weft-n', 'weft-m')
  let running = open()

  t.test('everything wanted is reached, and the tools see it', async t => {
    await running.reconciler.start()
    await running.reconciler.attach('n1', local, AbortSignal.timeout(20_000))
    const status = running.reconciler.status()
    t.same(status.failing, [])
    t.same(status.lost, [])
    t.equal(sh(`${inN} bridge fdb show dev vx0 | grep -c self`).trim(), '22', '20 endpoints and 2 gateways')
    t.match(sh(`${inN} ip -d link show vx0`), /vxlan id 1048576 local 192\.0\.2\.1 .*dstport 8473 .*nolearning.*gbp/s)
    t.match(sh(`${inN} nft list map inet weft published`), /tcp \. 8080 : 80/)
    t.match(sh('nft list map inet weft ports4'), /tcp \. 8080 : 169\.254\.1\.2/)
    t.match(
      sh(`${inM} nft list chain inet weft tcp_8080`),
      /dnat ip to numgen inc mod 2 map \{ 0 : 10\.80\.0\.\d+, 1 : 10\.80\.0\./,
    )
    t.match(sh(`${inN} nft list chain netdev weft in_clocal0000000`), /policy drop/)
    t.equal(sh(`${inN} sysctl -n net.bridge.bridge-nf-call-iptables`).trim(), '1')
    t.equal(
      sh('ip netns exec weft-n1048577 sysctl -n net.bridge.bridge-nf-call-iptables').trim(),
      '0',
      'nobody tracked, no hooks',
    )
    t.match(sh('ip nexthop show'), /fdb/)
  })

  t.test('a new life finds it as wanted and writes nothing', async t => {
    await running.close()
    running = open()
    await running.reconciler.start()
    const { operations, failing, lost } = running.reconciler.status()
    t.equal(operations, 0)
    t.same(failing, [])
    t.same(lost, [])
  })

  t.test('a change costs its own operations; what is taken away goes', async t => {
    const before = running.reconciler.status().operations
    snapshot.putEndpoint({ id: 'later', network: 'n1', node: 'b' })
    tell([['endpoints', 'n1', 'later']])
    await running.reconciler.endpointReached('n1', 'later', AbortSignal.timeout(10_000))
    t.equal(running.reconciler.status().operations - before, 6)
    snapshot.dropEndpoint('n1', 'later')
    tell([['endpoints', 'n1', 'later']])
    for (let i = 0; i < 100 && running.reconciler.status().operations - before < 12; i++) await sleep(50)
    t.equal(running.reconciler.status().operations - before, 12)
  })

  for (const [what, command, check] of [
    [
      'an FDB row',
      `${inN} bridge fdb del 02:77:0a:50:00:02 dev vx0 self`,
      `${inN} bridge fdb show dev vx0 | grep '02:77:0a:50:00:02.*self'`,
    ],
    ['a neighbour', `${inN} ip neigh del 10.80.0.2 dev br0`, `${inN} ip neigh show 10.80.0.2 dev br0 | grep PERMANENT`],
    ['a route', `${inN} ip route del 10.80.0.0/24`, `${inN} ip route show 10.80.0.0/24 | grep br0`],
    [
      'port flags',
      `${inN} bridge link set dev vx0 learning on flood on`,
      `${inN} bridge -d link show dev vx0 | grep 'learning off flood off'`,
    ],
    ['the rules of N', `${inN} nft flush ruleset`, `${inN} nft list map inet weft published | grep 8080`],
    ['one rule of H', 'nft flush chain inet weft prerouting', 'nft list chain inet weft prerouting | grep ports4'],
    ['the bridge', `${inN} ip link del br0`, `${inN} ip link show master br0 | grep vx0`],
    ['the link to the host', 'ip link del weft0', 'ip netns exec weft-m1048576 ip route show default | grep up0'],
  ] as const)
    t.test(`${what}: repaired when somebody takes it`, async t => {
      sh(command)
      let found = ''
      for (let i = 0; i < 100 && found === ''; i++) {
        await sleep(50)
        try {
          found = sh(`${check} || true`).trim()
        } catch {
          found = ''
        }
      }
      t.not(found, '')
      for (let i = 0; i < 100 && running.reconciler.status().failing.length > 0; i++) await sleep(50)
      t.same(running.reconciler.status().failing, [])
    })

  t.test('--purge takes all of ours and nothing else', async t => {
    await running.close()
    sh('nft add table inet foreign')
    // as of iptables-nft: Docker's chain for others, with our two rules in it
    sh(
      'nft add table ip filter; nft add chain ip filter DOCKER-USER; nft add rule ip filter DOCKER-USER counter return',
    )
    const guests = guestRulesOf([{ family: 'ip', table: 'filter', chain: 'DOCKER-USER' }])
    const kernel = openLinuxKernel(silentLog)
    const made = await kernel.apply(guests.map(object => ({ kind: 'add', object }) as const))
    await kernel.close()
    t.notOk(made.find(({ error }) => error))
    t.match(sh('nft list chain ip filter DOCKER-USER'), /weft/)
    t.ok((await purge('/nonexistent')).length > 0)
    t.equal(sh('ls /run/netns').trim(), '')
    t.notMatch(sh('nft list ruleset'), /weft/)
    t.match(sh('nft list ruleset'), /foreign/)
    // the kernel takes a namespace's devices away a moment after its name
    for (let i = 0; i < 100 && sh('ip -o link').includes('weft'); i++) await sleep(50)
    t.notMatch(sh('ip -o link'), /weft/)
    t.notMatch(sh('ip nexthop show'), /fdb/)
    t.same(await purge('/nonexistent'), [])
  })
}

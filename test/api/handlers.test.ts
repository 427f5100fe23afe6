// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { apiHandlers } from '../../src/api/handlers.ts'
import type { ApiParts } from '../../src/api/parts.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { testCluster } from '../overlay/cluster.ts'

/** The API of a node that has nothing to complain of, but for `parts`. */
const handlers = async (parts: Partial<ApiParts>) => {
  const store = await openEmbeddedStore({})
  const mirror = openMirror(store, silentLog)
  await mirror.ready()
  await mirror.close()
  const none = () => new Map<string, string>()
  return apiHandlers({
    ...{ node: 'a', version: '0', vtep: () => '192.0.2.1', snapshot: mirror.snapshot, bindings: { bound: new Map() } },
    ...{
      store: () => ({ ...mirror.status, available: true, error: undefined }),
      dockerError: () => undefined,
      keepsQueries: () => undefined,
    },
    ...{ reconciler: () => ({ failing: [], lost: [], repairs: new Map() }), lastErrors: () => [] },
    ...{
      networkProblems: none,
      dnsProblems: none,
      portProblems: none,
      probeFailures: none,
      floatingProblems: none,
      linkProblems: none,
      dnsListening: () => 0,
      departures: () => 0,
      legacyFilters: () => [],
      underlayProblem: () => undefined,
      reserve: { has: () => false, all: () => [], endpoints: () => [] },
    },
    silences: () => [],
    ...parts,
  } as unknown as ApiParts)
}
const signal = AbortSignal.timeout(10_000)

t.test('damaged records are problems', async t => {
  t.same((await (await handlers({})).getStatus({}, signal)).problems, [])
  const damaged = new Map([
    ['nodes/a', 'the record of this node was removed by somebody'],
    ['networks/n', 'store key networks/n: field mtu: no number'],
  ])
  const broken = await handlers({ store: () => ({ available: true, error: undefined, damaged, records: 1 }) })
  t.match((await broken.getStatus({}, signal)).problems, [
    /^store: nodes\/a: the record .* removed by somebody; .*stays in force/,
    /^store: store key networks\/n: field mtu/,
  ])
})

t.test('a kernel that can be looked at no more is a problem', async t => {
  const brokenOff = { error: 'open netlink socket: EINVAL', since: '2026-01-01T00:00:00.000Z' }
  const reconciler = () => ({ failing: [], lost: [], repairs: new Map(), brokenOff })
  const { problems } = await (await handlers({ reconciler } as unknown as ApiParts)).getStatus({}, signal)
  t.match(problems, [/^kernel: nothing is .* since 2026-01-01T00:00:00\.000Z: open netlink socket: EINVAL$/])
})

t.test('accepting a store that is not in doubt says so', async t => {
  for (const doubted of [true, false]) {
    const { acceptStore } = await handlers({ acceptStore: async () => doubted })
    t.same(await acceptStore({}, signal), { idle: !doubted })
  }
})

t.test('filters of iptables-legacy are a problem, with the remedy', async t => {
  const { getStatus } = await handlers({ legacyFilters: () => ['IPv4', 'IPv6'] })
  t.match((await getStatus({}, signal)).problems, [
    /^iptables-legacy filters IPv4 and IPv6 on this host, .*update-alternatives --set iptables .* and restart Docker/,
  ])
})

t.test('versions are told while the store is away', async t => {
  const storeVersion = async () => {
    throw new Error('etcd does not answer')
  }
  const { getVersion } = await handlers({ storeVersion })
  t.match(await getVersion({}, signal), { nodeVersion: process.version, store: 'unknown: etcd does not answer' })
})

t.test('a container whose name others answer to is a problem', async t => {
  const snapshot = testCluster()
  snapshot.putNetwork({ id: 'shop' })
  const put = (id: string, node: string, workload: object): void => {
    const whole = { container: `${id}0123456789ab`, name: id, aliases: [], labels: {}, ...workload }
    snapshot.putEndpoint({ id, network: 'shop', node, addresses: [], workload: whole })
  }
  put('web', 'a', {})
  put('e2', 'a', { name: 'Web' })
  put('db', 'a', { aliases: ['data'] })
  put('e4', 'b', { name: 'other', hostname: 'db' })
  put('e5', 'b', { name: 'copy', aliases: ['data'] }) // shared on purpose
  const { problems } = await (await handlers({ snapshot })).getStatus({}, signal)
  t.same(
    problems.filter(text => /answer to the name/.test(text)).map(text => text.replace(/^network \S+: /, '')),
    [
      '2 containers answer to the name web: Web on a, web on a',
      '2 containers answer to the name db: db on a, other on b',
    ],
  )
})

t.test('a VTEP that is lost is a problem', async t => {
  const { getStatus } = await handlers({ underlayProblem: () => 'device eth0 has no longer 192.0.2.1' })
  t.same((await getStatus({}, signal)).problems, ['underlay: device eth0 has no longer 192.0.2.1'])
})

t.test('a link network that others use too is a problem', async t => {
  const { getStatus } = await handlers({ linkProblems: () => new Map([['n', 'its link meets another']]) })
  t.same((await getStatus({}, signal)).problems, ['network n: its link meets another'])
})

t.test('a node that does not answer is a problem', async t => {
  const silences = () => [{ network: 'n', node: 'h2', since: '2026-01-01T00:00:00.000Z' }]
  const { problems } = await (await handlers({ silences })).getStatus({}, signal)
  t.match(problems, [/^node h2 does not answer in network n since 2026-01-01T00:00:00\.000Z: .*UDP 8473 pass/])
  t.equal(problems.length, 1)
})

t.test(
  'an engine that keeps the queries of --internal networks to itself is a problem where there are such',
  async t => {
    const problemsWith = async (internal: boolean, node: string) => {
      const snapshot = testCluster()
      snapshot.putNode({ name: node })
      snapshot.putNetwork({ id: 'inner', internal })
      snapshot.putEndpoint({ id: 'e1', network: 'inner', node })
      return (await (await handlers({ snapshot, keepsQueries: () => '26.1.2' })).getStatus({}, signal)).problems
    }
    t.match(await problemsWith(true, 'a'), [
      /^network inner is --internal, and Docker 26\.1\.2 asks nobody for names there/,
    ])
    t.same(await problemsWith(true, 'b'), [])
    t.same(await problemsWith(false, 'a'), [])
  },
)

t.test('a network here with a larger MTU than the underlay has room for is a problem', async t => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  const { record: node } = snapshot.nodes.get('a')!
  snapshot.putNetwork({ id: 'n', name: 'app', mtu: 1430 })
  const bindings = { bound: new Map([['n', { slot: 0 }]]) } as never
  const problems = async (mtu: number) => {
    snapshot.putNode({ ...node, mtu })
    return (await (await handlers({ snapshot, bindings })).getStatus({}, signal)).problems
  }
  t.same(await problems(1480), [])
  t.match(await problems(1300), [
    /^network "app" has an MTU of 1430, and the underlay device of node a with its 1300 has room for 1250: raise/,
  ])
})

t.test('a network that was to be removed a while ago and stays is a problem, with who holds it', async t => {
  const problems = async (ago: number) => {
    const snapshot = testCluster()
    const veto = { node: 'b', at: new Date(Date.now() - ago).toISOString(), why: 'host b has containers on it: web' }
    snapshot.putNetwork({ id: 'n', name: 'app', state: { kind: 'active', veto } })
    return (await (await handlers({ snapshot })).getStatus({}, signal)).problems
  }
  t.match(await problems(60_000), [
    /^network app was to be removed and stays \(.*\): host b has containers on it: web$/,
  ])
  t.same(await problems(3_600_000), [])
})

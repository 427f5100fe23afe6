// SPDX-License-Identifier: Apache-2.0
// What a scrape says of parts whose state is known.
import t from 'tap'
import { ConflictError, WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openRegistry } from '../../src/daemon/metrics.ts'
import { measureMesh } from '../../src/daemon/metrics-mesh.ts'
import { measureState, type StateParts } from '../../src/daemon/metrics-state.ts'
import type { BalanceCount, Kernel } from '../../src/kernel/kernel.ts'
import { measuredKernel } from '../../src/kernel/measured.ts'
import { openMemoryKernel } from '../../src/kernel/memory.ts'
import { NetlinkError } from '../../src/netlink/errors.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { measuredStore } from '../../src/store/measured.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'
import { metricValue, parseExposition } from './exposition.ts'

const registry = () => {
  const metrics = openRegistry(silentLog)
  return { metrics, read: async () => parseExposition(await metrics.scrape()) }
}
const status = {
  ...{ passes: 7, operations: 9, repairs: { 'nft-chain': 2 }, failing: [{ object: 'x', error: 'y', since: 'z' }] },
  ...{ lost: ['weft-n1 c1', 'weft-n1 c2'], wanted: 30, observed: 29, lastPassMs: 1, reached: '41' },
}
const stateParts = (parts: Partial<StateParts> = {}): StateParts => ({
  ...{ balancer: 'nft', snapshot: testCluster(), reconciler: () => status, verdicts: () => [], now: () => 0 },
  unpublished: () => 3,
  store: () => ({ available: true, error: undefined, damaged: new Map([['k', 'why']]), records: 5 }),
  ...parts,
})

t.test('statuses', async t => {
  const { metrics, read } = registry()
  const snapshot = testCluster()
  snapshot.putNetwork({ id: 'n1', name: 'app' })
  measureState(
    metrics,
    stateParts({
      snapshot,
      verdicts: () => [
        { network: 'n1', node: 'b', verdict: 'dead' },
        { network: 'n1', node: 'c', verdict: 'answers' },
      ],
    }),
  )
  const got = await read()
  for (const [name, labels, value] of [
    ['weft_build_info', { balancer: 'nft', version: '0.1.0' }, 1],
    ['weft_reconciler_passes_total', {}, 7],
    ['weft_reconciler_operations_total', {}, 9],
    ['weft_reconciler_revision', {}, 41],
    ['weft_repairs_total', { object: 'nft-chain' }, 2],
    ['weft_objects', { state: 'wanted' }, 30],
    ['weft_objects', { state: 'observed' }, 29],
    ['weft_objects', { state: 'failing' }, 1],
    ['weft_objects', { state: 'lost' }, 2],
    ['weft_store_available', {}, 1],
    ['weft_store_records', {}, 5],
    ['weft_store_damaged_records', {}, 1],
    ['weft_store_unpublished_endpoints', {}, 3],
    ['weft_peers', { state: 'dead' }, 1],
    ['weft_peers', { state: 'answers' }, 1],
    ['weft_peers', { state: 'silent' }, 0],
    ['weft_peer_silent', { network: 'app', node: 'b' }, 1],
    ['weft_peer_silent', { network: 'app', node: 'c' }, 0],
  ] as const)
    t.equal(metricValue(got, name, labels), value, `${name} ${JSON.stringify(labels)}`)
  t.equal(got.get('weft_pool_addresses')?.samples.length, 6 * snapshot.networks.get('n1')!.record.pools.length)
  t.ok(metricValue(got, 'process_resident_memory_bytes')! > 1e6)
  t.ok(got.has('nodejs_eventloop_lag_p99_seconds'))
})

t.test('what is gone has no samples, and what cannot be read is missing and counted', async t => {
  const { metrics, read } = registry()
  let verdicts: ReturnType<StateParts['verdicts']> = [{ network: 'n1', node: 'b', verdict: 'silent' }]
  let fails = false
  const parts = stateParts({
    verdicts() {
      if (fails) throw new Error('not now')
      return verdicts
    },
  })
  measureState(metrics, parts)
  t.equal(metricValue(await read(), 'weft_peer_silent'), 1)
  verdicts = []
  t.equal(metricValue(await read(), 'weft_peer_silent'), undefined)
  verdicts = [{ network: 'n1', node: 'b', verdict: 'answers' }]
  fails = true
  const got = await read()
  t.equal(metricValue(got, 'weft_peers'), undefined)
  t.equal(metricValue(got, 'weft_peer_silent'), undefined)
  t.equal(metricValue(got, 'weft_scrape_failures_total', { group: 'peers' }), 1)
  t.equal(metricValue(got, 'weft_scrape_failures_total', { group: 'pools' }), 0)
  t.equal(metricValue(got, 'weft_store_available'), 1, 'the others are there')
})

t.test('scrapes that come at once are one', async t => {
  const { metrics } = registry()
  let runs = 0
  metrics.atScrape('slow', [], async () => {
    runs++
    await new Promise(resolve => setImmediate(resolve))
  })
  const [a, b] = await Promise.all([metrics.scrape(), metrics.scrape()])
  t.equal(a, b)
  t.equal(runs, 1)
  await metrics.scrape()
  t.equal(runs, 2)
})

t.test('services, and what their containers got by this host', async t => {
  const { metrics, read } = registry()
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1', name: 'app' })
  const name = 'a "strange"\\name'
  const workload = (name: string, service: string) => ({
    ...{ container: 'c'.repeat(64), name, aliases: [], labels: { 'weft.service': service } },
  })
  const put = (id: string, node: string, address: string, service: string): void =>
    snapshot.putEndpoint({
      ...{ id, network: 'n1', node, addresses: [address], workload: workload(`of-${id}`, service) },
      ports: [{ proto: 'tcp', port: 80, hostPort: 80 }],
    })
  put('e1', 'a', '10.0.0.1', name)
  put('e2', 'b', '10.0.0.2', name)
  snapshot.putEndpoint({
    ...{ id: 'f'.repeat(64), network: 'n1', node: 'a', addresses: ['10.0.0.3'] },
    ports: [{ proto: 'tcp', port: 80, hostPort: 81 }],
  })
  const label = `label ${encodeURIComponent(name)}`
  snapshot.putPort('tcp/80', { cluster: { network: 'n1', service: label, holders: ['e1', 'e2'] }, local: [] })
  snapshot.putPort('tcp/81', { cluster: { network: 'n1', holders: ['f'.repeat(64)] }, local: [] })
  const count = (port: number, to: string, active: number, all?: BalanceCount['all']): BalanceCount => ({
    ...{ proto: 'tcp', port, to, active, ...(all ? { all } : {}) },
  })
  let counts = [
    count(80, '10.0.0.1', 3, { connections: 5n, bytesIn: 100n, bytesOut: 200n }),
    count(80, '10.0.0.2', 1),
    count(80, '10.0.0.9', 4),
    count(81, '10.0.0.3', 2),
  ]
  const silent = (_: string, node: string): boolean => node === 'b'
  measureMesh(metrics, { snapshot, silent, counters: async network => (network === 'n1' ? counts : []) })
  let got = await read()
  const of = { network: 'app', service: name }
  t.equal(metricValue(got, 'weft_service_backends', { ...of, state: 'active' }), 1)
  t.equal(metricValue(got, 'weft_service_backends', { ...of, state: 'silent' }), 1)
  t.equal(metricValue(got, 'weft_service_backends', { service: '', state: 'active' }), 1, 'no id as a name')
  const e1 = { ...of, container: 'of-e1', node: 'a', proto: 'tcp', port: '80' }
  t.equal(metricValue(got, 'weft_backend_connections_active', e1), 3)
  t.equal(metricValue(got, 'weft_backend_connections_total', e1), 5)
  t.equal(metricValue(got, 'weft_backend_received_bytes_total', e1), 100)
  t.equal(metricValue(got, 'weft_backend_sent_bytes_total', e1), 200)
  t.equal(metricValue(got, 'weft_backend_connections_active', { container: 'of-e2' }), 1)
  t.equal(
    metricValue(got, 'weft_backend_connections_total', { container: 'of-e2' }),
    undefined,
    'nftables does not count',
  )
  t.equal(metricValue(got, 'weft_backend_connections_active', { container: '', port: '81' }), 2)
  t.equal(metricValue(got, 'weft_backend_connections_active'), 6, 'not what is nobody’s')
  t.notMatch(await metrics.scrape(), /f{12}|c{12}/)
  counts = []
  got = await read()
  t.equal(metricValue(got, 'weft_backend_connections_active'), undefined)
})

t.test('calls of the store', async t => {
  const { metrics, read } = registry()
  const clock = manualClock()
  const inner = await openEmbeddedStore({})
  const store = measuredStore(
    {
      ...inner,
      async get(key, call) {
        clock.advance(300)
        if (key === 'away') throw new WeftError('STORE_UNAVAILABLE', 'away')
        if (key === 'given up') throw new Error('somebody aborted')
        return inner.get(key, call)
      },
      commit: async () => {
        throw new ConflictError('somebody')
      },
    },
    metrics,
    clock,
  )
  t.equal(await store.get('k'), undefined)
  await t.rejects(store.get('away'), { code: 'STORE_UNAVAILABLE' })
  await t.rejects(store.get('given up', { signal: AbortSignal.abort(new Error('x')) }))
  await t.rejects(store.commit([], []), { code: 'CONFLICT' })
  const got = await read()
  t.equal(metricValue(got, 'weft_store_request_seconds_count', { operation: 'get' }), 3)
  t.ok(Math.abs(metricValue(got, 'weft_store_request_seconds_sum', { operation: 'get' })! - 0.9) < 1e-9)
  t.equal(metricValue(got, 'weft_store_request_seconds_bucket', { operation: 'get', le: '0.25' }), 0)
  t.equal(metricValue(got, 'weft_store_request_seconds_bucket', { operation: 'get', le: '0.5' }), 3)
  for (const code of ['STORE_UNAVAILABLE', 'CANCELLED', 'CONFLICT'])
    t.equal(metricValue(got, 'weft_store_errors_total', { code }), 1, code)
  await store.close()
})

t.test('what the kernel refuses', async t => {
  const { metrics, read } = registry()
  const refusal = new NetlinkError({ op: 'x', errno: 16 })
  const wrapped = new WeftError('FULL', 'y', { cause: refusal })
  const inner: Kernel = {
    ...openMemoryKernel(),
    apply: async operations => operations.map(operation => ({ operation, error: wrapped })),
    observe: async () => {
      throw refusal
    },
  }
  const kernel = measuredKernel(inner, metrics)
  const operation = { kind: 'add', object: { kind: 'netns', ns: 'weft-n1' } } as const
  t.equal((await kernel.apply([operation, operation]))[0]?.error, wrapped)
  await t.rejects(kernel.observe(''), refusal)
  t.same(await kernel.counters(''), [])
  const got = await read()
  t.equal(metricValue(got, 'weft_netlink_errors_total', { errno: 'EBUSY' }), 3)
  t.equal(metricValue(got, 'weft_netlink_errors_total'), 3)
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openMemoryKernel } from '../../src/kernel/memory.ts'
import { format, keyOf, sameObject } from '../../src/kernel/objects.ts'
import { allUnits } from '../../src/plan/unit.ts'
import { plan } from '../../src/reconcile/plan.ts'
import { openReconciler, type Reconciler } from '../../src/reconcile/reconciler.ts'
import type { ChangedKey, Mirror } from '../../src/store/mirror.ts'
import { type TestCluster, testCluster, testHost } from '../overlay/cluster.ts'

const setting = (kernel = openMemoryKernel()) => {
  const snapshot = testCluster()
  const bound = new Map([['n1', { slot: 0 }]])
  let listener: (changed: readonly ChangedKey[] | 'all') => void = () => {}
  const mirror: Mirror = {
    snapshot,
    status: { available: true, error: undefined, damaged: new Map(), records: 0 },
    ready: async () => {},
    subscribe(to) {
      listener = to
      return () => {}
    },
    onAvailability: () => () => {},
    reached: async () => {},
    async close() {},
  }
  const reconciler = openReconciler({ mirror, kernel, host: () => testHost(bound), clock: systemClock, log: silentLog })
  return { kernel, snapshot, bound, reconciler, tell: (...keys: ChangedKey[]) => listener(keys) }
}

/** Every wanted object is in the kernel, and nothing else of ours. */
const settled = async (
  t: { same: (a: unknown, b: unknown, m: string) => unknown },
  { kernel, snapshot, bound }: ReturnType<typeof setting>,
): Promise<boolean> => {
  const host = testHost(bound)
  const wanted = new Map<string, { rank: number; text: string; object: Parameters<typeof keyOf>[0] }>()
  for (const unit of allUnits(snapshot, host))
    for (const { object, rank } of plan(unit, { snapshot, host }).wanted) {
      const held = wanted.get(keyOf(object))
      if (!held || rank >= held.rank) wanted.set(keyOf(object), { rank, text: format(object), object })
    }
  for (let i = 0; i < 400; i++) {
    const ports = [...wanted.values()].filter(({ object }) => object.kind === 'veth' && object.port)
    const lost = new Set(
      ports
        .filter(({ object }) => !kernel.objects.has(keyOf(object)))
        .map(({ object }) => ('name' in object ? object.name : '')),
    )
    const missing = [...wanted.values()].filter(({ object }) => {
      const actual = kernel.objects.get(keyOf(object))
      const dev =
        object.kind === 'nft-chain'
          ? object.hook?.device
          : 'dev' in object
            ? object.dev
            : 'name' in object
              ? object.name
              : undefined
      return !(dev !== undefined && lost.has(dev)) && !(actual && sameObject(object, actual))
    })
    const extra = [...kernel.objects.values()].filter(
      object => !wanted.has(keyOf(object)) && object.kind !== 'sysctl' && !foreign.has(keyOf(object)),
    )
    if (missing.length === 0 && extra.length === 0) return true
    if (i === 399) {
      t.same(
        missing.map(one => one.text),
        [],
        'missing',
      )
      t.same(extra.map(format), [], 'extra')
    }
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  return false
}
const foreign = new Set<string>()

const populate = (snapshot: TestCluster): void => {
  snapshot.putNode({ name: 'a' })
  snapshot.putNode({ name: 'b' })
  snapshot.putNetwork({ id: 'n1' })
  for (let i = 1; i <= 5; i++) snapshot.putEndpoint({ id: `r${i}`, network: 'n1', node: 'b' })
}

const attach = (reconciler: Reconciler, id: string): Promise<void> =>
  reconciler.attach('n1', id, AbortSignal.timeout(3000))

t.test('starts from nothing, adopts what it made without a write', async t => {
  const first = setting()
  populate(first.snapshot)
  await first.reconciler.start()
  t.ok(await settled(t, first))
  await first.reconciler.close()
  const before = first.kernel.writes
  const second = setting(first.kernel)
  populate(second.snapshot)
  await second.reconciler.start()
  t.equal(first.kernel.writes - before, 0, 'zero kernel writes on restart')
  await second.reconciler.close()
})

t.test('a change costs only its own operations', async t => {
  const s = setting()
  populate(s.snapshot)
  await s.reconciler.start()
  const before = s.kernel.writes
  s.snapshot.putEndpoint({ id: 'x', network: 'n1', node: 'b' })
  s.tell(['endpoints', 'n1', 'x'])
  t.ok(await settled(t, s))
  t.equal(s.kernel.writes - before, 6)
  await s.reconciler.close()
})

t.test('drift is repaired and counted; a removed container port is lost, not made again', async t => {
  const s = setting()
  populate(s.snapshot)
  s.snapshot.putEndpoint({ id: 'local0000000', network: 'n1', node: 'a' })
  await s.reconciler.start()
  t.same(s.reconciler.status().lost, ['weft-n1048576 clocal0000000'], 'no port without a permit')
  await attach(s.reconciler, 'local0000000')
  t.same(s.reconciler.status().lost, [])
  t.ok(await settled(t, s))
  s.kernel.meddle('fdb weft-n1048576 02:77:0a:50:00:02', undefined)
  t.ok(await settled(t, s))
  t.equal(s.reconciler.status().repairs['fdb-port'], 1)
  s.kernel.meddle('nft  inet weft', undefined)
  s.kernel.meddle('link weft-n1048576 br0', undefined)
  t.ok(await settled(t, s))
  s.kernel.meddle('link weft-n1048576 clocal0000000', undefined)
  await new Promise(resolve => setTimeout(resolve, 50))
  t.same(s.reconciler.status().lost, ['weft-n1048576 clocal0000000'])
  await s.reconciler.close()
})

t.test('any operation may fail, it still converges', async t => {
  const s = setting()
  populate(s.snapshot)
  let countdown = 0
  for (let k = 0; k < 60; k += 3) {
    countdown = k
    s.kernel.failWhen(() => countdown-- === 0)
    s.bound.clear()
    s.bound.set('n1', { slot: k })
    if (k === 0) await s.reconciler.start()
    else s.reconciler.hostChanged()
    t.ok(await settled(t, s), `failure of operation ${k}`)
  }
  s.kernel.failWhen(undefined)
  s.bound.clear()
  s.reconciler.hostChanged()
  await s.reconciler.close()
})

t.test('waiting for an endpoint that cannot be made says what is missing', async t => {
  const s = setting()
  populate(s.snapshot)
  await s.reconciler.start()
  s.snapshot.putEndpoint({ id: 'local0000000', network: 'n1', node: 'a' })
  s.kernel.failWhen(({ object }) => object.kind === 'veth')
  await t.rejects(s.reconciler.attach('n1', 'local0000000', AbortSignal.timeout(300)), {
    code: 'NOT_REACHED',
    message: /type veth is missing: .*EBUSY/,
  })
  await s.reconciler.close()
})

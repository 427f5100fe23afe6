// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openMemoryKernel } from '../../src/kernel/memory.ts'
import { format, type KernelObject, keyOf, sameObject } from '../../src/kernel/objects.ts'
import { allUnits, unitKey } from '../../src/plan/unit.ts'
import { plan } from '../../src/reconcile/plan.ts'
import { openReconciler, type Reconciler } from '../../src/reconcile/reconciler.ts'
import type { ChangedKey } from '../../src/store/mirror.ts'
import { type TestCluster, testCluster, testHost, testMirror } from '../overlay/cluster.ts'
import { until } from '../until.ts'

const setting = (kernel = openMemoryKernel()) => {
  const snapshot = testCluster()
  const bound = new Map([['n1', { slot: 0 }]])
  const { mirror, tell } = testMirror(snapshot)
  const told: string[] = []
  const reconciler = openReconciler({
    ...{ mirror, kernel, host: () => testHost(bound), clock: systemClock, log: silentLog },
    reached: units => void told.push(...[...units].map(unitKey)),
  })
  return { kernel, snapshot, bound, reconciler, told, tell: (...keys: ChangedKey[]) => tell(keys) }
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

t.test('what is still told of a namespace that we have taken away is nobody’s change', async t => {
  const s = setting()
  populate(s.snapshot)
  await s.reconciler.start()
  const key = 'port weft-n1048576 vx0'
  const port = s.kernel.objects.get(key)
  t.ok(port)
  s.bound.clear()
  s.reconciler.networkChanged('n1')
  t.ok(await settled(t, s))
  const before = s.kernel.writes
  s.kernel.meddle(key, port)
  await new Promise(resolve => setTimeout(resolve, 100))
  t.same(s.reconciler.status().repairs, {})
  t.equal(s.kernel.writes, before)
  await s.reconciler.close()
})

t.test('what somebody changes right after our write, and before we know that it is done, is repaired too', async t => {
  const memory = openMemoryKernel()
  let next: (() => void) | undefined
  const s = setting({
    ...memory,
    async apply(operations) {
      const results = await memory.apply(operations)
      next?.()
      next = undefined
      return results
    },
  })
  populate(s.snapshot)
  await s.reconciler.start()
  const row = 'fdb weft-n1048576 02:77:0a:50:00:02'
  const object = memory.objects.get(row)!
  t.equal(object.kind, 'fdb-port')
  for (const after of [undefined, { ...object, dev: 'gw' } as KernelObject]) {
    next = () => memory.meddle(row, after)
    memory.meddle(row, undefined)
    t.ok(await until(() => next === undefined))
    t.ok(await settled(t, s))
    await new Promise(resolve => setTimeout(resolve, 100))
    t.ok(await settled(t, s))
  }
  s.snapshot.dropEndpoint('n1', 'r1')
  next = () => memory.meddle(row, object)
  s.tell(['endpoints', 'n1', 'r1'])
  t.ok(await until(() => next === undefined))
  t.ok(await settled(t, s), 'removed, and put back by somebody')
  await s.reconciler.close()
})

t.test('a link is not made anew for what was told late', async t => {
  const memory = openMemoryKernel()
  let listener: Parameters<typeof memory.follow>[0] = () => {}
  const s = setting({
    ...memory,
    follow(tell) {
      listener = tell
      memory.follow(tell)
    },
  })
  populate(s.snapshot)
  await s.reconciler.start()
  const key = 'link weft-n1048576 vx0'
  const tunnel = memory.objects.get(key)
  if (tunnel?.kind !== 'vxlan') throw new Error('no tunnel')
  for (const late of [undefined, { ...tunnel, mtu: 1000 }]) {
    listener({ kind: 'changed', observations: [{ key, object: late }] })
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  t.equal(s.reconciler.status().operations, memory.writes)
  t.same(s.reconciler.status().repairs, {})
  memory.meddle(key, { ...tunnel, mtu: 1000 })
  t.ok(await settled(t, s))
  t.equal(s.reconciler.status().repairs['vxlan'], 1)
  await s.reconciler.close()
})

t.test('what somebody changes while we look at its namespace is repaired too', async t => {
  const memory = openMemoryKernel()
  let next: (() => void) | undefined
  const kernel = {
    ...memory,
    async observe(...args: Parameters<typeof memory.observe>) {
      const found = await memory.observe(...args)
      if (args[0] !== '') next?.()
      return found
    },
  }
  const s = setting(kernel)
  s.snapshot.putNode({ name: 'a' })
  s.snapshot.putNode({ name: 'b' })
  s.snapshot.putNetwork({ id: 'n1' })
  for (let i = 1; i <= 5; i++) s.snapshot.putEndpoint({ id: `r${i}`, network: 'n1', node: 'b' })
  await s.reconciler.start()
  const row = 'fdb weft-n1048576 02:77:0a:50:00:02'
  next = () => {
    next = undefined
    memory.meddle(row, undefined)
  }
  memory.meddle('nft weft-n1048576 inet weft', undefined) // nft flush: its namespace is looked at
  t.ok(await until(() => next === undefined && memory.objects.has(row), 2000))
  await s.reconciler.close()
})

t.test('a look or a write that breaks off as a whole is repeated, and nothing is forgotten', async t => {
  const memory = openMemoryKernel()
  let broken = 0
  const breaking = <A extends unknown[], R>(work: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      if (broken > 0) throw new WeftError('KERNEL', `broken off, ${broken--} times more`)
      return work(...args)
    }
  }
  const s = setting({ ...memory, observe: breaking(memory.observe), apply: breaking(memory.apply) })
  populate(s.snapshot)
  await s.reconciler.start()
  broken = 1
  s.snapshot.putEndpoint({ id: 'planned', network: 'n1', node: 'b' })
  s.tell(['endpoints', 'n1', 'planned'])
  t.ok(await settled(t, s))
  t.same(s.reconciler.status().repairs, {}, 'our own work is nobody else’s doing')
  for (const key of ['nft  inet weft', 'link weft-n1048576 br0', 'fdb weft-n1048576 02:77:0a:50:00:02']) {
    broken = 3
    s.kernel.meddle(key, undefined)
    t.ok(await settled(t, s), key)
    t.equal(broken, 0)
  }
  const brokenOff = async (is: boolean) => {
    const now = () => s.reconciler.status().brokenOff
    for (let i = 0; i < 400 && (now() !== undefined) !== is; i++) await new Promise(resolve => setTimeout(resolve, 5))
    return now()
  }
  broken = Number.POSITIVE_INFINITY
  s.kernel.meddle('nft  inet weft', undefined)
  const first = await brokenOff(true)
  t.match(first, { error: /broken off/, since: /^\d{4}-/ })
  s.snapshot.putEndpoint({ id: 'late', network: 'n1', node: 'b' })
  const signal = AbortSignal.timeout(200)
  await t.rejects(s.reconciler.endpointReached('n1', 'late', signal), { message: /is missing: .*broken off/ })
  t.equal((await brokenOff(true))?.since, first?.since)
  broken = 0
  t.equal(await brokenOff(false), undefined, 'after a whole pass')
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

t.test('what cannot be made holds up nobody else', async t => {
  const s = setting()
  populate(s.snapshot)
  await s.reconciler.start()
  t.ok(s.told.includes('endpoint n1 r1') && s.told.includes('network n1'), 'the first time all are told')
  const [badMac, wellMac] = ['02:77:0a:50:00:aa', '02:77:0a:50:00:bb']
  s.kernel.failWhen(({ object }) => JSON.stringify(object).includes(badMac))
  s.told.splice(0)
  s.snapshot.putEndpoint({ id: 'bad', network: 'n1', node: 'b', mac: badMac })
  s.tell(['endpoints', 'n1', 'bad'])
  t.ok(await until(() => s.reconciler.status().failing.length > 0))
  s.snapshot.putEndpoint({ id: 'well', network: 'n1', node: 'b', mac: wellMac })
  s.tell(['endpoints', 'n1', 'well'])
  t.ok(await until(() => s.told.includes('endpoint n1 well')))
  t.notOk(s.told.includes('endpoint n1 bad'))
  t.ok(s.reconciler.status().failing.length > 0)
  s.kernel.failWhen(undefined)
  t.ok(await until(() => s.told.includes('endpoint n1 bad')))
  t.equal(s.told.filter(key => key === 'endpoint n1 well').length, 1, 'once')
  await s.reconciler.close()
})

t.test('who waits for what this kernel cannot make is told so at once', async t => {
  const s = setting()
  populate(s.snapshot)
  await s.reconciler.start()
  s.snapshot.putEndpoint({ id: 'local0000000', network: 'n1', node: 'a' })
  const full = new WeftError('FULL', 'no port is left: start containers elsewhere')
  s.kernel.failWhen(({ object }) => object.kind === 'veth' && full)
  const attach = (): Promise<void> => s.reconciler.attach('n1', 'local0000000', AbortSignal.timeout(60_000))
  await t.rejects(attach(), { code: 'FULL', message: /^no port is left/ })
  await t.rejects(attach(), { code: 'FULL' }, 'again')
  s.kernel.failWhen(undefined)
  await attach()
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

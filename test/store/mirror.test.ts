// SPDX-License-Identifier: Apache-2.0
// What cannot be read takes nothing away: its last version stays in force, and is named as damaged.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { guardStore } from '../../src/store/guard.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store, Write } from '../../src/store/store.ts'
import { fastClock } from './clock.ts'

const cluster = encode('cluster', {
  ...{ id: 'c', pools: ['10.224.0.0/12'], underlayFamily: 4, vxlanPort: 4789, reservedPorts: [], created: '' },
})
const node = (name: string, fields = {}): string =>
  encode('node', {
    ...{
      name,
      number: 1,
      instance: 'i',
      boot: 'b',
      vtep: '192.0.2.1',
      mtu: 1500,
      routes: ['10.0.0.1/8'],
      version: '0',
    },
    ...fields,
  })
const network = encode('network', {
  ...{ id: 'n', vni: 1, pools: [{ prefix: '10.1.0.0/16', gateway: '10.1.0.1' }], mtu: 1450, options: {}, labels: {} },
  ...{ internal: false, attachable: false, ipv6: false, state: { kind: 'active' }, origin: { by: 'weft', node: 'a' } },
})
const endpoint = (fields = {}): string =>
  encode('endpoint', {
    ...{ id: 'e', network: 'n', node: 'a', boot: 'b', addresses: ['10.1.0.2'], mac: '02:42:0a:01:00:02', ports: [] },
    ...{ gateway: false, identity: 0 },
    ...fields,
  })
const good: Readonly<Record<string, string>> = {
  [keys.cluster]: cluster,
  [keys.node('a')]: node('a'),
  [keys.node('b')]: node('b'),
  [keys.network('n')]: network,
  [keys.endpoint('n', 'e')]: endpoint(),
}
const later = (text: string): string => text.replace('"v":1', '"v":2')
const bad: Readonly<Record<string, string>> = {
  [keys.node('a')]: 'garbage',
  [keys.node('b')]: node('b', { routes: ['zzz'] }),
  [keys.network('n')]: network.replace('1450', '"1450"'),
  [keys.endpoint('n', 'e')]: endpoint({ mac: '02:42' }),
}
const put = (store: Store, records: Readonly<Record<string, string>>) =>
  store.commit(
    [],
    Object.entries(records).map(([key, value]): Write => ({ kind: 'put', key, value })),
  )
const remove = (store: Store, ...gone: string[]) =>
  store.commit(
    [],
    gone.map((key): Write => ({ kind: 'delete', key })),
  )
const limit = () => AbortSignal.timeout(10_000)
const open = async (t: Test, store: Store) => {
  const mirror = openMirror(store, silentLog, 'a')
  t.teardown(() => mirror.close())
  await mirror.ready(limit())
  const { snapshot } = mirror
  const state = () =>
    [snapshot.cluster, ...snapshot.nodes.values(), ...snapshot.networks.values(), ...snapshot.endpoints('n').values()]
      .filter(one => one !== undefined)
      .map(({ record }) => JSON.stringify(record))
      .sort()
  return { mirror, state, damaged: () => [...mirror.status.damaged.keys()].sort() }
}

t.test('an unreadable version leaves the one before in force, until a readable one or a removal comes', async t => {
  const store = await openEmbeddedStore({})
  await put(store, good)
  const { mirror, state, damaged } = await open(t, store)
  const before = state()
  t.equal(mirror.status.records, 5)
  await mirror.reached(await put(store, { ...bad, [keys.cluster]: later(cluster) }), limit())
  t.same(state(), before)
  t.same(damaged(), Object.keys(good).sort())
  t.match(mirror.status.damaged.get(keys.cluster), /format version 2/)
  t.match(mirror.status.damaged.get(keys.node('b')), /routes.0: .*zzz/)
  t.match(mirror.status.damaged.get(keys.endpoint('n', 'e')), /mac/)
  await mirror.reached(await put(store, { ...good, [keys.node('b')]: node('b', { mtu: 1400 }) }), limit())
  t.same(damaged(), [])
  t.equal(mirror.snapshot.nodes.get('b')?.record.mtu, 1400)
  await put(store, bad)
  await mirror.reached(await remove(store, keys.node('b'), keys.network('n')), limit())
  t.same(damaged(), [keys.endpoint('n', 'e'), keys.node('a')])
  t.notOk(mirror.snapshot.nodes.has('b'))
  t.notOk(mirror.snapshot.networks.has('n'))
  t.equal(mirror.status.records, 3)
})

t.test('endpoints are found by their service, and who has left one is told', async t => {
  const store = await openEmbeddedStore({})
  await put(store, good)
  const { mirror } = await open(t, store)
  const { snapshot } = mirror
  const told: string[] = []
  mirror.subscribe(changed => changed !== 'all' && told.push(...changed.map(key => key.join(' '))))
  const key = keys.endpoint('n', 'e')
  const become = async (service?: string) => {
    const value = endpoint(service === undefined ? {} : { service })
    await mirror.reached(await put(store, { [key]: value }), limit())
    return told.splice(0)
  }
  const members = (service: string) => [...snapshot.members('n', service)]
  t.same(await become('label web'), ['endpoints n e'])
  t.same(members('label web'), ['e'])
  t.same(await become('compose shop db'), ['endpoints n e', 'members n label web'])
  t.same([members('label web'), members('compose shop db')], [[], ['e']])
  await put(store, { [key]: 'garbage' })
  t.same(await become('container e'), ['endpoints n e', 'endpoints n e', 'members n compose shop db'])
  t.same(members('container e'), [], 'who is alone needs no list')
  await become('label web')
  await mirror.reached(await remove(store, key), limit())
  t.same(told, ['endpoints n e', 'members n label web'])
  t.same(members('label web'), [])
  const vip = keys.vip('n', 'label web')
  await mirror.reached(await put(store, { [vip]: encode('vip', { addresses: ['10.1.0.9'] }) }), limit())
  t.same(snapshot.vips('n').get('label web')?.record, { addresses: ['10.1.0.9'] })
  const strange = ['vips/n/web', 'vips/n/label%20web%20x', 'vips/n']
  const value = encode('vip', { addresses: ['10.1.0.9'] })
  await mirror.reached(await put(store, Object.fromEntries(strange.map(one => [one, value]))), limit())
  t.same([...mirror.status.damaged.keys()].sort(), strange.sort())
})

t.test('what this host decided alone is shown until the store says something of it', async t => {
  const store = await openEmbeddedStore({})
  await put(store, { ...good, [keys.endpoint('n', 'e')]: endpoint({ service: 'label web' }) })
  const { mirror } = await open(t, store)
  const { snapshot } = mirror
  const told: string[] = []
  mirror.subscribe(changed => changed !== 'all' && told.push(...changed.map(key => key.join(' '))))
  const [own, alien] = [keys.endpoint('n', 'own'), keys.endpoint('n', 'e')]
  const address = (id: string) => snapshot.endpoints('n').get(id)?.record.addresses[0]
  const record = (id: string, last: number) =>
    endpoint({ id, addresses: [`10.1.0.${last}`], mac: `02:42:0a:01:00:0${last}`, service: 'label web' })
  mirror.show(own, record('own', 3))
  t.equal(address('own'), '10.1.0.3')
  t.same([...snapshot.members('n', 'label web')], ['e', 'own'])
  mirror.show(own, record('own', 4))
  t.equal(address('own'), '10.1.0.4')
  mirror.show(alien, undefined)
  t.equal(address('e'), '10.1.0.2', 'what the store has stays')
  mirror.show(own, undefined)
  t.equal(address('own'), undefined)
  t.same([...snapshot.members('n', 'label web')], ['e'])
  t.same(told, ['endpoints n own', 'endpoints n own', 'endpoints n own', 'members n label web'])
  mirror.show(own, record('own', 5))
  await mirror.reached(await put(store, { [own]: record('own', 6) }), limit())
  t.equal(address('own'), '10.1.0.6')
  mirror.show(own, undefined)
  t.equal(address('own'), '10.1.0.6', "the store's from then on")
  t.equal(mirror.status.records, 6)
})

t.test('our own node record stays in force when somebody removes it; a tombstone replaces it', async t => {
  const store = await openEmbeddedStore({})
  await put(store, good)
  const { mirror, damaged } = await open(t, store)
  await mirror.reached(await remove(store, keys.node('a'), keys.node('b')), limit())
  t.ok(mirror.snapshot.nodes.has('a'))
  t.notOk(mirror.snapshot.nodes.has('b'))
  t.same(damaged(), [keys.node('a')])
  await mirror.reached(await put(store, { [keys.node('a')]: node('a', { fenced: 'now' }) }), limit())
  t.equal(mirror.snapshot.nodes.get('a')?.record.fenced, 'now')
  t.same(damaged(), [])
})

t.test('keys that are not ours harm nothing', async t => {
  const store = await openEmbeddedStore({})
  await put(store, good)
  const { mirror, state, damaged } = await open(t, store)
  const before = state()
  const strange = ['nodes/%zz', 'nodes', 'cluster/x', 'endpoints/n', 'pools/garbage', 'constructor', 'addresses/n/x']
  const claim = encode('poolClaim', { network: 'n', node: 'a', settled: true })
  await mirror.reached(await put(store, Object.fromEntries(strange.map(key => [key, claim]))), limit())
  t.same(state(), before)
  t.same(damaged(), strange.sort())
  t.match(mirror.status.damaged.get('pools/garbage'), /pools\/garbage.*"garbage" is not an address/)
})

t.test('the guard keeps the readable version for the next start, and suspects the cluster record', async t => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-mirror-'))
  t.teardown(() => rm(dir, { recursive: true, force: true }))
  const parts = { dir: join(dir, 'guard'), log: silentLog, clock: fastClock(20) }
  const inner = async () => openEmbeddedStore({ dir: join(dir, 'store') })
  const first = await guardStore(await inner(), parts)
  await put(first, good)
  const running = await open(t, first)
  await running.mirror.reached((await first.identity()).revision, limit())
  const before = running.state()
  await running.mirror.reached(await put(first, bad), limit())
  t.same(running.damaged(), Object.keys(bad).sort())
  const late = await open(t, first)
  t.same(late.state(), before, 'a mirror opened now begins with the readable versions')
  t.same(late.damaged(), Object.keys(bad).sort(), 'and knows of the others')
  t.same(
    first.copy(),
    Object.entries(good)
      .map(([key, value]) => ({ key, value }))
      .sort((a, b) => (a.key < b.key ? -1 : 1)),
  )
  await first.close()

  const store = await inner()
  const second = await guardStore(store, parts)
  t.teardown(() => second.close())
  const started = await open(t, second)
  await put(second, { x: '' })
  for (let i = 0; i < 200 && started.damaged().length < 4; i++) await new Promise(resolve => setTimeout(resolve, 10))
  t.same(started.state(), before)
  t.same(started.damaged(), Object.keys(bad).sort())
  await put(second, good)
  const doubted = () =>
    second.get('x').then(
      () => undefined,
      error => error.code,
    )
  await put(store, { [keys.cluster]: later(cluster) })
  for (let i = 0; i < 200 && !(await doubted()); i++) await new Promise(resolve => setTimeout(resolve, 10))
  await t.rejects(second.get('x'), { code: 'STORE_SUSPECT', message: /cannot be read here: .*format version 2/ })
  t.same(started.state(), before)
  await put(store, { [keys.cluster]: cluster })
  for (let i = 0; i < 500 && (await doubted()); i++) await new Promise(resolve => setTimeout(resolve, 10))
  t.equal(await doubted(), undefined, 'believed again')
})

t.test('an id that many records have is held once', async t => {
  const id = 'e'.repeat(10_000)
  const claim = encode('addressClaim', { kind: 'bound', node: 'a', boot: 'b', endpoint: id })
  const entries = Array.from({ length: 2000 }, (_, i) => ({
    key: keys.address('n', `10.1.${i >> 8}.${i & 255}`),
    value: claim,
    revision: 1n,
  }))
  const store = {
    async *watch() {
      yield { kind: 'snapshot', entries, revision: 1n }
    },
  } as unknown as Store
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const before = process.memoryUsage().heapUsed
  const { mirror } = await open(t, store)
  collect()
  const heldMiB = (process.memoryUsage().heapUsed - before) / 2 ** 20
  t.equal(mirror.snapshot.addresses('n').size, entries.length)
  t.ok(heldMiB < 5, `${heldMiB} MiB, of each its own it would be 19`)
})

// SPDX-License-Identifier: Apache-2.0
// Cluster networks and those of the engines, on two nodes of one store, with an engine of memory: what goes wrong
// between a command and the look at the engine.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { openBindings } from '../../src/control/bindings.ts'
import type { Context } from '../../src/control/context.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openPools } from '../../src/control/pools.ts'
import type { Engine, EngineNetwork, ListedContainer } from '../../src/docker/engine.ts'
import { openReplicas } from '../../src/docker/replicas.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'
import { fastClock } from '../store/clock.ts'

const limit = () => AbortSignal.timeout(20_000)
const until = async (is: () => boolean): Promise<boolean> => {
  for (let i = 0; i < 1000 && !is(); i++) await new Promise(resolve => setTimeout(resolve, 5))
  return is()
}

const openCluster = async (t: Test) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-replicas-'))
  const store = await openEmbeddedStore({ dir })
  const put = (key: string, value: string) => store.commit([], [{ kind: 'put', key, value }], { signal: limit() })
  await put(
    keys.cluster,
    encode('cluster', {
      id: 'c',
      pools: ['10.224.0.0/11', 'fd00::/48'],
      underlayFamily: 4,
      vxlanPort: 4789,
      reservedPorts: [],
      created: '',
    }),
  )
  const closers: (() => Promise<void>)[] = [async () => store.close()]
  t.teardown(async () => {
    for (const close of closers.reverse()) await close()
    rmSync(dir, { recursive: true })
  })
  return { store, dir, closers, node: (name: string) => openNode(name, store, dir, closers) }
}

/** A weftd without a kernel, time of its replicas twenty times as fast, and an engine that asks it as Docker does. */
const openNode = async (name: string, shared: Store, dir: string, closers: (() => Promise<void>)[]) => {
  const faults = { commit: false, keep: false }
  const store: Store = {
    ...shared,
    commit: async (...args) => {
      if (faults.commit) throw new WeftError('STORE_UNAVAILABLE', 'away')
      return shared.commit(...args)
    },
  }
  const facts = { number: 1, instance: name, boot: 'b', vtep: '192.0.2.1', mtu: 1500, routes: [] }
  const value = encode('node', { name, ...facts, version: '0' })
  await shared.commit([], [{ kind: 'put', key: keys.node(name), value }], { signal: limit() })
  const alive = keys.presence(name)
  const presence = encode('presence', { node: name, instance: name, boot: 'b', applied: '0' })
  await shared.commit([], [{ kind: 'put', key: alive, value: presence }], { signal: limit() })
  const mirror = openMirror(store, silentLog)
  await mirror.ready(limit())
  const context: Context = { store, mirror, node: name, boot: 'b', clock: systemClock, log: silentLog }
  const bindings = await openBindings(join(dir, `${name}.json`), 64, () => {})
  const pools = openPools(context)
  openAddresses(context, bindings, pools)
  const networks = openNetworks(context, bindings, pools)
  const listed = new Map<string, EngineNetwork>()
  const busy = new Set<string>()
  const stopped = new Map<string, { name: string; id: string }>() // container → its network; id '' before the first start
  let made = 0
  /** As `docker network create`: the engine lists it once the driver has answered, and it has written it. */
  const create = async (Name: string, { wanted, subnet, listedAfterMs = 0, replicaOf }: Wish = {}): Promise<string> => {
    const Id = `${name}${++made}`
    const replica = replicaOf === undefined ? {} : { replicaOf }
    const given = replicaOf === undefined ? subnet : mirror.snapshot.networks.get(replicaOf)!.record.pools[0]!.prefix
    const prefix = given === undefined ? {} : { prefix: given }
    const asked = { family: 4 as const, ...(wanted === undefined ? {} : { wanted }), ...replica, ...prefix }
    const grant = await pools.request(asked, limit())
    const options: Record<string, string> = wanted === undefined ? {} : { 'weft.network': wanted }
    const pool = { prefix: grant.prefix, gateway: grant.prefix.replace(/0\/.*/, '1') }
    await networks.create({ docker: Id, pools: [pool], options, internal: false, ipv6: false }, limit())
    await new Promise(resolve => setTimeout(resolve, listedAfterMs))
    const IPAM = { Driver: 'weft', Options: null }
    const rest = { Labels: null, Attachable: false, Internal: false, EnableIPv6: false, Options: options, IPAM }
    listed.set(Id, { Id, Name, Driver: 'weft', ...rest })
    return Id
  }
  const engine: Engine = {
    networks: async () => [...listed.values()],
    createNetwork: body => create(body.Name, { replicaOf: replicas.inFlight }),
    removeNetwork: async id => {
      if (faults.keep || busy.has(id)) throw new WeftError('DOCKER_UNAVAILABLE', 'network has active endpoints')
      listed.delete(id)
    },
    containers: async ({ network = [] } = {}) =>
      [...stopped]
        .filter(([, { name, id }]) => network.some(asked => asked === name || asked === id))
        .map(([Id]) => ({ Id }) as ListedContainer),
    container: () => Promise.reject(new Error('unused')),
    imageLabels: () => Promise.reject(new Error('unused')),
    events: () => [] as unknown as AsyncIterable<never>,
  }
  const replicas = openReplicas({ ...context, clock: fastClock(20) }, engine, bindings, networks)
  replicas.poke()
  let open = true
  const close = async () => {
    if (!open) return
    open = false
    await replicas.close().then(() => mirror.close())
    await shared.commit([], [{ kind: 'delete', key: alive }], { signal: limit() })
  }
  closers.push(close)
  /** As `docker network rm`. */
  const remove = (id: string): void => {
    const network = bindings.byDocker(id)?.network
    listed.delete(id)
    replicas.deleted(id)
    const prefixes = network === undefined ? undefined : mirror.snapshot.networks.get(network)?.record.pools
    for (const { prefix } of prefixes ?? []) void pools.release(prefix, limit())
  }
  const names = () => [...listed.values()].map(network => network.Name).sort()
  const known = () => [...mirror.snapshot.networks.values()].map(({ record }) => record)
  return { create, pools, remove, names, known, busy, stopped, faults, replicas, bindings, close }
}
interface Wish {
  readonly wanted?: string
  readonly subnet?: string
  readonly listedAfterMs?: number
  readonly replicaOf?: string | undefined
}

t.test('a network that the engine takes its time to list is not taken for a deleted one', async t => {
  const a = await (await openCluster(t)).node('a')
  const creating = a.create('slow', { listedAfterMs: 150 }) // 3 s of the clock
  t.ok(await until(() => a.known().length === 1))
  await creating
  t.ok(await until(() => a.known()[0]?.name === 'slow'), 'introduced')
  t.equal(a.known()[0]?.state.kind, 'active')
})

t.test('docker network rm is not forgotten when the store fails at that moment', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const id = await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  a.faults.commit = true
  a.remove(id)
  await a.replicas.settled()
  t.ok(a.bindings.byDocker(id), 'still to be told')
  a.faults.commit = false
  t.ok(await until(() => b.names().length === 0), 'removed everywhere')
  t.ok(await until(() => a.known().length === 0))
  t.same(a.names(), [])
})

t.test('a network asked for by name whose maker died gets its name from who joined it', async t => {
  const cluster = await openCluster(t)
  const a = await cluster.node('a')
  await a.create('app', { wanted: 'app', listedAfterMs: 0 }).then(a.close) // before it looked at the engine
  const b = await cluster.node('b')
  t.equal(b.known()[0]?.name, undefined)
  await b.create('app', { wanted: 'app' })
  t.ok(await until(() => b.known()[0]?.name === 'app'))
  t.equal(b.known().length, 1)
})

t.test('one asked for by name that was never answered, and that nobody joined, goes', async t => {
  const a = await (await openCluster(t)).node('a')
  const never = a.create('app', { wanted: 'app', listedAfterMs: 3000 })
  t.ok(await until(() => a.known().length === 1))
  t.ok(await until(() => a.known().length === 0), 'gone')
  never.catch(() => {})
})

t.test('a network that the engine does not let go keeps no other waiting', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const stuck = await a.create('stuck')
  t.ok(await until(() => b.names().includes('stuck')))
  a.busy.add(stuck)
  await cluster.store.commit([], [{ kind: 'delete', key: keys.network(a.known()[0]!.id) }], { signal: limit() })
  t.ok(await until(() => b.names().length === 0))
  await b.create('later')
  t.ok(await until(() => a.names().includes('later')))
  t.same(a.names(), ['later', 'stuck'])
  a.busy.delete(stuck)
  t.ok(await until(() => a.names().length === 1))
})

for (const holder of ['a', 'b'] as const)
  t.test(`docker network rm where a container of ${holder} was never started: the network stays`, async t => {
    const cluster = await openCluster(t)
    const nodes = { a: await cluster.node('a'), b: await cluster.node('b') }
    const { a, b } = nodes
    const id = await a.create('app')
    t.ok(await until(() => b.names().includes('app')))
    await b.replicas.settled()
    nodes[holder].stopped.set('c', { name: 'app', id: '' })
    a.remove(id)
    await a.replicas.settled()
    t.ok(await until(() => a.names().includes('app') && a.known()[0]?.state.kind === 'active'))
    for (const node of [a, b, a]) await node.replicas.settled()
    t.same([a.names(), b.names(), a.known().map(({ name }) => name)], [['app'], ['app'], ['app']])
  })

t.test('nor does a replica go under such a container when the network has gone', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  b.stopped.set('c', { name: 'app', id: '' })
  await cluster.store.commit([], [{ kind: 'delete', key: keys.network(a.known()[0]!.id) }], { signal: limit() })
  t.ok(await until(() => a.names().length === 0))
  await b.replicas.settled()
  t.same(b.names(), ['app'])
  b.stopped.clear()
  t.ok(await until(() => b.names().length === 0))
})

for (const [what, wish] of [
  ['subnet', { subnet: '10.230.0.0/24' }],
  ['weft.network', { wanted: 'app' }],
  ['name', {}],
] as const)
  t.test(`docker network rm, and at once a network of the same ${what}`, async t => {
    const cluster = await openCluster(t)
    const [a, b] = [await cluster.node('a'), await cluster.node('b')]
    for (const pauseMs of [0, 5, 15, 30, 60]) {
      const id = await a.create('app', wish)
      t.ok(await until(() => b.names().includes('app')))
      const [before] = a.known()
      a.remove(id)
      await new Promise(resolve => setTimeout(resolve, pauseMs))
      const again = await a.create('app', wish)
      t.ok(await until(() => a.known().length === 1 && a.known()[0]?.name === 'app'), `named, ${pauseMs} ms later`)
      t.not(a.known()[0]?.id, before?.id, 'a new one')
      t.ok(await until(() => b.names().join() === 'app'))
      t.same(a.names(), ['app'])
      a.remove(again)
      t.ok(await until(() => a.known().length === 0 && b.names().length === 0))
    }
  })

t.test('a new network does not give way to one of its name that is going', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const id = await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  b.faults.keep = true
  a.remove(id)
  t.ok(await until(() => a.known()[0]?.state.kind === 'removing'))
  const again = await a.create('app')
  await a.replicas.settled()
  t.ok(a.bindings.byDocker(again), 'it waits for its name')
  b.faults.keep = false
  b.replicas.poke()
  t.ok(await until(() => a.known().length === 1 && a.known()[0]?.name === 'app'))
  t.ok(a.bindings.byDocker(again))
  t.ok(await until(() => b.names().join() === 'app'))
})

t.test('docker network rm that another host refuses, and at once the same name: joined', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const id = await a.create('app', { wanted: 'app' })
  t.ok(await until(() => b.names().includes('app')))
  const [before] = a.known()
  b.stopped.set('c', { name: 'app', id: '' })
  a.remove(id)
  await a.create('app', { wanted: 'app' })
  t.ok(await until(() => a.known()[0]?.state.kind === 'active'))
  t.same(
    a.known().map(record => record.id),
    [before?.id],
  )
})

t.test('a removal that does not end in time is named', async t => {
  const cluster = await openCluster(t)
  const a = await cluster.node('a')
  await a.create('app', { subnet: '10.230.0.0/24' })
  t.ok(await until(() => a.known()[0]?.name === 'app'))
  const [record] = a.known()
  await a.replicas.close()
  const state = { kind: 'removing', since: new Date().toISOString(), by: 'b', acks: [] } as const
  const value = encode('network', { ...record!, state })
  await cluster.store.commit([], [{ kind: 'put', key: keys.network(record!.id), value }], { signal: limit() })
  t.ok(await until(() => a.known()[0]?.state.kind === 'removing'))
  const late = AbortSignal.timeout(100)
  await t.rejects(a.pools.request({ family: 4, prefix: '10.230.0.0/25' }, late), {
    code: 'CONFLICT',
    message: /network "app" is being removed/,
  })
})

t.test('a network that the cluster lost is a problem while containers use it, and goes with them', async t => {
  const cluster = await openCluster(t)
  const a = await cluster.node('a')
  const id = await a.create('app')
  t.ok(await until(() => a.known()[0]?.name === 'app'))
  a.stopped.set('c', { name: 'app', id })
  const network = a.known()[0]!.id
  const gone = [keys.network(network), keys.networkName('app')].map(key => ({ kind: 'delete', key }) as const)
  await cluster.store.commit([], gone, { signal: limit() })
  t.ok(await until(() => a.known().length === 0))
  await a.replicas.settled()
  await a.replicas.settled()
  t.match([...a.replicas.problems], [[id, /cluster network is gone, but containers/]])
  a.stopped.clear()
  t.ok(await until(() => a.names().length === 0))
  t.ok(await until(() => a.replicas.problems.size === 0))
})

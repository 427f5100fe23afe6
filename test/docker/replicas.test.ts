// SPDX-License-Identifier: Apache-2.0
// Cluster networks and those of the engines, on two nodes of one store, with an engine of memory: what goes wrong
// between a command and the look at the engine.
import t, { type Test } from 'tap'
import { encode } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'
import { until } from '../until.ts'
import { limit, openCluster, pause } from './cluster.ts'

/** Two hosts, and a network that Docker's command made on the first. */
const withApp = async (t: Test) => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const id = await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  return { cluster, a, b, id }
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
  const { a, b, id } = await withApp(t)
  a.faults.commit = true
  await a.remove(id)
  await a.replicas.settled()
  t.ok(a.bindings.byDocker(id), 'still to be told')
  a.faults.commit = false
  t.ok(await until(() => b.names().length === 0), 'removed everywhere')
  t.ok(await until(() => a.known().length === 0))
  t.same(a.names(), [])
})

t.test('docker network rm is not forgotten when weftd ends at that moment', async t => {
  const { cluster, a, b, id } = await withApp(t)
  a.faults.commit = true
  await a.remove(id)
  await a.close()
  await cluster.node('a')
  t.ok(await until(() => b.names().length === 0), 'removed everywhere')
  t.ok(await until(() => b.known().length === 0))
})

t.test('docker network rm whose call died with weftd: the engine tells', async t => {
  const { a, b, id } = await withApp(t)
  await a.remove(id, false)
  await a.replicas.settled()
  t.ok(await until(() => b.names().length === 0 && b.known().length === 0), 'removed everywhere')
})

t.test('what the engine told is kept, should it forget', async t => {
  const { cluster, a, b, id } = await withApp(t)
  a.faults.commit = true
  await a.remove(id, false)
  await a.replicas.settled()
  await a.close()
  await cluster.node('a') // its engine is as one that was started again
  t.ok(await until(() => b.names().length === 0 && b.known().length === 0), 'removed everywhere')
})

t.test('a removal of our own that weftd did not live to end is nobody’s wish', async t => {
  const { a, b } = await withApp(t)
  const { network, docker } = [...b.bindings.all()][0]!
  await b.bindings.mark(docker, 'weft')
  await b.remove(docker, false)
  b.replicas.poke()
  t.ok(await until(() => ![undefined, docker].includes(b.bindings.byNetwork(network)?.docker)), 'made anew')
  t.match(a.known(), [{ id: network, state: { kind: 'active' } }])
})

t.test('what an engine loses is nobody’s wish: it is made anew, and stays everywhere', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  const made = await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  const { id } = a.known()[0]!
  for (const [host, lost] of [
    [b, b.bindings.byNetwork(id)!.docker],
    [a, made],
  ] as const) {
    host.lose(lost)
    await host.replicas.settled()
    t.ok(await until(() => host.bindings.byDocker(lost) === undefined))
    t.ok(await until(() => host.names().includes('app')), 'made anew')
    t.match(a.known(), [{ id, state: { kind: 'active' } }])
  }
  t.not(b.bindings.byNetwork(id), undefined)
  // an engine that takes back what it could not finish says DeleteNetwork too
  b.lose(b.bindings.byNetwork(id)!.docker)
  b.faults.slowMs = 100
  await b.replicas.settled()
  t.ok(await until(() => b.replicas.inFlight === id && b.bindings.byNetwork(id) !== undefined))
  const half = b.bindings.byNetwork(id)!.docker
  await b.replicas.deleted(half)
  t.equal(b.bindings.byDocker(half)?.removal, undefined)
})

t.test('a host whose engine hangs keeps what its containers use', async t => {
  const { a, b, id } = await withApp(t)
  await b.start('app', 'c1')
  b.faults.hangs = true
  b.replicas.poke()
  await a.remove(id)
  const vetoed = (): boolean => {
    const state = a.known()[0]?.state
    return state?.kind === 'active' && state.veto !== undefined
  }
  t.ok(await until(vetoed))
  t.ok(await until(() => a.names().includes('app')), 'made anew')
  b.faults.hangs = false
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
    await a.remove(id)
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
      await a.remove(id)
      await new Promise(resolve => setTimeout(resolve, pauseMs))
      const again = await a.create('app', wish)
      t.ok(await until(() => a.known().length === 1 && a.known()[0]?.name === 'app'), `named, ${pauseMs} ms later`)
      t.not(a.known()[0]?.id, before?.id, 'a new one')
      t.ok(await until(() => b.names().join() === 'app'))
      t.same(a.names(), ['app'])
      await a.remove(again)
      t.ok(await until(() => a.known().length === 0 && b.names().length === 0))
    }
  })

t.test('a new network does not give way to one of its name that is going', async t => {
  const { a, b, id } = await withApp(t)
  b.faults.keep = true
  await a.remove(id)
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
  await a.remove(id)
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

t.test('a replica that is asked for while its network goes is refused at once: the end may wait for us', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  const [record] = b.known()
  await Promise.all([a.replicas.close(), b.replicas.close()])
  const state = { kind: 'removing', since: new Date().toISOString(), by: 'a', acks: ['a'] } as const
  const value = encode('network', { ...record!, state })
  await cluster.store.commit([], [{ kind: 'put', key: keys.network(record!.id), value }], { signal: limit() })
  const request = b.requestOf([record!.pools[0]!.prefix], {}, false)
  await t.rejects(b.networks.create({ docker: 'new', ...request, replicaOf: record!.id }, limit()), {
    code: 'CONFLICT',
    message: /network "app" is being removed: no replica/,
  })
  const late = AbortSignal.timeout(100)
  await t.rejects(
    b.networks.create({ docker: 'new', ...request }, late),
    { message: /repeat the command/ },
    "a user's waits",
  )
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

t.test('a subnet that a replica is being made with: asked for once, who else asks for it is a user', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  b.faults.slowMs = 100
  await a.create('app', { subnet: '10.9.0.0/24' })
  t.ok(await until(() => b.replicas.inFlight !== undefined && b.known()[0]?.pools.length === 1 && b.poolsOf.size > 0))
  await t.rejects(b.create('other', { subnet: '10.9.0.0/24' }), { code: 'TAKEN', message: /weft\.network=app/ })
  t.ok(await until(() => b.names().join() === 'app'))
})

t.test('a removal that is refused names host and containers, to who asked and in the record', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  for (let i = 0; i < 7; i++) b.stopped.set(`stopped${i}`, { name: 'app', id: '' })
  const message = /"app" stays: host b has containers on it, running or stopped: stopped0, .*, stopped4 and 2 more$/
  await t.rejects(a.replicas.remove(a.known()[0]!.id, false, limit()), { code: 'IN_USE', message })
  const { state } = a.known()[0]!
  t.match(state, { kind: 'active', veto: { node: 'b', why: /^host b has containers/ } })
})

t.test('a removal that waits for an engine says for whose', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  b.faults.keep = true
  await t.rejects(a.replicas.remove(a.known()[0]!.id, false, AbortSignal.timeout(300)), {
    code: 'TIMEOUT',
    message: /^network "app" is being removed, and b has not agreed yet: it goes by itself/,
  })
  b.faults.keep = false
})

t.test('what a silent host has on a network keeps it, but not by force', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.names().includes('app')))
  await b.start('app', 'held')
  const { id } = a.known()[0]!
  const port = { cluster: { network: id, holders: ['held'] }, local: [] }
  await cluster.store.commit([], [{ kind: 'put', key: keys.port('tcp', 80), value: encode('portClaim', port) }], {
    signal: limit(),
  })
  await t.rejects(
    a.replicas.remove(id, true, limit()),
    { message: /host b has containers on it, .*: held/ },
    'it lives',
  )
  await b.close()
  await t.rejects(a.replicas.remove(id, false, limit()), {
    code: 'IN_USE',
    message: /has containers on b, which is silent \(--force takes them away\)/,
  })
  await a.replicas.remove(id, true, limit())
  t.same(a.known(), [])
  const left = async () => {
    const { entries } = await cluster.store.list('', { signal: limit() })
    return entries.filter(({ key }) => /^(ports|endpoints|addresses|macs|pools)\//.test(key))
  }
  for (let i = 0; i < 100 && (await left()).length > 0; i++) await new Promise(resolve => setTimeout(resolve, 20))
  t.same(await left(), [], 'nothing of it is left')
})

t.test('what is in the way of a network is no problem any more once the network is here by another name', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  b.faults.exists = true
  await a.create('app')
  t.ok(await until(() => b.replicas.problems.has('app')))
  await b.create('mine', { wanted: 'app' })
  t.ok(await until(() => b.replicas.problems.size === 0))
})

for (const told of [true, false])
  t.test(
    `a removal waits until the store knows that the containers are gone, ${told ? 'as weftd does' : 'of which weftd never heard'}`,
    async t => {
      const { a, b, id } = await withApp(t)
      await a.start('app', 'c1')
      const network = a.known()[0]!.id
      if (told) await a.departures.add(network, 'c1')
      a.busy.clear()
      a.stopped.clear()
      await a.remove(id)
      await a.replicas.settled()
      await pause(1000) // 20 s of the clock
      t.match(a.known(), [{ state: { kind: 'active' } }], 'not yet, and no veto')
      t.notOk(JSON.stringify(a.known()).includes('veto'))
      t.ok(a.departures.has('c1'), 'on its way')
      await a.endpoints.erase(network, 'c1', limit())
      t.ok(await until(() => b.names().length === 0 && b.known().length === 0), 'removed everywhere')
    },
  )

t.test('a removal of ours that the engine refused leaves no mark', async t => {
  const { a, b } = await withApp(t)
  const { docker } = [...b.bindings.all()][0]!
  b.faults.keep = true
  await a.remove(a.bindings.byNetwork(a.known()[0]!.id)!.docker)
  t.ok(await until(() => b.removals.includes('app')))
  t.ok(await until(() => b.bindings.byDocker(docker)?.removal === undefined), 'refused')
})

t.test('an engine that is late with a removal of ours does it for nobody else', async t => {
  const { a, b } = await withApp(t)
  const { network, docker } = [...b.bindings.all()][0]!
  await b.bindings.mark(docker, 'weft')
  await b.replicas.settled()
  await b.remove(docker, true)
  t.ok(await until(() => ![undefined, docker].includes(b.bindings.byNetwork(network)?.docker)), 'made anew')
  t.match(a.known(), [{ id: network, state: { kind: 'active' } }])
})

// SPDX-License-Identifier: Apache-2.0
// Hosts make a network of one name at the same moment and start containers on it at once, as docker-compose on each does:
// whoever is later is joined to the first under his feet, and nobody has to repeat anything.
import t, { type Test } from 'tap'
import { openSweeper } from '../../src/control/sweeper.ts'
import { contains, parseAddress, parsePrefix } from '../../src/model/address.ts'
import { encode } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'
import { manualClock } from '../store/clock.ts'
import { until } from '../until.ts'
import { type Host, limit, openCluster, pause } from './cluster.ts'

/** Made on both, and named on both sides of the race: the first of the answer has the name, the second is joined. */
const race = async (t: Test, hosts: readonly [Host, Host], ...wishes: Parameters<Host['create']>[1][]) => {
  const [a, b] = await Promise.all(hosts.map((host, i) => host.create('app', wishes[i] ?? wishes[0])))
  const one = () => hosts.every(({ known }) => known().length === 1 && known()[0]?.name === 'app')
  t.ok(await until(one), 'one network')
  const ids: readonly [string, string] = [a!, b!]
  const first = hosts[0].known()[0]!.origin.node === hosts[0].context.node ? 0 : 1
  const [winner, loser] = [hosts[first]!, hosts[1 - first]!]
  await until(() => loser.bindings.byNetwork(winner.known()[0]!.id) !== undefined)
  return { winner, loser, winning: ids[first]!, joined: ids[1 - first]!, record: winner.known()[0]! }
}

/** Each address in a subnet of the network, with its length; none twice. */
const isIn = (given: readonly string[], prefixes: readonly string[]): boolean =>
  new Set(given).size === given.length &&
  given.every(text => {
    const [address, length] = text.split('/') as [string, string]
    return prefixes.some(
      prefix => prefix.endsWith(`/${length}`) && contains(parsePrefix(prefix), parseAddress(address)),
    )
  })

t.test('at any distance in time: one network, every container starts, and down again', async t => {
  const cluster = await openCluster(t)
  const hosts = [await cluster.node('a'), await cluster.node('b'), await cluster.node('c')]
  let state = 7
  /** Seeded: the same distances in every run. */
  const random = (below: number): number => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * below)
  }
  let both = 0
  for (let round = 0; round < 24; round++) {
    const ipv6 = round % 3 === 2
    const pauses = hosts.map(() => [random(2) * random(90), random(30), random(30)] as const) // 20 ms: a second of weftd's
    const at = JSON.stringify(pauses)
    const up = async (host: Host, i: number): Promise<readonly string[]> => {
      const [before, listedAfterMs, between] = pauses[i]!
      await pause(before)
      if (!host.names().includes('app')) await host.create('app', { ipv6, listedAfterMs })
      await pause(between)
      return host.start('app', `c${i}`)
    }
    const given = await Promise.all(hosts.map(up))
    for (const { known, names } of hosts) {
      t.same(
        known().map(({ name }) => name),
        ['app'],
        at,
      )
      t.same(names(), ['app'])
    }
    const [network] = hosts[0]!.known()
    t.equal(given.flat().length, ipv6 ? 6 : 3)
    t.ok(
      isIn(
        given.flat(),
        network!.pools.map(pool => pool.prefix),
      ),
      `${given} in ${JSON.stringify(network?.pools)}`,
    )
    if ([...hosts[0]!.claims().values()].some(claim => claim.joined !== undefined)) both++
    for (const [i, host] of hosts.entries()) {
      await host.end(`c${i}`)
      const [binding] = host.bindings.all()
      await host.remove(binding!.docker)
    }
    t.ok(await until(() => hosts.every(({ known, names }) => known().length === 0 && names().length === 0)))
    t.ok(await until(() => hosts.every(({ claims }) => claims().size === 0)), 'no pool is held')
  }
  t.ok(both > 5, `${both} of 24 times joined`)
})

t.test('what is joined works as a replica, and becomes one when nobody has used it for a while', async t => {
  const cluster = await openCluster(t)
  const { winner, loser, joined, record } = await race(t, [await cluster.node('a'), await cluster.node('b')])
  const [pool] = loser.poolsOf.get(joined)!
  t.strictSame(loser.claims().get(pool!), {
    ...{ network: record.id, node: loser.context.node, settled: true },
    joined,
  })
  t.equal(await cluster.store.get(keys.pool(pool!)).then(entry => entry !== undefined), true, 'nobody else gets it')
  const vnis = await cluster.store.list('vnis/')
  t.equal(vnis.entries.length, 1, 'its VNI is free')
  await loser.start('app', 'c')
  await loser.replicas.settled()
  await pause(3200) // over a minute of weftd's
  await loser.replicas.settled()
  t.ok(loser.bindings.byDocker(joined), 'used')
  await loser.end('c')
  const replaced = () => loser.names().join() === 'app' && !loser.bindings.byDocker(joined)
  await loser.replicas.settled()
  t.ok(await until(replaced))
  const now = loser.bindings.byNetwork(record.id)!.docker
  t.same(
    loser.poolsOf.get(now),
    record.pools.map(pool => pool.prefix),
  )
  t.notOk(loser.claims().has(pool!), 'given back')
  t.equal(winner.known().length, 1)
})

t.test('a container that is only created keeps a joined network', async t => {
  const cluster = await openCluster(t)
  const { loser, joined } = await race(t, [await cluster.node('a'), await cluster.node('b')])
  loser.stopped.set('created', { name: 'app', id: '' })
  await loser.replicas.settled()
  await pause(3200)
  await loser.replicas.settled()
  t.ok(loser.bindings.byDocker(joined))
})

t.test('docker network rm of a joined one: as of a replica', async t => {
  const cluster = await openCluster(t)
  const { winner, loser, joined, record } = await race(t, [await cluster.node('a'), await cluster.node('b')])
  await winner.start('app', 'c')
  await loser.remove(joined)
  const back = () => loser.bindings.byNetwork(record.id) !== undefined && loser.names().includes('app')
  t.ok(await until(() => loser.names().length === 0))
  t.ok(await until(back), 'vetoed: a replica is there')
  t.ok(await until(() => loser.claims().size === 1), 'with its own subnet only')
  await winner.end('c')
  await loser.remove(loser.bindings.byNetwork(record.id)!.docker)
  t.ok(await until(() => [winner, loser].every(({ names, known }) => names().length + known().length === 0)))
})

t.test('docker network rm of the first, when the second has just been made: the second stays', async t => {
  const cluster = await openCluster(t)
  const { winner, loser, winning, joined, record } = await race(t, [await cluster.node('a'), await cluster.node('b')])
  await winner.remove(winning)
  t.same(winner.names(), [])
  t.ok(await until(() => winner.names().join() === 'app'), 'vetoed, and a replica is there')
  t.ok(loser.bindings.byDocker(joined))
  await loser.start('app', 'c')
  await loser.end('c')
  await pause(600) // over ten seconds of weftd's
  await winner.remove(winner.bindings.byNetwork(record.id)!.docker)
  t.ok(await until(() => [winner, loser].every(({ names, known }) => names().length + known().length === 0)))
})

for (const [what, ...wishes] of [
  ['a subnet of its own', { subnet: '10.230.0.0/24' }, { subnet: '10.231.0.0/24' }],
  ['--internal', { internal: false }, { internal: true }],
  ['--ipv6', {}, { ipv6: true }],
  ['an option', {}, { options: { 'com.docker.network.driver.mtu': '1400' } }],
] as const)
  t.test(`${what} that the first has not: the later gives way to a replica`, async t => {
    const cluster = await openCluster(t)
    const { loser, joined, record } = await race(t, [await cluster.node('a'), await cluster.node('b')], ...wishes)
    t.ok(await until(() => loser.names().join() === 'app' && !loser.bindings.byDocker(joined)))
    t.same(
      loser.poolsOf.get(loser.bindings.byNetwork(record.id)!.docker),
      record.pools.map(pool => pool.prefix),
    )
    t.ok(await until(() => loser.claims().size === record.pools.length))
  })

t.test('weft.network as an option of the driver alone, as compose 2 has it: joined, now or later', async t => {
  const cluster = await openCluster(t)
  const hosts = [await cluster.node('a'), await cluster.node('b')]
  const shop = { options: { 'weft.network': 'shop' } }
  await Promise.all(hosts.map(host => host.create('own_app', shop)))
  const third = await cluster.node('c')
  const given = (await Promise.all(hosts.map((host, i) => host.start('own_app', `c${i}`)))).flat()
  const [network] = third.known()
  t.match(third.known(), [{ name: 'shop' }], 'one network')
  const prefixes = network!.pools.map(({ prefix }) => prefix)
  t.ok(isIn(given, prefixes), `${given} in ${prefixes}`)
  t.ok(await until(() => third.names().join() === 'shop'))
  const late = await cluster.node('d')
  await late.create('other_app', shop)
  t.ok(isIn([...given, ...(await late.start('other_app', 'c2'))], prefixes), 'the same, later')
  t.equal(late.known().length, 1)
})

t.test('what that network has not is said at once, and nothing is left', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('shop')
  t.ok(await until(() => b.known()[0]?.name === 'shop' && b.names().includes('shop')))
  const options = { 'weft.network': 'shop' }
  const says = (wish: object, message: RegExp) =>
    t.rejects(b.create('own', { options, ...wish }), { code: 'INVALID', message })
  await says({ internal: true }, /^network "shop" is not --internal: create it here the same way/)
  await says({ ipv6: true }, /^network "shop" has no IPv6: /)
  await says(
    { options: { ...options, 'com.docker.network.driver.mtu': '1400' } },
    /^network "shop" was made with other options/,
  )
  await says({ subnet: '10.230.0.0/24' }, /with --subnet needs --ipam-opt weft\.network=shop beside it/)
  t.equal(b.known().length, 1)
})

t.test('weftd ends between store and disk: bound at the next look, and the container that waits starts', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.known()[0]?.name === 'app'))
  b.faults.rebind = true
  const docker = await b.create('app')
  t.ok(await until(() => [...b.claims().values()].some(claim => claim.joined === docker)))
  const starting = b.start('app', 'c')
  await b.replicas.settled()
  t.not(b.bindings.byDocker(docker)?.network, a.known()[0]?.id)
  b.faults.rebind = false
  b.replicas.poke()
  t.ok(
    isIn(
      await starting,
      a.known()[0]!.pools.map(({ prefix }) => prefix),
    ),
  )
  t.equal(b.bindings.byDocker(docker)?.network, a.known()[0]?.id)
  t.same(b.names(), ['app'])
})

t.test('a join that fails is tried again, in its time', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  t.ok(await until(() => b.known()[0]?.name === 'app'))
  const creating = b.create('app', { listedAfterMs: 200 })
  t.ok(await until(() => b.known().length === 2))
  b.faults.commit = true
  await creating
  b.replicas.poke()
  const before = b.looks()
  await pause(500)
  t.ok(b.looks() - before < 40, `${b.looks() - before} looks in ten seconds of weftd's`)
  b.faults.commit = false
  t.ok(await until(() => b.known().length === 1 && b.bindings.byNetwork(b.known()[0]!.id) !== undefined))
})

t.test('Docker repeats CreateNetwork: what is joined stays so', async t => {
  const cluster = await openCluster(t)
  const { loser, joined, record } = await race(t, [await cluster.node('a'), await cluster.node('b')])
  const request = loser.requestOf(loser.poolsOf.get(joined)!, {}, false)
  t.equal((await loser.networks.create({ docker: joined, ...request }, limit())).id, record.id)
  t.equal(loser.known().length, 1)
})

t.test('a replica that is being made when a user makes the network: one on the engine', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  await a.create('app')
  b.faults.slowMs = 100
  t.ok(await until(() => b.replicas.inFlight !== undefined))
  await pause(20)
  const docker = await b.create('app')
  t.ok(await until(() => b.bindings.byDocker(docker)?.network === a.known()[0]?.id), 'joined')
  t.same(b.names(), ['app'])
  await b.replicas.settled()
  t.same(b.names(), ['app'])
})

t.test('a replica that is made a while after the command of a user is not in its way, and stays', async t => {
  const cluster = await openCluster(t)
  const [a, b] = [await cluster.node('a'), await cluster.node('b')]
  for (const name of ['one', 'two', 'three']) {
    await b.create(`own-${name}`)
    await pause(60) // over a second of weftd's, under five
    await a.create(name)
    t.ok(await until(() => b.names().includes(name)))
    await b.replicas.settled()
    t.same(b.removals, [])
  }
})

t.test('a pool of a joined network that the engine has no more is freed, of a dead host with the network', async t => {
  const cluster = await openCluster(t)
  const a = await cluster.node('a')
  await a.create('app')
  t.ok(await until(() => a.known()[0]?.name === 'app'))
  const network = a.known()[0]!.id
  const facts = { number: 2, instance: 'i', boot: 'b', vtep: '192.0.2.2', mtu: 1500, routes: [], version: '0' }
  const fenced = encode('node', { name: 'dead', ...facts, fenced: new Date().toISOString() })
  const claim = (node: string) => encode('poolClaim', { network, node, settled: true, joined: 'gone' })
  const put = (key: string, value: string) => cluster.store.commit([], [{ kind: 'put', key, value }])
  await put(keys.node('dead'), fenced)
  await put(keys.pool('10.241.0.0/24'), claim('a'))
  await put(keys.pool('10.242.0.0/24'), claim('dead'))
  t.ok(await until(() => a.claims().size === 3))
  const clock = manualClock()
  const sweeper = openSweeper({ ...a.context, clock }, a.pools, a.bindings)
  t.teardown(() => sweeper.close())
  const pass = async (ms: number): Promise<void> => {
    for (const end = clock.now() + ms; clock.now() < end; await pause(5)) clock.advance(1000)
  }
  await pass(50_000)
  t.equal(a.claims().size, 3, 'a moment')
  await pass(40_000)
  t.same([...a.claims().keys()].sort(), [a.known()[0]!.pools[0]!.prefix, '10.242.0.0/24'].sort())
  await a.networks.remove(network, limit())
  await pass(40_000)
  t.ok(await until(() => a.claims().size === 0))
})

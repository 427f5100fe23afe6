// SPDX-License-Identifier: Apache-2.0
// Networks over a store on disk: what they are refused for, and what their end leaves.
import t from 'tap'
import { parseOptions } from '../../src/control/options.ts'
import { ipamDriver } from '../../src/docker/ipam-driver.ts'
import { keys } from '../../src/store/keys.ts'
import { limit, openHost } from './host.ts'

const request = (prefix: string) => ({
  ...{ docker: 'd', pools: [{ prefix, gateway: '10.230.0.1' }], options: {} },
  ...{ internal: false, ipv6: false },
})

t.test('an underlay without room for IPv6 inside is named, wherever it is', async t => {
  const { mirror, pools, networks, underlay } = await openHost(t)
  const { prefix } = await pools.request({ family: 4, prefix: '10.230.0.0/24' }, limit())
  const create = () => networks.create(request(prefix), limit())
  await mirror.reached(await underlay('b', 1329), limit())
  await t.rejects(create(), {
    code: 'NOT_SUPPORTED',
    message:
      /^the underlay device of node b has an MTU of 1329, and a network needs 1330 on every host: raise it there/,
  })
  await mirror.reached(await underlay('b', 1330), limit())
  t.equal((await create()).mtu, 1280)
})

t.test('a network that goes before it got its name leaves no claim of the name it wanted', async t => {
  const { mirror, store, pools, networks } = await openHost(t)
  for (const named of [false, true]) {
    const { prefix } = await pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
    const { id } = await networks.create(request(prefix), limit())
    if (named) await networks.introduce(id, { name: 'app', labels: {}, attachable: false }, limit())
    t.equal(mirror.snapshot.names.get('app')?.record.network, id)
    await networks.remove(id, limit())
    t.equal(await store.get(keys.networkName('app'), { signal: limit() }), undefined, named ? 'named' : 'nameless')
  }
})

t.test('of weft.network, both options take the same names', async t => {
  const asked: (string | undefined)[] = []
  const handlers = ipamDriver({
    ...{ pools: { request: async ({ wanted }: { wanted?: string }) => ({ prefix: String(asked.push(wanted)) }) } },
    ...{ addresses: {}, makeWay: async () => undefined, forsake: async () => {} },
  } as never)
  const pool = (name: string) =>
    handlers['IpamDriver.RequestPool']!(
      JSON.stringify({ AddressSpace: 'weft', Pool: '', SubPool: '', Options: { 'weft.network': name }, V6: false }),
      limit(),
    )
  const option = async (name: string) => parseOptions({ 'weft.network': name }).network
  for (const name of ['', '  ', ' app', 'a/b', '-a', 'host', 'none', 'bridge', 'default', 'x'.repeat(129)]) {
    const message = name.length < 9 && /^[a-z]+$/.test(name) ? /is a network of Docker's own/ : /is not a network name/
    await t.rejects(pool(name), { code: 'INVALID', message }, `ipam ${JSON.stringify(name)}`)
    await t.rejects(option(name), { code: 'INVALID', message }, JSON.stringify(name))
  }
  t.same(asked, [])
  for (const name of ['app', 'host2', 'A.b_c-d', 'x'.repeat(128)]) {
    await pool(name)
    t.equal(asked.pop(), name)
    t.equal(await option(name), name)
  }
})

t.test('one --subnet asked for twice at the same moment: the first has it, and keeps it', async t => {
  const { mirror, pools, networks, bindings } = await openHost(t)
  const ask = () => pools.request({ family: 4, prefix: '10.230.0.0/24' }, limit())
  const create = (docker: string, options = {}) =>
    networks.create({ ...request('10.230.0.0/24'), docker, options }, limit())
  await Promise.all([ask(), ask()])
  const first = create('p')
  await t.rejects(create('q'), {
    code: 'TAKEN',
    message: 'subnet 10.230.0.0/24 is that of network "p", which was made at the same moment: choose another --subnet',
  })
  const { id } = await first
  t.same(await create('p'), await first, 'Docker repeats its calls')
  // what Docker does then
  await pools.release('10.230.0.0/24', limit())
  await networks.forsake('10.230.0.0/24', limit())
  t.ok(mirror.snapshot.networks.has(id), 'the first stays')
  await networks.introduce(id, { name: 'app', labels: {}, attachable: false }, limit())
  await t.rejects(create('q'), {
    message: /to join it|add --opt weft\.network=app --ipam-opt weft\.network=app to join/,
  })
  t.equal(bindings.byDocker('q'), undefined)
  t.equal((await create('r', { 'weft.network': 'app' })).id, id, 'who says so joins')
  await pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
  t.equal((await create('s')).id, id, 'by the IPAM option alone too')
})

t.test('joined by name with what the network has not: refused, and told what to leave out', async t => {
  const { mirror, pools, networks } = await openHost(t)
  const ask = () => pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
  await ask()
  const pool = { prefix: '10.230.0.0/24', gateway: '10.230.0.1', aux: { router: '10.230.0.200' } }
  const own = { 'weft.vni': '7000000', 'weft.publish': 'local' }
  const { id } = await networks.create({ ...request(pool.prefix), pools: [pool], options: own }, limit())
  await networks.introduce(id, { name: 'app', labels: {}, attachable: false }, limit())
  const join = async (options: Record<string, string>, aux: Record<string, string> = {}) => {
    await ask()
    const more = { docker: 'e', pools: [{ ...pool, aux }], options: { 'weft.network': 'app', ...options } }
    return networks.create({ ...request(pool.prefix), ...more }, limit())
  }
  const mtu = 'com.docker.network.driver.mtu'
  for (const [name, value, has] of [
    [mtu, '1300', '1450'],
    ['weft.publish', 'cluster', 'local'],
    ['weft.vni', '7000001', '7000000'],
  ] as const)
    await t.rejects(join({ [name]: value }), {
      code: 'INVALID',
      message: `network "app" has ${name}=${has}, not ${value}: leave that option out to join it`,
    })
  await t.rejects(join({}, { printer: '10.230.0.201' }), {
    code: 'INVALID',
    message: /"app" does not keep 10\.230\.0\.201 .*: leave --aux-address printer=10\.230\.0\.201 out/,
  })
  for (const options of [{}, own, { ...own, [mtu]: '1450', 'weft.policy': 'allow' }])
    t.equal((await join(options, pool.aux)).id, id)
  t.ok(mirror.snapshot.networks.has(id))
})

t.test('two ask for one subnet at the same moment, and the second fails for another reason', async t => {
  for (const late of [false, true]) {
    const { mirror, pools, networks, bindings } = await openHost(t)
    const pool = { prefix: '10.230.0.0/24', gateway: '10.230.0.1' }
    const request = { docker: 'p', pools: [pool], options: {}, internal: false, ipv6: false }
    const ask = () => pools.request({ family: 4, prefix: '10.230.0.0/24' }, limit())
    const giveBack = async () => {
      if (await pools.release('10.230.0.0/24', limit())) await networks.forsake('10.230.0.0/24', limit())
    }
    await Promise.all([ask(), ask()])
    if (!late) await giveBack()
    const { id } = await networks.create(request, limit())
    await t.rejects(networks.create({ ...request, docker: 'q', options: { 'weft.foo': '1' } }, limit()))
    if (late) await giveBack()
    t.ok(bindings.byDocker('p'))
    t.ok(mirror.snapshot.networks.has(id), 'what Docker was told is made stays')
    t.ok(await pools.holder('10.230.0.0/24', limit()))
    await giveBack()
    t.notOk(mirror.snapshot.networks.has(id), 'its own: Docker did not hear the answer')
  }
  const { pools } = await openHost(t)
  const ask = (range?: string) =>
    pools.request({ family: 4, prefix: '10.230.0.0/24', ...(range === undefined ? {} : { range }) }, limit())
  await Promise.all([ask(), ask()])
  await t.rejects(ask('10.230.0.128/25'), { code: 'TAKEN' }, 'another --ip-range is another network')
  await pools.release('10.230.0.0/24', limit())
  await pools.release('10.230.0.0/24', limit())
  await t.rejects(pools.holder('10.230.0.0/24', limit()), { code: 'NOT_FOUND' }, 'both have given it back')
  await Promise.all([ask(), ask()])
  await pools.abandon('10.230.0.0/24', limit())
  await t.rejects(pools.holder('10.230.0.0/24', limit()), { code: 'NOT_FOUND' }, 'nobody came for a minute')
})

t.test('who joins with an --ip-range that the network has not is told so', async t => {
  const { pools, networks } = await openHost(t)
  const request = {
    ...{ docker: 'd', pools: [{ prefix: '10.230.0.0/24', gateway: '10.230.0.1' }], options: { 'weft.network': 'app' } },
    ...{ internal: false, ipv6: false },
  }
  const wanted = { family: 4, prefix: '10.230.0.0/24', wanted: 'app' } as const
  await pools.request({ ...wanted, range: '10.230.0.0/25' }, limit())
  const { id } = await networks.create(request, limit())
  await networks.introduce(id, { name: 'app', labels: {}, attachable: false }, limit())
  await t.rejects(pools.request({ ...wanted, range: '10.230.0.128/25' }, limit()), {
    message: 'network "app" has --ip-range 10.230.0.0/25, not 10.230.0.128/25: leave --ip-range out to join it',
  })
  for (const range of [{}, { range: '10.230.0.0/25' }])
    t.match(await pools.request({ ...wanted, ...range }, limit()), { network: id })
})

// SPDX-License-Identifier: Apache-2.0
// What a request for a pool is answered, over a store on disk.
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openPools } from '../../src/control/pools.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { limit, openHost as open } from './host.ts'

t.test('many networks of one name within two seconds are no clash, an engine that asks on and on is', async t => {
  const { pools, networks } = await open(t)
  const ask = () => pools.request({ family: 4, wanted: 'app' }, limit())
  const first = await ask()
  const create = (docker: string) =>
    networks.create({ docker, pools: [first], options: {}, internal: false, ipv6: false }, limit())
  for (let i = 0; i < 40; i++) {
    t.same(await ask(), first, 'one after the other')
    await create(`d${i}`)
  }
  for (let i = 0; i < 8; i++) t.same(await ask(), first, 'at the same moment')
  await t.rejects(ask(), { code: 'TAKEN', message: /clashes with a route or resolver of host a/ })
})

t.test('where a route of this host is in the way, the first repetition gets it named', async t => {
  const { pools, node, mirror } = await open(t)
  const ask = () => pools.request({ family: 4, wanted: 'app' }, limit())
  await ask()
  await mirror.reached(await node('10.224.1.0/24'), limit())
  await t.rejects(ask(), { code: 'TAKEN', message: /clashes with route 10\.224\.1\.0\/24 of host a: remove the route/ })
})

t.test('subnets that no container can have are refused with what they are', async t => {
  const { pools } = await open(t)
  const ask = (prefix: string) => pools.request({ family: prefix.includes(':') ? 6 : 4, prefix }, limit())
  for (const [prefix, what] of [
    ['0.0.0.0/8', 'this host'],
    ['0.0.0.0/0', 'this host'],
    ['127.5.0.0/24', 'loopback'],
    ['169.254.77.0/24', 'link-local'],
    ['224.0.0.0/4', 'multicast'],
    ['239.1.0.0/16', 'multicast'],
    ['250.0.0.0/24', 'reserved'],
    ['::1/120', 'loopback'],
    ['::ffff:10.1.0.0/112', 'IPv4-mapped'],
    ['fe80:1::/64', 'link-local'],
    ['ff05::/64', 'multicast'],
    ['fd69:7765:6674:5::/64', "weft's own"],
  ] as const)
    await t.rejects(ask(prefix), { code: 'INVALID', message: new RegExp(`\\(.*${what}.*\\).*: choose one inside`) })
  for (const prefix of [
    '1.0.0.0/24',
    '100.64.0.0/24',
    '169.253.0.0/16',
    '223.255.255.0/24',
    '2001:db8::/64',
    'fc00::/64',
  ])
    t.equal((await ask(prefix)).prefix, prefix)
})

t.test('subnets without room for a container', async t => {
  const { pools } = await open(t)
  const ask = (prefix: string) => pools.request({ family: prefix.includes(':') ? 6 : 4, prefix }, limit())
  for (const prefix of ['10.230.0.0/31', '10.230.0.0/32', 'fd05::/127', 'fd05::/128'])
    await t.rejects(
      ask(prefix),
      { code: 'INVALID', message: /has no room for containers: .* at most (30|126)$/ },
      prefix,
    )
  for (const prefix of ['10.230.0.0/30', 'fd05::/126']) t.equal((await ask(prefix)).prefix, prefix)
})

const signal = AbortSignal.timeout(10_000)
const nodeRecord = (name: string, routes: readonly string[], dockerPools?: readonly string[]): string =>
  encode('node', {
    ...{ name, number: 1, instance: 'i', boot: 'b', vtep: '192.0.2.1', mtu: 1500, routes, version: '0' },
    ...(dockerPools ? { dockerPools } : {}),
  })

/** Pools of a cluster with these records besides. */
const openWith = async (
  t: Test,
  pools: readonly string[],
  records: Readonly<Record<string, string>> = {},
  halves: readonly string[] = [],
) => {
  const store = await openEmbeddedStore({})
  const cluster = encode('cluster', {
    ...{ id: 'c', pools, underlayFamily: 4, vxlanPort: 4789, reservedPorts: [], created: '' },
  })
  const all = { [keys.cluster]: cluster, [keys.node('a')]: nodeRecord('a', []), ...records }
  await store.commit(
    [],
    Object.entries(all).map(([key, value]) => ({ kind: 'put', key, value })),
  )
  const mirror = openMirror(store, silentLog)
  await mirror.ready(signal)
  t.teardown(() => mirror.close())
  return openPools({ store, mirror, node: 'a', boot: 'b', clock: systemClock, log: silentLog }, () => halves)
}

t.test('a claim that cannot be read stops nobody, but holds its prefix', async t => {
  const claim = encode('poolClaim', { network: 'n', node: 'a', settled: true })
  const pools = await openWith(t, ['10.224.0.0/12'], {
    'pools/garbage': claim,
    [keys.pool('10.224.0.0/24')]: claim.replace('"v":1', '"v":2'),
    [keys.pool('10.224.1.0/24')]: 'garbage',
    [keys.node('b')]: nodeRecord('b', ['zzz']),
  })
  t.equal((await pools.request({ family: 4 }, signal)).prefix, '10.224.16.0/20')
  t.equal((await pools.request({ family: 4, prefix: '10.9.0.0/24' }, signal)).prefix, '10.9.0.0/24')
  await t.rejects(pools.request({ family: 4, prefix: '10.224.0.0/23' }, signal), {
    code: 'TAKEN',
    message: /overlaps 10.224.0.0\/24, which is held, but pools\/10.224.0.0_24 in the store cannot be read/,
  })
})

t.test("Docker's own default pools are left to Docker", async t => {
  const some = await openWith(t, ['172.16.0.0/12', 'fd00::/48'], {})
  for (let i = 0; i < 16; i++) t.match((await some.request({ family: 4 }, signal)).prefix, /^172\.16\./)
  const none = await openWith(t, ['172.17.0.0/16', '192.168.0.0/20', 'fd00::/48'], {})
  const message = /pools 172.17.0.0\/16, 192.168.0.0\/20, without Docker's own defaults: give --subnet/
  for (const pools of [some, none])
    await t.rejects(pools.request({ family: 4 }, signal), { code: 'FULL', message: /without Docker's own defaults/ })
  await t.rejects(none.request({ family: 4 }, signal), { message })
  t.equal(
    (await none.request({ family: 4, prefix: '192.168.3.0/24' }, signal)).prefix,
    '192.168.3.0/24',
    'if asked for',
  )
})

t.test('what an engine of the cluster is told to cut its own networks from comes last', async t => {
  const pools = await openWith(t, ['10.224.0.0/18', 'fd00::/48'], {
    [keys.node('b')]: nodeRecord('b', [], ['10.224.0.0/19', 'fd00::/49']),
  })
  const next = async (family: 4 | 6 = 4) => (await pools.request({ family }, signal)).prefix
  t.equal(await next(6), 'fd00:0:0:8000::/64')
  for (const prefix of ['10.224.32.0/20', '10.224.48.0/20', '10.224.0.0/20', '10.224.16.0/20'])
    t.equal(await next(), prefix)
  await t.rejects(next(), { code: 'FULL' })
})

t.test('a route that Docker takes no subnet beside: named when it asks again and again', async t => {
  const pools = await openWith(t, ['10.224.0.0/12', 'fd00::/48'], {}, ['0.0.0.0/1'])
  const ask = async (): Promise<string> => (await pools.request({ family: 4 }, signal)).prefix
  for (let i = 0; i < 12; i++) pools.accepted(await ask()) // an engine that does not mind it
  const given: string[] = []
  for (let i = 0; i < 8; i++) given.push(await ask())
  await t.rejects(ask(), { code: 'TAKEN', message: /^route 0.0.0.0\/1 of this host overlaps every .* give --subnet/ })
  for (const prefix of given) await pools.release(prefix, signal)
  t.equal((await pools.request({ family: 4, prefix: '10.239.0.0/24' }, signal)).prefix, '10.239.0.0/24')
  for (let i = 0; i < 12; i++) t.match((await pools.request({ family: 6 }, signal)).prefix, /^fd00:/)
  const beside = await openWith(t, ['10.224.0.0/12', '172.16.0.0/16'], {}, ['8.0.0.0/5'])
  t.equal((await beside.request({ family: 4 }, signal)).prefix, '172.16.0.0/20', 'where it is not')
})

t.test('no free subnet: because of networks, or of a route of a host', async t => {
  const full = await openWith(t, ['10.224.0.0/24', 'fd00::/48'], {
    [keys.node('b')]: nodeRecord('b', ['10.9.0.0/16']),
  })
  await full.request({ family: 4 }, signal)
  await t.rejects(full.request({ family: 4 }, signal), {
    code: 'FULL',
    message:
      "no free IPv4 subnet is left in the cluster's pools 10.224.0.0/24: give --subnet, or remove unused networks",
  })
  const four = await openWith(t, ['10.224.0.0/24'])
  await t.rejects(four.request({ family: 6 }, signal), {
    code: 'FULL',
    message: 'the cluster has no pool of IPv6 (--pools of its first node): give --subnet',
  })
  const covered = await openWith(t, ['10.224.0.0/12'], { [keys.node('b')]: nodeRecord('b', ['10.0.0.0/8']) })
  await t.rejects(covered.request({ family: 4 }, signal), {
    code: 'FULL',
    message: /, because of route 10.0.0.0\/8 of host b: remove that route, or give a --subnet outside/,
  })
})

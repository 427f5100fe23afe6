// SPDX-License-Identifier: Apache-2.0
// What an endpoint is refused for, in words.
import t from 'tap'
import { limit, openHost } from './host.ts'

const face = { name: 'app', labels: {}, attachable: false }

t.test('a MAC address that no interface takes', async t => {
  const { mirror, pools, networks, addresses, endpoints } = await openHost(t)
  const { prefix } = await pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
  const pool = { prefix, gateway: '10.230.0.1' }
  await networks.create({ docker: 'd', pools: [pool], options: {}, internal: false, ipv6: false }, limit())
  await networks.introduce(mirror.snapshot.names.get('app')!.record.network, face, limit())
  const given = (await addresses.request(prefix, undefined, false, limit())).replace(/\/.*/, '')
  const create = (mac: string) => endpoints.create({ docker: 'd', endpoint: 'e', addresses: [given], mac }, limit())
  for (const [mac, message] of [
    ['00:00:00:00:00:00', /00:00:00:00:00:00 is all zeros.*: choose another --mac-address/],
    ['01:00:5e:00:00:01', /is a multicast address: choose another --mac-address/],
    ['ff:ff:ff:ff:ff:ff', /is a multicast address/],
    ['02:7e:00:00:00:01', /weft's own range/],
  ] as const)
    await t.rejects(create(mac), { code: 'INVALID', message })
  t.equal((await create('00:00:00:00:00:01')).mac, '00:00:00:00:00:01')
})

t.test("a network of another driver with weft's IPAM", async t => {
  const { pools, addresses } = await openHost(t)
  const { prefix } = await pools.request({ family: 4 }, limit())
  await addresses.request(prefix, undefined, true, limit()) // the gateway
  const message = /belongs to no weft network on this host.*docker network create -d weft --ipam-driver weft/
  await t.rejects(addresses.request(prefix, undefined, false, limit()), { message })
  await pools.release(prefix, limit())
  await t.rejects(addresses.request(prefix, undefined, false, limit()), { message: /network create -d weft/ }, 'swept')
})

t.test('an auxiliary address that is the gateway', async t => {
  const { pools, networks } = await openHost(t)
  const { prefix } = await pools.request({ family: 4, prefix: '10.230.0.0/24' }, limit())
  const pool = { prefix, gateway: '10.230.0.1', aux: { router: '10.230.0.1' } }
  const create = networks.create({ docker: 'd', pools: [pool], options: {}, internal: false, ipv6: false }, limit())
  await t.rejects(create, { code: 'INVALID', message: /"router" 10\.230\.0\.1 is the gateway of its subnet: choose/ })
})

t.test('a network with a larger MTU than the underlay of this node has room for', async t => {
  const { mirror, pools, networks, addresses, endpoints, underlay } = await openHost(t)
  const { prefix } = await pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
  const pool = { prefix, gateway: '10.230.0.1' }
  await networks.create({ docker: 'd', pools: [pool], options: {}, internal: false, ipv6: false }, limit())
  await networks.introduce(mirror.snapshot.names.get('app')!.record.network, face, limit())
  const create = async (endpoint: string) => {
    const given = (await addresses.request(prefix, undefined, false, limit())).replace(/\/.*/, '')
    return endpoints.create({ docker: 'd', endpoint, addresses: [given] }, limit())
  }
  await create('before')
  for (const [mtu, remedy] of [
    [1499, /raise that device to 1500, or make .* -o com\.docker\.network\.driver\.mtu=1449$/],
    [1300, /raise that device to 1500$/],
  ] as const) {
    await mirror.reached(await underlay('a', mtu), limit())
    await t.rejects(create(`at${mtu}`), {
      code: 'NOT_SUPPORTED',
      message: new RegExp(`^network "app" has an MTU of 1450, .* node a with its ${mtu} has room for ${mtu - 50}`),
    })
    await t.rejects(create(`at${mtu}`), { message: remedy })
  }
  const { network } = mirror.snapshot.names.get('app')!.record
  t.same([...mirror.snapshot.endpoints(network).keys()], ['before'], 'what is there stays')
  await mirror.reached(await underlay('a', 1500), limit())
  await create('after')
})

t.test('as many ports as a container can have, and one more', async t => {
  const { mirror, pools, networks, addresses, endpoints, store } = await openHost(t)
  const prefixes = ['10.230.0.0/24', 'fd30::/64']
  for (const prefix of prefixes)
    await pools.request({ family: prefix.includes(':') ? 6 : 4, prefix, wanted: 'app' }, limit())
  const network = { docker: 'd', pools: prefixes.map(prefix => ({ prefix })), options: {}, internal: false, ipv6: true }
  const { id } = await networks.create(network, limit())
  await networks.introduce(id, face, limit())
  const given = ['10.230.0.9', 'fd30::9']
  for (const [i, prefix] of prefixes.entries()) await addresses.request(prefix, given[i], false, limit())
  await endpoints.create({ docker: 'd', endpoint: 'ftp', addresses: given }, limit())
  const publish = (count: number, first = 21_000) =>
    endpoints.publish(
      ...(['d', 'ftp'] as const),
      Array.from({ length: count }, (_, i) =>
        ['10.9.0.2', '127.0.0.1'].map(hostIp => {
          const hostPort = first === 0 ? 0 : first + i
          return { proto: 'tcp' as const, port: 21_000 + i, hostPort, end: hostPort, hostIp }
        }),
      ).flat(),
      ...([undefined, limit()] as const),
    )
  await t.rejects(publish(97), {
    code: 'INVALID',
    message: /^a container publishes at most 96 ports of the cluster, this one 97: give it fewer with -p, or spread/,
  })
  await t.rejects(publish(49, 0), { message: /this one 98/ }, 'any port, at two addresses')
  await publish(96)
  t.equal(mirror.snapshot.ports.size, 96)
  await endpoints.erase(id, 'ftp', limit())
  t.same((await store.list('ports/', { signal: limit() })).entries, [])
})

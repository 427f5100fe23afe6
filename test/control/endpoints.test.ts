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

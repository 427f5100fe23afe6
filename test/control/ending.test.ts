// SPDX-License-Identifier: Apache-2.0
// A network that goes leaves nothing in the store, whatever comes between.
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { finishRemovals } from '../../src/control/ending.ts'
import { encode } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'
import type { Store } from '../../src/store/store.ts'
import { limit, openHost } from './host.ts'

const request = {
  ...{ docker: 'd', pools: [{ prefix: '10.230.0.0/24', gateway: '10.230.0.1' }], options: { 'weft.network': 'app' } },
  ...{ internal: false, ipv6: false },
}

/** A network of a silent node's container with an address, a MAC and a port, and a virtual address. */
const open = async (t: Test, wrap: (store: Store) => Store) => {
  const host = await openHost(t, systemClock, wrap)
  const { pools, networks, put, store } = host
  await pools.request({ family: 4, prefix: '10.230.0.0/24', wanted: 'app' }, limit())
  const { id } = await networks.create(request, limit())
  await networks.introduce(id, { name: 'app', labels: {}, attachable: false }, limit())
  const facts = { number: 2, instance: 'j', boot: 'b', vtep: '192.0.2.2', mtu: 1500, routes: [], version: '0' }
  await put(keys.node('b'), encode('node', { name: 'b', ...facts }))
  const bound = { kind: 'bound', node: 'b', endpoint: 'e1' } as const
  await put(keys.address(id, '10.230.0.9'), encode('addressClaim', { ...bound, boot: 'b' }))
  await put(keys.mac(id, '02:77:0a:e6:00:09'), encode('macClaim', bound))
  await put(keys.port('tcp', 8080), encode('portClaim', { cluster: { network: id, holders: ['e1'] }, local: [] }))
  await put(keys.address(id, '10.230.0.250'), encode('addressClaim', { kind: 'vip', service: 'label web' }))
  await put(keys.vip(id, 'label web'), encode('vip', { addresses: ['10.230.0.250'] }))
  const endpoint = { id: 'e1', network: id, node: 'b', boot: 'b', addresses: ['10.230.0.9'], mac: '02:77:0a:e6:00:09' }
  const ports = [{ proto: 'tcp', port: 80, hostPort: 8080 } as const]
  await put(keys.endpoint(id, 'e1'), encode('endpoint', { ...endpoint, ports, gateway: true, identity: 0 }))
  await networks.update(id, now => ({ ...now, state }), limit())
  const left = async () => (await store.list('', { signal: limit() })).entries.map(({ key }) => key).sort()
  return { ...host, id, left }
}
const state = { kind: 'removing', since: '', by: 'a', acks: [], force: true } as const
const nothing = ['cluster', 'nodes/a', 'nodes/b', 'pools-epoch']

t.test('broken off by the store, in each of its steps, it is gone on with', async t => {
  for (const table of ['ports', 'addresses', 'macs', 'vips', 'endpoints', 'vnis']) {
    let isAway = false
    const { context, networks, id, left } = await open(t, store => ({
      ...store,
      async commit(compares, writes, options) {
        if (isAway && writes.some(({ key }) => key.startsWith(`${table}/`)))
          throw new WeftError('STORE_UNAVAILABLE', 'away')
        return store.commit(compares, writes, options)
      },
    }))
    t.same(await finishRemovals(context, limit()), [], 'one that is there')
    isAway = true
    await t.rejects(networks.remove(id, limit()), { code: 'STORE_UNAVAILABLE' }, table)
    isAway = false
    t.ok((await left()).length > nothing.length)
    t.same(await finishRemovals(context, limit()), [id])
    t.same(await left(), nothing)
    t.same(await finishRemovals(context, limit()), [])
  }
})

t.test('a port that somebody else takes or leaves at that moment', async t => {
  let meddle = async (): Promise<void> => {}
  const { networks, id, put, left } = await open(t, store => ({
    ...store,
    async get(key, options) {
      const entry = await store.get(key, options)
      if (key === 'ports/tcp/8080') await meddle()
      return entry
    },
  }))
  const local = [{ node: 'a', network: 'other', endpoint: 'e9' }]
  meddle = async () => {
    meddle = async () => {}
    await put('ports/tcp/8080', encode('portClaim', { cluster: { network: id, holders: ['e1'] }, local }))
  }
  await networks.remove(id, limit())
  t.same(await left(), [...nothing, 'ports/tcp/8080'])
})

const second = { ...request, docker: 'e', pools: [{ prefix: '10.231.0.0/24' }] }

t.test('who asks for its VNI is refused while it is there, and waits while it goes', async t => {
  const { pools, networks, id } = await open(t, store => store)
  const { vni } = networks.find(id).record
  await pools.request({ family: 4, prefix: '10.231.0.0/24' }, limit())
  const create = () => networks.create({ ...second, options: { 'weft.vni': String(vni) } }, limit())
  await networks.update(id, now => ({ ...now, state: { kind: 'active' } }), limit())
  await t.rejects(create(), { code: 'TAKEN', message: /belongs to another network of the cluster/ })
  await networks.update(id, now => ({ ...now, state }), limit())
  const waiting = create()
  await networks.remove(id, limit())
  t.equal((await waiting).vni, vni)
})

t.test('who asks for its VNI finishes a removal that was broken off', async t => {
  let isAway = true
  const { context, pools, networks, id, left } = await open(t, store => ({
    ...store,
    async commit(compares, writes, options) {
      if (isAway && writes.some(({ kind, key }) => kind === 'delete' && key.startsWith('addresses/')))
        throw new WeftError('STORE_UNAVAILABLE', 'away')
      return store.commit(compares, writes, options)
    },
  }))
  const { vni } = networks.find(id).record
  await pools.request({ family: 4, prefix: '10.231.0.0/24' }, limit())
  await t.rejects(networks.remove(id, limit()), { code: 'STORE_UNAVAILABLE' })
  isAway = false
  t.equal((await networks.create({ ...second, options: { 'weft.vni': String(vni) } }, limit())).vni, vni)
  t.same(await finishRemovals(context, limit()), [])
  t.notOk((await left()).some(key => key.includes(id)))
})

t.test('two that finish one removal: neither takes the VNI of the network made in between', async t => {
  let meddle = async (): Promise<void> => {}
  const { context, pools, networks, id, left } = await open(t, store => ({
    ...store,
    async commit(compares, writes, options) {
      if (writes.some(({ kind, key }) => kind === 'delete' && key.startsWith('vnis/'))) await meddle()
      return store.commit(compares, writes, options)
    },
  }))
  const { vni } = networks.find(id).record
  await pools.request({ family: 4, prefix: '10.231.0.0/24' }, limit())
  meddle = async () => {
    meddle = async () => {}
    await finishRemovals(context, limit())
    await networks.create({ ...second, options: { 'weft.vni': String(vni) } }, limit())
  }
  await networks.remove(id, limit())
  t.ok((await left()).includes(keys.vni(vni)))
})

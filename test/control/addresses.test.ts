// SPDX-License-Identifier: Apache-2.0
// Two hosts that take addresses of one pool, over one store.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { ConflictError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openPools } from '../../src/control/pools.ts'
import { openReserve } from '../../src/control/reserve.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'
import { manualClock } from '../store/clock.ts'
import { limit, openHost } from './host.ts'

const prefix = '10.9.0.0/24'
const noDepartures = { has: () => false } as never

t.test('hosts that ask in the same moment part ways, and share a pool to its last address', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-addresses-'))
  const store = await openEmbeddedStore({ dir })
  const put = (key: string, value: string) => store.commit([], [{ kind: 'put', key, value }])
  const pools = [{ prefix, gateway: '10.9.0.1' }]
  const flags = { mtu: 1450, options: {}, labels: {}, internal: false, attachable: false, ipv6: false } as const
  const origin = { by: 'docker', node: 'a' } as const
  await put(
    keys.network('n'),
    encode('network', { id: 'n', name: 'n', vni: 7, pools, ...flags, state: { kind: 'active' }, origin }),
  )
  await put(keys.pool(prefix), encode('poolClaim', { network: 'n', node: 'a', settled: true }))
  let conflicts = 0
  const counting: Store = {
    ...store,
    commit: (...call) =>
      store.commit(...call).catch(error => {
        if (error instanceof ConflictError) conflicts++
        throw error
      }),
  }
  const hosts = await Promise.all(
    ['a', 'b'].map(async node => {
      const mirror = openMirror(store, silentLog)
      t.teardown(() => mirror.close())
      await mirror.ready(limit())
      const context = { store: counting, mirror, node, boot: 'b', clock: systemClock, log: silentLog }
      const bindings = await openBindings(join(dir, `${node}.json`), 64, () => {})
      await bindings.bind('d', 'n')
      const reserve = await openReserve(join(dir, `${node}-reserve.json`), systemClock, mirror)
      return openAddresses(context, bindings, openPools(context), reserve, noDepartures)
    }),
  )
  const round = () => Promise.all(hosts.map(host => host.request(prefix, undefined, false, limit())))
  const given = new Set<string>()
  const take = async (rounds: number) => {
    for (let i = 0; i < rounds; i++) for (const address of await round()) given.add(address)
  }
  await take(40)
  t.equal(given.size, 80, 'none twice')
  t.ok(conflicts >= 1, 'they began at the same')
  t.ok(conflicts < 20, `${conflicts} conflicts in 40 rounds`)
  await take(86)
  t.equal(given.size, 252)
  const left = await hosts[0]!.request(prefix, undefined, false, limit())
  t.notOk(given.has(left), 'the last one')
  await t.rejects(hosts[1]!.request(prefix, undefined, false, limit()), { code: 'FULL' })
  await store.close()
  rmSync(dir, { recursive: true })
})

t.test('by the pool of a Docker network that was joined: the addresses of the network it was joined to', async t => {
  const { mirror, put, bindings, addresses } = await openHost(t)
  const pools = ['10.9.0.0/30', '10.9.1.0/30', 'fd09::/64'].map(prefix => ({
    prefix,
    gateway: prefix.replace(/0?\/.*/, '1'),
  }))
  const flags = { mtu: 1450, options: {}, labels: {}, internal: false, attachable: false, ipv6: true } as const
  const rest = { state: { kind: 'active' }, origin: { by: 'docker', node: 'b' } } as const
  await put(keys.network('n'), encode('network', { id: 'n', name: 'app', vni: 7, pools, ...flags, ...rest }))
  for (const { prefix } of pools)
    await put(keys.pool(prefix), encode('poolClaim', { network: 'n', node: 'b', settled: true }))
  for (const prefix of ['10.8.0.0/16', 'fd08::/64'])
    await put(keys.pool(prefix), encode('poolClaim', { network: 'n', node: 'a', settled: true, joined: 'd' }))
  const record = await put(keys.cluster, encode('cluster', mirror.snapshot.cluster!.record))
  await mirror.reached(record, limit())
  await bindings.bind('d', 'old') // as between the store and the disk
  const ask = (pool: string, address?: string) => addresses.request(pool, address, false, limit())
  const waiting = ask('10.8.0.0/16')
  await bindings.rebind('d', 'n')
  t.equal(await waiting, '10.9.0.2/30')
  t.equal(await ask('10.8.0.0/16'), '10.9.1.2/30', 'the next subnet where one is full')
  await t.rejects(ask('10.8.0.0/16'), { code: 'FULL' })
  t.equal(await ask('fd08::/64'), 'fd09::2/64')
  await t.rejects(ask('10.8.0.0/16', '10.8.0.9'), { message: /outside the network's subnet 10\.9\.0\.0\/30/ })
  t.equal(await ask('fd08::/64', 'fd09::9'), 'fd09::9/64')
  await addresses.release('10.8.0.0/16', '10.9.1.2', limit())
  t.equal(await ask('10.8.0.0/16', '10.9.1.2'), '10.9.1.2/30', 'given back where it came from')
})

t.test('a reservation that no container came for: free again on the host that gave it, too', async t => {
  const clock = manualClock()
  const { mirror, pools, networks, addresses, store } = await openHost(t, clock)
  await pools.request({ family: 4, prefix: '10.50.0.0/30', wanted: 'tiny' }, limit())
  const request = { docker: 'd', pools: [{ prefix: '10.50.0.0/30', gateway: '10.50.0.1' }], options: {} }
  await networks.create({ ...request, internal: false, ipv6: false }, limit())
  const { network } = mirror.snapshot.names.get('tiny')!.record
  await networks.introduce(network, { name: 'tiny', labels: {}, attachable: false }, limit())
  const ask = () => addresses.request('10.50.0.0/30', undefined, false, limit())
  t.equal(await ask(), '10.50.0.2/30')
  await t.rejects(ask(), { code: 'FULL' })
  clock.advance(61_000)
  const key = keys.address(network, '10.50.0.2')
  await mirror.reached(await store.commit([], [{ kind: 'delete', key }]), limit()) // as the sweeper does
  t.equal(await ask(), '10.50.0.2/30')
})

t.test(
  'an engine that died between an address and its endpoint: the next one may ask for that very address',
  async t => {
    const { mirror, pools, networks, addresses } = await openHost(t)
    await pools.request({ family: 4, prefix: '10.50.0.0/29', wanted: 'app' }, limit())
    const request = { docker: 'd', pools: [{ prefix: '10.50.0.0/29', gateway: '10.50.0.1' }], options: {} }
    await networks.create({ ...request, internal: false, ipv6: false }, limit())
    const { network } = mirror.snapshot.names.get('app')!.record
    await networks.introduce(network, { name: 'app', labels: {}, attachable: false }, limit())
    const ask = (address?: string) => addresses.request('10.50.0.0/29', address, false, limit())
    t.equal(await ask('10.50.0.4'), '10.50.0.4/29')
    await t.rejects(ask('10.50.0.4'), { code: 'TAKEN' }, 'two containers of one engine')
    addresses.disown()
    t.equal(await ask('10.50.0.4'), '10.50.0.4/29')
    t.ok(addresses.reservedAt(network, '10.50.0.4'), 'of the new one')
    await t.rejects(ask('10.50.0.4'), { code: 'TAKEN' })
  },
)

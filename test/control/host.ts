// SPDX-License-Identifier: Apache-2.0
// The verbs of one node, 'a', over a store on disk.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openDepartures } from '../../src/control/departures.ts'
import { openEndpoints } from '../../src/control/endpoints.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openPools } from '../../src/control/pools.ts'
import { openReserve } from '../../src/control/reserve.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'

export const limit = () => AbortSignal.timeout(20_000)

/** `wrap`: what stands between weftd and its store. */
export const openHost = async (t: Test, clock: Clock = systemClock, wrap: (store: Store) => Store = store => store) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-control-'))
  const store = wrap(await openEmbeddedStore({ dir }))
  const put = (key: string, value: string) => store.commit([], [{ kind: 'put', key, value }], { signal: limit() })
  const cluster = { id: 'c', pools: ['10.224.0.0/12', 'fd00::/48'], underlayFamily: 4, vxlanPort: 4789 } as const
  await put(keys.cluster, encode('cluster', { ...cluster, reservedPorts: [], created: '' }))
  const facts = { number: 1, instance: 'i', boot: 'b', vtep: '192.0.2.1', mtu: 1500, version: '0' }
  const node = (...routes: readonly string[]) => put(keys.node('a'), encode('node', { name: 'a', ...facts, routes }))
  const underlay = (name: string, mtu: number) =>
    put(keys.node(name), encode('node', { ...facts, name, mtu, routes: [] }))
  await node()
  const mirror = openMirror(store, silentLog)
  await mirror.ready(limit())
  t.teardown(async () => {
    await departures.close()
    await mirror.close()
    await store.close()
    rmSync(dir, { recursive: true })
  })
  const context = { store, mirror, node: 'a', boot: 'b', clock, log: silentLog }
  const bindings = await openBindings(join(dir, 'bindings.json'), 64, () => {})
  const pools = openPools(context)
  const reserve = await openReserve(join(dir, 'reserve.json'), systemClock, mirror)
  const departures = await openDepartures(join(dir, 'departures.json'), systemClock, silentLog, () => {})
  const addresses = openAddresses(context, bindings, pools, reserve, departures)
  const networks = openNetworks(context, bindings, pools)
  const endpoints = openEndpoints(context, bindings, addresses, departures, async () => undefined, reserve)
  return {
    context,
    mirror,
    put,
    bindings,
    pools,
    reserve,
    departures,
    addresses,
    networks,
    endpoints,
    node,
    underlay,
    store,
  }
}

// SPDX-License-Identifier: Apache-2.0
// Nodes of one store, each with an engine of memory that asks its weftd for pools and networks as Docker does.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { type Bindings, openBindings } from '../../src/control/bindings.ts'
import type { Context } from '../../src/control/context.ts'
import { openDepartures } from '../../src/control/departures.ts'
import { openEndpoints } from '../../src/control/endpoints.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openPools } from '../../src/control/pools.ts'
import { openReserve } from '../../src/control/reserve.ts'
import type { Engine, EngineNetwork, ListedContainer } from '../../src/docker/engine.ts'
import { openReplicas } from '../../src/docker/replicas.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'
import { fastClock } from '../store/clock.ts'

export const limit = () => AbortSignal.timeout(20_000)

export const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

export const openCluster = async (t: Test) => {
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
  const faults = { commit: false, keep: false, rebind: false, hangs: false, exists: false, slowMs: 0 }
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
  const onDisk = await openBindings(join(dir, `${name}.json`), 64, () => {})
  const bindings: Bindings = {
    ...onDisk,
    async rebind(...args) {
      if (faults.rebind) throw new WeftError('INTERNAL', 'no space left on device')
      return onDisk.rebind(...args)
    },
  }
  const pools = openPools(context)
  const reserve = await openReserve(join(dir, `${name}-reserve.json`), systemClock, mirror)
  const departures = await openDepartures(join(dir, `${name}-departures.json`), systemClock, silentLog, () => {})
  const addresses = openAddresses(context, bindings, pools, reserve, departures)
  const endpoints = openEndpoints(context, bindings, addresses, departures, {} as never, reserve)
  const networks = openNetworks(context, bindings, pools)
  const listed = new Map<string, EngineNetwork>()
  const poolsOf = new Map<string, readonly string[]>() // Docker id → the engine's ids of its pools
  const busy = new Set<string>()
  const destroyed = new Set<string>()
  const removals: string[] = [] // names, of what weftd had the engine remove
  const stopped = new Map<string, { name: string; id: string }>() // container → its network; id '' before the first start
  let made = 0
  const requestOf = (pools: readonly string[], options: Record<string, string>, internal: boolean) => ({
    pools: pools.map(prefix => ({ prefix, gateway: prefix.replace(/0?\/.*/, '1') })),
    options,
    internal,
    ipv6: pools.some(prefix => prefix.includes(':')),
  })
  /** As `docker network create`: the engine lists it once the driver has answered, and it has written it. */
  const create = async (Name: string, wish: Wish = {}): Promise<string> => {
    const { wanted, subnet, ipv6 = false, internal = false, labels = {}, listedAfterMs = 0, replicaOf } = wish
    const named = () => [...listed.values()].some(network => network.Name === Name)
    if (named()) throw new WeftError('EXISTS', `network with name ${Name} already exists`)
    const Id = `${name}${++made}`
    const replica = replicaOf === undefined ? undefined : mirror.snapshot.networks.get(replicaOf)!.record
    const subnets = replica?.pools.map(pool => pool.prefix) ?? [subnet, ...(ipv6 ? [undefined] : [])]
    const prefixes: string[] = []
    for (const [i, prefix] of subnets.entries()) {
      await replicas.makeWay(prefix ?? '', wanted)
      const grant = await pools.request(
        {
          family: prefix?.includes(':') || (prefix === undefined && i > 0) ? 6 : 4,
          ...(prefix === undefined ? {} : { prefix }),
          ...(wanted === undefined ? {} : { wanted }),
          ...(replicaOf === undefined ? {} : { replicaOf }),
        },
        limit(),
      )
      prefixes.push(grant.prefix)
    }
    const options: Record<string, string> = replica?.options ?? {
      ...wish.options,
      ...(wanted === undefined ? {} : { 'weft.network': wanted }),
    }
    const request = { docker: Id, ...requestOf(prefixes, options, replica?.internal ?? internal) }
    await networks.create({ ...request, ...(replicaOf === undefined ? {} : { replicaOf }) }, limit())
    poolsOf.set(Id, prefixes)
    replicas.poke()
    await pause(replica ? faults.slowMs : listedAfterMs)
    const IPAM = { Driver: 'weft', Options: null }
    const rest = { Attachable: false, Internal: internal, EnableIPv6: ipv6, Options: options, IPAM }
    listed.set(Id, { Id, Name, Driver: 'weft', Labels: replica?.labels ?? labels, ...rest })
    return Id
  }
  const release = async (id: string): Promise<void> => {
    for (const prefix of poolsOf.get(id) ?? []) await pools.release(prefix, limit())
    poolsOf.delete(id)
  }
  /**
   * As the start of a container on a network by its name: found, an address of each family, then its endpoint. Answers the
   * addresses with their prefix lengths.
   */
  const start = async (network: string, container: string): Promise<readonly string[]> => {
    const found = [...listed.values()].filter(({ Name }) => Name === network)
    if (found.length === 0) throw new WeftError('NOT_FOUND', `network ${network} not found`)
    if (found.length > 1) throw new WeftError('INVALID', `network ${network} is ambiguous`)
    const [{ Id }] = found as [EngineNetwork]
    busy.add(Id)
    stopped.set(container, { name: network, id: Id })
    const given: string[] = []
    for (const pool of poolsOf.get(Id)!) given.push(await addresses.request(pool, undefined, false, limit()))
    const request = { docker: Id, endpoint: container, addresses: given.map(text => text.replace(/\/.*/, '')) }
    await endpoints.create(request, limit())
    return given
  }
  /** As `docker rm -f`. */
  const end = async (container: string): Promise<void> => {
    const { id } = stopped.get(container)!
    const network = bindings.byDocker(id)?.network
    if (network !== undefined) await endpoints.erase(network, container, limit())
    stopped.delete(container)
    if (![...stopped.values()].some(other => other.id === id)) busy.delete(id)
  }
  let looks = 0
  const engine: Engine = {
    ping: () => Promise.reject(new Error('unused')),
    version: () => Promise.reject(new Error('unused')),
    networks: async () => {
      looks++
      while (faults.hangs) await pause(10)
      return [...listed.values()]
    },
    addressPools: async () => [],
    createNetwork: async body => {
      if (faults.exists) throw new WeftError('EXISTS', `network with name ${body.Name} already exists`)
      return create(body.Name, { replicaOf: replicas.inFlight })
    },
    removeNetwork: async id => {
      removals.push(listed.get(id)?.Name ?? id)
      if (faults.keep || busy.has(id)) throw new WeftError('DOCKER_UNAVAILABLE', 'network has active endpoints')
      listed.delete(id)
      await release(id)
    },
    containers: async ({ network = [] } = {}) =>
      [...stopped]
        .filter(([, { name, id }]) => network.some(asked => asked === name || asked === id))
        .map(([Id]) => ({ Id }) as ListedContainer),
    container: () => Promise.reject(new Error('unused')),
    imageLabels: () => Promise.reject(new Error('unused')),
    destroyed: async id => destroyed.has(id),
    events: () => [] as unknown as AsyncIterable<never>,
  }
  const replicas = openReplicas({ ...context, clock: fastClock(20) }, engine, bindings, networks, departures)
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
  const remove = async (id: string, heard = true): Promise<void> => {
    await release(id)
    if (heard) await replicas.deleted(id)
    listed.delete(id)
    destroyed.add(id)
  }
  /** As an engine that is killed before it has written it, or gets another disk. */
  const lose = (id: string): void => {
    listed.delete(id)
    poolsOf.delete(id)
  }
  const names = () => [...listed.values()].map(network => network.Name).sort()
  const known = () => [...mirror.snapshot.networks.values()].map(({ record }) => record)
  const claims = () => new Map([...mirror.snapshot.pools].map(([prefix, { record }]) => [prefix, record]))
  return {
    ...{ create, remove, lose, start, end, names, known, claims, pools, poolsOf, requestOf, networks, context },
    ...{ busy, stopped, removals, faults, departures, endpoints, replicas, bindings, close, looks: () => looks },
  }
}
export type Host = Awaited<ReturnType<typeof openNode>>

interface Wish {
  readonly wanted?: string
  readonly subnet?: string
  readonly ipv6?: boolean
  readonly internal?: boolean
  readonly options?: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
  readonly listedAfterMs?: number
  readonly replicaOf?: string | undefined
}

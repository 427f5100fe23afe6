// SPDX-License-Identifier: Apache-2.0
// Keeps the reserve of this node as large as it should be, and brings into the store what was decided without it. In
// the background, never inside a driver call. Only a node itself uses or frees its spares while it lives: one that is cut
// off may be using them.
import { backoff } from '../base/backoff.ts'
import { sleep } from '../base/clock.ts'
import { ConflictError, codeOf, describe } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { chooseSpares, idleAtLeast, reserveMost, reserveSize, surplus } from '../ipam/reserve.ts'
import { poolUsage } from '../ipam/usage.ts'
import { contains, familyOf, macFrom, parseAddress, parsePrefix } from '../model/address.ts'
import { isFree, restFrom, restMs, type Spare } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network, Pool } from '../model/network.ts'
import type { Versioned } from '../model/snapshot.ts'
import { batches } from '../store/batches.ts'
import { encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import { isAway } from '../store/mirror.ts'
import { type Compare, limits, type Write } from '../store/store.ts'
import { reservationMs } from './addresses.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import type { Departures } from './departures.ts'
import type { Holdings } from './holdings.ts'
import { publishEndpoint } from './publication.ts'
import type { Reserve } from './reserve.ts'
import { claimVip } from './vips.ts'

export interface Spares extends Closeable {
  close(): Promise<void>
}

/** A network keeps its reserve so long after its last container here: `compose down && up`, one-off containers. */
export const idleMs = 10_000
/** Changes that come close together are looked at together. */
const gatherMs = 250
const lookEveryMs = 5000
const callMs = 5000

type OwnSpare = readonly [address: string, claim: Versioned<Spare>]

export const openSpares = (
  context: Context,
  bindings: Pick<Bindings, 'byNetwork'>,
  reserve: Reserve,
  departures: Pick<Departures, 'add' | 'has'>,
  holdings: Holdings,
): Spares => {
  const { store, mirror, node, boot, clock, log } = context
  const stop = new AbortController()
  const deserted = openHoldDown<NetworkId>(clock)
  const dirty = new Set<NetworkId>()
  let wake = Promise.withResolvers<void>()
  const limit = (): AbortSignal => AbortSignal.any([stop.signal, AbortSignal.timeout(callMs)])

  const commit = async (compares: readonly Compare[], writes: readonly Write[]): Promise<void> => {
    const signal = limit()
    await mirror.reached(await store.commit(compares, writes, { signal }), signal)
  }

  /** Endpoints that began without the store. One that can never come into it is given up, loudly. */
  const publishAll = async (): Promise<boolean> => {
    let done = true
    for (const endpoint of reserve.endpoints()) {
      if (departures.has(endpoint.id)) continue // its erasing drops it
      const { id, network } = endpoint
      try {
        await publishEndpoint(context, reserve, id, limit())
        log.info({ endpoint: id.slice(0, 12), network }, 'published: it began while the store was away')
        await claimVip(context, endpoint, false, limit()).catch(() => {}) // the sweeper does it then
      } catch (error) {
        if (stop.signal.aborted) return false
        const hopeless = ['TAKEN', 'NOT_FOUND'].includes(codeOf(error))
        const what = { endpoint: id.slice(0, 12), network, err: describe(error) }
        if (hopeless) {
          log.error(what, 'endpoint that began while the store was away is lost: start its container again')
          await departures.add(network, id)
        } else log.warn(what, 'endpoint not published yet')
        done &&= hopeless
      }
    }
    return done
  }

  /** Struck out first: from then on this host does not use them, whatever becomes of the commit. */
  const free = async (network: NetworkId, spares: readonly OwnSpare[], rest: boolean): Promise<void> => {
    if (spares.length === 0) return
    await reserve.forgo(
      network,
      spares.map(([address]) => address),
    )
    const struck = spares.filter(([address]) => reserve.held(network, address) === undefined)
    const writes = struck.map(([address]): Write => {
      const key = keys.address(network, address)
      return rest ? { kind: 'put', key, value: encode('addressClaim', restFrom(clock.now())) } : { kind: 'delete', key }
    })
    const revisions = new Map(struck.map(([address, { revision }]) => [keys.address(network, address), revision]))
    for (const batch of batches(writes, limits.writesPerCommit))
      await commit(
        batch.map(({ key }): Compare => ({ key, is: 'at', revision: revisions.get(key)! })),
        batch,
      )
  }

  const claim = async ({ id, pools }: Network, pool: Pool, count: number): Promise<void> => {
    const { addresses, macs } = mirror.snapshot
    const now = clock.now()
    const isTaken = (address: string): boolean => {
      const mac = macFrom([address])
      const macTaken = mac !== undefined && macs(id).has(mac)
      return macTaken || !isFree(addresses(id).get(address)?.record, now) || reserve.held(id, address) !== undefined
    }
    const chosen = chooseSpares(pool, isTaken, count, Math.random())
    if (chosen.length === 0) return
    const value = encode('addressClaim', { kind: 'spare', node, boot, since: now })
    const compares = chosen.flatMap((address): Compare[] => {
      const known = addresses(id).get(address)
      const key = keys.address(id, address)
      const mac = macFrom([address])
      return [
        known ? { key, is: 'at', revision: known.revision } : { key, is: 'absent' },
        ...(mac === undefined ? [] : [{ key: keys.mac(id, mac), is: 'absent' } as const]),
      ]
    })
    await commit(
      [
        ...compares,
        { key: keys.network(id), is: 'present' },
        { key: keys.node(node), is: 'at', revision: mirror.snapshot.nodes.get(node)!.revision },
        ...pools.map(({ prefix }): Compare => ({ key: keys.pool(prefix), is: 'present' })),
      ],
      chosen.map((address): Write => ({ kind: 'put', key: keys.address(id, address), value })),
    )
    await reserve.add(id, chosen)
  }

  /** Has the network a reserve here? `stay`: no longer, in a moment. */
  const wish = (network: Network): 'have' | 'stay' | 'none' => {
    const { id } = network
    const self = mirror.snapshot.nodes.get(node)?.record
    if (!self || self.fenced !== undefined || self.drained || network.state.kind !== 'active') return 'none'
    // with IPv6 alone the MAC comes from a lottery, which needs the store
    if (!bindings.byNetwork(id) || !network.pools.some(({ prefix }) => familyOf(prefix) === 4)) return 'none'
    if (holdings.hasEndpoint(id)) {
      deserted.clear(id)
      return 'have'
    }
    return deserted.held(id, idleMs) ? 'none' : 'stay'
  }

  const keep = async (id: NetworkId): Promise<void> => {
    const network = mirror.snapshot.networks.get(id)?.record
    const claims = mirror.snapshot.addresses(id)
    const mine = [...holdings.spares(id)].flatMap((address): OwnSpare[] => {
      const { record, revision } = claims.get(address)!
      return record.kind === 'spare' ? [[address, { record, revision }]] : []
    })
    const there = new Set(mine.map(([address]) => address))
    const listed = reserve.all().filter(held => held.network === id)
    const lost = listed.filter(({ address, state }) => state !== 'bound' && state !== 'taken' && !there.has(address))
    if (lost.length > 0)
      await reserve.forgo(
        id,
        lost.map(({ address }) => address),
      )
    if (!network) return
    const stateOf = (address: string) => reserve.held(id, address)?.state
    // used while the store was away; or weftd was killed between the claim and the list, or back
    await free(
      id,
      mine.filter(([address]) => [undefined, 'used'].includes(stateOf(address))),
      true,
    )
    const unused = mine.filter(([address]) => stateOf(address) === 'spare')
    await free(
      id,
      unused.filter(([, { record }]) => record.asked !== undefined),
      false,
    )
    const wished = wish(network)
    if (wished === 'have' || unused.length > 0)
      for (const pool of poolsOf(network)) await size(network, pool, wished, unused)
  }

  const fairPart = ({ id, pools }: Network, pool: Pool): number => {
    const nodes = [...mirror.snapshot.nodes.values()].filter(({ record }) => record.fenced === undefined).length
    const claims = mirror.snapshot.addresses(id)
    // to count a large network takes milliseconds: only where its claims could leave too little
    const most = reserveSize(idleAtLeast(pool, claims.size), nodes)
    if (most === reserveMost) return most
    const records = [...claims].map(([address, { record }]) => [address, record] as const)
    const { free, spare } = poolUsage(pools, records, clock.now()).find(one => one.pool === pool.prefix)!.count
    return reserveSize(free + spare, nodes)
  }

  /** While it `stay`s it gives back what does not fit, and takes nothing. */
  const size = async (
    network: Network,
    pool: Pool,
    wished: 'have' | 'stay' | 'none',
    unused: readonly OwnSpare[],
  ): Promise<void> => {
    const target = wished === 'none' ? 0 : fairPart(network, pool)
    const prefix = parsePrefix(pool.prefix)
    const here = unused.filter(
      ([address, { record }]) => record.asked === undefined && contains(prefix, parseAddress(address)),
    )
    await free(network.id, here.slice(0, surplus(here.length, target)), false)
    if (wished === 'have' && here.length < target) await claim(network, pool, target - here.length)
  }

  const look = async (): Promise<boolean> => {
    await reserve.expire('taken', reservationMs)
    if (isAway(mirror.status)) await reserve.expire('used', restMs)
    if (!mirror.status.available) return true
    let done = await publishAll()
    const networks = new Set([...dirty, ...reserve.all().map(({ network }) => network)])
    dirty.clear()
    for (const network of networks)
      try {
        await keep(network)
      } catch (error) {
        if (stop.signal.aborted) return true
        dirty.add(network)
        done = false
        if (!(error instanceof ConflictError)) log.warn({ network, err: describe(error) }, 'reserve not kept')
      }
    return done
  }

  const run = async (): Promise<void> => {
    const retry = backoff(100, 2000)
    while (!stop.signal.aborted) {
      wake = Promise.withResolvers()
      const done = await look().catch(error => {
        log.error({ err: describe(error) }, 'reserve not kept')
        return false
      })
      if (done) {
        retry.reset()
        const timer = clock.after(lookEveryMs, wake.resolve)
        await wake.promise
        timer.cancel()
      }
      await sleep(clock, done ? gatherMs : retry.next(), stop.signal).catch(() => {})
    }
  }

  for (const network of mirror.snapshot.networks.keys()) dirty.add(network)
  const unsubscribe = mirror.subscribe(changed => {
    if (changed === 'all') for (const network of mirror.snapshot.networks.keys()) dirty.add(network)
    else
      for (const [table, network] of changed) {
        if (table === 'nodes') for (const one of mirror.snapshot.networks.keys()) dirty.add(one)
        else if (table === 'endpoints' || table === 'addresses' || table === 'networks') dirty.add(network!)
        else continue
        wake.resolve()
      }
  })
  const unwatch = mirror.onAvailability(() => wake.resolve())
  const running = run()

  return {
    async close() {
      unsubscribe()
      unwatch()
      stop.abort(new Error('closed'))
      wake.resolve()
      await running
    },
  }
}

/** The first of each family: Docker asks the others only for an address of its user's choice. */
const poolsOf = ({ pools }: Network): readonly Pool[] =>
  ([4, 6] as const).flatMap(family => pools.find(({ prefix }) => familyOf(prefix) === family) ?? [])

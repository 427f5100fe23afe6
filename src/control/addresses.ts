// SPDX-License-Identifier: Apache-2.0
// Addresses of containers: reserved for this node by one transaction, bound by CreateEndpoint's. Gateway and auxiliary
// addresses stand in the network's record and are never claimed one by one.
import { sleep } from '../base/clock.ts'
import { ConflictError, codeOf, WeftError } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import { keyedQueue } from '../base/queue.ts'
import { firstAddress, nextFree, refusal } from '../ipam/allocate.ts'
import {
  canonical,
  contains,
  familyOf,
  formatAddress,
  parseAddress,
  parsePrefix,
  withLength,
} from '../model/address.ts'
import { type AddressClaim, isFree, restMs, type Spare } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network, Pool } from '../model/network.ts'
import { serviceTitle } from '../model/service.ts'
import { decode, encode } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import { isAway } from '../store/mirror.ts'
import type { Compare } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import type { Departures } from './departures.ts'
import { isPast, untilErased } from './leaving.ts'
import { type Pools, recreate } from './pools.ts'
import { goneInTime } from './removal.ts'
import type { Reserve } from './reserve.ts'

export interface Addresses {
  /** Answers an address with the pool's prefix length: '10.1.0.7/16'. */
  request(pool: string, address: string | undefined, gateway: boolean, signal: AbortSignal): Promise<string>
  /**
   * Frees a reservation of this node that nothing bound; one of an endpoint that has left is freed with it, now. Everything
   * else: nothing happens.
   */
  release(pool: string, address: string, signal: AbortSignal): Promise<void>
  /** Revision of a reservation made here a moment ago, before the mirror shows it. */
  reservedAt(network: NetworkId, address: string): bigint | undefined
  /** Nobody waits for its name any more: it has been without one for 2 s since that mattered first. */
  isTakenAsItIs(network: NetworkId): boolean
  /** An endpoint bound it: the reservation is no longer ours to free. */
  settled(network: NetworkId, address: string): void
  /** A new engine: who asks for the very address that an earlier one was given, and never bound, gets it. */
  disown(): void
}

/** Docker's API shows a new network within milliseconds; a slow engine is not waited for longer, once for each network. */
const introductionMs = 2000

/** Why an address cannot be a container's. */
export const takenByService = (address: string, service: string): WeftError =>
  new WeftError(
    'TAKEN',
    `address ${address} is the virtual address of service ${serviceTitle(service)}: choose another --ip`,
  )

/** Who has spare addresses of this node's own waits for a slow store no longer than this. */
const onlineMs = 2000
/** Living nodes give their spares of a full pool back within a moment: so long they are waited for. */
const patienceMs = 4000
const lookAgainMs = 100

/** A reservation that nothing bound is freed after this. */
export const reservationMs = 60_000

/**
 * Hosts that ask at the same time begin at the same address and would meet again at each that follows: who was slower
 * goes on some way ahead, and takes the next ones from there.
 */
const ahead = (address: string, losses: number): string => {
  const { family, value } = parseAddress(address)
  return formatAddress({ family, value: value + BigInt(Math.floor(Math.random() * 2 ** Math.min(losses + 3, 8))) })
}

/**
 * Before a spare claim of this node becomes something else: TAKEN when a container has the address. CONFLICT when that has
 * left, and for a claim that is not in the list: it is about to come into it, or to go to rest.
 */
export const strikeOut = async (
  context: Context,
  reserve: Reserve,
  departures: Departures,
  network: NetworkId,
  address: string,
  signal: AbortSignal,
): Promise<void> => {
  const [struck] = await reserve.forgo(network, [address])
  if (struck !== undefined) return
  const holder = reserve.endpoints().find(one => one.network === network && one.addresses.includes(address))
  if (holder) await untilErased(context, departures, network, { node: holder.node, endpoint: holder.id }, signal)
  if (reserve.held(network, address))
    throw new WeftError('TAKEN', `address ${address} is in use on this host: choose another --ip`)
  throw new ConflictError(`address ${address} is being taken into the reserve of this host: repeat the command`)
}

export const openAddresses = (
  context: Context,
  bindings: Bindings,
  pools: Pools,
  reserve: Reserve,
  departures: Departures,
): Addresses => {
  const { store, mirror, node, boot, clock } = context
  /** Our own reservations, until bound or released; without a revision while the store is asked. */
  const recent = new Map<string, { readonly revision?: bigint; readonly at: number }>()
  const recently = (network: NetworkId, address: string) => {
    const name = `${network} ${address}`
    const one = recent.get(name)
    if (one && clock.monotonic() - one.at > reservationMs) recent.delete(name) // no endpoint came: it is swept
    return recent.get(name)
  }
  const last = new Map<string, string>() // next-fit pointer per pool: fresh addresses before reused ones
  const unsettled = openHoldDown<NetworkId>(clock)
  const isTakenAsItIs = (network: NetworkId): boolean => unsettled.held(network, introductionMs)
  let silentAt = Number.NEGATIVE_INFINITY // monotonic ms, when a request with spares had waited for the store in vain
  const queue = keyedQueue() // one allocation per pool, and per address that is asked for, at a time on this host

  const free = (claim: AddressClaim | undefined): boolean => isFree(claim, clock.now())

  const book = async (
    network: NetworkId,
    address: string,
    before: { record: AddressClaim; revision: bigint } | undefined,
    signal: AbortSignal,
  ): Promise<void> => {
    const key = keys.address(network, address)
    const compare: Compare = before ? { key, is: 'at', revision: before.revision } : { key, is: 'absent' }
    const value = encode('addressClaim', { kind: 'reserved', node, boot, since: clock.now() })
    const pool = keys.pool(poolOf(network, address))
    const name = `${network} ${address}`
    if (recently(network, address)) throw new ConflictError(`address ${address} is being given here just now`)
    const at = clock.monotonic()
    recent.set(name, { at })
    try {
      const revision = await store.commit(
        [compare, { key: keys.network(network), is: 'present' }, { key: pool, is: 'present' }],
        [{ kind: 'put', key, value }],
        { signal },
      )
      recent.set(name, { revision, at })
    } catch (error) {
      recent.delete(name)
      throw error
    }
  }

  const poolOf = (network: NetworkId, address: string): string => {
    const record = mirror.snapshot.networks.get(network)?.record
    if (!record) throw new ConflictError(`network ${network} went, or was joined to another, meanwhile`)
    const pool = record.pools.find(pool => refusal({ prefix: pool.prefix }, parseAddress(address)) === undefined)
    if (!pool) throw new WeftError('NOT_FOUND', `no pool of the network holds ${address}`)
    return pool.prefix
  }

  const one = async (network: NetworkId, pool: Pool, address: string, signal: AbortSignal): Promise<void> => {
    const why = refusal(pool, parseAddress(address))
    if (why) throw new WeftError('TAKEN', `${why}: choose another --ip`)
    const entry = await store.get(keys.address(network, address), { signal })
    const claim = entry && decode('addressClaim', entry.key, entry.value)
    // resting ones too: the user asks for this very address, and its last holder is gone; or a call of ours that is over
    const left = claim?.kind === 'reserved' && claim.node === node && !recently(network, address)
    if (!claim || claim.kind === 'resting' || left)
      return book(network, address, entry && claim ? { record: claim, revision: entry.revision } : undefined, signal)
    if (claim.kind === 'spare') return askBack(network, address, claim, entry!.revision, signal)
    if (claim.kind === 'vip') throw takenByService(address, claim.service)
    if (claim.kind === 'bound') {
      if (isPast(context, network, claim)) return // ours still: CreateEndpoint, which has time of its own, takes it over
      await untilErased(context, departures, network, claim, signal)
    }
    throw new WeftError('TAKEN', `address ${address} is in use on host ${claim.node}: choose another --ip`)
  }

  /** A spare address that somebody wants by --ip: our own is struck out first, another's its node gives back. */
  const askBack = async (
    network: NetworkId,
    address: string,
    spare: Spare,
    revision: bigint,
    signal: AbortSignal,
  ): Promise<void> => {
    if (spare.node === node) {
      await strikeOut(context, reserve, departures, network, address, signal)
      return book(network, address, { record: spare, revision }, signal)
    }
    const whose = `address ${address} is in the reserve of host ${spare.node}`
    if (!mirror.snapshot.presence.has(spare.node))
      throw new WeftError('TAKEN', `${whose}, which is away: choose another --ip`)
    const key = keys.address(network, address)
    if (spare.asked === undefined) {
      const value = encode('addressClaim', { ...spare, asked: node })
      await store.commit([{ key, is: 'at', revision }], [{ kind: 'put', key, value }], { signal })
    }
    throw new ConflictError(`${whose}, which has not given it back: repeat the command, or choose another --ip`)
  }

  /** Are there spares in it that will be given back? */
  const hasSpares = (network: NetworkId, pool: Pool): boolean => {
    const prefix = parsePrefix(pool.prefix)
    const { presence, addresses } = mirror.snapshot
    for (const [address, { record }] of addresses(network))
      if (record.kind === 'spare' && presence.has(record.node) && contains(prefix, parseAddress(address))) return true
    return false
  }

  const any = async (network: NetworkId, pool: Pool, signal: AbortSignal): Promise<string> => {
    let claims: ReadonlyMap<string, { record: AddressClaim; revision: bigint }> = mirror.snapshot.addresses(network)
    const lostTo = new Set<string>() // somebody was faster, and the mirror does not show it yet
    let after = last.get(pool.prefix)
    for (let looked = false; ; ) {
      const taken = (text: string): boolean =>
        lostTo.has(text) || recently(network, text) !== undefined || !free(claims.get(text)?.record)
      const choice = nextFree(pool, taken, after)
      if (choice === undefined) {
        if (looked) break
        // the mirror may be behind: ask the store itself before saying "full"
        const { entries } = await store.list(`addresses/${network}/`, { signal })
        claims = new Map(
          entries.map(entry => [
            splitKey(entry.key)[2]!,
            { record: decode('addressClaim', entry.key, entry.value), revision: entry.revision },
          ]),
        )
        lostTo.clear()
        looked = true
        continue
      }
      try {
        await book(network, choice, claims.get(choice), signal)
        last.set(pool.prefix, choice)
        return choice
      } catch (error) {
        if (!(error instanceof ConflictError) || !mirror.snapshot.networks.has(network)) throw error
        lostTo.add(choice)
        after = ahead(choice, lostTo.size)
      }
    }
    const count = (kind: AddressClaim['kind']): number =>
      [...claims.values()].filter(({ record }) => record.kind === kind).length
    const [resting, vips, spares] = [count('resting'), count('vip'), count('spare')]
    const notes = [
      ...(resting > 0 ? [`${resting} freed addresses rest for a minute`] : []),
      ...(spares > 0 ? [`${spares} are in reserves of hosts that do not give them back: see weft node ls`] : []),
      ...(vips > 0 ? [`${vips} are of services, which keep theirs for ten minutes after their last container`] : []),
    ]
    throw new WeftError(
      'FULL',
      `subnet ${pool.range ?? pool.prefix} is full${notes.length > 0 ? ` (${notes.join('; ')})` : ''}: remove containers, or create the network with a larger --subnet`,
    )
  }

  /** A list that is older than the store (a copy of the data directory was put back) may have what is another's now. */
  const fits = (network: NetworkId, pool: Pool): ((address: string) => boolean) => {
    const prefix = parsePrefix(pool.prefix)
    const claims = mirror.snapshot.addresses(network)
    return address => {
      const claim = claims.get(address)?.record
      return claim?.kind === 'spare' && claim.node === node && contains(prefix, parseAddress(address))
    }
  }
  const own = (network: NetworkId, pool: Pool): readonly string[] => reserve.spares(network).filter(fits(network, pool))

  /** Waits while the last free addresses of the pool are in reserves: their nodes see that too, and give them back. */
  const untilFull = async (network: NetworkId, pool: Pool, signal: AbortSignal): Promise<string> => {
    for (const end = clock.monotonic() + patienceMs; ; ) {
      const short = own(network, pool).length > 0 ? AbortSignal.any([signal, AbortSignal.timeout(onlineMs)]) : signal
      try {
        return await any(network, pool, short)
      } catch (error) {
        if (short.aborted && !signal.aborted) {
          silentAt = clock.monotonic()
          throw new WeftError('STORE_UNAVAILABLE', `no answer within ${onlineMs / 1000} s`, { cause: error })
        }
        if (codeOf(error) !== 'FULL' || !hasSpares(network, pool) || clock.monotonic() > end) throw error
      }
      await sleep(clock, lookAgainMs, signal)
    }
  }

  /** By a decision of this host alone, which is on its disk. */
  const fromReserve = async (network: NetworkId, pool: Pool, cause: unknown): Promise<string> => {
    // who does it in the background begins when this node has joined, and weftd may have come back without the store
    if (isAway(mirror.status)) for (const state of ['taken', 'used'] as const) await reserve.expire(state, restMs)
    const address = await reserve.take(network, fits(network, pool))
    if (address !== undefined) return address
    throw new WeftError(
      'STORE_UNAVAILABLE',
      `no address of subnet ${pool.prefix} without the store, none is left in the reserve of this host: repeat the command when weft status shows the store again`,
      { cause },
    )
  }

  const anyOrSpare = async (network: NetworkId, pool: Pool, signal: AbortSignal): Promise<string> => {
    if (isAway(mirror.status)) return fromReserve(network, pool, new Error(mirror.status.error))
    // those behind one that has waited in vain would wait one after the other, longer than a call of Docker's may take
    if (clock.monotonic() - silentAt < onlineMs && own(network, pool).length > 0)
      return fromReserve(network, pool, new Error('the store did not answer just now'))
    try {
      return await untilFull(network, pool, signal)
    } catch (error) {
      if (signal.aborted || codeOf(error) !== 'STORE_UNAVAILABLE') throw error
      return fromReserve(network, pool, error)
    }
  }

  /** Where the addresses of a pool of Docker's come from. */
  interface Source {
    /** Absent before CreateNetwork. */
    readonly network: Network | undefined
    /** Of that network: the very pool, or of a joined Docker network all of its family. */
    readonly pools: readonly Pool[]
    /** A Docker network of this engine is it. */
    readonly bound: boolean
    /** It has its name and stays what it is; a joined one is bound so. */
    readonly settled: boolean
  }
  const sourceOf = async (prefix: string, signal: AbortSignal): Promise<Source> => {
    const { record: claim } = await pools.holder(prefix, signal)
    const network = mirror.snapshot.networks.get(claim.network)?.record
    const all = network?.pools ?? []
    if (claim.joined === undefined)
      return {
        network,
        pools: all.filter(pool => pool.prefix === prefix),
        bound: bindings.byNetwork(claim.network) !== undefined,
        settled: network?.name !== undefined,
      }
    const family = familyOf(prefix)
    const binding = bindings.byDocker(claim.joined)
    return {
      network,
      pools: all.filter(pool => familyOf(pool.prefix) === family),
      bound: binding !== undefined,
      settled: binding?.network === claim.network,
    }
  }
  /** A network that has no name yet may be joined to another, whose addresses it then has. */
  const settledSource = async (prefix: string, signal: AbortSignal): Promise<Source> => {
    for (;;) {
      const source = await sourceOf(prefix, signal)
      if (!source.network || source.settled || isTakenAsItIs(source.network.id)) {
        if (source.settled) unsettled.clear(source.network!.id)
        return source
      }
      await sleep(clock, 10, signal)
    }
  }

  const give = async (
    network: Network,
    among: readonly Pool[],
    address: string | undefined,
    signal: AbortSignal,
  ): Promise<string> => {
    // a host that has a container on it may veto yet
    if (network.state.kind === 'removing' && (await goneInTime(context, network.id, signal)))
      throw new WeftError('NOT_FOUND', `network ${network.name} is being removed`)
    const holds = ({ prefix }: Pool): boolean =>
      address !== undefined && contains(parsePrefix(prefix), parseAddress(address))
    const holder = among.find(holds)
    let full = new WeftError('NOT_FOUND', `network ${network.name} has no subnet of that family`)
    for (const pool of holder ? [holder] : among)
      try {
        // who waits for an address of their choice keeps nobody else waiting
        const given = await queue.run(address ?? pool.prefix, async () => {
          if (address === undefined) return anyOrSpare(network.id, pool, signal)
          await one(network.id, pool, address, signal)
          return address
        })
        return withLength(given, pool.prefix)
      } catch (error) {
        if (!(error instanceof WeftError && error.code === 'FULL')) throw error
        full = error
      }
    throw full
  }

  return {
    async request(prefix, asked, gateway, signal) {
      const address = asked === undefined || asked === '' ? undefined : canonical(asked)
      const { pools: all, bound } = await sourceOf(prefix, signal)
      const [pool] = all
      if (gateway) {
        const choice = address ?? pool?.gateway ?? firstAddress(prefix)
        const why = refusal({ prefix }, parseAddress(choice))
        if (why) throw new WeftError('INVALID', `gateway: ${why}`)
        if (pool?.gateway !== undefined && pool.gateway !== choice)
          throw new WeftError(
            'INVALID',
            `the gateway of that network is ${pool.gateway}, not ${choice}: leave --gateway out`,
          )
        return withLength(choice, prefix)
      }
      if (!pool || !bound) {
        // before CreateNetwork: auxiliary addresses, which CreateNetwork will bring again
        if (address === undefined)
          throw new WeftError(
            'NOT_FOUND',
            `pool ${prefix} belongs to no weft network on this host: weft's addresses are for weft's networks, ${recreate}`,
          )
        const why = refusal({ prefix }, parseAddress(address))
        if (why) throw new WeftError('INVALID', `aux-address: ${why}`)
        return withLength(address, prefix)
      }
      // a further Docker network of this one brings its auxiliary addresses; no endpoint gets them
      if (address !== undefined && Object.values(pool.aux ?? {}).includes(address)) return withLength(address, prefix)
      return attempt(context, signal, async () => {
        const { network, pools: among } = await settledSource(prefix, signal)
        if (!network) throw new WeftError('NOT_FOUND', `the network of pool ${prefix} has just gone: ${recreate}`)
        return give(network, among, address, signal)
      })
    },
    async release(prefix, text, signal) {
      const address = canonical(text)
      const claim = await pools.holder(prefix, signal).catch(() => undefined)
      if (!claim) return
      const network = claim.record.network
      recent.delete(`${network} ${address}`)
      if (reserve.held(network, address)) return reserve.giveBack(network, address)
      const key = keys.address(network, address)
      const entry = await store.get(key, { signal })
      if (!entry) return
      const held = decode('addressClaim', key, entry.value)
      if (held.kind === 'bound' && departures.has(held.endpoint)) return departures.hasten(held.endpoint, signal)
      if (held.kind !== 'reserved' || held.node !== node) return
      await store
        .commit([{ key, is: 'at', revision: entry.revision }], [{ kind: 'delete', key }], { signal })
        .catch(error => {
          if (!(error instanceof ConflictError)) throw error
        })
    },
    isTakenAsItIs,
    reservedAt: (network, address) => recently(network, address)?.revision,
    settled: (network, address) => recent.delete(`${network} ${address}`),
    disown() {
      for (const [name, { revision }] of recent) if (revision !== undefined) recent.delete(name)
    },
  }
}

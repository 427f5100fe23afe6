// SPDX-License-Identifier: Apache-2.0
// Addresses of containers: reserved for this node by one transaction, bound by CreateEndpoint's. Gateway and auxiliary
// addresses stand in the network's record and are never claimed one by one.
import { ConflictError, WeftError } from '../base/errors.ts'
import { keyedQueue } from '../base/queue.ts'
import { firstAddress, nextFree, refusal } from '../ipam/allocate.ts'
import { canonical, parseAddress, withLength } from '../model/address.ts'
import type { AddressClaim } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Pool } from '../model/network.ts'
import { decode, encode } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import type { Compare } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import { type Pools, recreate } from './pools.ts'

export interface Addresses {
  /** Answers an address with the pool's prefix length: '10.1.0.7/16'. */
  request(pool: string, address: string | undefined, gateway: boolean, signal: AbortSignal): Promise<string>
  /** Frees a reservation of this node that nothing bound. Everything else: nothing happens. */
  release(pool: string, address: string, signal: AbortSignal): Promise<void>
  /** Revision of a reservation made here a moment ago, before the mirror shows it. */
  reservedAt(network: NetworkId, address: string): bigint | undefined
  /** An endpoint bound it: the reservation is no longer ours to free. */
  settled(network: NetworkId, address: string): void
}

/** Freed addresses rest this long before anybody gets them again. */
export const restMs = 60_000

export const openAddresses = (context: Context, bindings: Bindings, pools: Pools): Addresses => {
  const { store, mirror, node, boot, clock } = context
  const recent = new Map<string, bigint>() // our own reservations, until bound or released
  const last = new Map<string, string>() // next-fit pointer per pool: fresh addresses before reused ones
  const queue = keyedQueue() // one allocation per pool at a time on this host

  const free = (claim: AddressClaim | undefined): boolean =>
    claim === undefined || (claim.kind === 'resting' && claim.until <= clock.now())

  const reserve = async (
    network: NetworkId,
    address: string,
    before: { record: AddressClaim; revision: bigint } | undefined,
    signal: AbortSignal,
  ): Promise<void> => {
    const key = keys.address(network, address)
    const compare: Compare = before ? { key, is: 'at', revision: before.revision } : { key, is: 'absent' }
    const value = encode('addressClaim', { kind: 'reserved', node, boot, since: clock.now() })
    const revision = await store.commit(
      [compare, { key: keys.pool(poolOf(network, address)), is: 'present' }],
      [{ kind: 'put', key, value }],
      { signal },
    )
    recent.set(`${network} ${address}`, revision)
  }

  const poolOf = (network: NetworkId, address: string): string => {
    const pool = mirror.snapshot.networks
      .get(network)
      ?.record.pools.find(pool => refusal({ prefix: pool.prefix }, parseAddress(address)) === undefined)
    if (!pool) throw new WeftError('NOT_FOUND', `no pool of the network holds ${address}`)
    return pool.prefix
  }

  const one = (network: NetworkId, pool: Pool, address: string, signal: AbortSignal): Promise<void> =>
    attempt(context, signal, async () => {
      const why = refusal(pool, parseAddress(address))
      if (why) throw new WeftError('TAKEN', `${why}: choose another --ip`)
      const entry = await store.get(keys.address(network, address), { signal })
      const claim = entry && decode('addressClaim', entry.key, entry.value)
      // resting ones too: the user asks for this very address, and its last holder is gone
      if (!claim || claim.kind === 'resting')
        return reserve(
          network,
          address,
          entry && claim ? { record: claim, revision: entry.revision } : undefined,
          signal,
        )
      if (claim.kind === 'spare' && claim.node === node)
        return reserve(network, address, { record: claim, revision: entry!.revision }, signal)
      throw new WeftError('TAKEN', `address ${address} is in use on host ${claim.node}: choose another --ip`)
    })

  const any = async (network: NetworkId, pool: Pool, signal: AbortSignal): Promise<string> => {
    let claims: ReadonlyMap<string, { record: AddressClaim; revision: bigint }> = mirror.snapshot.addresses(network)
    const lostTo = new Set<string>() // somebody was faster, and the mirror does not show it yet
    for (let looked = false; ; ) {
      const taken = (text: string): boolean =>
        lostTo.has(text) || recent.has(`${network} ${text}`) || !free(claims.get(text)?.record)
      const choice = nextFree(pool, taken, last.get(pool.prefix))
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
        await reserve(network, choice, claims.get(choice), signal)
        last.set(pool.prefix, choice)
        return choice
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error
        lostTo.add(choice)
      }
    }
    const resting = [...claims.values()].filter(({ record }) => record.kind === 'resting').length
    const soon = resting === 0 ? '' : ` (${resting} freed addresses rest for a minute)`
    throw new WeftError(
      'FULL',
      `subnet ${pool.range ?? pool.prefix} is full${soon}: remove containers, or create the network with a larger --subnet`,
    )
  }

  return {
    async request(prefix, asked, gateway, signal) {
      const address = asked === undefined || asked === '' ? undefined : canonical(asked)
      const { record: claim } = await pools.holder(prefix, signal)
      const network = mirror.snapshot.networks.get(claim.network)?.record
      const pool = network?.pools.find(pool => pool.prefix === prefix)
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
      if (!pool || !bindings.byNetwork(claim.network)) {
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
      if (network!.state.kind === 'removing')
        throw new WeftError('NOT_FOUND', `network ${network!.name} is being removed`)
      const given = await queue.run(prefix, async () => {
        if (address === undefined) return any(claim.network, pool, signal)
        await one(claim.network, pool, address, signal)
        return address
      })
      return withLength(given, prefix)
    },
    async release(prefix, text, signal) {
      const address = canonical(text)
      const claim = await pools.holder(prefix, signal).catch(() => undefined)
      if (!claim) return
      const network = claim.record.network
      recent.delete(`${network} ${address}`)
      const key = keys.address(network, address)
      const entry = await store.get(key, { signal })
      if (!entry) return
      const held = decode('addressClaim', key, entry.value)
      if (held.kind !== 'reserved' || held.node !== node) return
      await store
        .commit([{ key, is: 'at', revision: entry.revision }], [{ kind: 'delete', key }], { signal })
        .catch(error => {
          if (!(error instanceof ConflictError)) throw error
        })
    },
    reservedAt: (network, address) => recent.get(`${network} ${address}`),
    settled: (network, address) => recent.delete(`${network} ${address}`),
  }
}

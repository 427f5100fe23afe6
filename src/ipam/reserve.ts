// SPDX-License-Identifier: Apache-2.0
// How large a node's reserve of addresses is, and which it takes. Pure; the claims are control/spares' transactions.
import { formatAddress } from '../model/address.ts'
import type { Pool } from '../model/network.ts'
import { nextFree, usable } from './allocate.ts'

/** Addresses of a pool that a node keeps for itself, at most. */
export const reserveMost = 16
/** All reserves together have at most this part of what no container uses: 1/16. */
const part = 16

/**
 * Addresses that each of `nodes` keeps of a pool of which `idle` are nobody's, or in reserves. A pool that is short has
 * none: whoever finds no free address there needs but wait until all have seen it.
 */
export const reserveSize = (idle: number, nodes: number): number =>
  Math.min(reserveMost, Math.floor(idle / (part * Math.max(1, nodes))))

/** Addresses of the pool that are nobody's for sure, of a network with so many claims. */
export const idleAtLeast = (pool: Pool, claims: number): number => {
  const { first, last } = usable(pool)
  return Math.max(0, Number(last - first) - Object.keys(pool.aux ?? {}).length - claims) // and one for the gateway
}

/** Those that do not fit any more; a few above are kept, or each start and stop beside the limit would move one. */
export const surplus = (held: number, size: number): number => (held > 2 * size ? held - size : 0)

/** Reserves lie in the upper half of the pool's first 65,535 addresses, out of the way of --ip and of new containers. */
const counted = 65_534n

/**
 * Up to `count` free addresses side by side, from a random place on (`random`: 0 to 1), so that hosts do not meet at one.
 * `taken` is asked with canonical text.
 */
export const chooseSpares = (
  pool: Pool,
  taken: (address: string) => boolean,
  count: number,
  random: number,
): readonly string[] => {
  const { first, last, prefix } = usable(pool)
  const span = last - first > counted ? counted : last - first
  const half = span / 2n
  const start = first + half + BigInt(Math.floor(Number(span - half) * random))
  const chosen = new Set<string>()
  let after = formatAddress({ family: prefix.family, value: start })
  while (chosen.size < count) {
    const next = nextFree(pool, address => chosen.has(address) || taken(address), after)
    if (next === undefined) break
    chosen.add(next)
    after = next
  }
  return [...chosen]
}

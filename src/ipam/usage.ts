// SPDX-License-Identifier: Apache-2.0
// How full the pools of a network are. Pure; costs as much as there are claims, however large the pools.
import { type Address, contains, familyOf, parseAddress, parsePrefix } from '../model/address.ts'
import { type AddressClaim, isFree } from '../model/endpoint.ts'
import type { Pool } from '../model/network.ts'
import { usable } from './allocate.ts'

export const poolStates = ['used', 'vip', 'reserved', 'spare', 'resting', 'free'] as const
export type PoolState = (typeof poolStates)[number]

/**
 * Addresses by state. `used` by endpoints, `vip` by services, `reserved` by a driver call, `spare` of a node; `resting` until `now` (ms since
 * 1970) is past; `free`: what containers may still get by themselves, in the --ip-range where there is one. Gateway and
 * auxiliary addresses are in none.
 */
export const poolUsage = (
  pools: readonly Pool[],
  claims: Iterable<readonly [address: string, claim: AddressClaim]>,
  now: number,
): readonly { readonly pool: string; readonly count: Readonly<Record<PoolState, number>> }[] => {
  const counts = pools.map(pool => {
    const { first, last, prefix } = usable(pool)
    const inRange = ({ family, value }: Address): boolean => family === prefix.family && value >= first && value <= last
    const fixed = new Set([pool.gateway, ...Object.values(pool.aux ?? {})].filter(text => text !== undefined))
    const kept = [...fixed].filter(text => inRange(parseAddress(text))).length
    return {
      ...{ pool: pool.prefix, whole: parsePrefix(pool.prefix), ranged: pool.range !== undefined, inRange },
      ...{ free: last - first + 1n - BigInt(kept), used: 0, vip: 0, reserved: 0, spare: 0, resting: 0 },
    }
  })
  for (const [text, claim] of claims) {
    if (isFree(claim, now)) continue
    const family = familyOf(text)
    const candidates = counts.filter(({ whole }) => whole.family === family)
    const alone = candidates.length === 1 && !candidates[0]!.ranged
    const address = alone ? undefined : parseAddress(text)
    const own = address ? candidates.find(({ whole }) => contains(whole, address)) : candidates[0]
    if (!own) continue
    own[claim.kind === 'bound' ? 'used' : claim.kind]++
    if (!address || own.inRange(address)) own.free--
  }
  return counts.map(({ pool, free, used, vip, reserved, spare, resting }) => ({
    pool,
    count: { used, vip, reserved, spare, resting, free: Number(free < 0n ? 0n : free) },
  }))
}

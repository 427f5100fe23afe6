// SPDX-License-Identifier: Apache-2.0
// Which address next. Pure: what is taken comes in, a choice goes out; the claim is the caller's transaction.
import {
  type Address,
  contains,
  formatAddress,
  type Prefix,
  parseAddress,
  parsePrefix,
  sizeOf,
} from '../model/address.ts'
import type { Pool } from '../model/network.ts'

/** First and last address that containers may get: the --ip-range, without network and broadcast of the pool. */
export const usable = (pool: Pick<Pool, 'prefix' | 'range'>): { first: bigint; last: bigint; prefix: Prefix } => {
  const prefix = parsePrefix(pool.prefix)
  const range = pool.range === undefined ? prefix : parsePrefix(pool.range)
  let first = range.value
  let last = range.value + sizeOf(range) - 1n
  const wide = sizeOf(prefix) > 2n
  if (wide && first === prefix.value) first++
  if (wide && prefix.family === 4 && last === prefix.value + sizeOf(prefix) - 1n) last--
  return { first, last, prefix }
}

/** Is this one a container may have at all? Says why not, or undefined. */
export const refusal = (pool: Pick<Pool, 'prefix' | 'gateway' | 'aux'>, address: Address): string | undefined => {
  const { first, last, prefix } = usable({ prefix: pool.prefix })
  const text = formatAddress(address)
  if (!contains(prefix, address)) return `${text} is outside the network's subnet ${pool.prefix}`
  if (address.value < first || address.value > last)
    return `${text} is the network or broadcast address of ${pool.prefix}`
  if (text === pool.gateway) return `${text} is the network's gateway`
  for (const [name, aux] of Object.entries(pool.aux ?? {}))
    if (aux === text) return `${text} is the network's auxiliary address ${JSON.stringify(name)}`
  return undefined
}

/** First usable address of the pool itself: the gateway nobody named. */
export const firstAddress = (prefix: string): string => {
  const {
    first,
    prefix: { family },
  } = usable({ prefix })
  return formatAddress({ family, value: first })
}

/** Virtual addresses are counted down from here, so that they stay out of the way of --ip and of new containers. */
const counted = 65_534n

/** The highest free address of the pool, at most the 65,535th. undefined: the pool is full. */
export const lastFree = (pool: Pool, taken: (address: string) => boolean): string | undefined => {
  const { first, last, prefix } = usable(pool)
  const reserved = new Set([pool.gateway, ...Object.values(pool.aux ?? {})])
  for (let value = last - first > counted ? first + counted : last; value >= first; value--) {
    const text = formatAddress({ family: prefix.family, value })
    if (!reserved.has(text) && !taken(text)) return text
  }
  return undefined
}

/**
 * The next free address after `after` (plain text), around the range once. `taken` is asked with canonical text.
 * undefined: the pool is full.
 */
export const nextFree = (pool: Pool, taken: (address: string) => boolean, after?: string): string | undefined => {
  const { first, last, prefix } = usable(pool)
  const reserved = new Set([pool.gateway, ...Object.values(pool.aux ?? {})])
  const free = (value: bigint): string | undefined => {
    const text = formatAddress({ family: prefix.family, value })
    return reserved.has(text) || taken(text) ? undefined : text
  }
  const from = after === undefined ? first - 1n : parseAddress(after).value
  const start = from < first || from >= last ? first : from + 1n
  for (let value = start; value <= last; value++) {
    const text = free(value)
    if (text !== undefined) return text
  }
  for (let value = first; value < start; value++) {
    const text = free(value)
    if (text !== undefined) return text
  }
  return undefined
}

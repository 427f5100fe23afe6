// SPDX-License-Identifier: Apache-2.0
// Two networks of one name, made at the same moment on two hosts: the later becomes one with the first, under the feet
// of whoever starts a container on it just then. The engine's object stays as it is. Docker goes on asking for addresses
// by the pool that it was made with, and that id says nothing but the prefix: so its claim stays too, as one of the
// first network's, whose addresses it is answered.
import { WeftError } from '../base/errors.ts'
import { firstAddress } from '../ipam/allocate.ts'
import { familyOf } from '../model/address.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network, PoolClaim } from '../model/network.ts'
import type { Versioned } from '../model/snapshot.ts'
import { batches } from '../store/batches.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'

/** Docker networks of this engine that were joined to another, and to which, as the store has it. */
export const joinedHere = ({ mirror, node }: Context): ReadonlyMap<string, NetworkId> => {
  const joined = new Map<string, NetworkId>()
  for (const { record } of mirror.snapshot.pools.values())
    if (record.joined !== undefined && record.node === node) joined.set(record.joined, record.network)
  return joined
}

/**
 * Makes Docker network `docker`, until now cluster network `id`, one with the network that has this name; record, VNI
 * and subnets of its own go in the same transaction. Answers that network; undefined, and nothing done, where the user
 * asked for anything that it has not, or an address is given already.
 */
export const joinNamesake = async (
  context: Context,
  bindings: Bindings,
  docker: string,
  id: NetworkId,
  name: string,
  signal: AbortSignal,
): Promise<NetworkId | undefined> => {
  const { store, mirror, node } = context
  const current = async (network: NetworkId): Promise<Versioned<Network> | undefined> => {
    const entry = await store.get(keys.network(network), { signal })
    return entry && { record: decode('network', entry.key, entry.value), revision: entry.revision }
  }
  const isUntouched = async (): Promise<boolean> => {
    for (const table of ['endpoints', 'addresses'])
      if ((await store.list(`${table}/${id}/`, { signal })).entries.length > 0) return false
    return true
  }
  const first = await attempt(context, signal, async () => {
    const own = await current(id)
    if (!own) throw new WeftError('NOT_FOUND', `network ${id} is gone`) // or joined, and the mirror shows it in a moment
    const claimed = await store.get(keys.networkName(own.record.wanted ?? name), { signal })
    const there = claimed && (await current(decode('nameClaim', claimed.key, claimed.value).network))
    // one that is not named yet may never be
    if (there?.record.name === undefined || there.record.id === id || there.record.state.kind !== 'active')
      return undefined
    const claims = await Promise.all(own.record.pools.map(({ prefix }) => poolClaim(context, prefix, signal)))
    if (!claims.every(({ record }) => record.network === id && record.automatic)) return undefined
    if (differenceOf(own.record, there.record) !== undefined || !(await isUntouched())) return undefined
    const at = ({ record, revision }: Versioned<Network>): Compare => ({
      key: keys.network(record.id),
      is: 'at',
      revision,
    })
    const keysOfPools = own.record.pools.map(({ prefix }) => keys.pool(prefix))
    const claim: PoolClaim = { network: there.record.id, node, settled: true, joined: docker }
    const revision = await store.commit(
      [
        ...[at(own), at(there)],
        ...claims.map(({ revision }, i): Compare => ({ key: keysOfPools[i]!, is: 'at', revision })),
      ],
      [
        { kind: 'delete', key: keys.network(id) },
        { kind: 'delete', key: keys.vni(own.record.vni) },
        ...keysOfPools.map((key): Write => ({ kind: 'put', key, value: encode('poolClaim', claim) })),
      ],
      { signal },
    )
    await mirror.reached(revision, signal)
    // given while we looked: its container is refused
    const { entries } = await store.list(`addresses/${id}/`, { signal })
    for (const batch of batches(entries.map(({ key }): Write => ({ kind: 'delete', key }))))
      await store.commit([], batch, { signal })
    return there.record.id
  })
  if (first !== undefined) await bindings.rebind(docker, first)
  return first
}

const poolClaim = async ({ store }: Context, prefix: string, signal: AbortSignal): Promise<Versioned<PoolClaim>> => {
  const entry = await store.get(keys.pool(prefix), { signal })
  if (!entry) throw new WeftError('NOT_FOUND', `pool ${prefix} belongs to no network of the cluster`)
  return { record: decode('poolClaim', entry.key, entry.value), revision: entry.revision }
}

/** What was asked for and is not true of that network, to be said after its name; the subnets were nobody's wish. */
export const differenceOf = (asked: Network, there: Network): string | undefined => {
  if (asked.internal !== there.internal) return `is ${there.internal ? '' : 'not '}--internal`
  const families = new Set(there.pools.map(({ prefix }) => familyOf(prefix)))
  const lacking = asked.pools.find(({ prefix }) => !families.has(familyOf(prefix)))
  if (lacking) return `has no IPv${familyOf(lacking.prefix)}`
  if (asked.ipv6 !== there.ipv6) return `has ${there.ipv6 ? '' : 'no '}IPv6`
  if (!sameOptions(asked.options, there.options)) return 'was made with other options'
  const chosen = asked.pools.some(
    ({ prefix, gateway, aux }) => aux !== undefined || (gateway !== undefined && gateway !== firstAddress(prefix)),
  )
  return chosen ? 'has other addresses for gateway and hosts' : undefined
}

/** But for the name that it is to have. */
const sameOptions = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean => {
  const [mine, theirs] = [a, b].map(({ 'weft.network': _, ...rest }) => rest) as [typeof a, typeof b]
  return (
    Object.keys(mine).length === Object.keys(theirs).length &&
    Object.entries(mine).every(([key, value]) => theirs[key] === value)
  )
}

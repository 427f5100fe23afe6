// SPDX-License-Identifier: Apache-2.0
// The end of a network: its record first, so that nothing new hangs on it, then what does. The claim of its VNI goes
// last: while that is there without a network, somebody was stopped in between, and whoever sees it goes on.
import { ConflictError } from '../base/errors.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Versioned } from '../model/snapshot.ts'
import { batches } from '../store/batches.ts'
import { decode } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import type { Entry, Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'
import { withoutHolders } from './ports.ts'

export const sweepNetwork = async (
  context: Context,
  id: NetworkId,
  { record, revision }: Versioned<Network>,
  signal: AbortSignal,
): Promise<void> => {
  const { store } = context
  // claimed with its pool, before the network had its name
  const name = record.name ?? record.wanted
  const named = name === undefined ? undefined : await store.get(keys.networkName(name), { signal })
  const claim = await store.get(keys.vni(record.vni), { signal })
  const ownName = named && decode('nameClaim', named.key, named.value).network === id
  await store.commit(
    [{ key: keys.network(id), is: 'at', revision }],
    [
      { kind: 'delete', key: keys.network(id) },
      ...record.pools.map((pool): Write => ({ kind: 'delete', key: keys.pool(pool.prefix) })),
      ...(ownName ? [{ kind: 'delete', key: named.key } as const] : []),
    ],
    { signal },
  )
  await sweepRest(context, id, claim, signal)
}

/** Endpoints that were not erased, as of a silent node, claims, options of services. */
const sweepRest = async (
  context: Context,
  id: NetworkId,
  claim: Entry | undefined,
  signal: AbortSignal,
): Promise<void> => {
  const { store } = context
  const gone = new Set((await store.list(`endpoints/${id}/`, { signal })).entries.map(({ key }) => splitKey(key)[2]!))
  for (const { key } of gone.size === 0 ? [] : (await store.list('ports/', { signal })).entries)
    await attempt(context, signal, async () => {
      const entry = await store.get(key, { signal })
      const [write] = entry ? withoutHolders(context, entry, gone) : []
      if (write) await store.commit([{ key, is: 'at', revision: entry!.revision }], [write], { signal })
    })
  for (const prefix of ['addresses', 'macs', 'vips', 'endpoints', 'services'].map(table => `${table}/${id}/`)) {
    const { entries } = await store.list(prefix, { signal })
    for (const batch of batches(entries.map(({ key }): Write => ({ kind: 'delete', key }))))
      await store.commit([], batch, { signal })
  }
  if (!claim) return
  const { key, revision } = claim
  await store.commit([{ key, is: 'at', revision }], [{ kind: 'delete', key }], { signal }).catch(error => {
    if (!(error instanceof ConflictError)) throw error // somebody else was first, and it may be a new network's by now
  })
}

/** The end of the network that has this claim of a VNI; undefined, and nothing done, while that is there. */
export const finishRemoval = async (
  context: Context,
  claim: Entry,
  signal: AbortSignal,
): Promise<NetworkId | undefined> => {
  const { store, mirror } = context
  const { network } = decode('vniClaim', claim.key, claim.value)
  if (mirror.snapshot.networks.has(network) || (await store.get(keys.network(network), { signal }))) return undefined
  await sweepRest(context, network, claim, signal)
  return network
}

/** Goes on where a removal was broken off; gives the networks. */
export const finishRemovals = async (context: Context, signal: AbortSignal): Promise<NetworkId[]> => {
  const finished: NetworkId[] = []
  for (const claim of (await context.store.list('vnis/', { signal })).entries) {
    const network = await finishRemoval(context, claim, signal)
    if (network !== undefined) finished.push(network)
  }
  return finished
}

// SPDX-License-Identifier: Apache-2.0
// The end of a network: its record first, so that nothing new hangs on it, then what does. The claim of its VNI goes
// last: while that is there without a network, somebody was stopped in between, and whoever sees it goes on.
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Versioned } from '../model/snapshot.ts'
import { batches } from '../store/batches.ts'
import { decode } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import type { Write } from '../store/store.ts'
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
  await sweepRest(context, id, keys.vni(record.vni), signal)
}

/** Endpoints that were not erased, as of a silent node, claims, options of services. */
const sweepRest = async (context: Context, id: NetworkId, vni: string, signal: AbortSignal): Promise<void> => {
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
  await store.commit([], [{ kind: 'delete', key: vni }], { signal })
}

/** Goes on where a removal was broken off; gives the networks. */
export const finishRemovals = async (context: Context, signal: AbortSignal): Promise<NetworkId[]> => {
  const { store } = context
  const finished: NetworkId[] = []
  for (const { key, value } of (await store.list('vnis/', { signal })).entries) {
    const { network } = decode('vniClaim', key, value)
    if (context.mirror.snapshot.networks.has(network) || (await store.get(keys.network(network), { signal }))) continue
    await sweepRest(context, network, key, signal)
    finished.push(network)
  }
  return finished
}

// SPDX-License-Identifier: Apache-2.0
// What this node has in each network, as the store shows it: spare claims and endpoints. Kept by what changes, so that
// who looks after them costs as much as this node's part, however many containers the cluster has.
import type { Closeable } from '../base/lifecycle.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import type { Context } from './context.ts'

export interface Holdings extends Closeable {
  /** Addresses of its spare claims. */
  spares(network: NetworkId): Iterable<string>
  hasEndpoint(network: NetworkId): boolean
  endpoints(): Iterable<readonly [EndpointId, NetworkId]>
}

export const openHoldings = ({ mirror, node }: Pick<Context, 'mirror' | 'node'>): Holdings => {
  const spares = new Map<NetworkId, Set<string>>()
  const endpoints = new Map<NetworkId, Set<string>>()

  const file = (under: Map<NetworkId, Set<string>>, network: NetworkId, key: string, isOwn: boolean): void => {
    const keys = under.get(network)
    if (isOwn) under.set(network, (keys ?? new Set()).add(key))
    else if (keys?.delete(key) && keys.size === 0) under.delete(network)
  }
  const look = (table: string, network: NetworkId, key = ''): void => {
    const { snapshot } = mirror
    if (table === 'addresses') {
      const claim = snapshot.addresses(network).get(key)?.record
      file(spares, network, key, claim?.kind === 'spare' && claim.node === node)
    } else if (table === 'endpoints')
      file(endpoints, network, key, snapshot.endpoints(network).get(key)?.record.node === node)
    else if (table === 'networks') lookAt(network) // it could not be read before
  }
  const lookAt = (network: NetworkId): void => {
    for (const address of mirror.snapshot.addresses(network).keys()) look('addresses', network, address)
    for (const endpoint of mirror.snapshot.endpoints(network).keys()) look('endpoints', network, endpoint)
  }
  const lookAtAll = (): void => {
    spares.clear()
    endpoints.clear()
    for (const network of mirror.snapshot.networks.keys()) lookAt(network)
  }

  lookAtAll()
  const unsubscribe = mirror.subscribe(changed => {
    if (changed === 'all') lookAtAll()
    else for (const [table, network, key] of changed) look(table!, network!, key)
  })
  return {
    spares: network => spares.get(network) ?? [],
    hasEndpoint: network => endpoints.has(network),
    *endpoints() {
      for (const [network, ids] of endpoints) for (const id of ids) yield [id, network]
    },
    async close() {
      unsubscribe()
    },
  }
}

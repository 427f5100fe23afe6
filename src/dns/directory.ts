// SPDX-License-Identifier: Apache-2.0
// The mirror's endpoints by name, by address and by container, kept up change by change: a query costs the same on a
// network of ten containers and of ten thousand.
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Mirror } from '../store/mirror.ts'

export interface Directory {
  readonly snapshot: Snapshot
  /** Endpoints of a network that answer to a name in lower case. */
  named(network: NetworkId, name: string): readonly Endpoint[]
  /** By canonical address. */
  at(network: NetworkId, address: string): Endpoint | undefined
  /** Networks whose names an asker sees: all of its container's, or the one it asked through. */
  networksOf(through: NetworkId, address: string): readonly NetworkId[]
}

/** Asked through the host's own namespace: of no network, so only full names are known. */
export const throughHost: NetworkId = ''

export const lower = (text: string): string => text.toLowerCase()

/** Every name an endpoint answers to inside its network, lower case. */
export const namesOf = ({ workload }: Endpoint): readonly string[] => {
  if (!workload) return []
  const { name, aliases, hostname, service, container } = workload
  const names = [name, ...aliases, container.slice(0, 12)]
  if (hostname !== undefined && hostname !== '') names.push(hostname)
  if (service !== undefined) names.push(service, `tasks.${service}`)
  return [...new Set(names.map(lower))]
}

const nameKey = (network: NetworkId, name: string): string => `name ${network} ${name}`
const addressKey = (network: NetworkId, address: string): string => `address ${network} ${address}`
const containerKey = ({ node, workload }: Endpoint): string | undefined =>
  workload && `container ${node} ${workload.container}`

const keysOf = (endpoint: Endpoint): string[] => {
  const container = containerKey(endpoint)
  return [
    ...namesOf(endpoint).map(name => nameKey(endpoint.network, name)),
    ...endpoint.addresses.map(address => addressKey(endpoint.network, address)),
    ...(container === undefined ? [] : [container]),
  ]
}

export const openDirectory = (mirror: Pick<Mirror, 'snapshot' | 'subscribe'>): Directory => {
  const { snapshot } = mirror
  const entries = new Map<string, Map<EndpointId, Endpoint>>()
  const filed = new Map<EndpointId, readonly string[]>()

  const take = (id: EndpointId): void => {
    for (const key of filed.get(id) ?? []) {
      const at = entries.get(key)
      at?.delete(id)
      if (at?.size === 0) entries.delete(key)
    }
    filed.delete(id)
  }
  const put = (endpoint: Endpoint): void => {
    const keys = keysOf(endpoint)
    for (const key of keys) {
      const at = entries.get(key) ?? new Map<EndpointId, Endpoint>()
      entries.set(key, at.set(endpoint.id, endpoint))
    }
    filed.set(endpoint.id, keys)
  }
  const all = (): void => {
    entries.clear()
    filed.clear()
    for (const network of snapshot.networks.keys())
      for (const { record } of snapshot.endpoints(network).values()) put(record)
  }
  const found = (key: string): Endpoint[] => [...(entries.get(key)?.values() ?? [])]

  mirror.subscribe(changed => {
    if (changed === 'all') return all()
    for (const [table, network, id] of changed) {
      if (table !== 'endpoints' || network === undefined || id === undefined) continue
      take(id)
      const now = snapshot.endpoints(network).get(id)?.record
      if (now) put(now)
    }
  })
  all()

  const at = (network: NetworkId, address: string): Endpoint | undefined => found(addressKey(network, address))[0]
  return {
    snapshot,
    named: (network, name) => found(nameKey(network, name)),
    at,
    networksOf(through, address) {
      const asker = at(through, address)
      const container = asker && containerKey(asker)
      const attached = container === undefined ? [] : found(container).map(endpoint => endpoint.network)
      return [...new Set([...(through === throughHost ? [] : [through]), ...attached])]
    },
  }
}

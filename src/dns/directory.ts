// SPDX-License-Identifier: Apache-2.0
// The mirror's endpoints by name, by address and by container, services by name and virtual address, kept up change by
// change, networks and nodes by name: a query costs the same among ten of them and ten thousand.
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { namesOf } from '../model/names.ts'
import { parseServiceKey } from '../model/service.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Mirror } from '../store/mirror.ts'

/** A service with virtual addresses and at least one container. */
export interface NamedService {
  readonly network: NetworkId
  /** As its user wrote it. */
  readonly name: string
  /** Its virtual addresses. */
  readonly addresses: readonly string[]
  readonly endpoints: readonly Endpoint[]
}

export interface Directory {
  readonly snapshot: Snapshot
  /** Endpoints of a network that answer to a name in lower case. */
  named(network: NetworkId, name: string): readonly Endpoint[]
  /** By canonical address. */
  at(network: NetworkId, address: string): Endpoint | undefined
  /** Services of a network with virtual addresses, by name in lower case. */
  services(network: NetworkId, name: string): readonly NamedService[]
  /** By canonical virtual address. */
  serviceAt(network: NetworkId, address: string): NamedService | undefined
  /** By name in lower case: Docker's names may have capitals, DNS knows none. */
  networkNamed(name: string): NetworkId | undefined
  /** VTEP of a node that is not fenced, by name in lower case. */
  nodeNamed(name: string): string | undefined
  /** Networks whose names an asker sees: all of its container's, or the one it asked through. */
  networksOf(through: NetworkId, address: string): readonly NetworkId[]
}

/** Asked through the host's own namespace: of no network, so only full names are known. */
export const throughHost: NetworkId = ''

export const lower = (text: string): string => text.toLowerCase()

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

/**
 * `beside`: endpoints in the same sandbox, known before Docker says which container that is. `departed`: those that are
 * gone, though the store could not be told yet.
 */
export const openDirectory = (
  mirror: Pick<Mirror, 'snapshot' | 'subscribe'>,
  beside: (endpoint: EndpointId) => readonly EndpointId[] = () => [],
  departed: (endpoint: EndpointId) => boolean = () => false,
): Directory => {
  const { snapshot } = mirror
  const entries = new Map<string, Map<EndpointId, Endpoint>>()
  const filed = new Map<EndpointId, Endpoint>()
  const services = new Map<string, Set<string>>() // name or virtual address → keys of services
  const filedServices = new Map<string, readonly string[]>() // '<network> <service>'
  const networkNames = keptUntilChanged(() =>
    [...snapshot.networks.values()].map(({ record }) => [lower(record.name ?? ''), record.id]),
  )
  const nodeNames = keptUntilChanged(() =>
    [...snapshot.nodes.values()]
      .filter(({ record }) => record.fenced === undefined)
      .map(({ record }) => [lower(record.name), record.vtep]),
  )

  const take = (id: EndpointId): void => {
    const before = filed.get(id)
    for (const key of before ? keysOf(before) : []) {
      const at = entries.get(key)
      at?.delete(id)
      if (at?.size === 0) entries.delete(key)
    }
    filed.delete(id)
  }
  const put = (endpoint: Endpoint): void => {
    for (const key of keysOf(endpoint)) {
      const at = entries.get(key) ?? new Map<EndpointId, Endpoint>()
      entries.set(key, at.set(endpoint.id, endpoint))
    }
    filed.set(endpoint.id, endpoint)
  }
  const fileService = (network: NetworkId, service: string): void => {
    const title = `${network} ${service}`
    for (const key of filedServices.get(title) ?? []) {
      const at = services.get(key)
      at?.delete(service)
      if (at?.size === 0) services.delete(key)
    }
    filedServices.delete(title)
    const record = snapshot.vips(network).get(service)?.record
    if (!record) return
    const keys = [
      nameKey(network, lower(parseServiceKey(service).name)),
      ...record.addresses.map(address => addressKey(network, address)),
    ]
    for (const key of keys) services.set(key, (services.get(key) ?? new Set()).add(service))
    filedServices.set(title, keys)
  }
  const servicesAt = (network: NetworkId, key: string): NamedService[] =>
    [...(services.get(key) ?? [])].flatMap(service => {
      const table = snapshot.endpoints(network)
      const members = [...snapshot.members(network, service)].filter(id => !departed(id))
      const endpoints = members.flatMap(id => table.get(id)?.record ?? [])
      const addresses = snapshot.vips(network).get(service)?.record.addresses ?? []
      return endpoints.length > 0 ? [{ network, name: parseServiceKey(service).name, addresses, endpoints }] : []
    })
  const all = (): void => {
    networkNames.changed()
    nodeNames.changed()
    entries.clear()
    filed.clear()
    services.clear()
    filedServices.clear()
    for (const network of snapshot.networks.keys()) {
      for (const { record } of snapshot.endpoints(network).values()) put(record)
      for (const service of snapshot.vips(network).keys()) fileService(network, service)
    }
  }
  const found = (key: string): Endpoint[] => [...(entries.get(key)?.values() ?? [])].filter(({ id }) => !departed(id))

  mirror.subscribe(changed => {
    if (changed === 'all') return all()
    for (const [table, network, id] of changed) {
      if (table === 'networks') networkNames.changed()
      if (table === 'nodes') nodeNames.changed()
      if (network === undefined || id === undefined) continue
      if (table === 'vips') fileService(network, id)
      if (table !== 'endpoints') continue
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
    services: (network, name) => servicesAt(network, nameKey(network, name)),
    serviceAt: (network, address) => servicesAt(network, addressKey(network, address))[0],
    networkNamed: name => snapshot.names.get(name)?.record.network ?? networkNames.get(name),
    nodeNamed: name => nodeNames.get(name),
    networksOf(through, address) {
      const asker = at(through, address)
      const container = asker && containerKey(asker)
      const others = asker ? beside(asker.id).flatMap(id => filed.get(id) ?? []) : []
      const attached = [...(container === undefined ? [] : found(container)), ...others]
      return [...new Set([...(through === throughHost ? [] : [through]), ...attached.map(({ network }) => network)])]
    },
  }
}

/** Few, and seldom another: made at the first question after a change. Of equal keys the first stands. */
const keptUntilChanged = (make: () => readonly (readonly [string, string])[]) => {
  let made: ReadonlyMap<string, string> | undefined
  return {
    get(key: string): string | undefined {
      made ??= new Map(make().toReversed())
      return made.get(key)
    },
    changed(): void {
      made = undefined
    },
  }
}

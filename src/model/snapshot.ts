// SPDX-License-Identifier: Apache-2.0
// What the cluster wants, as of one revision, for reading: the planners' and the verbs' view of the store. Maps are
// live views of the mirror: read them at once, do not keep them.
import type { Cluster } from './cluster.ts'
import type { AddressClaim, Endpoint, MacClaim } from './endpoint.ts'
import type { FloatingClaim } from './floating.ts'
import type { EndpointId, NetworkId, NodeName } from './ids.ts'
import type { NameClaim, Network, PoolClaim } from './network.ts'
import type { Node, Presence } from './node.ts'
import type { PortClaim, PortKey } from './port.ts'
import { endpointService, type Vip } from './service.ts'
import { optionsKey, type ServiceOptions } from './service-options.ts'

/** A record with the revision that a compare-and-swap needs. */
export interface Versioned<T> {
  readonly record: T
  readonly revision: bigint
}

export interface Snapshot {
  readonly revision: bigint
  readonly cluster: Versioned<Cluster> | undefined
  /** Fenced nodes included. */
  readonly nodes: ReadonlyMap<NodeName, Versioned<Node>>
  readonly presence: ReadonlyMap<NodeName, Versioned<Presence>>
  readonly networks: ReadonlyMap<NetworkId, Versioned<Network>>
  readonly names: ReadonlyMap<string, Versioned<NameClaim>>
  readonly pools: ReadonlyMap<string, Versioned<PoolClaim>>
  readonly ports: ReadonlyMap<PortKey, Versioned<PortClaim>>
  /** By plain address. */
  readonly floating: ReadonlyMap<string, Versioned<FloatingClaim>>
  /** By optionsKey (model/service-options). */
  services(network: NetworkId): ReadonlyMap<string, Versioned<ServiceOptions>>
  endpoints(network: NetworkId): ReadonlyMap<EndpointId, Versioned<Endpoint>>
  addresses(network: NetworkId): ReadonlyMap<string, Versioned<AddressClaim>>
  macs(network: NetworkId): ReadonlyMap<string, Versioned<MacClaim>>
  /** By key of the service. */
  vips(network: NetworkId): ReadonlyMap<string, Versioned<Vip>>
  /** Endpoints of a service, by its key; of one that can have several (model/service, sharedService). */
  members(network: NetworkId, service: string): ReadonlySet<EndpointId>
}

/** Key of the service that an endpoint of this network is of, by its id. */
export const servicesIn =
  (snapshot: Pick<Snapshot, 'endpoints'>, network: NetworkId) =>
  (id: EndpointId): string | undefined => {
    const endpoint = snapshot.endpoints(network).get(id)?.record
    return endpoint && endpointService(endpoint)
  }

/** What was said of the service with this key; undefined: nothing. */
export const serviceOptions = (
  snapshot: Pick<Snapshot, 'services'>,
  network: NetworkId,
  service: string,
): ServiceOptions | undefined => snapshot.services(network).get(optionsKey(service))?.record

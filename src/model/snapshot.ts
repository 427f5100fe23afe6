// SPDX-License-Identifier: Apache-2.0
// What the cluster wants, as of one revision, for reading: the planners' and the verbs' view of the store. Maps are
// live views of the mirror: read them at once, do not keep them.
import type { Cluster } from './cluster.ts'
import type { AddressClaim, Endpoint, MacClaim } from './endpoint.ts'
import type { EndpointId, NetworkId, NodeName } from './ids.ts'
import type { NameClaim, Network, PoolClaim } from './network.ts'
import type { Node, Presence } from './node.ts'
import type { PortClaim, PortKey } from './port.ts'

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
  endpoints(network: NetworkId): ReadonlyMap<EndpointId, Versioned<Endpoint>>
  addresses(network: NetworkId): ReadonlyMap<string, Versioned<AddressClaim>>
  macs(network: NetworkId): ReadonlyMap<string, Versioned<MacClaim>>
}

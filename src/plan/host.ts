// SPDX-License-Identifier: Apache-2.0
// What a planner knows of this host beside the store's snapshot: facts that no other node needs.
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Proto } from '../model/port.ts'

/** Which part of the kernel balances published ports (mesh/balancer). */
export type Balancer = 'ipvs' | 'nft'

export interface Host {
  readonly node: NodeName
  readonly underlay: { readonly dev: string; readonly mtu: number }
  /** Networks that this engine shows; slot numbers the link network (plan/links). */
  readonly bound: ReadonlyMap<NetworkId, { readonly slot: number }>
  /** Endpoints of this node that Docker deleted, though their record is still in the store. */
  readonly departed: (endpoint: EndpointId) => boolean
  /** Is the port of this host ours (mesh/holder)? What a process of the host has is not taken from it. */
  readonly holds: (proto: Proto, port: number, address?: string) => boolean
  readonly balancer: Balancer
  /** The node does not answer in that network (health/peers): no new connections to it where there is another. */
  readonly silent: (network: NetworkId, node: NodeName) => boolean
  /** The same for a second in which others answered: its connections are forgotten where they have another. */
  readonly dead: (network: NetworkId, node: NodeName) => boolean
  /** net.ipv4.ip_forward is off: forwarding that we open for our links must not open the host to others. */
  readonly closed4: boolean
  /** The same of net.ipv6.conf.all.forwarding, as it would be without weft. */
  readonly closed6: boolean
  /** Devices that listened to router advertisements before weft switched IPv6 forwarding on, and are to go on. */
  readonly acceptsRa: readonly string[]
  /** Addresses that answer DNS, one of each family: here, and in the gateway of every network of that family. */
  readonly resolvers: readonly string[]
  /** Chains for our accepts, where they are nft's: FORWARD. `to`: Docker's for the user's rules, where it does not go there. */
  readonly guestChains: readonly {
    readonly family: 'ip' | 'ip6'
    readonly table: string
    readonly chain: string
    readonly to?: string
  }[]
  /** Bridges of Docker's own networks. */
  readonly dockerBridges: readonly string[]
  /** Bridges of this host that no container of Docker's is at: machines, or a LAN. */
  readonly otherBridges: readonly string[]
}

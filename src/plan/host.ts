// SPDX-License-Identifier: Apache-2.0
// What a planner knows of this host beside the store's snapshot: facts that no other node needs.
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Proto } from '../model/port.ts'

export interface Host {
  readonly node: NodeName
  readonly underlay: { readonly dev: string; readonly mtu: number }
  /** Networks that this engine shows; slot numbers the link network (plan/links). */
  readonly bound: ReadonlyMap<NetworkId, { readonly slot: number }>
  /** Endpoints of this node that Docker deleted, though their record is still in the store. */
  readonly departed: (endpoint: EndpointId) => boolean
  /** Is the port of this host ours (mesh/holder)? What a process of the host has is not taken from it. */
  readonly holds: (proto: Proto, port: number, address?: string) => boolean
  /** net.ipv4.ip_forward is off: forwarding that we open for our links must not open the host to others. */
  readonly closed4: boolean
  /** The same of net.ipv6.conf.all.forwarding, as found before weft switched it on. */
  readonly closed6: boolean
  /** The underlay device takes its default route from router advertisements. */
  readonly acceptsRa: boolean
  /** Address that answers DNS, here and in every gateway. */
  readonly resolver: string
  /** Docker's chain for others' accepts, where it is nft's: family and table, else absent. */
  readonly dockerUser: readonly { readonly family: 'ip' | 'ip6'; readonly table: string; readonly chain: string }[]
}

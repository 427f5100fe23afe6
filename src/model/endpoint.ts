// SPDX-License-Identifier: Apache-2.0
// One attachment of a container to a network, and the claims on what it owns.
import type { EndpointId, NetworkId, NodeName } from './ids.ts'
import type { PortMapping } from './port.ts'

export interface Endpoint {
  readonly id: EndpointId
  readonly network: NetworkId
  readonly node: NodeName
  readonly boot: string
  /** Plain addresses, IPv4 first. */
  readonly addresses: readonly string[]
  readonly mac: string
  readonly ports: readonly PortMapping[]
  /** Does Docker use it as the container's gateway (ProgramExternalConnectivity)? Ports are published only then. */
  readonly gateway: boolean
  /** From Docker's events, never from a driver call; absent until they told. */
  readonly workload?: Workload
  readonly identity: number
  /** Gets no new connections by published ports; absent: gets them. */
  readonly withheld?: Withheld
  /** The same until its node has seen that it accepts connections. */
  readonly unready?: true
  /** The same by an operator's word. */
  readonly drained?: true
  /** Key of its service, where that was sure before Docker's events told. */
  readonly service?: string
}

/** Docker's HEALTHCHECK has not passed yet, or fails; paused; told to stop. */
export type Withheld = 'starting' | 'unhealthy' | 'paused' | 'stopping'

/** What its published ports give it: new connections if 'active', else why not. */
export const standing = ({ withheld, drained, unready }: Endpoint): Withheld | 'drained' | 'active' =>
  withheld ?? (drained ? 'drained' : unready ? 'starting' : 'active')

export interface Workload {
  readonly container: string
  readonly name: string
  readonly hostname?: string
  readonly aliases: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly project?: string
  readonly service?: string
}

/** addresses/<network>/<ip>: reserved by RequestAddress, bound by CreateEndpoint, or spare in a node's reserve. */
export type AddressClaim =
  | { readonly kind: 'spare' | 'reserved'; readonly node: NodeName; readonly boot: string; readonly since: number }
  | { readonly kind: 'bound'; readonly node: NodeName; readonly boot: string; readonly endpoint: EndpointId }
  | Resting

/** macs/<network>/<mac> */
export type MacClaim = { readonly kind: 'bound'; readonly node: NodeName; readonly endpoint: EndpointId } | Resting

/** A tombstone: free again after `until` (ms since 1970). */
export interface Resting {
  readonly kind: 'resting'
  readonly until: number
}

export interface NodeNumberClaim {
  readonly node: NodeName
  readonly instance: string
}

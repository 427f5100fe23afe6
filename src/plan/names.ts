// SPDX-License-Identifier: Apache-2.0
// Every interface, namespace and table name of the data path is made here. At most 15 bytes; in the host's namespace
// with the prefix `weft`, so that ours can be recognised on a dirty host.
import type { EndpointId } from '../model/ids.ts'

/** N: the switch of a network on this node. */
export const switchNs = (vni: number): string => `weft-n${vni}`
/** M: the gateway of a network on this node. */
export const gatewayNs = (vni: number): string => `weft-m${vni}`

export const bridge = 'br0'
export const vtep = 'vx0'
/** The gateway's port on the bridge, and its end in M. */
export const gatewayPort = 'gw'
export const gatewayLink = 'gw0'
/** M's way to the host, and the host's end of it. */
export const uplink = 'up0'
export const hostLink = (slot: number): string => `weft${slot}`
/** Holds the resolver's address in H, for containers that come by Docker's own bridges. */
export const resolverLink = 'weftdns'
/** Where weftd listens on it: port 53 of the host is for whoever publishes it. */
export const resolverPort = 7753
/** Pattern of nft for every hostLink. */
export const hostLinks = '"weft*"'

/** A container's port in N. */
export const containerPort = (endpoint: EndpointId): string => `c${endpoint.slice(0, 12)}`
/** The container's end while it waits in the host's namespace for Docker to take it. */
export const containerEnd = (endpoint: EndpointId): string => `wefte${endpoint.slice(0, 10)}`
/** Chain that filters what a device of N lets in. */
export const portChain = (device: string): string => `in_${device}`

export const table = 'weft'

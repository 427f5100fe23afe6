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
  /** The same while it does not answer the probe of its service (model/service-options). */
  readonly failing?: true
  /** The same by an operator's word. */
  readonly drained?: true
  /** Key of its service, where that was sure before Docker's events told. */
  readonly service?: string
}

/** Docker's HEALTHCHECK has not passed yet, or fails; paused; told to stop. */
export type Withheld = 'starting' | 'unhealthy' | 'paused' | 'stopping'

/** What its published ports give it: new connections if 'active', else why not. */
export const standing = ({
  withheld,
  drained,
  unready,
  failing,
}: Endpoint): Withheld | 'drained' | 'failing' | 'active' =>
  withheld ?? (drained ? 'drained' : unready ? 'starting' : failing ? 'failing' : 'active')

export interface Workload {
  readonly container: string
  readonly name: string
  readonly hostname?: string
  readonly aliases: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly project?: string
  readonly service?: string
}

/**
 * addresses/<network>/<ip>: reserved by RequestAddress, bound by CreateEndpoint, spare in a node's reserve, or the
 * virtual address of a service (its key).
 */
export type AddressClaim =
  | { readonly kind: 'reserved'; readonly node: NodeName; readonly boot: string; readonly since: number }
  | Spare
  | { readonly kind: 'bound'; readonly node: NodeName; readonly boot: string; readonly endpoint: EndpointId }
  | { readonly kind: 'vip'; readonly service: string }
  | Resting

/**
 * In a node's reserve, for containers that start while it cannot reach the store: so only that node ever uses or frees
 * it. Of 02:77 and an IPv4 address the MAC is the holder's as well.
 */
export interface Spare {
  readonly kind: 'spare'
  readonly node: NodeName
  readonly boot: string
  readonly since: number
  /** A node that has a --ip for it: its owner gives it back. */
  readonly asked?: NodeName
}

/** May anybody have the address now (ms since 1970)? */
export const isFree = (claim: AddressClaim | undefined, now: number): boolean =>
  claim === undefined || (claim.kind === 'resting' && isOver(claim, now))

/** macs/<network>/<mac> */
export type MacClaim = { readonly kind: 'bound'; readonly node: NodeName; readonly endpoint: EndpointId } | Resting

/** A tombstone: free again after `until` (ms since 1970). */
export interface Resting {
  readonly kind: 'resting'
  readonly until: number
}

/** Freed addresses rest this long before anybody gets them again. */
export const restMs = 60_000

export const restFrom = (now: number): Resting => ({ kind: 'resting', until: now + restMs })

/** One that ends later than this, ms, is of a host whose clock was ahead. */
const longestRestMs = 10 * 60_000

export const isOver = ({ until }: Resting, now: number): boolean => until <= now || until > now + longestRestMs

export interface NodeNumberClaim {
  readonly node: NodeName
  readonly instance: string
}

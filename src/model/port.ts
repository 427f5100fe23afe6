// SPDX-License-Identifier: Apache-2.0
// Ports that containers publish on hosts, and who has them.
import type { Family } from './address.ts'
import type { EndpointId, NetworkId, NodeName } from './ids.ts'

export type Proto = 'tcp' | 'udp' | 'sctp'

/** 'tcp/8080' */
export type PortKey = string
export const portKey = (proto: Proto, port: number): PortKey => `${proto}/${port}`
export const parsePortKey = (key: PortKey): { readonly proto: Proto; readonly port: number } => {
  const [proto, port] = key.split('/') as [Proto, string]
  return { proto, port: Number(port) }
}

export interface PortMapping {
  readonly proto: Proto
  /** In the container. */
  readonly port: number
  readonly hostPort: number
  /** -p IP:…; absent: every address. */
  readonly hostIp?: string
  /** -p 0.0.0.0:… or [::]:…; absent: both. */
  readonly family?: Family
  /** On the container's own host only: an address was given, or the network is weft.publish=local. */
  readonly local?: true
}

/** ports/<proto>/<port>: one record for all claims on a port, so that two that exclude each other never both win. */
export interface PortClaim {
  /** Answered on every host, by the containers of one service. */
  readonly cluster?: ClusterPort
  /** Answered on one host, by one container. */
  readonly local: readonly LocalPort[]
}

export interface ClusterPort {
  readonly network: NetworkId
  /** Key of the service (model/service); absent until Docker's events have told who the first holder is. */
  readonly service?: string
  /** In the order in which they came. One that turns out to be of another service holds nothing. */
  readonly holders: readonly EndpointId[]
}

/** The claim as it is with what is known of its holders: the service stays while one of them is of it. */
export const settled = (
  { network, service, holders }: ClusterPort,
  serviceOf: (endpoint: EndpointId) => string | undefined,
): ClusterPort => {
  const known = holders.flatMap(id => serviceOf(id) ?? [])
  const next = service !== undefined && (known.includes(service) || known.length === 0) ? service : known[0]
  return { network, ...(next === undefined ? {} : { service: next }), holders }
}

/** The holders that the port leads to. */
export const holding = (
  { service, holders }: ClusterPort,
  serviceOf: (endpoint: EndpointId) => string | undefined,
): readonly EndpointId[] =>
  service === undefined ? holders.slice(0, 1) : holders.filter(id => serviceOf(id) === service)

export interface LocalPort {
  readonly node: NodeName
  readonly network: NetworkId
  readonly endpoint: EndpointId
}

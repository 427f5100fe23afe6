// SPDX-License-Identifier: Apache-2.0
// Who gets connections from this host, by a published port or a virtual address alike.
import { type Endpoint, standing } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { weightOf } from '../model/service.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'

export interface Backend {
  readonly endpoint: Endpoint
  /** Share of the new connections; 0: it keeps those that it has. */
  readonly weight: number
}

/** The endpoint, unless it has gone, or its node is fenced or not known. */
export const livingEndpoint = (
  network: NetworkId,
  id: EndpointId,
  snapshot: Snapshot,
  host: Host,
): Endpoint | undefined => {
  const endpoint = snapshot.endpoints(network).get(id)?.record
  const node = endpoint && snapshot.nodes.get(endpoint.node)?.record
  return node && node.fenced === undefined && !host.departed(id) ? endpoint : undefined
}

export const backendOf = (endpoint: Endpoint): Backend => ({
  endpoint,
  weight: standing(endpoint) === 'active' ? weightOf(endpoint) : 0,
})

/**
 * Of these backends, those that this host sends to: where somebody answers, who is silent has weight 0, and who is dead
 * is not among them. A host that is cut off sees nobody: it keeps what it has.
 */
export const reachable = (network: NetworkId, backends: readonly Backend[], host: Host): readonly Backend[] => {
  const silent = ({ endpoint }: Backend): boolean => host.silent(network, endpoint.node)
  if (!backends.some(one => one.weight > 0 && !silent(one))) return backends
  return backends.flatMap(one =>
    host.dead(network, one.endpoint.node) ? [] : silent(one) ? [{ ...one, weight: 0 }] : [one],
  )
}

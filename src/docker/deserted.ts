// SPDX-License-Identifier: Apache-2.0
// Endpoints that nobody lives with, although Docker never deleted them: weftd was killed in the very call, or its answer
// did not arrive. Only asked where somebody wants what they have.
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId } from '../model/ids.ts'

export interface DesertedParts {
  /** Is its port in a container, as far as it has been looked at? */
  readonly inUse: (endpoint: Endpoint) => boolean
  /** Between Join and Leave. */
  readonly joined: (endpoint: EndpointId) => boolean
  /** Was it made a moment ago, so that Join is perhaps on its way? */
  readonly isYoung: (endpoint: EndpointId) => boolean
  /** Does Docker say that this container does not run? */
  readonly stopped: (container: string) => boolean
}

/** Who is behind one that has joined, Docker tells when the container runs: a start may take minutes until then. */
export const openDeserted =
  ({ inUse, joined, isYoung, stopped }: DesertedParts) =>
  (endpoint: Endpoint): boolean => {
    if (inUse(endpoint)) return false
    if (!joined(endpoint.id)) return !isYoung(endpoint.id)
    return endpoint.workload !== undefined && stopped(endpoint.workload.container)
  }

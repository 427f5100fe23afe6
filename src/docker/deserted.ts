// SPDX-License-Identifier: Apache-2.0
// Endpoints that nobody lives with, although Docker never deleted them: weftd was killed in the very call, or its answer
// did not arrive. Only asked where somebody wants what they have.
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId } from '../model/ids.ts'

export interface DesertedParts {
  /** Is its port in the kernel? A container that runs has it, and one that starts from Join on. */
  readonly hasPort: (endpoint: Endpoint) => boolean
  /** Does Docker say that this container does not run? */
  readonly stopped: (container: string) => boolean
  /** Was it made a moment ago, so that Join is perhaps on its way? */
  readonly isYoung: (endpoint: EndpointId) => boolean
}

export const openDeserted =
  ({ hasPort, stopped, isYoung }: DesertedParts) =>
  (endpoint: Endpoint): boolean =>
    !hasPort(endpoint) && (endpoint.workload ? stopped(endpoint.workload.container) : !isYoung(endpoint.id))

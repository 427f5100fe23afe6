// SPDX-License-Identifier: Apache-2.0
// Endpoints that nobody lives with, although Docker never deleted them: weftd was killed in the very call, or its answer
// did not arrive. Only asked where somebody wants what they have.
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId } from '../model/ids.ts'

export interface DesertedParts {
  /** 'waiting': its end is in the host, before Docker takes it into the container and after Leave. */
  readonly port: (endpoint: Endpoint) => 'absent' | 'waiting' | 'in use'
  /** Does Docker say that this container does not run? */
  readonly stopped: (container: string) => boolean
  /** Was it made a moment ago, so that Join is perhaps on its way? */
  readonly isYoung: (endpoint: EndpointId) => boolean
}

/** Who is behind an endpoint Docker tells when the container runs, not while it starts. */
export const openDeserted =
  ({ port, stopped, isYoung }: DesertedParts) =>
  (endpoint: Endpoint): boolean =>
    endpoint.workload
      ? port(endpoint) !== 'in use' && stopped(endpoint.workload.container)
      : port(endpoint) === 'absent' && !isYoung(endpoint.id)

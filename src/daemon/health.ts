// SPDX-License-Identifier: Apache-2.0
// What this node finds out about its own containers: whether a new one accepts connections, and whether it answers the
// probe of its service.
import type { Lifecycle } from '../base/lifecycle.ts'
import type { Context } from '../control/context.ts'
import type { Endpoints } from '../control/endpoints.ts'
import { acceptsConnection } from '../health/accepts.ts'
import { ask } from '../health/ask.ts'
import { openBackendProbes } from '../health/backends.ts'
import { openReadiness } from '../health/readiness.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import type { ChangedKey } from '../store/mirror.ts'
import { dialSocket } from './sockets.ts'

export interface Health {
  look(changed: readonly ChangedKey[] | 'all'): void
  /** Containers of this node that fail their probe, and why. */
  readonly failures: ReadonlyMap<EndpointId, string>
}

export const startHealth = (
  context: Context,
  endpoints: Pick<Endpoints, 'ready' | 'fail'>,
  parts: Lifecycle,
): Health => {
  const { node, clock, log } = context
  const { snapshot } = context.mirror
  const readiness = parts.add(
    'readiness',
    openReadiness({
      ...{ snapshot, node, clock, log, ready: endpoints.ready },
      accepts: (ns, address, port, signal) => acceptsConnection(() => dialSocket(ns, address), address, port, signal),
    }),
  )
  const probes = parts.add(
    'probes',
    openBackendProbes({
      ...{ snapshot, node, clock, log, fail: endpoints.fail },
      ask: (ns, question, signal) => ask(() => dialSocket(ns, question.address), question, signal),
    }),
  )
  const endpointsIn = (network: NetworkId): (readonly [NetworkId, EndpointId])[] =>
    [...snapshot.endpoints(network).keys()].map(endpoint => [network, endpoint])
  const concerned = ([table, network, endpoint]: ChangedKey): readonly (readonly [NetworkId, EndpointId])[] => {
    if (table === 'endpoints') return [[network!, endpoint!]]
    // what was said of a service may concern every endpoint of its network
    return table === 'services' ? endpointsIn(network!) : []
  }
  return {
    failures: probes.failures,
    look(changed) {
      const found = changed === 'all' ? [...snapshot.networks.keys()].flatMap(endpointsIn) : changed.flatMap(concerned)
      readiness.look(found)
      probes.look(found)
    },
  }
}

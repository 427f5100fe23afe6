// SPDX-License-Identifier: Apache-2.0
// Connections to a backend that is gone are forgotten, those and no others: a client that still waits for its first
// answer is balanced anew with its next packet, and UDP does not go on into the void.
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { gatewayNs } from '../plan/names.ts'

export interface Flows {
  /** The kernel is as planned: what had backends before and has not now is cleared. */
  look(): void
}

export interface FlowsParts {
  readonly snapshot: Snapshot
  readonly host: () => Pick<Host, 'bound' | 'departed'>
  /** Deletes what is tracked in a namespace as translated to this address; answers how many. */
  readonly forget: (ns: string, address: string) => Promise<number>
  readonly log: Log
}

export const openFlows = ({ snapshot, host, forget, log }: FlowsParts): Flows => {
  let before = new Map<string, Backend>()
  return {
    look() {
      const now = new Map([...backendsOf(snapshot, host())].map(one => [`${one.ns} ${one.address}`, one]))
      for (const [key, { ns, address }] of before)
        if (!now.has(key))
          forget(ns, address).then(
            flows => flows > 0 && log.info({ ns, address, flows }, 'connections to a backend that is gone'),
            error => log.warn({ ns, address, err: describe(error) }, 'connections not forgotten'),
          )
      before = now
    },
  }
}

interface Backend {
  readonly ns: string
  readonly address: string
}

/** Whoever may have connections: also those that get no new ones. */
const backendsOf = function* (snapshot: Snapshot, host: Pick<Host, 'bound' | 'departed'>): Generator<Backend> {
  for (const { record } of snapshot.ports.values()) {
    const holders = [
      ...(record.cluster?.holders.map(endpoint => ({ network: record.cluster!.network, endpoint })) ?? []),
      ...record.local,
    ]
    for (const { network, endpoint } of holders) {
      const vni = snapshot.networks.get(network)?.record.vni
      const known = snapshot.endpoints(network).get(endpoint)?.record
      if (vni === undefined || !known || !host.bound.has(network) || host.departed(endpoint)) continue
      if (snapshot.nodes.get(known.node)?.record.fenced !== undefined) continue
      for (const address of known.addresses) yield { ns: gatewayNs(vni), address }
    }
  }
}

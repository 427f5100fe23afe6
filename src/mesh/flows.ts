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
  /** Deletes what is tracked in a namespace as translated to these addresses, or to all others; answers how many. */
  readonly forget: (
    ns: string,
    which: { readonly to: readonly string[] } | { readonly toOthersThan: ReadonlySet<string> },
  ) => Promise<number>
  readonly log: Log
}

export const openFlows = ({ snapshot, host, forget, log }: FlowsParts): Flows => {
  let before: Backends | undefined // namespace of a balancer → addresses; undefined: who went while we were away is unknown
  return {
    look() {
      const now = backendsOf(snapshot, host())
      for (const ns of new Set([...now.keys(), ...(before?.keys() ?? [])])) {
        const there = now.get(ns) ?? new Set()
        const gone = before && [...(before.get(ns) ?? [])].filter(address => !there.has(address))
        if (gone?.length === 0) continue
        forget(ns, gone ? { to: gone } : { toOthersThan: there }).then(
          flows => flows > 0 && log.info({ ns, flows }, 'connections to backends that are gone'),
          error => log.warn({ ns, err: describe(error) }, 'connections not forgotten'),
        )
      }
      before = now
    },
  }
}

type Backends = ReadonlyMap<string, ReadonlySet<string>>

/** Whoever may have connections, for each balancer of this host: also those that get no new ones. */
const backendsOf = (snapshot: Snapshot, host: Pick<Host, 'bound' | 'departed'>): Backends => {
  const backends = new Map<string, Set<string>>()
  for (const network of host.bound.keys()) {
    const vni = snapshot.networks.get(network)?.record.vni
    if (vni !== undefined) backends.set(gatewayNs(vni), new Set())
  }
  for (const { record } of snapshot.ports.values()) {
    const holders = [
      ...(record.cluster?.holders.map(endpoint => ({ network: record.cluster!.network, endpoint })) ?? []),
      ...record.local,
    ]
    for (const { network, endpoint } of holders) {
      const vni = snapshot.networks.get(network)?.record.vni
      const known = snapshot.endpoints(network).get(endpoint)?.record
      const addresses = vni === undefined ? undefined : backends.get(gatewayNs(vni))
      if (!addresses || !known || host.departed(endpoint)) continue
      if (snapshot.nodes.get(known.node)?.record.fenced !== undefined) continue
      for (const address of known.addresses) addresses.add(address)
    }
  }
  return backends
}

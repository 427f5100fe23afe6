// SPDX-License-Identifier: Apache-2.0
// What the calls of the API are given: the mirror, verbs of control, and what only the daemon knows, as functions.
import type { Bindings } from '../control/bindings.ts'
import type { Networks } from '../control/networks.ts'
import type { Nodes } from '../control/nodes.ts'
import type { Reserve } from '../control/reserve.ts'
import type { Services } from '../control/services.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Scheduler } from '../model/service-options.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { ReconcilerStatus } from '../reconcile/status.ts'
import type { Count } from './convert.ts'
import type * as wire from './gen/weft.ts'

export interface ApiParts {
  readonly node: NodeName
  readonly version: string
  readonly vtep: () => string
  readonly balancer: string
  /** That it has. */
  readonly schedulers: readonly Scheduler[]
  readonly snapshot: Snapshot
  readonly networks: Networks
  readonly nodes: Nodes
  readonly services: Services
  readonly bindings: Bindings
  readonly reconciler: () => ReconcilerStatus
  readonly store: () => {
    available: boolean
    error: string | undefined
    damaged: ReadonlyMap<string, string>
    records: number
  }
  readonly storeVersion: () => Promise<string>
  /** False: it was not in doubt. */
  readonly acceptStore: () => Promise<boolean>
  readonly copyStore: () => readonly wire.Record[]
  readonly restoreStore: (records: readonly wire.Record[]) => Promise<void>
  /** Through Docker's API; every engine of the cluster follows. */
  readonly createNetwork: (request: wire.CreateNetworkRequest, signal: AbortSignal) => Promise<NetworkId>
  readonly removeNetwork: (id: NetworkId, force: boolean, signal: AbortSignal) => Promise<void>
  readonly networkProblems: () => ReadonlyMap<string, string>
  readonly dockerError: () => string | undefined
  /** Version of this host's engine if containers of --internal networks ask it for names in vain. */
  readonly keepsQueries: () => string | undefined
  readonly lastErrors: () => readonly { at: string; method: string; code: string; error: string }[]
  readonly dnsListening: () => number
  readonly dnsProblems: () => ReadonlyMap<NetworkId, string>
  /** What this host has sent to the containers of a network. */
  readonly counters: (network: NetworkId) => Promise<readonly Count[]>
  /** Containers of this node that fail their probe, and why. */
  readonly probeFailures: () => ReadonlyMap<EndpointId, string>
  readonly drain: (network: NetworkId, endpoint: EndpointId, drained: boolean, signal: AbortSignal) => Promise<void>
  /** 'tcp/8080' → why this host does not answer on it. */
  readonly portProblems: () => ReadonlyMap<string, string>
  /** Nodes that do not answer this one through the data path, and since when (ISO 8601). */
  readonly silences: () => readonly { readonly network: NetworkId; readonly node: NodeName; readonly since: string }[]
  readonly departures: () => number
  readonly reserve: Pick<Reserve, 'has' | 'all' | 'endpoints'>
  /** Plain address → why this host could not take it. */
  readonly floatingProblems: () => ReadonlyMap<string, string>
  /** What has become of the VTEP. */
  readonly underlayProblem: () => string | undefined
  /** Networks whose link to this host meets somebody else's address or route. */
  readonly linkProblems: () => ReadonlyMap<NetworkId, string>
  /** Families that iptables-legacy filters on this host. */
  readonly legacyFilters: () => readonly string[]
}

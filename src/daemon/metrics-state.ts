// SPDX-License-Identifier: Apache-2.0
// Metrics that are read at a scrape from what the parts say of themselves: this build, the reconciler, the store, the
// nodes that are asked, the pools. Costs as much as there are failing objects, peers and claimed addresses.
import type { Metrics, Sample } from '../base/metrics.ts'
import { version } from '../base/version.ts'
import type { Peers } from '../health/peers.ts'
import { poolStates, poolUsage } from '../ipam/usage.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { ReconcilerStatus } from '../reconcile/status.ts'
import type { MirrorStatus } from '../store/mirror.ts'

export interface StateParts {
  readonly balancer: string
  readonly snapshot: Snapshot
  readonly reconciler: () => ReconcilerStatus
  readonly store: () => MirrorStatus
  readonly verdicts: () => Peers['verdicts']
  /** Endpoints that began while the store was away, and wait for it. */
  readonly unpublished: () => number
  /** ms since 1970 */
  readonly now: () => number
}

/** Of a network, for people. One without a name yet has the id, for moments. */
export const titleOfNetwork = (snapshot: Snapshot, id: NetworkId): string =>
  snapshot.networks.get(id)?.record.name ?? id

export const measureState = (metrics: Metrics, parts: StateParts): void => {
  const { snapshot } = parts
  const build = metrics.series('gauge', 'weft_build_info', 'Always 1: which weftd this is.', ['version', 'balancer'])
  metrics.atScrape('build', [build], () => build.replace([[{ version, balancer: parts.balancer }, 1]]))
  measureReconciler(metrics, parts.reconciler)
  measureMirror(metrics, snapshot, parts.store, parts.unpublished)
  measurePeers(metrics, snapshot, parts.verdicts)
  measurePools(metrics, snapshot, parts.now)
}

const measureReconciler = (metrics: Metrics, status: () => ReconcilerStatus): void => {
  const passes = metrics.series('counter', 'weft_reconciler_passes_total', 'Passes of the reconciler.')
  const operations = metrics.series(
    'counter',
    'weft_reconciler_operations_total',
    'Changes of the kernel that were tried, failed ones included.',
  )
  const revision = metrics.series(
    'gauge',
    'weft_reconciler_revision',
    'Revision of the store up to which the kernel of this host is as wanted.',
  )
  const repairs = metrics.series(
    'counter',
    'weft_repairs_total',
    'Kernel objects that others changed and weft put right, by kind.',
    ['object'],
  )
  const objects = metrics.series(
    'gauge',
    'weft_objects',
    'Kernel objects. failing: not as wanted after a try; lost: ports of containers that somebody removed.',
    ['state'],
  )
  metrics.atScrape('reconciler', [passes, operations, revision, repairs, objects], () => {
    const now = status()
    passes.replace([[{}, now.passes]])
    operations.replace([[{}, now.operations]])
    revision.replace([[{}, Number(now.reached)]])
    repairs.replace(Object.entries(now.repairs).map(([object, count]) => [{ object }, count]))
    objects.replace([
      [{ state: 'wanted' }, now.wanted],
      [{ state: 'observed' }, now.observed],
      [{ state: 'failing' }, now.failing.length],
      [{ state: 'lost' }, now.lost.length],
    ])
  })
}

const measureMirror = (
  metrics: Metrics,
  snapshot: Snapshot,
  status: () => MirrorStatus,
  unpublished: () => number,
): void => {
  const available = metrics.series('gauge', 'weft_store_available', '1: the store answers and is believed; else 0.')
  const revision = metrics.series('gauge', 'weft_store_revision', 'Revision of the store that this node has seen.')
  const records = metrics.series('gauge', 'weft_store_records', 'Records that this node has read.')
  const damaged = metrics.series(
    'gauge',
    'weft_store_damaged_records',
    'Records whose newest version cannot be read here; the version before stays in force.',
  )
  const waiting = metrics.series(
    'gauge',
    'weft_store_unpublished_endpoints',
    'Containers that began here while the store was away, and that other hosts do not know yet.',
  )
  metrics.atScrape('store', [available, revision, records, damaged, waiting], () => {
    const now = status()
    available.replace([[{}, now.available ? 1 : 0]])
    revision.replace([[{}, Number(snapshot.revision)]])
    records.replace([[{}, now.records]])
    damaged.replace([[{}, now.damaged.size]])
    waiting.replace([[{}, unpublished()]])
  })
}

const measurePeers = (metrics: Metrics, snapshot: Snapshot, verdicts: StateParts['verdicts']): void => {
  const peers = metrics.series(
    'gauge',
    'weft_peers',
    'Nodes that run backends of ports or virtual addresses of this host, once per network, by what probes through the data path say.',
    ['state'],
  )
  const silent = metrics.series(
    'gauge',
    'weft_peer_silent',
    '1: the node does not answer in this network and gets no new connections; else 0.',
    ['network', 'node'],
  )
  metrics.atScrape('peers', [peers, silent], () => {
    const count = { answers: 0, silent: 0, dead: 0, unasked: 0 }
    const one: Sample<'network' | 'node'>[] = []
    for (const { network, node, verdict } of verdicts()) {
      count[verdict]++
      const mute = verdict === 'silent' || verdict === 'dead'
      one.push([{ network: titleOfNetwork(snapshot, network), node }, mute ? 1 : 0])
    }
    peers.replace(Object.entries(count).map(([state, number]) => [{ state }, number]))
    silent.replace(one)
  })
}

const measurePools = (metrics: Metrics, snapshot: Snapshot, now: () => number): void => {
  const addresses = metrics.series(
    'gauge',
    'weft_pool_addresses',
    'Addresses of a pool by state; gateway and auxiliary addresses are in none.',
    ['network', 'pool', 'state'],
  )
  metrics.atScrape('pools', [addresses], () => {
    const samples: Sample<'network' | 'pool' | 'state'>[] = []
    for (const [id, { record }] of snapshot.networks) {
      const claims = [...snapshot.addresses(id)].map(([address, claim]) => [address, claim.record] as const)
      for (const { pool, count } of poolUsage(record.pools, claims, now()))
        for (const state of poolStates)
          samples.push([{ network: titleOfNetwork(snapshot, id), pool, state }, count[state]])
    }
    addresses.replace(samples)
  })
}

// SPDX-License-Identifier: Apache-2.0
// The store that the flags ask for, measured, behind the guard that does not believe an emptied or foreign one.
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import { openEmbeddedStore } from '../store/embedded.ts'
import { openEtcdStore } from '../store/etcd.ts'
import { type GuardedStore, guardStore } from '../store/guard.ts'
import { measuredStore } from '../store/measured.ts'
import type { Store } from '../store/store.ts'
import type { Config } from './config.ts'

export const openStore = async (
  { store, prefix, etcdTls, dataDir }: Config,
  log: Log,
  clock: Clock,
  metrics: Metrics,
): Promise<GuardedStore> => {
  const watched = measureWatch(metrics, clock, store.kind === 'embedded')
  const inner: Store =
    store.kind === 'embedded'
      ? await openEmbeddedStore({ dir: join(dataDir, 'store'), log, clock })
      : await openEtcdStore({
          ...{ endpoints: store.endpoints, prefix, log, clock, ...watched },
          ...(etcdTls ? { tls: etcdTls } : {}),
        })
  return guardStore(measuredStore(inner, metrics, clock), { dir: join(dataDir, 'guard'), log, clock })
}

/** `inside`: of this process, which is never behind itself. */
const measureWatch = (metrics: Metrics, clock: Clock, inside: boolean) => {
  const lag = metrics.series(
    'gauge',
    'weft_store_watch_lag_seconds',
    'Since the watch of the store got an event, or the proof that there is none: asked for after 5 s of silence.',
  )
  const repairs = metrics.counter(
    'weft_store_audit_repairs_total',
    'Changes that the watch of the store had missed and an audit found. To stay 0.',
  )
  let heardAt = clock.monotonic()
  metrics.atScrape('watch', [lag], () => lag.replace([[{}, inside ? 0 : (clock.monotonic() - heardAt) / 1000]]))
  return {
    onHeard: () => {
      heardAt = clock.monotonic()
    },
    onAuditRepair: (count: number) => repairs.add({}, count),
  }
}

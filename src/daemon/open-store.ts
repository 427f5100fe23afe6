// SPDX-License-Identifier: Apache-2.0
// The store that the flags ask for, behind the guard that does not believe an emptied or foreign one.
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { openEmbeddedStore } from '../store/embedded.ts'
import { openEtcdStore } from '../store/etcd.ts'
import { type GuardedStore, guardStore } from '../store/guard.ts'
import type { Store } from '../store/store.ts'
import type { Config } from './config.ts'

export const openStore = async (
  { store, prefix, etcdTls, dataDir }: Config,
  log: Log,
  clock: Clock,
): Promise<GuardedStore> => {
  const inner: Store =
    store.kind === 'embedded'
      ? await openEmbeddedStore({ dir: join(dataDir, 'store'), log, clock })
      : await openEtcdStore({ endpoints: store.endpoints, prefix, log, clock, ...(etcdTls ? { tls: etcdTls } : {}) })
  return guardStore(inner, { dir: join(dataDir, 'guard'), log, clock })
}

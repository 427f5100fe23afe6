// SPDX-License-Identifier: Apache-2.0
// One host's allocator, as weftd has it: the verb behind Docker's RequestAddress over a store and its mirror. A process
// of its own.
import { join } from 'node:path'
import { systemClock as clock } from '../../src/base/clock.ts'
import { ConflictError } from '../../src/base/errors.ts'
import { silentLog as log } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { openBindings } from '../../src/control/bindings.ts'
import type { Context } from '../../src/control/context.ts'
import { openPools } from '../../src/control/pools.ts'
import { openReserve } from '../../src/control/reserve.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'
import { clusterRecords } from '../agent/cluster.ts'
import { answering } from '../frame/child.ts'

export interface Want {
  readonly count: number
}

export interface Given {
  readonly addresses: readonly string[]
  /** Transactions that another host was faster than. */
  readonly conflicts: number
  /** Of the network, in the store, as this host reads it. */
  readonly claims: number
}

const pool = '10.128.0.0/16'
const network = 'net0'
/** Containers that a busy host starts at a time. */
const atOnce = 8

/** An etcd (endpoint, prefix), or 'embedded'; the records of the cluster are there, or put there by the embedded one. */
const [endpoint, prefix, dir, node] = process.argv.slice(2) as [string, string, string, string]
let conflicts = 0

const open = async (): Promise<Store> => {
  if (endpoint !== 'embedded') return openEtcdStore({ endpoints: [endpoint], prefix, log, clock })
  const embedded = await openEmbeddedStore({ dir: join(dir, 'store'), log, clock })
  await embedded.commit([], clusterRecords(0).writes)
  return embedded
}
const inner = await open()
const store: Store = {
  identity: options => inner.identity(options),
  get: (key, options) => inner.get(key, options),
  list: (under, options) => inner.list(under, options),
  watch: (under, signal) => inner.watch(under, signal),
  lease: (ttlMs, options) => inner.lease(ttlMs, options),
  close: () => inner.close(),
  commit: (compares, writes, options) =>
    inner.commit(compares, writes, options).catch((error: unknown) => {
      if (error instanceof ConflictError) conflicts++
      throw error
    }),
}
const mirror = openMirror(store, log, node)
await mirror.ready()
const context: Context = { store, mirror, node, boot: 'boot', clock, log }
const bindings = await openBindings(join(dir, `${node}.json`), 64, () => {})
await bindings.bind('docker', network)
const reserve = await openReserve(join(dir, `${node}-reserve.json`), clock, mirror)
const addresses = openAddresses(context, bindings, openPools(context), reserve, { has: () => false } as never)

answering(async ({ count }: Want): Promise<Given> => {
  const given: string[] = []
  let asked = 0
  const container = async (): Promise<void> => {
    while (asked++ < count) given.push(await addresses.request(pool, undefined, false, AbortSignal.timeout(60_000)))
  }
  await Promise.all(Array.from({ length: atOnce }, container))
  const { entries } = await store.list(`addresses/${network}/`)
  return { addresses: given, conflicts, claims: entries.length }
})
process.send!({ addresses: [], conflicts: 0, claims: 0 } satisfies Given)

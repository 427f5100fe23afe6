// SPDX-License-Identifier: Apache-2.0
// What weftd is without Docker: guarded store, mirror, planners, reconciler, this host's kernel. A process of its own
// (agent/start starts it), so that memory and CPU are its own; it says what it reached over Node's IPC.
import { readFileSync } from 'node:fs'
import { systemClock } from '../../src/base/clock.ts'
import { settleHeap } from '../../src/base/heap.ts'
import { silentLog } from '../../src/base/log.ts'
import { openLinuxKernel } from '../../src/kernel/linux.ts'
import { openReconciler } from '../../src/reconcile/reconciler.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { guardStore } from '../../src/store/guard.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { testHost } from '../../test/overlay/cluster.ts'
import { answering } from '../frame/child.ts'
import { bound, self } from './cluster.ts'
import type { Ask, Usage } from './start.ts'

const [endpoint, prefix, dir] = process.argv.slice(2) as [string, string, string]
const log = silentLog
const clock = systemClock

const etcd = await openEtcdStore({ endpoints: [endpoint], prefix, log, clock })
const store = await guardStore(etcd, { dir, log, clock })
const mirror = openMirror(store, log, self)
const kernel = openLinuxKernel(log)
const slots = new Map(bound.map((network, slot) => [network as string, { slot }]))
const waiting = new Set<{ readonly revision: bigint; resolve(): void }>()
const reconciler = openReconciler({
  mirror,
  kernel,
  host: () => testHost(slots, { node: self }),
  clock,
  log,
  reached: () => {
    const revision = BigInt(reconciler.status().reached)
    for (const one of waiting)
      if (one.revision <= revision) {
        waiting.delete(one)
        one.resolve()
      }
  },
})

const usage = (): Usage => {
  const { user, system } = process.cpuUsage()
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))
  const { operations, failing, lost } = reconciler.status()
  return {
    wallMs: performance.now(), // its zero is the start of the process
    cpuMs: (user + system) / 1000,
    rssMiB: process.memoryUsage.rss() / 2 ** 20,
    peakRssMiB: Number(peak?.[1]) / 1024,
    operations,
    failing: failing.length,
    lost: lost.length,
    records: mirror.status.records,
  }
}

const attend = async (ask: Ask): Promise<Usage> => {
  switch (ask.kind) {
    case 'attach':
      await Promise.all(
        ask.endpoints.map(one => reconciler.attach(one.network, one.endpoint, AbortSignal.timeout(60_000))),
      )
      break
    case 'reached': {
      const revision = BigInt(ask.revision)
      if (BigInt(reconciler.status().reached) < revision)
        await new Promise<void>(resolve => waiting.add({ revision, resolve }))
      break
    }
    case 'usage':
      break
  }
  return usage()
}

await reconciler.start()
const adopted = usage()
await store.get(keys.cluster, { timeoutMs: 60_000 }) // weftd ends its start with a store that has been listed and believed
settleHeap()
answering(attend)
process.send!(adopted)

// SPDX-License-Identifier: Apache-2.0
// Section scale: one agent, the cluster around it grows. First full sync, memory, one change more, and what a restart
// writes to a kernel that has everything.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { purge } from '../../src/daemon/purge.ts'
import { batches } from '../../src/store/batches.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import type { Store } from '../../src/store/store.ts'
import { startEtcd } from '../../test/store/etcd-server.ts'
import { clusterRecords, endpointRecords } from '../agent/cluster.ts'
import { startAgent } from '../agent/start.ts'
import { compiled } from '../frame/compile.ts'
import type { Report, Run } from '../frame/section.ts'

/** New endpoints, one after the other, in a network of this host. */
const changes = 20
/** Commits on their way at a time while the store is filled. */
const writers = 8
/** In which what a start left behind (garbage, notifications of its own writes) is done with. */
const settleMs = 1000

interface Taken {
  readonly syncMs: number
  readonly syncCpuMs: number
  readonly written: number
  readonly rssMiB: number
  readonly peakRssMiB: number
  readonly changeCpuMs: number
  readonly adoptedMs: number
  readonly adoptedWrites: number
  readonly adoptedRssMiB: number
}

export const run: Run = async ({ runs, quick }, report) => {
  const sizes = quick ? [100, 200] : [1000, 10_000, 50_000]
  const etcd = await startEtcd()
  const js = compiled()
  const clusters: Cluster[] = []
  for (const size of sizes) {
    report.say(`filling the store with ${size} endpoints`)
    clusters.push(await openCluster(etcd.endpoint, size))
  }
  const taken = new Map<Cluster, Taken[]>(clusters.map(cluster => [cluster, []]))
  for (let n = 0; n < runs; n++)
    for (const cluster of clusters) {
      report.say(`run ${n + 1}, ${cluster.size} endpoints`)
      taken.get(cluster)!.push(await measure(js, etcd.endpoint, cluster))
    }
  const small = taken.get(clusters[0]!)!
  for (const cluster of clusters)
    rowsOf(cluster, taken.get(cluster)!, cluster === clusters[0] ? undefined : small, report)
  for (const { store } of clusters) await store.close()
  await etcd.close()
}

interface Cluster {
  readonly size: number
  readonly prefix: string
  readonly store: Store
  readonly local: readonly { readonly network: string; readonly endpoint: string }[]
  readonly nodes: number
  /** Number of the next endpoint in the first network. */
  next: number
}

const openCluster = async (endpoint: string, size: number): Promise<Cluster> => {
  const prefix = `/bench-${size}/`
  const store = await openEtcdStore({ endpoints: [endpoint], prefix, log: silentLog, clock: systemClock })
  const { writes, local, next, nodes } = clusterRecords(size)
  const parts = batches(writes)
  const writer = async (): Promise<void> => {
    for (const part of parts) await store.commit([], part, { timeoutMs: 60_000 })
  }
  await Promise.all(Array.from({ length: writers }, writer))
  return { size, prefix, store, local, nodes, next: next[0]! }
}

/** A host that joins, gets changes, and whose agent is killed and started again. */
const measure = async (js: string, endpoint: string, cluster: Cluster): Promise<Taken> => {
  const { prefix, store, local, nodes } = cluster
  const dir = mkdtempSync(join(tmpdir(), 'bench-agent-'))
  const first = await startAgent({ js, endpoint, prefix, dir })
  await first.ask({ kind: 'attach', endpoints: local })
  await sleep(settleMs)
  const synced = await first.ask({ kind: 'usage' })
  if (synced.failing > 0 || synced.lost > 0)
    throw new Error(`${synced.failing} objects failed, ${synced.lost} ports lost`)
  const added: string[] = []
  for (let i = 0; i < changes; i++) {
    const { writes } = endpointRecords(0, cluster.next++, `node${1 + (i % (nodes - 1))}`)
    const revision = await store.commit([], writes)
    await first.ask({ kind: 'reached', revision: String(revision) })
    added.push(...writes.map(({ key }) => key))
  }
  const changed = await first.ask({ kind: 'usage' })
  await first.kill()
  const second = await startAgent({ js, endpoint, prefix, dir })
  await sleep(settleMs)
  const adopted = await second.ask({ kind: 'usage' })
  if (adopted.lost > 0) throw new Error(`${adopted.lost} ports lost by the restart`)
  await second.kill()
  await purge(dir)
  for (const part of batches(added.map(key => ({ kind: 'delete', key }) as const))) await store.commit([], part)
  return {
    syncMs: first.first.wallMs,
    syncCpuMs: first.first.cpuMs,
    written: synced.operations,
    rssMiB: synced.rssMiB,
    peakRssMiB: synced.peakRssMiB,
    changeCpuMs: (changed.cpuMs - synced.cpuMs) / changes,
    adoptedMs: second.first.wallMs,
    adoptedWrites: adopted.operations,
    adoptedRssMiB: adopted.rssMiB,
  }
}

const rowsOf = (
  { size, nodes }: Cluster,
  taken: readonly Taken[],
  small: readonly Taken[] | undefined,
  report: Report,
): void => {
  const at = `${size.toLocaleString('en-US')} endpoints`
  const emit = (what: string, unit: string, key: keyof Taken, atMost?: number, note?: string): void =>
    report.row({
      section: 'scale',
      name: `${at}: ${what}`,
      unit,
      better: 'less',
      ours: taken.map(one => one[key]),
      ...(atMost === undefined ? {} : { goal: { kind: 'value', atMost } }),
      ...(note === undefined ? {} : { note }),
    })
  emit('first full sync', 'ms', 'syncMs', undefined, `${nodes} nodes; from the start of the process`)
  emit('CPU of it', 'ms', 'syncCpuMs')
  emit('rows written to the kernel', '', 'written')
  emit('memory after it', 'MiB', 'rssMiB', 200)
  emit('most memory until then', 'MiB', 'peakRssMiB')
  report.row({
    section: 'scale',
    name: `${at}: CPU of one endpoint more`,
    unit: 'ms',
    better: 'less',
    ours: taken.map(one => one.changeCpuMs),
    ...(small ? { peer: { name: 'in the smallest cluster', values: small.map(one => one.changeCpuMs) } } : {}),
    goal: { kind: 'value', atMost: 5 },
    note: `mean of ${changes}, one at a time, from the store into the kernel`,
  })
  emit(
    'restart until adopted',
    'ms',
    'adoptedMs',
    3000,
    'after kill -9, from the start of the process to the end of its first pass',
  )
  emit('rows that the restart wrote', '', 'adoptedWrites', 0)
  emit('memory after the restart', 'MiB', 'adoptedRssMiB', 200)
}

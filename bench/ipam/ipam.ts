// SPDX-License-Identifier: Apache-2.0
// Section ipam: how fast containers get addresses that are unique in the whole cluster, and what it costs that several
// hosts ask for the same pool. None lost, none given twice, is checked in every run.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock as clock } from '../../src/base/clock.ts'
import { silentLog as log } from '../../src/base/log.ts'
import { batches } from '../../src/store/batches.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { startEtcd } from '../../test/store/etcd-server.ts'
import { clusterRecords } from '../agent/cluster.ts'
import { startChild } from '../frame/child.ts'
import { compiled } from '../frame/compile.ts'
import { interleave } from '../frame/interleave.ts'
import type { Run } from '../frame/section.ts'
import type { Given, Want } from './allocator.ts'

interface Taken {
  readonly perSecond: number
  readonly conflicts: number
}

export const run: Run = async ({ runs, quick }, report) => {
  const count = quick ? 30 : 600
  const etcd = await startEtcd()
  const js = compiled()
  let clusters = 0

  /** All hosts begin together; together they take `count`. */
  const take = async (endpoint: string, prefix: string, hosts: number): Promise<Taken> => {
    const dir = mkdtempSync(join(tmpdir(), 'bench-ipam-'))
    const children = await Promise.all(
      Array.from({ length: hosts }, (_, i) =>
        startChild<Want, Given>(`${js}/bench/ipam/allocator.js`, [endpoint, prefix, dir, `node${i}`]),
      ),
    )
    const from = performance.now()
    const given = await Promise.all(children.map(child => child.ask({ count: count / hosts })))
    const seconds = (performance.now() - from) / 1000
    await Promise.all(children.map(child => child.kill()))
    const all = given.flatMap(({ addresses }) => addresses)
    const claims = Math.max(...given.map(one => one.claims))
    if (all.length !== count || new Set(all).size !== count || claims !== count)
      throw new Error(
        `${count} addresses asked for: ${all.length} given, ${new Set(all).size} distinct, ${claims} claimed`,
      )
    return { perSecond: count / seconds, conflicts: given.reduce((sum, one) => sum + one.conflicts, 0) }
  }
  const overEtcd = async (hosts: number): Promise<Taken> => {
    const prefix = `/bench-ipam-${clusters++}/`
    const store = await openEtcdStore({ endpoints: [etcd.endpoint], prefix, log, clock })
    for (const part of batches(clusterRecords(0).writes)) await store.commit([], part)
    await store.close()
    return take(etcd.endpoint, prefix, hosts)
  }
  const conflicts: number[] = []
  const values = await interleave(runs, {
    embedded: async () => (await take('embedded', '', 1)).perSecond,
    one: async () => (await overEtcd(1)).perSecond,
    three: async () => {
      const { perSecond, conflicts: met } = await overEtcd(3)
      conflicts.push((met / count) * 100)
      return perSecond
    },
  })
  const row = { section: 'ipam', unit: '/s', better: 'more' } as const
  report.row({ ...row, name: 'addresses, one host on its embedded store', ours: values.embedded })
  report.row({ ...row, name: 'addresses, one host, etcd', ours: values.one })
  report.row({
    ...row,
    name: 'addresses, three hosts on one pool, etcd',
    ours: values.three,
    peer: { name: 'one host', values: values.one },
    note: `${count} in all, 8 at a time on each host; all distinct and all claimed, in every run`,
  })
  report.row({
    section: 'ipam',
    name: 'conflicts retried per 100 addresses, three hosts',
    unit: '',
    better: 'less',
    ours: conflicts,
  })
  await etcd.close()
}

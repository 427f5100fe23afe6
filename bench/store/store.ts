// SPDX-License-Identifier: Apache-2.0
// Section store: how soon another host knows of a change and has it in its kernel, and how many changes its mirror takes
// in a second. The peer is etcd's own client, which only prints.
import { spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock as clock } from '../../src/base/clock.ts'
import { silentLog as log } from '../../src/base/log.ts'
import { openMonitor } from '../../src/netlink/monitor.ts'
import { decodeFdb } from '../../src/netlink/rtnl/fdb.ts'
import { RTNLGRP } from '../../src/netlink/rtnl/uapi.ts'
import { NETLINK_ROUTE } from '../../src/netlink/uapi.ts'
import { switchNs } from '../../src/plan/names.ts'
import { batches } from '../../src/store/batches.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { keys } from '../../src/store/keys.ts'
import type { Store, Write } from '../../src/store/store.ts'
import { startEtcd } from '../../test/store/etcd-server.ts'
import { clusterRecords, endpointRecords } from '../agent/cluster.ts'
import { startAgent } from '../agent/start.ts'
import { startChild } from '../frame/child.ts'
import { compiled } from '../frame/compile.ts'
import { interleave, within } from '../frame/interleave.ts'
import { percentile } from '../frame/row.ts'
import type { Options, Report, Run } from '../frame/section.ts'
import type { Await, Had } from './watcher.ts'

const prefix = '/bench-store/'
const network = 'net0'
const vni = 0x100000

interface World {
  readonly endpoint: string
  readonly js: string
  /** The host that changes things. */
  readonly store: Store
  /** Number of the next endpoint. */
  next: number
}

export const run: Run = async (options, report) => {
  const etcd = await startEtcd()
  const store = await openEtcdStore({ endpoints: [etcd.endpoint], prefix, log, clock })
  const { writes, next } = clusterRecords(options.quick ? 20 : 1000)
  for (const part of batches(writes)) await store.commit([], part)
  const world: World = { endpoint: etcd.endpoint, js: compiled(), store, next: next[0]! }
  report.say('one change')
  await measureOne(world, options, report)
  report.say('many changes')
  await measureMany(world, options, report)
  await store.close()
  await etcd.close()
}

const ns = (): bigint => process.hrtime.bigint()
const msSince = (from: bigint, at: bigint): number => Number(at - from) / 1e6

/** When something by that name came; asked for before it can. */
const arrivals = () => {
  const waiting = new Map<string, (at: bigint) => void>()
  return {
    wait: (name: string): Promise<bigint> => new Promise(resolve => waiting.set(name, resolve)),
    came(name: string): void {
      waiting.get(name)?.(ns())
      waiting.delete(name)
    },
  }
}

/** `etcdctl watch --prefix`: every line that it prints. Resolves when it shows a change. */
const etcdctlWatch = async ({ endpoint, store }: World, onLine: (line: string) => void) => {
  const args = ['--endpoints', endpoint, 'watch', '--prefix', prefix]
  const child = spawn('etcdctl', args, {
    env: { ...process.env, ETCDCTL_API: '3' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let shown = false
  createInterface({ input: child.stdout }).on('line', line => {
    shown = true
    onLine(line)
  })
  // it says nothing when it is ready
  const value = JSON.stringify({ v: 1, node: 'x', instance: 'x' })
  while (!shown) {
    await store.commit([], [{ kind: 'put', key: keys.nodeNumber(60_000), value }])
    await sleep(20)
  }
  return {
    async close() {
      const gone = new Promise(resolve => child.once('close', resolve))
      child.kill('SIGKILL')
      await gone
    },
  }
}

const measureOne = async (world: World, { runs, quick }: Options, report: Report): Promise<void> => {
  const { store, js, endpoint } = world
  const changes = quick ? 5 : 100
  const folder = (): string => mkdtempSync(join(tmpdir(), 'bench-store-'))
  const agent = await startAgent({ js, endpoint, prefix, dir: folder() })
  const watcher = await startChild<Await, Had>(`${js}/bench/store/watcher.js`, [endpoint, prefix, folder()])
  const rows = arrivals()
  const monitor = await openMonitor({
    protocol: NETLINK_ROUTE,
    netns: `/run/netns/${switchNs(vni)}`,
    groups: [RTNLGRP.NEIGH],
    onMessages(messages) {
      for (const message of messages) {
        const row = decodeFdb(message)
        if (row?.table === 'self') rows.came(row.mac)
      }
    },
    onLost() {
      throw new Error('notifications of the kernel were lost')
    },
  })
  const lines = arrivals()
  const etcdctl = await etcdctlWatch(world, line => lines.came(line))
  type Took = { readonly mirror: number; readonly etcdctl: number; readonly kernel: number }
  const one = async (): Promise<Took> => {
    const { id, mac, writes } = endpointRecords(0, world.next++, 'node1')
    await watcher.ask({ kind: 'expect', network, endpoints: [id] })
    const line = lines.wait(`${prefix}${keys.endpoint(network, id)}`)
    const row = rows.wait(mac)
    const from = ns()
    await store.commit([], writes)
    const seen = Promise.all([watcher.ask({ kind: 'had' }), line, row])
    const [{ at }, printed, written] = await within(60_000, seen, `change ${id}`)
    return { mirror: msSince(from, BigInt(at)), etcdctl: msSince(from, printed), kernel: msSince(from, written) }
  }
  const taken: Took[][] = []
  for (let run = 0; run < runs; run++) {
    const took: Took[] = []
    for (let i = 0; i < changes; i++) took.push(await one())
    taken.push(took)
  }
  const values = (way: keyof Took, share: number): number[] =>
    taken.map(took =>
      percentile(
        took.map(each => each[way]),
        share,
      ),
    )
  const row = { section: 'store', unit: 'ms', better: 'less' } as const
  for (const [name, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
  ] as const) {
    const peer = { name: 'etcdctl watch prints it', values: values('etcdctl', share) }
    report.row({
      ...row,
      name: `one change until the mirror of another host has it, ${name}`,
      ours: values('mirror', share),
      peer,
    })
    report.row({
      ...row,
      name: `one change until the kernel of another host has its row, ${name}`,
      ours: values('kernel', share),
      peer,
      ...(name === 'p99' ? { goal: { kind: 'value', atMost: 50 } as const } : {}),
      note: `of ${changes} changes a run, from before the commit; the same change is seen by all three`,
    })
  }
  await etcdctl.close()
  await monitor.close()
  await watcher.kill()
  await agent.kill()
}

/** Commits on their way at a time. */
const writers = 8

const measureMany = async (world: World, { runs, quick }: Options, report: Report): Promise<void> => {
  const { store, js, endpoint } = world
  const count = quick ? 200 : 20_000
  const write = async (writes: readonly Write[]): Promise<void> => {
    const parts = batches(writes)
    const writer = async (): Promise<void> => {
      for (const part of parts) await store.commit([], part, { timeoutMs: 60_000 })
    }
    await Promise.all(Array.from({ length: writers }, writer))
  }
  /** The same records again in each run: changed, not more. */
  const first = world.next
  world.next += count
  const records = Array.from({ length: count }, (_, i) => endpointRecords(0, first + i, 'node1'))
  const writes = records.map(record => record.writes[0]!)
  await write(writes)
  const rate = (from: bigint, to: bigint): number => count / (msSince(from, to) / 1000)
  const values = await interleave(runs, {
    mirror: async () => {
      const dir = mkdtempSync(join(tmpdir(), 'bench-store-'))
      const watcher = await startChild<Await, Had>(`${js}/bench/store/watcher.js`, [endpoint, prefix, dir])
      await watcher.ask({ kind: 'expect', network, endpoints: records.map(({ id }) => id) })
      const from = ns()
      await write(writes)
      const { at } = await watcher.ask({ kind: 'had' })
      await watcher.kill()
      return rate(from, BigInt(at))
    },
    etcdctl: async () => {
      const missing = new Set(records.map(({ id }) => `${prefix}${keys.endpoint(network, id)}`))
      const done = arrivals()
      const all = done.wait('all')
      const etcdctl = await etcdctlWatch(world, line => {
        if (missing.delete(line) && missing.size === 0) done.came('all')
      })
      const from = ns()
      await write(writes)
      const at = await within(240_000, all, 'the last change')
      await etcdctl.close()
      return rate(from, at)
    },
  })
  report.row({
    section: 'store',
    name: 'changes a second through one mirror',
    unit: '/s',
    better: 'more',
    ours: values.mirror,
    peer: { name: 'etcdctl watch', values: values.etcdctl },
    goal: { kind: 'ratio', atLeast: 0.5 },
    note: `${count.toLocaleString('en-US')} records put by ${writers} commits of 100 at a time; the writer is part of both`,
  })
}

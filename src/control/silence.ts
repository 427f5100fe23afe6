// SPDX-License-Identifier: Apache-2.0
// A node that nobody has seen for a day is fenced as by `weft node rm`. Only time that passes here with a working store
// counts: what we cannot see has not happened. A fencing that broke off half-way, whoever began it, is finished here too.
import type { Timer } from '../base/clock.ts'
import { codeOf, describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { NodeName } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Context } from './context.ts'
import { isStillborn } from './networks.ts'
import type { Nodes } from './nodes.ts'

export const silenceMs = 24 * 3600_000
const lookEveryMs = 60_000

export const openSilence = (
  { mirror, node, clock, log }: Pick<Context, 'mirror' | 'node' | 'clock' | 'log'>,
  { present, fence, release }: Pick<Nodes, 'present' | 'fence' | 'release'>,
): Closeable => {
  const silent = new Map<NodeName, number>() // ms counted
  const tombstones = new Map<NodeName, { readonly revision: bigint; released: boolean }>() // seen before
  const stop = new AbortController()
  let timer: Timer | undefined
  let working: Promise<void> = Promise.resolve()
  let before = clock.monotonic()
  let sawBefore = mirror.status.available

  /** Once for each tombstone: a fenced node makes no records. Not at the first look, when its maker may be at it. */
  const finish = async (name: NodeName, revision: bigint): Promise<void> => {
    const seen = tombstones.get(name)
    if (seen?.revision !== revision) return void tombstones.set(name, { revision, released: false })
    if (seen.released || present(name) || !mirror.status.available) return
    seen.released = !holdsAnything(mirror.snapshot, name)
    if (seen.released) return
    try {
      const { endpoints } = await release(name, stop.signal)
      log.warn({ node: name, endpoints }, 'was fenced half-way: finished')
    } catch (error) {
      if (codeOf(error) !== 'NOT_FOUND') log.warn({ node: name, err: describe(error) }, 'fencing not finished')
    }
  }

  const look = async (): Promise<void> => {
    const now = clock.monotonic()
    // while this process stood still it has seen nothing
    const passed = sawBefore && mirror.status.available ? Math.min(now - before, 2 * lookEveryMs) : 0
    before = now
    sawBefore = mirror.status.available
    for (const { record, revision } of [...mirror.snapshot.nodes.values()]) {
      const { name } = record
      if (record.fenced !== undefined) await finish(name, revision)
      if (name === node || record.fenced !== undefined || present(name)) {
        silent.delete(name)
        continue
      }
      const ms = (silent.get(name) ?? 0) + passed
      silent.set(name, ms)
      if (ms < silenceMs) continue
      try {
        const { endpoints } = await fence(name, stop.signal)
        silent.delete(name)
        log.warn({ node: name, endpoints }, 'not seen for 24 hours: fenced')
      } catch (error) {
        // another host may have been first, or it is back
        if (codeOf(error) !== 'NOT_FOUND') log.warn({ node: name, err: describe(error) }, 'silent node not fenced')
      }
    }
    for (const seen of [silent, tombstones])
      for (const name of seen.keys()) if (!mirror.snapshot.nodes.has(name)) seen.delete(name)
  }
  const arm = (): void => {
    timer = clock.after(lookEveryMs, () => {
      working = look().finally(() => stop.signal.aborted || arm())
    })
  }
  arm()

  return {
    async close() {
      stop.abort(new Error('closed'))
      timer?.cancel()
      await working
    },
  }
}

const holdsAnything = (snapshot: Snapshot, name: NodeName): boolean => {
  for (const { record } of snapshot.pools.values()) if (record.node === name && !record.settled) return true
  for (const { record } of snapshot.networks.values()) if (isStillborn(record, name)) return true
  for (const network of snapshot.networks.keys())
    for (const table of [snapshot.endpoints(network), snapshot.addresses(network), snapshot.macs(network)])
      for (const { record } of table.values()) if ('node' in record && record.node === name) return true
  return false
}

// SPDX-License-Identifier: Apache-2.0
// A node that nobody has seen for a day is fenced as by `weft node rm`. Only time that passes here with a working store
// counts: what we cannot see has not happened.
import type { Timer } from '../base/clock.ts'
import { codeOf, describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { NodeName } from '../model/ids.ts'
import type { Context } from './context.ts'
import type { Nodes } from './nodes.ts'

export const silenceMs = 24 * 3600_000
const lookEveryMs = 60_000

export const openSilence = (
  { mirror, node, clock, log }: Pick<Context, 'mirror' | 'node' | 'clock' | 'log'>,
  { present, fence }: Pick<Nodes, 'present' | 'fence'>,
): Closeable => {
  const silent = new Map<NodeName, number>() // ms counted
  const stop = new AbortController()
  let timer: Timer | undefined
  let working: Promise<void> = Promise.resolve()
  let before = clock.monotonic()
  let sawBefore = mirror.status.available

  const look = async (): Promise<void> => {
    const now = clock.monotonic()
    const passed = sawBefore && mirror.status.available ? now - before : 0
    before = now
    sawBefore = mirror.status.available
    for (const { record } of [...mirror.snapshot.nodes.values()]) {
      const { name } = record
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
    for (const name of silent.keys()) if (!mirror.snapshot.nodes.has(name)) silent.delete(name)
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

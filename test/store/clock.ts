// SPDX-License-Identifier: Apache-2.0
// Clocks for tests.
import { type Clock, systemClock } from '../../src/base/clock.ts'

/** Runs so many times as fast: what takes seconds by design does not in a test. */
export const fastClock = (factor: number): Clock => ({
  now: () => Date.now(),
  monotonic: () => performance.now() * factor,
  after: (delayMs, run) => systemClock.after(delayMs / factor, run),
})

export interface ManualClock extends Clock {
  /** Runs what falls due on the way, in order. */
  advance(ms: number): void
  /** As when the process stood still: what fell due runs afterwards, late. */
  jump(ms: number): void
}

export const manualClock = (): ManualClock => {
  let now = 0
  const timers = new Set<{ readonly at: number; readonly run: () => void }>()
  const fire = (until: number, follow: boolean): void => {
    for (;;) {
      const [next] = [...timers].filter(timer => timer.at <= until).sort((a, b) => a.at - b.at)
      if (!next) return
      timers.delete(next)
      if (follow) now = Math.max(now, next.at)
      next.run()
    }
  }
  return {
    now: () => now,
    monotonic: () => now,
    after(delayMs, run) {
      const timer = { at: now + delayMs, run }
      timers.add(timer)
      return { cancel: () => timers.delete(timer) }
    },
    advance(ms) {
      const until = now + ms
      fire(until, true)
      now = until
    },
    jump(ms) {
      now += ms
      fire(now, false)
    },
  }
}

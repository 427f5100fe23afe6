// SPDX-License-Identifier: Apache-2.0
// Time as a collaborator, so that tests advance it instead of sleeping.

export interface Timer {
  /** May be called twice, and after it fired. */
  cancel(): void
}

export interface Clock {
  /** Wall clock, ms since 1970. For records and people only. */
  now(): number
  /** ms from an arbitrary origin, never goes back. For every duration. */
  monotonic(): number
  after(delayMs: number, run: () => void): Timer
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs)
    return { cancel: () => clearTimeout(timer) }
  },
}

/** Resolves after delayMs; rejects with the signal's reason as soon as it aborts. */
export const sleep = (clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error)
    const onAbort = (): void => {
      timer.cancel()
      reject(signal?.reason as Error)
    }
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })

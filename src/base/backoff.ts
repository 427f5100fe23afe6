// SPDX-License-Identifier: Apache-2.0
// Delays between attempts: doubling, capped, jittered by up to half so that hosts do not step together.

export interface Backoff {
  /** ms to wait before the next attempt. */
  next(): number
  /** Call after a success. */
  reset(): void
}

export const backoff = (firstMs: number, maxMs: number, random: () => number = Math.random): Backoff => {
  let current = firstMs
  return {
    next() {
      const delay = current * (0.5 + random() / 2)
      current = Math.min(current * 2, maxMs)
      return delay
    },
    reset() {
      current = firstMs
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// Work one after the other: per key, in the order of arrival. A failure does not stop those behind it.

export interface KeyedQueue {
  /** Runs when everything queued earlier under the same key has settled. */
  run<T>(key: string, work: () => Promise<T>): Promise<T>
  /** Resolves when nothing is queued or running. */
  idle(): Promise<void>
}

export const keyedQueue = (): KeyedQueue => {
  const tails = new Map<string, Promise<unknown>>() // owned here; an entry lives while its key has work
  return {
    run(key, work) {
      const before = tails.get(key) ?? Promise.resolve()
      const mine = before.then(work, work)
      const tail = mine.catch(() => {})
      tails.set(key, tail)
      void tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key)
      })
      return mine
    },
    async idle() {
      while (tails.size > 0) await Promise.all(tails.values())
    },
  }
}

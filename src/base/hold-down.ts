// SPDX-License-Identifier: Apache-2.0
// A condition counts once it has held for a while: what is seen for the first time may be on its way.
import type { Clock } from './clock.ts'

export interface HoldDown<K> {
  /** It is so just now; true: it has been so, at every look, for this long. */
  held(key: K, ms: number): boolean
  /** It is not so (any more). */
  clear(key: K): void
  /** It is not so (any more) of any others. */
  keep(is: (key: K) => boolean): void
  /** What is waiting for its time, or past it. */
  keys(): IterableIterator<K>
  readonly size: number
}

export const openHoldDown = <K>(clock: Pick<Clock, 'monotonic'>): HoldDown<K> => {
  const since = new Map<K, number>()
  return {
    held(key, ms) {
      const first = since.get(key)
      if (first === undefined) since.set(key, clock.monotonic())
      return first !== undefined && clock.monotonic() - first >= ms
    },
    clear: key => void since.delete(key),
    keep(is) {
      for (const key of since.keys()) if (!is(key)) since.delete(key)
    },
    keys: () => since.keys(),
    get size() {
      return since.size
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// What does not look as wanted. Notifications of one change come in pieces (a link without its master, then with): they are
// believed only when nothing has corrected them for a moment.
import type { Clock, Timer } from '../base/clock.ts'
import { type Ns, nsOfKey, type ObjectKey } from '../kernel/objects.ts'

export interface Suspicion {
  /** Whether the object of this key is other than wanted. */
  say(key: ObjectKey, wrong: boolean): void
  /** Anything in there may be. */
  sayOf(ns: Ns): void
  /**
   * We wrote it and the kernel took it, but meanwhile it was said to be otherwise: a piece of our own change, or what
   * somebody did right after. When nothing says that it is as wanted, one must look.
   */
  doubt(key: ObjectKey): void
  close(): void
}

const settleMs = 30

export const openSuspicion = (
  clock: Clock,
  believe: (keys: Iterable<ObjectKey>, namespaces: Iterable<Ns>) => void,
): Suspicion => {
  const keys = new Set<ObjectKey>()
  const namespaces = new Set<Ns>()
  const doubts = new Map<ObjectKey, Timer>()
  let timer: Timer | undefined
  const settle = (): void => {
    timer ??= clock.after(settleMs, () => {
      timer = undefined
      believe([...keys], [...namespaces])
      keys.clear()
      namespaces.clear()
    })
  }
  const settled = (key: ObjectKey): void => {
    doubts.get(key)?.cancel()
    doubts.delete(key)
  }
  const sayOf = (ns: Ns): void => {
    namespaces.add(ns)
    settle()
  }
  return {
    say(key, wrong) {
      settled(key)
      if (!wrong) return void keys.delete(key)
      keys.add(key)
      settle()
    },
    sayOf,
    doubt(key) {
      settled(key)
      const look = (): void => {
        doubts.delete(key)
        sayOf(nsOfKey(key))
      }
      doubts.set(key, clock.after(settleMs, look))
    },
    close() {
      timer?.cancel()
      for (const key of [...doubts.keys()]) settled(key)
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// What does not look as wanted. Notifications of one change come in pieces (a link without its master, then with): they are
// believed only when nothing has corrected them for a moment.
import type { Clock, Timer } from '../base/clock.ts'
import type { Ns, ObjectKey } from '../kernel/objects.ts'

export interface Suspicion {
  /** Whether the object of this key is other than wanted. */
  say(key: ObjectKey, wrong: boolean): void
  /** Anything in there may be. */
  sayOf(ns: Ns): void
  close(): void
}

const settleMs = 30

export const openSuspicion = (
  clock: Clock,
  believe: (keys: Iterable<ObjectKey>, namespaces: Iterable<Ns>) => void,
): Suspicion => {
  const keys = new Set<ObjectKey>()
  const namespaces = new Set<Ns>()
  let timer: Timer | undefined
  const settle = (): void => {
    timer ??= clock.after(settleMs, () => {
      timer = undefined
      believe([...keys], [...namespaces])
      keys.clear()
      namespaces.clear()
    })
  }
  return {
    say(key, wrong) {
      if (!wrong) return void keys.delete(key)
      keys.add(key)
      settle()
    },
    sayOf(ns) {
      namespaces.add(ns)
      settle()
    },
    close: () => timer?.cancel(),
  }
}

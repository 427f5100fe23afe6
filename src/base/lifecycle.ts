// SPDX-License-Identifier: Apache-2.0
// Start in order, stop in reverse. Whatever a program opens is registered here and closed exactly once.
import type { Log } from './log.ts'

export interface Closeable {
  /** Settles what is pending; may be called twice. */
  close(): Promise<void> | void
}

export interface Lifecycle extends Closeable {
  add<T extends Closeable>(name: string, part: T): T
  close(): Promise<void>
}

export const openLifecycle = (log: Log): Lifecycle => {
  const parts: { name: string; part: Closeable }[] = []
  let closing: Promise<void> | undefined
  const closeAll = async (): Promise<void> => {
    for (let entry = parts.pop(); entry; entry = parts.pop()) {
      try {
        await entry.part.close()
      } catch (error) {
        log.error({ err: error, part: entry.name }, 'close failed')
      }
    }
  }
  return {
    add(name, part) {
      parts.push({ name, part })
      return part
    },
    close() {
      closing ??= closeAll()
      return closing
    },
  }
}

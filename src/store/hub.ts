// SPDX-License-Identifier: Apache-2.0
// Fans changes out to watches. A slow consumer costs one entry per key, not one per change: what waits for it is merged.
import type { Change, Entry, WatchEvent } from './store.ts'

/** Where a watch begins. */
export interface Beginning {
  readonly entries: readonly Entry[]
  readonly revision: bigint
  /** Not to be shown before; what is told up to the revision is then in it already, and skipped. Rejects: no watch. */
  readonly ready?: Promise<void>
}

export interface Hub {
  /** To every watch whose prefix matches. One call is one commit, or one list. */
  tell(changes: readonly Change[], revision: bigint, relisted: boolean): void
  /** From now on down for this reason; undefined: up again. Watches made later are told too. */
  outage(error: Error | undefined): void
  /**
   * `begin` is called together with the registration: every `tell` after it reaches the watch. Without a beginning the
   * watch waits for `start`, or for an outage to tell. Ends when the signal aborts.
   */
  watch(
    prefix: string,
    signal: AbortSignal,
    begin: (prefix: string) => Beginning | undefined,
  ): AsyncGenerator<WatchEvent>
  /** The first snapshot, for watches that began without one. */
  start(begin: (prefix: string) => Beginning): void
}

interface Watcher {
  readonly prefix: string
  readonly after: bigint
  readonly waiting: Map<string, Change> // by key, in the order of the last change
  revision: bigint
  relisted: boolean
  snapshot: Beginning | undefined
  begun: boolean
  wake: () => void
}

export const openHub = (): Hub => {
  const watchers = new Set<Watcher>()
  let outage: Error | undefined

  const next = (watcher: Watcher, toldOutage: Error | undefined): WatchEvent | undefined => {
    if (watcher.snapshot) {
      const { entries, revision } = watcher.snapshot
      watcher.snapshot = undefined
      return { kind: 'snapshot', entries, revision }
    }
    if (watcher.waiting.size > 0) {
      const changes = [...watcher.waiting.values()]
      const { revision, relisted } = watcher
      watcher.waiting.clear()
      watcher.relisted = false
      return { kind: 'changes', changes, revision, relisted }
    }
    if (outage === toldOutage) return undefined
    return outage ? { kind: 'unavailable', error: outage } : { kind: 'available' }
  }

  const tellOne = (watcher: Watcher, changes: readonly Change[], revision: bigint, relisted: boolean): void => {
    if (!watcher.begun || revision <= watcher.after) return
    let seen = false
    for (const change of changes) {
      if (!change.key.startsWith(watcher.prefix)) continue
      watcher.waiting.delete(change.key)
      watcher.waiting.set(change.key, change)
      seen = true
    }
    if (!seen) return
    watcher.revision = revision
    watcher.relisted ||= relisted
    watcher.wake()
  }

  /** A function of its own: what a generator has in a variable it holds as long as the watch, here every record. */
  const register = (prefix: string, begin: (prefix: string) => Beginning | undefined): Watcher => {
    const snapshot = begin(prefix)
    const watcher: Watcher = {
      prefix,
      after: snapshot?.ready ? snapshot.revision : -1n,
      waiting: new Map(),
      revision: snapshot?.revision ?? 0n,
      relisted: false,
      snapshot,
      begun: snapshot !== undefined,
      wake: () => {},
    }
    watchers.add(watcher)
    return watcher
  }

  const follow = async function* (watcher: Watcher, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    let toldOutage: Error | undefined
    const onAbort = (): void => watcher.wake()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      const whole = await Promise.race([
        watcher.snapshot?.ready?.then(
          () => true,
          () => false,
        ) ?? true,
        new Promise<false>(resolve => {
          watcher.wake = () => signal.aborted && resolve(false)
        }),
      ])
      if (!whole) return
      while (!signal.aborted) {
        const event = next(watcher, toldOutage)
        if (!event) {
          await new Promise<void>(resolve => {
            watcher.wake = resolve
          })
          continue
        }
        if (event.kind === 'unavailable' || event.kind === 'available') toldOutage = outage
        yield event
      }
    } finally {
      watchers.delete(watcher)
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    tell(changes, revision, relisted) {
      for (const watcher of watchers) tellOne(watcher, changes, revision, relisted)
    },
    outage(error) {
      if (outage?.message === error?.message) return
      outage = error
      for (const watcher of watchers) watcher.wake()
    },
    start(begin) {
      for (const watcher of watchers) {
        if (watcher.begun) continue
        watcher.begun = true
        watcher.snapshot = begin(watcher.prefix)
        watcher.wake()
      }
    },
    async *watch(prefix, signal, begin) {
      if (!signal.aborted) yield* follow(register(prefix, begin), signal)
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// A store behind a line that a test cuts: nothing comes through, or the answer of a commit alone is lost.
import { WeftError } from '../../src/base/errors.ts'
import type { CallOptions, Change, Entry, Store, WatchEvent } from '../../src/store/store.ts'

export interface CutOff extends Store {
  cut(): void
  /** Also of the answers that were to be lost. */
  mend(): void
  /** Calls wait until it is mended, or their caller has enough; watches go on. */
  stall(): void
  /** The next commit is done, and not answered; the line is cut with it. */
  loseNextAnswer(): void
}

/** Closing it leaves `inner` open. */
export const cutOff = (inner: Store): CutOff => {
  let line = new AbortController()
  let mended = Promise.withResolvers<void>()
  let losing = false
  const closed = new AbortController()
  const away = () => new WeftError('STORE_UNAVAILABLE', 'the line is cut')
  let stalled: PromiseWithResolvers<void> | undefined
  const patience = (signal: AbortSignal | undefined): Promise<never> =>
    new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true }))
  const through = async <T>(work: () => Promise<T>, call?: CallOptions): Promise<T> => {
    if (stalled) await Promise.race([stalled.promise, patience(call?.signal)])
    if (line.signal.aborted || closed.signal.aborted) throw away()
    const result = await work()
    if (line.signal.aborted) throw away()
    return result
  }
  const cut = (): void => {
    if (line.signal.aborted) return
    mended = Promise.withResolvers()
    line.abort()
  }

  const watch = async function* (prefix: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const told = new Map<string, Entry>()
    const ended = new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
    for (let begun = false; !signal.aborted; ) {
      if (line.signal.aborted) {
        yield { kind: 'unavailable', error: away() }
        await Promise.race([mended.promise, ended])
        continue
      }
      const { signal: whole } = line
      for await (const event of inner.watch(prefix, AbortSignal.any([signal, whole]))) {
        if (whole.aborted || signal.aborted) break
        if (event.kind === 'snapshot') {
          const gone = [...told.keys()].filter(key => !event.entries.some(entry => entry.key === key))
          const changes: Change[] = [
            ...event.entries
              .filter(entry => told.get(entry.key)?.revision !== entry.revision)
              .map(entry => ({ key: entry.key, entry })),
            ...gone.map(key => ({ key, entry: undefined })),
          ]
          told.clear()
          for (const entry of event.entries) told.set(entry.key, entry)
          if (!begun) yield event
          else {
            if (changes.length > 0) yield { kind: 'changes', changes, revision: event.revision, relisted: true }
            yield { kind: 'available' }
          }
          begun = true
          continue
        }
        if (event.kind === 'changes')
          for (const { key, entry } of event.changes)
            if (entry) told.set(key, entry)
            else told.delete(key)
        yield event
      }
      if (!whole.aborted) return // it is closed
    }
  }

  return {
    cut,
    mend() {
      losing = false
      stalled?.resolve()
      stalled = undefined
      if (!line.signal.aborted) return
      line = new AbortController()
      mended.resolve()
    },
    stall() {
      stalled = Promise.withResolvers()
    },
    loseNextAnswer() {
      losing = true
    },
    identity: call => through(() => inner.identity(call)),
    get: (key, call) => through(() => inner.get(key, call), call),
    list: (prefix, call) => through(() => inner.list(prefix, call), call),
    commit: (compares, writes, call) =>
      through(async () => {
        const revision = await inner.commit(compares, writes, call)
        if (losing) cut()
        losing = false
        return revision
      }, call),
    watch,
    lease: (ttlMs, call) => through(() => inner.lease(ttlMs, call)),
    async close() {
      closed.abort()
      cut()
    },
  }
}

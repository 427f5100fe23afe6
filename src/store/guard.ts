// SPDX-License-Identifier: Apache-2.0
// Does not believe a store that was emptied, restored from an older copy, or swapped for another: for the rest of weft
// it is then unreachable, loudly, until an operator accepts it, or the right one comes back. One watch of the store
// feeds all watches of the guard; they go on from what was believed last, which is kept on disk.
import { type Clock, sleep } from '../base/clock.ts'
import { codeOf, describe, WeftError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { batches } from './batches.ts'
import { afterChanges, clusterId, differencesTo, doubt, type Look, type Pins, sweeping, worse } from './belief.ts'
import { callMs, closedError, limited } from './call.ts'
import { openGuardDisk } from './guard-disk.ts'
import { openHub } from './hub.ts'
import { keys } from './keys.ts'
import type { CallOptions, Change, Entry, Store, StoredRecord, Write } from './store.ts'

export interface GuardedStore extends Store {
  /** Believe the doubted store as it is now. Resolves when the old pins are forgotten; false: nothing was in doubt. */
  accept(): Promise<boolean>
  /** What is believed, without what says who is alive. */
  copy(): readonly StoredRecord[]
  /**
   * Writes a copy into the store and believes it. EXISTS when the store holds anything else: nothing is written then.
   * The cluster record goes last, so that half a copy is never believed; safe to repeat.
   */
  restore(records: readonly StoredRecord[], call?: CallOptions): Promise<void>
}

export interface GuardOptions {
  /** Where pins and the last believed snapshot are kept; made if missing. */
  readonly dir: string
  readonly log: Log
  readonly clock: Clock
}

/** A doubted store is looked at again this often: the right one may come back. */
const lookAgainMs = 5000
const retryMs = 200

/** Owns `inner` from now on. Throws INTERNAL for pins that cannot be read. */
export const guardStore = async (inner: Store, { dir, log, clock }: GuardOptions): Promise<GuardedStore> => {
  const hub = openHub()
  const stop = new AbortController()
  const pins = (): Pins | undefined => ids && { ...ids, revision: seen }
  const disk = await openGuardDisk({ dir, clock, log, state: () => ({ pins: pins(), believed }) })
  const believed = disk.entries
  /** Newest versions that cannot be read: what is believed of these keys, also at the next start, is the version before. */
  const unreadable = new Map<string, Entry>()
  let ids = disk.pins && { engine: disk.pins.engine, cluster: disk.pins.cluster }
  let seen = disk.pins?.revision ?? 0n // highest revision of the store with these ids
  let revision = seen // of what is believed
  let engine: string | undefined // that was believed last in this run
  let begun = believed.size > 0 // there is something to show
  let decided = false // there was a verdict in this run
  const verdict = Promise.withResolvers<void>()
  let suspicion: WeftError | undefined
  let outage: Error | undefined = begun
    ? new WeftError('STORE_UNAVAILABLE', 'store not reached yet: this is the state of before')
    : undefined
  let accepted = Promise.withResolvers<void>()
  let closing: Promise<void> | undefined

  const show = (): void => hub.outage(suspicion ?? outage)

  const take = (changes: readonly Change[], at: bigint): void => {
    const taken: Change[] = []
    for (const change of changes) {
      const { key, entry } = change
      // an operator who accepts a store takes it as it is
      if (entry && ids && worse(believed.get(key), entry)) {
        unreadable.set(key, entry)
        continue
      }
      taken.push(change)
      unreadable.delete(key)
      if (entry) believed.set(key, entry)
      else believed.delete(key)
    }
    revision = at
    if (at > seen) seen = at
    const cluster = clusterId(believed.get(keys.cluster))
    if (engine !== undefined && cluster !== undefined) ids = { engine, cluster }
    disk.append(taken)
  }

  /** A key whose newest version cannot be read comes twice: what is believed of it first. */
  const begin = (prefix: string): { entries: readonly Entry[]; revision: bigint } => ({
    entries: [...believed.values(), ...unreadable.values()]
      .filter(entry => entry.key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1)),
    revision,
  })

  /** What our watches have been told: the newest version of every key. */
  const shown = (): ReadonlyMap<string, Entry> =>
    unreadable.size === 0 ? believed : new Map([...believed, ...unreadable])

  const believe = (look: Look): void => {
    if (suspicion) log.info({}, 'store believed again')
    suspicion = undefined
    engine = look.engine
    const changes = differencesTo(shown(), look.entries)
    take(changes, look.revision)
    if (unreadable.size === 0) {
      // the same records; the watch below holds the texts of these keys as well, so they are held once
      believed.clear()
      for (const entry of look.entries) believed.set(entry.key, entry)
    }
    if (!begun) {
      begun = true
      hub.start(begin)
    } else if (changes.length > 0) hub.tell(changes, look.revision, true)
  }

  /** Whatever the store holds at the next look is believed. */
  const forget = (): void => {
    ids = undefined
    seen = 0n
    disk.append([])
    accepted.resolve()
  }

  const suspect = (why: string): void => {
    const message = `the store is not believed: ${why}. If this is meant, type weft store accept`
    if (suspicion?.message !== message) log.error({ why, remedy: 'weft store accept' }, 'store not believed')
    suspicion = new WeftError('STORE_SUSPECT', message)
  }

  /** Believes a listed state, or becomes suspicious. Rejects when the store cannot be asked. */
  const judge = async (entries: readonly Entry[], at: bigint): Promise<void> => {
    const identity = await inner.identity({ signal: stop.signal })
    // a commit may have been answered while the list was made: then a second look shows it
    const newest = at < seen ? identity.revision : at
    const why = doubt(pins(), believed, { engine: identity.engine, revision: newest, entries })
    if (why === undefined) believe({ engine: identity.engine, revision: at, entries })
    else suspect(why)
    decided = true
    verdict.resolve()
  }

  /** One watch of the inner store, until it is doubted. */
  const follow = async (): Promise<void> => {
    const round = new AbortController()
    try {
      for await (const event of inner.watch('', AbortSignal.any([stop.signal, round.signal]))) {
        switch (event.kind) {
          case 'unavailable':
            outage = event.error
            break
          case 'available':
            outage = undefined
            break
          case 'snapshot':
            await judge(event.entries, event.revision)
            outage = undefined
            break
          case 'changes':
            if (event.relisted || sweeping(believed, event.changes))
              await judge(afterChanges(shown(), event.changes), event.revision)
            else {
              take(event.changes, event.revision)
              hub.tell(event.changes, event.revision, false)
            }
        }
        show()
        if (suspicion && event.kind !== 'unavailable') return
      }
    } finally {
      round.abort(new Error('looking again'))
    }
  }

  const run = async (): Promise<void> => {
    show()
    while (!stop.signal.aborted) {
      try {
        await follow()
      } catch (error) {
        if (stop.signal.aborted) return
        if (codeOf(error) !== 'STORE_UNAVAILABLE') log.error({ err: describe(error) }, 'watch of the store failed')
        outage = error as Error
        show()
      }
      const wait = sleep(clock, suspicion ? lookAgainMs : retryMs, stop.signal).catch(() => {})
      await Promise.race([accepted.promise, wait])
      accepted = Promise.withResolvers()
    }
  }
  const running = run()

  /** Waits for the first verdict where there is something to doubt. Returns what is left of the call's time. */
  const enter = async (what: string, call: CallOptions | undefined): Promise<CallOptions | undefined> => {
    if (closing) throw closedError()
    let left = call
    if (!decided && ids) {
      const since = clock.monotonic()
      try {
        await limited(what, clock, stop.signal, call, () => verdict.promise)
      } catch (error) {
        throw outage && codeOf(error) === 'STORE_UNAVAILABLE'
          ? new WeftError('STORE_UNAVAILABLE', `${what}: store not reached`, { cause: outage })
          : error
      }
      left = { ...call, timeoutMs: Math.max(1, (call?.timeoutMs ?? callMs) - (clock.monotonic() - since)) }
    }
    if (suspicion) throw suspicion
    return left
  }

  return {
    async identity(call) {
      if (closing) throw closedError()
      return inner.identity(call)
    },
    async get(key, call) {
      return inner.get(key, await enter(`get ${key}`, call))
    },
    async list(prefix, call) {
      return inner.list(prefix, await enter(`list ${prefix}`, call))
    },
    async commit(compares, writes, call) {
      const at = await inner.commit(compares, writes, await enter('commit', call))
      if (at > seen) {
        seen = at
        disk.append([])
      }
      return at
    },
    watch: (prefix, signal) =>
      hub.watch(prefix, AbortSignal.any([signal, stop.signal]), () => (begun ? begin(prefix) : undefined)),
    async lease(ttlMs, call) {
      return inner.lease(ttlMs, { ...call, ...(await enter('lease', call)) })
    },
    async accept() {
      if (!suspicion) return false
      log.warn({ doubted: suspicion.message }, 'store accepted by the operator')
      forget()
      return true
    },
    copy: () =>
      [...believed.values()]
        .sort((a, b) => (a.key < b.key ? -1 : 1))
        .filter(({ key }) => !ofTheLiving(key))
        .map(({ key, value }) => ({ key, value })),
    async restore(records, call) {
      await restoreInto(inner, records, call)
      log.warn({ records: records.length }, 'store restored from a copy by the operator')
      forget()
    },
    close() {
      closing ??= (async () => {
        await inner.close()
        stop.abort(closedError())
        await running
        await disk.close()
      })()
      return closing
    },
  }
}

const ofTheLiving = (key: string): boolean => /^(presence|floating)\//.test(key)

const restoreInto = async (store: Store, records: readonly StoredRecord[], call?: CallOptions): Promise<void> => {
  const wanted = new Map(records.map(({ key, value }) => [key, value]))
  const { entries } = await store.list('', call)
  const there = new Set<string>()
  for (const { key, value } of entries) {
    if (wanted.get(key) === value) there.add(key)
    else if (!ofTheLiving(key))
      throw new WeftError(
        'EXISTS',
        `the store holds ${key} already, which is not in the copy: import into an empty one`,
      )
  }
  const puts = records
    .filter(({ key }) => !there.has(key))
    .map(({ key, value }): Write => ({ kind: 'put', key, value }))
  const [last, first] = [puts.filter(put => put.key === keys.cluster), puts.filter(put => put.key !== keys.cluster)]
  for (const batch of [...batches(first), ...batches(last)])
    await store.commit(
      batch.map(({ key }) => ({ key, is: 'absent' })),
      batch,
      call,
    )
}

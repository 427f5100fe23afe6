// SPDX-License-Identifier: Apache-2.0
// The store of a single host: everything in memory, every commit in a journal on disk before it is answered. Without a
// folder it is memory only. One process at a time: the daemon holds the lock on its data directory.
import { mkdir } from 'node:fs/promises'
import { type Clock, systemClock, type Timer } from '../base/clock.ts'
import { ConflictError, WeftError } from '../base/errors.ts'
import { version } from '../base/version.ts'
import { newId } from '../model/ids.ts'
import { type Journal, type JournalWrite, openJournal } from './journal.ts'
import {
  type CallOptions,
  type Change,
  type Compare,
  type Entry,
  type Lease,
  limits,
  type Store,
  type WatchEvent,
  type Write,
} from './store.ts'

export interface EmbeddedOptions {
  /** Made if missing, mode 0700. Absent: memory only. */
  readonly dir?: string
  readonly clock?: Clock
}

interface Watcher {
  readonly prefix: string
  readonly events: WatchEvent[]
  wake(): void
}

/** A journal longer than this, bytes, is folded into a snapshot. */
const journalLimit = 8 << 20

export const openEmbeddedStore = async ({ dir, clock = systemClock }: EmbeddedOptions): Promise<Store> => {
  const entries = new Map<string, Entry>()
  const watchers = new Set<Watcher>()
  const leases = new Map<string, { keys: Set<string>; end(): void }>()
  const leaseOf = new Map<string, string>() // key → lease; not kept over a restart
  const stop = new AbortController()
  let revision = 0n
  let engine = newId()
  let journal: Journal | undefined
  let compacting: Promise<void> | undefined
  let told: Promise<void> = Promise.resolve()

  if (dir !== undefined) {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const opened = await openJournal(dir, newId)
    journal = opened.journal
    engine = opened.loaded.engine
    revision = opened.loaded.revision
    for (const { k, v, r } of opened.loaded.entries) entries.set(k, { key: k, value: v, revision: BigInt(r) })
    for (const { r, w } of opened.loaded.records)
      for (const { k, v } of w) {
        if (v === undefined) entries.delete(k)
        else entries.set(k, { key: k, value: v, revision: BigInt(r) })
      }
  }

  const open = (options?: CallOptions): void => {
    if (stop.signal.aborted) throw new WeftError('CANCELLED', 'the store is closed')
    options?.signal?.throwIfAborted()
  }

  const holds = (compare: Compare): boolean => {
    const entry = entries.get(compare.key)
    switch (compare.is) {
      case 'absent':
        return entry === undefined
      case 'present':
        return entry !== undefined
      case 'at':
        return entry?.revision === compare.revision
    }
  }

  const check = (writes: readonly Write[]): void => {
    if (writes.length > limits.writesPerCommit)
      throw new WeftError('INVALID', `a commit has ${writes.length} writes, at most ${limits.writesPerCommit} fit`)
    for (const write of writes) {
      if (write.kind === 'put' && Buffer.byteLength(write.value) > limits.valueBytes)
        throw new WeftError('INVALID', `the value of ${write.key} is larger than ${limits.valueBytes} bytes`)
      if (write.kind === 'put' && write.lease && !leases.has(write.lease.id))
        throw new WeftError('NOT_FOUND', `lease ${write.lease.id} is gone`)
    }
  }

  /** To memory at once, so that the next commit sees it; answered and told when it is on the disk, in order. */
  const write = async (writes: readonly Write[]): Promise<bigint> => {
    const at = ++revision
    const changes: Change[] = []
    const lines: JournalWrite[] = []
    for (const one of writes) {
      const before = leaseOf.get(one.key)
      if (before !== undefined) leases.get(before)?.keys.delete(one.key)
      leaseOf.delete(one.key)
      if (one.kind === 'put') {
        const entry = { key: one.key, value: one.value, revision: at }
        entries.set(one.key, entry)
        changes.push({ key: one.key, entry })
        lines.push({ k: one.key, v: one.value })
        if (one.lease) {
          leaseOf.set(one.key, one.lease.id)
          leases.get(one.lease.id)?.keys.add(one.key)
        }
      } else if (entries.delete(one.key)) {
        changes.push({ key: one.key, entry: undefined })
        lines.push({ k: one.key })
      }
    }
    const durable = journal?.append({ r: String(at), w: lines }) ?? Promise.resolve()
    const before = told
    told = durable.then(
      () => before.then(() => tell(changes, at)),
      () => {},
    )
    await durable
    await told
    if (journal && journal.length > journalLimit) await fold(journal)
    return at
  }

  const tell = (changes: readonly Change[], at: bigint): void => {
    for (const watcher of watchers) {
      const seen = changes.filter(change => change.key.startsWith(watcher.prefix))
      if (seen.length === 0) continue
      watcher.events.push({ kind: 'changes', changes: seen, revision: at, relisted: false })
      watcher.wake()
    }
  }

  const fold = (log: Journal): Promise<void> => {
    compacting ??= log
      .compact(
        engine,
        [...entries.values()].map(({ key, value, revision: r }) => ({ k: key, v: value, r: String(r) })),
        revision,
      )
      .finally(() => {
        compacting = undefined
      })
    return compacting
  }

  const listed = (prefix: string): Entry[] =>
    [...entries.values()].filter(entry => entry.key.startsWith(prefix)).sort((a, b) => (a.key < b.key ? -1 : 1))

  return {
    async identity(options) {
      open(options)
      return { engine, version: `embedded ${version}`, revision }
    },
    async get(key, options) {
      open(options)
      return entries.get(key)
    },
    async list(prefix, options) {
      open(options)
      return { entries: listed(prefix), revision }
    },
    async commit(compares, writes, options) {
      open(options)
      check(writes)
      if (!compares.every(holds))
        throw new ConflictError(
          `somebody else changed ${compares
            .filter(compare => !holds(compare))
            .map(compare => compare.key)
            .join(', ')}`,
        )
      return write(writes)
    },
    async *watch(prefix, signal) {
      let wake = Promise.withResolvers<void>()
      const watcher: Watcher = { prefix, events: [], wake: () => wake.resolve() }
      const end = AbortSignal.any([signal, stop.signal])
      end.addEventListener('abort', watcher.wake, { once: true })
      await told // what is not durable yet is not listed twice
      watchers.add(watcher)
      try {
        yield { kind: 'snapshot', entries: listed(prefix), revision }
        while (!end.aborted) {
          const event = watcher.events.shift()
          if (event) {
            yield event
            continue
          }
          wake = Promise.withResolvers()
          await wake.promise
        }
      } finally {
        watchers.delete(watcher)
        end.removeEventListener('abort', watcher.wake)
      }
    },
    async lease(ttlMs, options): Promise<Lease> {
      open(options)
      if (ttlMs < 1000) throw new WeftError('INVALID', `a lease of ${ttlMs} ms: at least 1000`)
      // the process keeps its leases alive by living; they end by close, or with it
      const id = newId()
      const lost = Promise.withResolvers<void>()
      const keys = new Set<string>()
      let timer: Timer | undefined
      leases.set(id, { keys, end: () => timer?.cancel() })
      return {
        id,
        lost: lost.promise,
        async close() {
          if (!leases.delete(id)) return
          timer?.cancel()
          timer = undefined
          const gone = [...keys].map((key): Write => ({ kind: 'delete', key }))
          if (gone.length > 0 && !stop.signal.aborted) await write(gone)
        },
      }
    },
    async close() {
      if (stop.signal.aborted) return
      // presence and the like end with the process
      const gone = [...leaseOf.keys()].map((key): Write => ({ kind: 'delete', key }))
      if (gone.length > 0) await write(gone)
      stop.abort(new WeftError('CANCELLED', 'the store is closed'))
      await told
      await compacting
      await journal?.close()
    },
  }
}

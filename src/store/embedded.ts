// SPDX-License-Identifier: Apache-2.0
// The store of a single host: everything in memory, every commit in a journal on disk before it is answered. Nobody is
// shown what is not on the disk yet: readers and losers of a compare wait for it too. Without a folder it is memory only.
import { mkdir } from 'node:fs/promises'
import { type Clock, systemClock, type Timer } from '../base/clock.ts'
import { lockDir } from '../base/dir-lock.ts'
import { ConflictError, describe, WeftError } from '../base/errors.ts'
import { type Log, silentLog } from '../base/log.ts'
import { version } from '../base/version.ts'
import { newId } from '../model/ids.ts'
import { checkCommit, checkLease, closedError, limited } from './call.ts'
import { openHub } from './hub.ts'
import { type Journal, openJournal } from './journal.ts'
import type { JournalRecord } from './journal-read.ts'
import type { CallOptions, Change, Compare, Entry, Lease, Store, Write } from './store.ts'

export interface EmbeddedOptions {
  /** Made if missing, mode 0700; one process at a time. Absent: memory only. */
  readonly dir?: string
  readonly clock?: Clock
  /** Told of a torn tail, and of a disk that refuses. */
  readonly log?: Log
}

/** A journal longer than this, bytes, and longer than the snapshot before it, is folded into a snapshot. */
const journalLimit = 8 << 20

interface HeldLease {
  readonly keys: Set<string>
  renewed: number
  timer: Timer | undefined
  readonly lost: () => void
}

/** Throws TAKEN when another process has the folder, INTERNAL when its content is damaged. */
export const openEmbeddedStore = async (options: EmbeddedOptions): Promise<Store> => {
  const { dir, clock = systemClock, log = silentLog } = options
  const entries = new Map<string, Entry>()
  const leases = new Map<string, HeldLease>()
  const leaseOf = new Map<string, string>() // key → lease; not kept over a restart
  const hub = openHub()
  const stop = new AbortController()
  let revision = 0n
  let engine = newId()
  let journal: Journal | undefined
  let trouble: WeftError | undefined
  let unanswered = 0
  let last: Promise<void> = Promise.resolve() // the newest commit is on the disk and told
  let folding: Promise<void> | undefined
  let foldAt = journalLimit
  let closing: Promise<void> | undefined

  const onTrouble = (error: WeftError | undefined): void => {
    if (error?.message === trouble?.message) return
    if (error) log.error({ err: describe(error) }, 'the disk refuses a commit: tried again until it takes it')
    else log.info({}, 'the disk takes commits again')
    trouble = error
    if (error) hub.outage(error)
    // what waited is told before
    else void last.catch(() => {}).then(() => hub.outage(trouble))
  }

  const enter = (call?: CallOptions): void => {
    if (closing) throw closedError()
    call?.signal?.throwIfAborted()
  }

  const settled = (what: string, call?: CallOptions): Promise<void> =>
    unanswered === 0 ? Promise.resolve() : limited(what, clock, stop.signal, call, () => last)

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

  const unhang = (key: string): void => {
    const lease = leaseOf.get(key)
    if (lease === undefined) return
    leases.get(lease)?.keys.delete(key)
    leaseOf.delete(key)
  }

  /** To memory at once, so that the next commit compares with it; resolves when it is on the disk and told. */
  const write = (writes: readonly Write[]): Promise<void> => {
    const effective = writes.filter(one => one.kind === 'put' || entries.has(one.key))
    if (effective.length === 0) return last
    const at = ++revision
    const changes = effective.map((one): Change => {
      unhang(one.key)
      if (one.kind === 'delete') {
        entries.delete(one.key)
        return { key: one.key, entry: undefined }
      }
      const entry = { key: one.key, value: one.value, revision: at }
      entries.set(one.key, entry)
      if (one.lease) {
        leaseOf.set(one.key, one.lease.id)
        leases.get(one.lease.id)?.keys.add(one.key)
      }
      return { key: one.key, entry }
    })
    unanswered++
    last = (journal?.append(recordOf(at, effective)) ?? Promise.resolve())
      .then(() => hub.tell(changes, at, false))
      .finally(() => {
        unanswered--
      })
    last.catch(() => {}) // whoever waits hears it
    return last
  }

  const fold = (target: Journal): void => {
    if (folding || target.size.journal < Math.max(foldAt, target.size.snapshot)) return
    const all = [...entries.values()].map(({ key: k, value: v, revision: r }) => ({
      k,
      v,
      r: String(r),
      ...(leaseOf.has(k) ? { l: true as const } : {}),
    }))
    folding = target
      .compact(all, revision)
      .then(
        () => {
          foldAt = journalLimit
        },
        error => {
          foldAt = target.size.journal * 2
          if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'no snapshot written, the journal grows')
        },
      )
      .finally(() => {
        folding = undefined
      })
  }

  /** The process keeps its leases alive by running. One that stood still for longer than the TTL has lost them. */
  const keep = (id: string, ttlMs: number, renewMs: number): void => {
    const lease = leases.get(id)
    if (!lease) return
    if (clock.monotonic() - lease.renewed > ttlMs) {
      void end(id).catch(() => {}) // in memory they are gone at once
      lease.lost()
      return
    }
    lease.renewed = clock.monotonic()
    lease.timer = clock.after(renewMs, () => keep(id, ttlMs, renewMs))
  }

  const end = (id: string): Promise<void> => {
    const lease = leases.get(id)
    if (!lease) return Promise.resolve()
    leases.delete(id)
    lease.timer?.cancel()
    return write([...lease.keys].map((key): Write => ({ kind: 'delete', key })))
  }

  const listed = (prefix: string): Entry[] => {
    const found: Entry[] = []
    for (const entry of entries.values()) if (entry.key.startsWith(prefix)) found.push(entry)
    return found.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  const closeAll = async (): Promise<void> => {
    const ends = [...leases.keys()].map(end)
    await journal?.close() // settles what waits for the disk
    await Promise.allSettled([...ends, last])
    stop.abort(closedError())
    await lock?.close()
  }

  if (dir !== undefined) await mkdir(dir, { recursive: true, mode: 0o700 })
  const lock = dir === undefined ? undefined : await lockDir(dir)
  if (dir !== undefined)
    try {
      const { journal: opened, loaded } = await openJournal({ dir, clock, newEngine: newId, onTrouble })
      journal = opened
      engine = loaded.engine
      revision = loaded.revision
      for (const { k, v, r } of loaded.entries) entries.set(k, { key: k, value: v, revision: BigInt(r) })
      if (loaded.torn > 0) log.warn({ dir, bytes: loaded.torn }, 'cut off a commit that was torn, and never answered')
      await write(loaded.entries.filter(({ l }) => l).map(({ k }): Write => ({ kind: 'delete', key: k })))
    } catch (error) {
      await journal?.close()
      await lock?.close()
      throw error
    }

  return {
    async identity(call) {
      enter(call)
      const at = revision
      await settled('identity', call)
      return { engine, version: `embedded ${version}`, revision: at }
    },
    async get(key, call) {
      enter(call)
      const entry = entries.get(key)
      await settled(`get ${key}`, call)
      return entry
    },
    async list(prefix, call) {
      enter(call)
      const found = { entries: listed(prefix), revision }
      await settled(`list ${prefix}`, call)
      return found
    },
    async commit(compares, writes, call) {
      enter(call)
      checkCommit(compares, writes)
      if (trouble) throw trouble
      for (const { key, lease } of writes.filter(one => one.kind === 'put'))
        if (lease && !leases.has(lease.id)) throw new WeftError('NOT_FOUND', `put ${key}: lease ${lease.id} is gone`)
      const failed = compares.filter(compare => !holds(compare))
      if (failed.length > 0) {
        await settled('commit', call)
        throw new ConflictError(`somebody else changed ${failed.map(compare => compare.key).join(', ')}`)
      }
      const done = write(writes)
      const at = revision
      await limited('commit', clock, stop.signal, call, () => done)
      if (journal) fold(journal)
      return at
    },
    watch: (prefix, signal) =>
      hub.watch(prefix, AbortSignal.any([signal, stop.signal]), () => ({
        entries: listed(prefix),
        revision,
        ready: last,
      })),
    async lease(ttlMs, call): Promise<Lease> {
      enter(call)
      checkLease(ttlMs)
      const id = newId()
      const { promise: lost, resolve } = Promise.withResolvers<void>()
      const held: HeldLease = { keys: new Set(), renewed: clock.monotonic(), timer: undefined, lost: resolve }
      leases.set(id, held)
      keep(id, ttlMs, call?.renewMs ?? ttlMs / 3)
      return {
        id,
        lost,
        get expires() {
          return held.renewed + ttlMs
        },
        async leave() {
          held.timer?.cancel()
          if (leases.has(id)) held.timer = clock.after(ttlMs, () => void end(id).catch(() => {}))
        },
        close: () => limited('revoke', clock, stop.signal, undefined, () => end(id)).catch(() => {}),
      }
    },
    close() {
      closing ??= closeAll()
      return closing
    },
  }
}

const recordOf = (at: bigint, writes: readonly Write[]): JournalRecord => ({
  r: String(at),
  w: writes.map(one => ({
    k: one.key,
    ...(one.kind === 'put' ? { v: one.value, ...(one.lease ? { l: true as const } : {}) } : {}),
  })),
})

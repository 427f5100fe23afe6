// SPDX-License-Identifier: Apache-2.0
// Does not believe a store that was emptied, restored from an older copy, or swapped for another: for the rest of weft
// it is then unreachable, loudly, until an operator accepts it. What was believed last is kept on disk, so that a start
// without a store begins from there.
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { sleep } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { readIfPresent, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import { keys } from './keys.ts'
import type { Change, Entry, Store, WatchEvent } from './store.ts'

export interface GuardedStore extends Store {
  /** Believe the store as it is now. */
  accept(): Promise<void>
}

export interface GuardOptions {
  /** Where pins and the last believed snapshot are kept. */
  readonly dir: string
  readonly log: Log
  readonly clock: Clock
}

interface Pins {
  readonly engine: string
  readonly cluster: string
  readonly revision: string
}

/** Share of the records that a new list may take away, and the least number that the share applies to. */
const share = 0.3
const few = 10
const saveEveryMs = 2000

export const guardStore = async (inner: Store, { dir, log, clock }: GuardOptions): Promise<GuardedStore> => {
  const pinsPath = join(dir, 'pins.json')
  const snapshotPath = join(dir, 'snapshot.json')
  const text = await readIfPresent(pinsPath)
  let pins = text === undefined ? undefined : (JSON.parse(text) as Pins)
  let suspicion: WeftError | undefined
  let accepted = Promise.withResolvers<void>()
  const believed = new Map<string, Entry>(await load(snapshotPath))
  let revision = BigInt(pins?.revision ?? 0)
  let saved = 0
  let saving: Promise<void> = Promise.resolve()
  const closing = new AbortController()

  const save = (engine: string): void => {
    const cluster = clusterId(believed.get(keys.cluster)?.value) ?? pins?.cluster
    if (cluster === undefined) return
    pins = { engine, cluster, revision: String(revision) }
    const now = clock.monotonic()
    if (now - saved < saveEveryMs) return
    saved = now
    const pinned = JSON.stringify(pins)
    const list = JSON.stringify([...believed.values()].map(({ key, value, revision: r }) => [key, value, String(r)]))
    saving = saving
      .then(() => writeDurably(snapshotPath, list))
      .then(() => writeDurably(pinsPath, pinned))
      .catch(error => log.error({ err: describe(error) }, 'last believed state not written'))
  }

  const suspect = (why: string): WeftError =>
    new WeftError('STORE_SUSPECT', `the store is not believed: ${why}. If this is meant, type weft store accept`)

  /** Why a listed state is not to be believed; undefined: it is. */
  const doubt = async (entries: readonly Entry[], at: bigint): Promise<string | undefined> => {
    if (!pins) return undefined
    const { engine } = await inner.identity()
    const cluster = clusterId(entries.find(entry => entry.key === keys.cluster)?.value)
    if (cluster === undefined) return `it is empty, it held cluster ${pins.cluster.slice(0, 8)}`
    if (cluster !== pins.cluster)
      return `it holds another cluster, ${cluster.slice(0, 8)} instead of ${pins.cluster.slice(0, 8)}`
    if (engine !== pins.engine)
      return `it is another etcd (${engine} instead of ${pins.engine}), perhaps restored from a copy`
    if (at < revision) return `its revision went back from ${revision} to ${at}: restored from an older copy`
    return tooMuchGone(believed, entries)
  }

  const take = (changes: readonly Change[], at: bigint): void => {
    for (const { key, entry } of changes) {
      if (entry) believed.set(key, entry)
      else believed.delete(key)
    }
    if (at > revision) revision = at
  }

  const watch = async function* (prefix: string, until: AbortSignal): AsyncGenerator<WatchEvent> {
    const signal = AbortSignal.any([until, closing.signal])
    let begun = false
    if (prefix === '' && believed.size > 0) {
      begun = true
      yield { kind: 'snapshot', entries: [...believed.values()], revision }
      yield {
        kind: 'unavailable',
        error: new WeftError('STORE_UNAVAILABLE', 'not reached yet: this is the state of before'),
      }
    }
    while (!signal.aborted) {
      const stop = new AbortController()
      const round = AbortSignal.any([signal, stop.signal])
      let engine = pins?.engine
      for await (const event of inner.watch(prefix, round)) {
        if (prefix !== '' || event.kind === 'unavailable' || event.kind === 'available') {
          yield event
          continue
        }
        if (event.kind === 'changes' && !event.relisted && !sweeping(believed, event.changes)) {
          take(event.changes, event.revision)
          yield event
          if (engine !== undefined) save(engine)
          continue
        }
        const entries = event.kind === 'snapshot' ? event.entries : after(believed, event.changes)
        const why = await doubt(entries, event.revision).catch(error => describe(error))
        if (why !== undefined) {
          suspicion = suspect(why)
          log.error({ err: suspicion.message }, 'store not believed')
          yield { kind: 'unavailable', error: suspicion }
          stop.abort(new Error('not believed'))
          break
        }
        engine = (await inner.identity()).engine
        const changes = event.kind === 'snapshot' ? differences(believed, entries) : event.changes
        const first = event.kind === 'snapshot' && !begun
        begun = true
        take(changes, event.revision)
        if (first) yield event
        else {
          if (event.kind === 'snapshot') yield { kind: 'available' }
          yield { kind: 'changes', changes, revision: event.revision, relisted: true }
        }
        saved = 0
        save(engine)
      }
      if (signal.aborted) return
      if (!suspicion) continue
      // look again by itself too: the right store may come back
      await Promise.race([accepted.promise, sleep(clock, 5000, signal).catch(() => {})])
      suspicion = undefined
    }
  }

  return {
    identity: options => inner.identity(options),
    get: (key, options) => (suspicion ? Promise.reject(suspicion) : inner.get(key, options)),
    list: (prefix, options) => (suspicion ? Promise.reject(suspicion) : inner.list(prefix, options)),
    commit: (compares, writes, options) =>
      suspicion ? Promise.reject(suspicion) : inner.commit(compares, writes, options),
    watch,
    lease: (ttlMs, options) => (suspicion ? Promise.reject(suspicion) : inner.lease(ttlMs, options)),
    async accept() {
      pins = undefined
      revision = 0n
      await writeDurably(pinsPath, 'null')
      accepted.resolve()
      accepted = Promise.withResolvers()
      log.warn({}, 'store accepted by the operator')
    },
    async close() {
      closing.abort(new WeftError('CANCELLED', 'the store is closed'))
      await inner.close()
      await saving
    },
  }
}

const load = async (path: string): Promise<[string, Entry][]> => {
  const text = await readIfPresent(path)
  if (text === undefined) return []
  return (JSON.parse(text) as [string, string, string][]).map(([key, value, revision]) => [
    key,
    { key, value, revision: BigInt(revision) },
  ])
}

const clusterId = (value: string | undefined): string | undefined =>
  value === undefined ? undefined : (JSON.parse(value) as { id?: string }).id

const after = (believed: ReadonlyMap<string, Entry>, changes: readonly Change[]): Entry[] => {
  const next = new Map(believed)
  for (const { key, entry } of changes) {
    if (entry) next.set(key, entry)
    else next.delete(key)
  }
  return [...next.values()]
}

const differences = (believed: ReadonlyMap<string, Entry>, entries: readonly Entry[]): Change[] => {
  const gone = new Set(believed.keys())
  const changes: Change[] = []
  for (const entry of entries) {
    gone.delete(entry.key)
    if (believed.get(entry.key)?.revision !== entry.revision) changes.push({ key: entry.key, entry })
  }
  for (const key of gone) changes.push({ key, entry: undefined })
  return changes
}

/** Deletions that deserve the doubt of a new list: of the cluster, of a node, of many records at once. */
const sweeping = (believed: ReadonlyMap<string, Entry>, changes: readonly Change[]): boolean => {
  const gone = changes.filter(({ key, entry }) => !entry && counted(key) && believed.has(key))
  return (
    gone.some(({ key }) => key === keys.cluster || key.startsWith('nodes/')) ||
    (gone.length >= few * share && gone.length > believed.size * share)
  )
}

/** Presence comes and goes with leases and says nothing. */
const counted = (key: string): boolean => !key.startsWith('presence/')

const tooMuchGone = (believed: ReadonlyMap<string, Entry>, entries: readonly Entry[]): string | undefined => {
  const there = new Set(entries.map(entry => entry.key))
  const before = [...believed.keys()].filter(counted)
  const nodes = before.filter(key => key.startsWith('nodes/'))
  if (nodes.length > 0 && !nodes.some(key => there.has(key))) return 'all nodes are gone from it'
  const gone = before.filter(key => !there.has(key)).length
  if (before.length >= few && gone > before.length * share)
    return `${gone} of ${before.length} records are gone from it`
  return undefined
}

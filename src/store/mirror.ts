// SPDX-License-Identifier: Apache-2.0
// The store's records in memory, decoded and indexed, kept by one watch. Everybody who reads desired state reads this;
// a record that cannot be decoded is named in `damaged`, and its last readable version stays in force (without one it is
// left out); it never stops the others.

import { codeOf, describe, type ErrorCode } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { Cluster } from '../model/cluster.ts'
import type { AddressClaim, Endpoint, MacClaim } from '../model/endpoint.ts'
import type { FloatingClaim } from '../model/floating.ts'
import type { NodeName } from '../model/ids.ts'
import type { NameClaim, Network, PoolClaim } from '../model/network.ts'
import type { Node, Presence } from '../model/node.ts'
import type { PortClaim } from '../model/port.ts'
import { sharedService, type Vip } from '../model/service.ts'
import type { ServiceOptions } from '../model/service-options.ts'
import type { Snapshot, Versioned } from '../model/snapshot.ts'
import { decode, recordKinds } from './codec.ts'
import { keys, poolOfKey, splitKey } from './keys.ts'
import type { Change, Store } from './store.ts'

/**
 * Which records changed: [table, key part, key part?], e.g. ['endpoints', network, endpoint]; and which services an
 * endpoint has left: ['members', network, service].
 */
export type ChangedKey = readonly string[]

export interface MirrorStatus {
  readonly available: boolean
  readonly error: string | undefined
  /** Of the error. */
  readonly code?: ErrorCode | undefined
  /** Records whose newest version is not in force, because it cannot be decoded, or our own that somebody removed: key → why. */
  readonly damaged: ReadonlyMap<string, string>
  readonly records: number
}

export interface Mirror extends Closeable {
  readonly snapshot: Snapshot
  readonly status: MirrorStatus
  /** Resolves with the first snapshot. */
  ready(signal?: AbortSignal): Promise<void>
  /** Called after each batch with what changed; 'all' for the first snapshot. Returns the unsubscriber. */
  subscribe(listener: (changed: readonly ChangedKey[] | 'all') => void): () => void
  /** Called when the store becomes unreachable or comes back. */
  onAvailability(listener: (available: boolean) => void): () => void
  /**
   * A record that this host decided on while the store was away, for everybody here as if it had been read; undefined:
   * it is no more. Whatever the store says of the key takes its place.
   */
  show(key: string, value: string | undefined): void
  /** Resolves when the mirror has seen this revision. */
  reached(revision: bigint, signal?: AbortSignal): Promise<void>
}

type Table<T> = Map<string, Versioned<T>>
/** Tables that are only asked for one by one. */
const unread = new Set(['node-numbers', 'vnis'])

class Tables implements Snapshot {
  revision = 0n
  cluster: Versioned<Cluster> | undefined
  readonly nodes: Table<Node> = new Map()
  readonly presence: Table<Presence> = new Map()
  readonly networks: Table<Network> = new Map()
  readonly names: Table<NameClaim> = new Map()
  readonly pools: Table<PoolClaim> = new Map()
  readonly ports: Table<PortClaim> = new Map()
  readonly floating: Table<FloatingClaim> = new Map()
  readonly #services = new Map<string, Table<ServiceOptions>>()
  readonly #endpoints = new Map<string, Table<Endpoint>>()
  readonly #addresses = new Map<string, Table<AddressClaim>>()
  readonly #macs = new Map<string, Table<MacClaim>>()
  readonly #vips = new Map<string, Table<Vip>>()
  readonly #members = new Map<string, Set<string>>() // '<network> <service>' → endpoints

  services = (network: string): Table<ServiceOptions> => inner(this.#services, network)
  endpoints = (network: string): Table<Endpoint> => inner(this.#endpoints, network)
  addresses = (network: string): Table<AddressClaim> => inner(this.#addresses, network)
  macs = (network: string): Table<MacClaim> => inner(this.#macs, network)
  vips = (network: string): Table<Vip> => inner(this.#vips, network)
  members = (network: string, service: string): ReadonlySet<string> =>
    this.#members.get(`${network} ${service}`) ?? none

  /** Files an endpoint under its service; gives the one that it has left. */
  enlist(network: string, id: string, before: Endpoint | undefined, after: Endpoint | undefined): string | undefined {
    const [left, joined] = [before && sharedService(before), after && sharedService(after)]
    if (left === joined) return undefined
    if (joined !== undefined) {
      const key = `${network} ${joined}`
      this.#members.set(key, (this.#members.get(key) ?? new Set()).add(id))
    }
    if (left === undefined) return undefined
    const key = `${network} ${left}`
    const rest = this.#members.get(key)
    rest?.delete(id)
    if (rest?.size === 0) this.#members.delete(key)
    return left
  }

  /** Only for writing: the table and the key inside it that a store key lands in. */
  place(parts: readonly string[]): { table: Map<string, Versioned<unknown>>; key: string } | undefined {
    const [head, a, b] = parts as [string, string, string]
    const at = (table: Map<string, unknown>, key: string) => ({ table: table as Map<string, Versioned<unknown>>, key })
    switch (head) {
      case 'nodes':
        return at(this.nodes, a)
      case 'presence':
        return at(this.presence, a)
      case 'networks':
        return at(this.networks, a)
      case 'network-names':
        return at(this.names, a)
      case 'pools':
        return at(this.pools, poolOfKey(a))
      case 'ports':
        return at(this.ports, `${a}/${b}`)
      case 'floating':
        return at(this.floating, a)
      case 'services':
        return at(owned(this.#services, a), b)
      case 'endpoints':
        return at(owned(this.#endpoints, a), b)
      case 'addresses':
        return at(owned(this.#addresses, a), b)
      case 'macs':
        return at(owned(this.#macs, a), b)
      case 'vips':
        return at(owned(this.#vips, a), b)
      default:
        return undefined
    }
  }
}

const none: ReadonlySet<string> = new Set()

/** undefined: not ours, it has a bare percent sign. */
const partsOf = (key: string): readonly string[] | undefined => {
  try {
    return splitKey(key)
  } catch {
    return undefined
  }
}

/** Of one event, so that nothing has to be forgotten. */
type Texts = Map<string, string>

const once = (text: string, texts: Texts): string => {
  const known = texts.get(text)
  if (known === undefined) texts.set(text, text)
  return known ?? text
}

/** What stands in an endpoint and in each claim on what it owns is held once. */
const shared = <T>(record: T, texts: Texts): T => {
  const fields = record as { id?: unknown; endpoint?: unknown; boot?: unknown }
  if (typeof fields.id === 'string') fields.id = once(fields.id, texts)
  if (typeof fields.endpoint === 'string') fields.endpoint = once(fields.endpoint, texts)
  if (typeof fields.boot === 'string') fields.boot = once(fields.boot, texts)
  return record
}

const inner = <T>(tables: Map<string, Table<T>>, network: string): Table<T> => tables.get(network) ?? new Map()
const owned = <T>(tables: Map<string, Table<T>>, network: string): Table<T> => {
  const known = tables.get(network)
  if (known) return known
  const table: Table<T> = new Map()
  tables.set(network, table)
  return table
}

/** Nothing reaches the store, and what was believed of it holds: this host goes on by itself. */
export const isAway = ({ available, code }: MirrorStatus): boolean => !available && code === 'STORE_UNAVAILABLE'

/** `self`: its node record is never removed, only marked as fenced: when it is gone, the last one stays in force. */
export const openMirror = (store: Store, log: Log, self?: NodeName): Mirror => {
  const tables = new Tables()
  const damaged = new Map<string, string>()
  const listeners = new Set<(changed: readonly ChangedKey[] | 'all') => void>()
  const availability = new Set<(available: boolean) => void>()
  const waiting = new Set<{ revision: bigint; resolve: () => void; reject: (error: Error) => void }>()
  const stop = new AbortController()
  const first = Promise.withResolvers<void>()
  first.promise.catch(() => {})
  let available = false
  let problem: string | undefined
  let code: ErrorCode | undefined
  let records = 0
  const shown = new Set<string>() // keys of records that the store has not

  const own = self === undefined ? undefined : keys.node(self)
  const doubt = (key: string, why: string): void => {
    if (damaged.get(key) !== why) log.error({ key, err: why }, 'damaged record: its last version stays in force')
    damaged.set(key, why)
  }

  const take = ({ key, entry }: Change, texts: Texts): ChangedKey[] => {
    const split = partsOf(key)
    const parts = split ?? key.split('/')
    const kind = recordKinds[parts[0]!]
    if (!kind || unread.has(parts[0]!)) return [parts]
    if (!entry && key === own && tables.nodes.has(self!)) {
      doubt(key, 'the record of this node was removed by somebody')
      return [parts]
    }
    let versioned: Versioned<unknown> | undefined
    try {
      if (entry) versioned = { record: shared(decode(kind, key, entry.value, split), texts), revision: entry.revision }
    } catch (error) {
      doubt(key, describe(error))
      return [parts]
    }
    damaged.delete(key)
    let left: string | undefined
    if (key === keys.cluster) {
      if (tables.cluster) records--
      tables.cluster = versioned as Versioned<Cluster> | undefined
    } else {
      const place = tables.place(parts)
      if (!place) return [parts]
      if (kind === 'endpoint') {
        const [before, after] = [place.table.get(place.key), versioned] as (Versioned<Endpoint> | undefined)[]
        left = tables.enlist(parts[1]!, place.key, before?.record, after?.record)
      }
      if (place.table.delete(place.key)) records--
      if (versioned) place.table.set(kind === 'endpoint' ? once(place.key, texts) : place.key, versioned)
    }
    if (versioned) records++
    return left === undefined ? [parts] : [parts, ['members', parts[1]!, left]]
  }

  const read = (change: Change, texts: Texts): ChangedKey[] => {
    shown.delete(change.key)
    return take(change, texts)
  }

  const reach = (revision: bigint): void => {
    tables.revision = revision
    for (const waiter of waiting) {
      if (waiter.revision > revision) continue
      waiting.delete(waiter)
      waiter.resolve()
    }
  }

  const run = async (): Promise<void> => {
    const texts: Texts = new Map()
    for await (const event of store.watch('', stop.signal)) {
      switch (event.kind) {
        case 'snapshot':
          for (const entry of event.entries) read({ key: entry.key, entry }, texts)
          available = true
          reach(event.revision)
          first.resolve()
          for (const listener of listeners) listener('all')
          break
        case 'changes': {
          const changed = event.changes.flatMap(change => read(change, texts))
          reach(event.revision)
          for (const listener of listeners) listener(changed)
          break
        }
        case 'unavailable':
        case 'available':
          available = event.kind === 'available'
          problem = event.kind === 'unavailable' ? describe(event.error) : undefined
          code = event.kind === 'unavailable' ? codeOf(event.error) : undefined
          for (const listener of availability) listener(available)
          break
      }
      texts.clear()
    }
  }
  const running = run().catch(error => {
    if (!stop.signal.aborted) log.error({ err: error }, 'store watch ended')
    problem = describe(error)
    available = false
  })

  return {
    snapshot: tables,
    get status() {
      return { available, error: problem, code, damaged, records }
    },
    ready: signal => abortable(first.promise, signal),
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    onAvailability(listener) {
      availability.add(listener)
      return () => availability.delete(listener)
    },
    show(key, value) {
      if (value === undefined && !shown.delete(key)) return
      if (value !== undefined) shown.add(key)
      const entry = value === undefined ? undefined : { key, value, revision: tables.revision }
      const changed = take({ key, entry }, new Map())
      for (const listener of listeners) listener(changed)
    },
    reached(revision, signal) {
      if (tables.revision >= revision) return Promise.resolve()
      const waiter = { revision, ...Promise.withResolvers<void>() }
      waiting.add(waiter)
      return abortable(waiter.promise, signal).finally(() => waiting.delete(waiter))
    },
    async close() {
      stop.abort(new Error('closed'))
      await running
      const closed = new Error('mirror closed')
      first.reject(closed)
      for (const waiter of waiting) waiter.reject(closed)
    },
  }
}

const abortable = <T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> => {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

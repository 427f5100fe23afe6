// SPDX-License-Identifier: Apache-2.0
// The contract of the store: where desired state lives. Two implementations (etcd, embedded), one compliance suite
// (test/suites/store.ts). Keys are text without the configured prefix ("endpoints/<network>/<endpoint>"), values are
// text (JSON by convention, see store/codec), revisions are bigint and grow with every commit.
import type { Closeable } from '../base/lifecycle.ts'

export interface Entry {
  readonly key: string
  readonly value: string
  /** Revision of the commit that wrote this value (etcd's mod_revision). */
  readonly revision: bigint
}

/** An entry outside of any store: of a copy. */
export interface StoredRecord {
  readonly key: string
  readonly value: string
}

/** A condition of a commit. All must hold, or nothing is written. */
export type Compare =
  | { readonly key: string; readonly is: 'absent' }
  | { readonly key: string; readonly is: 'present' }
  /** The entry was last written at exactly this revision. */
  | { readonly key: string; readonly is: 'at'; readonly revision: bigint }

export type Write =
  | { readonly kind: 'put'; readonly key: string; readonly value: string; readonly lease?: Lease }
  | { readonly kind: 'delete'; readonly key: string }

export interface Change {
  readonly key: string
  /** Absent: deleted. */
  readonly entry: Entry | undefined
}

/**
 * What a watch yields. The first is a snapshot, or, while there is none, `unavailable`. After a lost or compacted stream
 * the watch lists again by itself and yields the *differences* as changes, so a consumer sees every key's last state,
 * each key in order. A commit is never split over two events; a slow consumer may get several in one, and then of each
 * key only the last state.
 */
export type WatchEvent =
  | { readonly kind: 'snapshot'; readonly entries: readonly Entry[]; readonly revision: bigint }
  | {
      readonly kind: 'changes'
      readonly changes: readonly Change[]
      readonly revision: bigint
      /** True when these come from a new list, not from the stream: the guard looks at those with suspicion. */
      readonly relisted: boolean
    }
  /** The stream is down (error says why) or up again, after what was missed. Repeats are not sent, another reason may be. */
  | { readonly kind: 'unavailable'; readonly error: Error }
  | { readonly kind: 'available' }

export interface Lease extends Closeable {
  readonly id: string
  /** Resolves when the lease is gone without our doing (expired, server lost it). Never rejects. */
  readonly lost: Promise<void>
  /** Until then (ms of the store's monotonic clock) the store surely has it. Grows with every renewal. */
  readonly expires: number
  /** Revokes it: keys put under it are deleted. Resolves also when the store cannot be reached. */
  close(): Promise<void>
  /** No more renewals: it ends by itself, and what hangs on it stays until then. Instead of `close`. */
  leave(): Promise<void>
}

export interface StoreIdentity {
  /** Which engine this is: etcd's cluster id, or the id made when the embedded journal was created. */
  readonly engine: string
  /** Version of the server software, for log and status. */
  readonly version: string
  readonly revision: bigint
}

/**
 * Biggest value and commit that every implementation takes; beyond: INVALID. commitBytes counts keys and values of the
 * writes: etcd refuses a request of 1.5 MiB.
 */
export const limits = { valueBytes: 512 * 1024, writesPerCommit: 100, commitBytes: 1024 * 1024 } as const

export interface Store extends Closeable {
  /** All reads are linearizable. Every call rejects with STORE_UNAVAILABLE after timeoutMs (default 5000). */
  identity(options?: CallOptions): Promise<StoreIdentity>
  get(key: string, options?: CallOptions): Promise<Entry | undefined>
  /** All entries under a prefix, ordered by key, all at the one revision returned. */
  list(prefix: string, options?: CallOptions): Promise<{ entries: readonly Entry[]; revision: bigint }>
  /**
   * Atomically: if all compares hold, do all writes. Resolves with the revision of the commit.
   * Rejects with ConflictError (nothing written) when a compare does not hold. STORE_UNAVAILABLE means *unknown*:
   * it may or may not have been written; the caller looks. INVALID: beyond the limits, an empty key, or one key
   * written twice. NOT_FOUND: the lease of a write is gone.
   */
  commit(compares: readonly Compare[], writes: readonly Write[], options?: CallOptions): Promise<bigint>
  /**
   * Ends when the signal aborts. Never throws for an unreachable store: it says so and goes on trying. The snapshot may
   * be older than an answered commit, which then follows as a change.
   */
  watch(prefix: string, signal: AbortSignal): AsyncIterable<WatchEvent>
  /** A lease kept alive until closed or lost. Keys put with it vanish when it ends. ttlMs at least 1000. */
  lease(ttlMs: number, options?: LeaseOptions): Promise<Lease>
  close(): Promise<void>
}

export interface CallOptions {
  readonly signal?: AbortSignal
  readonly timeoutMs?: number
}

export interface LeaseOptions extends CallOptions {
  /** How often it is renewed; default: three times in its TTL. */
  readonly renewMs?: number
}

// SPDX-License-Identifier: Apache-2.0
// The store on etcd 3.4 or later: revisions stay text until they are bigint, a commit is one transaction (etcd-commit),
// and what else has no answer is unknown, never repeated here.
import type { Clock } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { checkCommit, checkLease, closedError } from './call.ts'
import { type CallParts, callEtcd, unavailable, type Work } from './etcd-call.ts'
import { endOf, entryOf, openMembers } from './etcd-client.ts'
import { openCommit, revisionOf } from './etcd-commit.ts'
import { keepLease } from './etcd-lease.ts'
import { openTls, type TlsFiles } from './etcd-tls.ts'
import { knownProblems } from './etcd-version.ts'
import type { CallOptions, Entry, Lease, LeaseOptions, Store } from './store.ts'
import { watchPrefix } from './watch.ts'

export interface EtcdOptions {
  /** http://HOST:PORT, or https:// with tls. One client each; the next takes over when one does not answer. */
  readonly endpoints: readonly string[]
  /** Begins and ends with a slash; all keys live below it. */
  readonly prefix: string
  readonly tls?: TlsFiles
  readonly log: Log
  readonly clock: Clock
  /** Differences that the audit of a watch found and repaired: weft_store_audit_repairs_total, must stay 0. */
  readonly onAuditRepair?: (count: number) => void
  /** A watch got an event, or the proof that it has all there is (every 5 s of silence). */
  readonly onHeard?: () => void
}

/**
 * Records of the first page of a list, and of a later one. etcd walks its index to the end for each page: of 200,000 keys
 * that takes some 90 ms, whatever the page holds, so small records come by more at a time.
 */
const page = { first: 1000, most: 10_000, bytes: 4 << 20 } as const
const revokeMs = 1000
const auditEveryMs = 10 * 60_000

/** Does not wait for the server. Throws INVALID for a certificate file that cannot be used. */
export const openEtcdStore = async (options: EtcdOptions): Promise<Store> => {
  const { endpoints, prefix, tls, log, clock } = options
  const stop = new AbortController()
  const reader = tls && openTls(tls, () => clock.now())
  const members = openMembers(endpoints, reader, () => log.info({ ...tls }, 'store: replaced certificate files taken'))
  const leases = new Set<Lease>()
  const parts: CallParts = { members, tls, clock, stop: stop.signal }
  const read = <T>(what: string, call: CallOptions | undefined, work: Work<T>): Promise<T> =>
    callEtcd(parts, what, call, members.count, work)
  const write = <T>(what: string, call: CallOptions | undefined, work: Work<T>): Promise<T> =>
    callEtcd(parts, what, call, 0, work)
  let closing: Promise<void> | undefined

  /** Nothing is stored under the prefix itself: this reads the header, and the header is linearizable. */
  const header = (what: string, call: CallOptions | undefined) =>
    read(what, call, async (client, attempt) => {
      const { header } = await client.kv.range({ key: Buffer.from(prefix) }, attempt)
      return { engine: header.cluster_id, revision: BigInt(header.revision) }
    })

  const list = (part: string, call: CallOptions | undefined, past?: bigint) =>
    read(`list ${part}`, call, async (client, attempt) => {
      const entries: Entry[] = []
      let key = Buffer.from(prefix + part)
      const range_end = endOf(key)
      let at = past?.toString()
      let limit: number = page.first
      let bytes = 0
      for (;;) {
        const revision = at === undefined ? {} : { revision: at }
        const answer = await client.kv.range({ key, range_end, limit, ...revision }, attempt)
        at ??= answer.header.revision
        for (const kv of answer.kvs) {
          entries.push(entryOf(prefix, kv))
          bytes += kv.key.length + kv.value.length
        }
        if (!answer.more) return { entries, revision: BigInt(at), engine: answer.header.cluster_id }
        key = Buffer.concat([answer.kvs.at(-1)!.key, Buffer.from([0])])
        limit = Math.max(page.first, Math.min(page.most, Math.floor(page.bytes / (bytes / entries.length))))
      }
    })

  const lease = async (ttlMs: number, call: LeaseOptions | undefined): Promise<Lease> => {
    checkLease(ttlMs)
    const TTL = Math.ceil(ttlMs / 1000)
    const askedAt = clock.monotonic()
    const granted = await write('lease', call, (client, attempt) => client.leaseClient.leaseGrant({ TTL }, attempt))
    const { ID } = granted
    const kept = keepLease({
      members,
      clock,
      id: ID,
      ttlMs: Number(granted.TTL) * 1000, // the server may give more
      askedAt,
      renewMs: call?.renewMs ?? (Number(granted.TTL) * 1000) / 3,
      async revoke() {
        leases.delete(kept)
        await read('revoke', { timeoutMs: revokeMs }, (client, attempt) =>
          client.leaseClient.leaseRevoke({ ID }, attempt),
        )
      },
    })
    leases.add(kept)
    void kept.lost.then(() => leases.delete(kept))
    return kept
  }

  const closeAll = async (): Promise<void> => {
    await Promise.all([...leases].map(kept => kept.close()))
    stop.abort(closedError())
    members.close()
  }

  const greet = async (): Promise<void> => {
    const version = await versionOf({ timeoutMs: 3000 })
    const problems = knownProblems(version)
    if (problems.length === 0) log.info({ version }, 'store: etcd')
    else log.warn({ version, problems }, 'store: etcd has known faults, a later one is advised')
  }
  const versionOf = (call: CallOptions | undefined): Promise<string> =>
    read('status', call, async (client, attempt) => (await client.maintenance.status(attempt)).version)

  const refuseClosed = (): void => {
    if (closing) throw closedError()
  }

  greet().catch(error => {
    if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'store not reached yet')
  })
  return {
    async identity(call) {
      refuseClosed()
      const [{ engine, revision }, version] = await Promise.all([header('identity', call), versionOf(call)])
      return { engine, version: `etcd ${version}`, revision }
    },
    async get(key, call) {
      refuseClosed()
      return read(`get ${key}`, call, async (client, attempt) => {
        const { kvs } = await client.kv.range({ key: Buffer.from(prefix + key) }, attempt)
        return kvs[0] && entryOf(prefix, kvs[0])
      })
    },
    async list(part, call) {
      refuseClosed()
      return list(part, call)
    },
    async commit(compares, writes, call) {
      refuseClosed()
      checkCommit(compares, writes)
      const commit = openCommit(prefix, compares, writes)
      // a member that is cut off, the next that has not noticed yet, and the election: each may cost a try
      const tries = !commit.repeatable ? 0 : members.count === 1 ? 1 : members.count + 2
      return revisionOf(await callEtcd(parts, 'commit', call, tries, commit.send), compares)
    },
    watch: (part, signal) =>
      watchPrefix({
        members,
        prefix,
        part,
        list,
        head: call => header('watch', call),
        unavailable: cause => unavailable('watch', cause, tls, clock.now()),
        signal: AbortSignal.any([signal, stop.signal]),
        clock,
        log,
        auditEveryMs,
        onAuditRepair: options.onAuditRepair ?? (() => {}),
        onHeard: options.onHeard ?? (() => {}),
      }),
    async lease(ttlMs, call) {
      refuseClosed()
      return lease(ttlMs, call)
    },
    close() {
      closing ??= closeAll()
      return closing
    },
  }
}

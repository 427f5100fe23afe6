// SPDX-License-Identifier: Apache-2.0
// The store on etcd 3.4 or later: revisions stay text until they are bigint, a commit is one transaction, and what has
// no answer is unknown, never repeated here.
import type { Clock } from '../base/clock.ts'
import { ConflictError, describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { checkCommit, checkLease, closedError } from './call.ts'
import { type CallParts, callEtcd, unavailable, type Work } from './etcd-call.ts'
import { endOf, entryOf, openMembers } from './etcd-client.ts'
import { keepLease } from './etcd-lease.ts'
import { readTls, type TlsFiles } from './etcd-tls.ts'
import { knownProblems } from './etcd-version.ts'
import type { CallOptions, Compare, Entry, Lease, Store, Write } from './store.ts'
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
}

const page = 1000
const revokeMs = 1000
const auditEveryMs = 10 * 60_000

/** Does not wait for the server. Throws INVALID for a certificate file that cannot be used. */
export const openEtcdStore = async (options: EtcdOptions): Promise<Store> => {
  const { endpoints, prefix, tls, log, clock } = options
  const stop = new AbortController()
  const members = openMembers(endpoints, tls && readTls(tls, clock.now()))
  const leases = new Set<Lease>()
  const parts: CallParts = { members, tls, clock, stop: stop.signal }
  const read = <T>(what: string, call: CallOptions | undefined, work: Work<T>): Promise<T> =>
    callEtcd(parts, what, call, true, work)
  const write = <T>(what: string, call: CallOptions | undefined, work: Work<T>): Promise<T> =>
    callEtcd(parts, what, call, false, work)
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
      for (;;) {
        const revision = at === undefined ? {} : { revision: at }
        const answer = await client.kv.range({ key, range_end, limit: page, ...revision }, attempt)
        at ??= answer.header.revision
        for (const kv of answer.kvs) entries.push(entryOf(prefix, kv))
        if (!answer.more) return { entries, revision: BigInt(at), engine: answer.header.cluster_id }
        key = Buffer.concat([answer.kvs.at(-1)!.key, Buffer.from([0])])
      }
    })

  const lease = async (ttlMs: number, call: CallOptions | undefined): Promise<Lease> => {
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
      const transaction = {
        compare: compares.map(compare => comparison(prefix, compare)),
        success: writes.map(one => request(prefix, one)),
        failure: [],
      }
      const answer = await write('commit', call, (client, attempt) => client.kv.txn(transaction, attempt))
      if (!answer.succeeded)
        throw new ConflictError(`somebody else changed ${compares.map(compare => compare.key).join(', ')}`)
      return BigInt(answer.header.revision)
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

const comparison = (prefix: string, compare: Compare) => {
  const key = Buffer.from(prefix + compare.key)
  switch (compare.is) {
    case 'absent':
      return { key, result: 'Equal' as const, target: 'Create' as const, create_revision: '0' }
    case 'present':
      return { key, result: 'Greater' as const, target: 'Create' as const, create_revision: '0' }
    case 'at':
      return { key, result: 'Equal' as const, target: 'Mod' as const, mod_revision: String(compare.revision) }
  }
}

const request = (prefix: string, write: Write) => {
  const key = Buffer.from(prefix + write.key)
  if (write.kind === 'delete') return { request_delete_range: { key } }
  const lease = write.lease ? { lease: write.lease.id } : {}
  return { request_put: { key, value: Buffer.from(write.value), ...lease } }
}

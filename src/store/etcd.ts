// SPDX-License-Identifier: Apache-2.0
// The store on etcd 3.4 or later: revisions stay text until they are bigint, commits are one transaction, and what has
// no answer is unknown, never repeated here.
import type { Etcd3 } from 'etcd3'
import { type Clock, sleep } from '../base/clock.ts'
import { ConflictError, describe, WeftError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { endOf, entryOf, limited, openEtcdClient, type TlsFiles, unavailable } from './etcd-client.ts'
import { openLease } from './etcd-lease.ts'
import { type CallOptions, type Compare, type Entry, limits, type Store, type Write } from './store.ts'
import { watchPrefix } from './watch.ts'

export interface EtcdOptions {
  /** http://HOST:PORT, or https:// with tls. */
  readonly endpoints: readonly string[]
  /** Begins and ends with a slash; all keys live below it. */
  readonly prefix: string
  readonly tls?: TlsFiles
  readonly log: Log
  readonly clock: Clock
  /** Counts differences that the audit of the watch found and repaired. */
  readonly onAuditRepair?: (count: number) => void
}

const page = 1000

export const openEtcdStore = async (options: EtcdOptions): Promise<Store> => {
  const { endpoints, prefix, tls, log, clock } = options
  const client: Etcd3 = openEtcdClient(endpoints, tls)
  const stop = new AbortController()
  const leases = new Set<{ close(): Promise<void> }>()

  /** Reads may be repeated until the deadline: after a restart of the server the package refuses for up to 5 s. */
  const read = async <T>(what: string, call: CallOptions | undefined, work: () => Promise<T>): Promise<T> => {
    try {
      return await limited(withStop(call), async () => {
        for (;;) {
          try {
            return await work()
          } catch (error) {
            if (!transient(error) || stop.signal.aborted || call?.signal?.aborted) throw error
            await sleep(clock, 100, stop.signal)
          }
        }
      })
    } catch (error) {
      throw failure(what, error, call)
    }
  }

  const withStop = (call: CallOptions | undefined): CallOptions => ({
    ...call,
    signal: call?.signal ? AbortSignal.any([call.signal, stop.signal]) : stop.signal,
  })

  const failure = (what: string, error: unknown, call: CallOptions | undefined): unknown => {
    if (error instanceof WeftError) return error
    if (call?.signal?.aborted) return call.signal.reason
    return unavailable(what, error, tls)
  }

  const store: Store = {
    identity: call =>
      read('identity', call, async () => {
        const status = await client.maintenance.status()
        return {
          engine: String(status.header.cluster_id),
          version: `etcd ${status.version}`,
          revision: BigInt(status.header.revision),
        }
      }),
    get: (key, call) =>
      read(`get ${key}`, call, async () => {
        const { kvs } = await client.kv.range({ key: Buffer.from(prefix + key) })
        return kvs[0] && entryOf(prefix, kvs[0])
      }),
    list: (part, call) =>
      read(`list ${part}`, call, async () => {
        const entries: Entry[] = []
        let key = Buffer.from(prefix + part)
        const end = endOf(key)
        let at: string | undefined
        for (;;) {
          const answer = await client.kv.range({ key, range_end: end, limit: page, ...(at ? { revision: at } : {}) })
          at ??= answer.header.revision
          for (const kv of answer.kvs) entries.push(entryOf(prefix, kv))
          if (!answer.more) return { entries, revision: BigInt(at) }
          key = Buffer.concat([answer.kvs.at(-1)!.key, Buffer.from([0])])
        }
      }),
    async commit(compares, writes, call) {
      check(writes)
      let answer: Awaited<ReturnType<typeof client.kv.txn>>
      try {
        answer = await limited(withStop(call), () =>
          client.kv.txn({
            compare: compares.map(compare => comparison(prefix, compare)),
            success: writes.map(write => request(prefix, write)),
            failure: [],
          }),
        )
      } catch (error) {
        throw failure('commit', error, call)
      }
      if (!answer.succeeded)
        throw new ConflictError(`somebody else changed ${compares.map(compare => compare.key).join(', ')}`)
      return BigInt(answer.header.revision)
    },
    watch: (part, signal) =>
      watchPrefix({
        client,
        prefix,
        part,
        list: (where, call) => store.list(where, call),
        unavailable: cause => (cause instanceof WeftError ? cause : unavailable('watch', cause, tls)),
        signal: AbortSignal.any([signal, stop.signal]),
        clock,
        log,
        onAuditRepair: options.onAuditRepair ?? (() => {}),
      }),
    async lease(ttlMs, call) {
      const lease = await openLease(client, ttlMs, clock, async work => {
        try {
          return await limited(withStop(call), work)
        } catch (error) {
          throw failure('lease', error, call)
        }
      })
      leases.add(lease)
      void lease.lost.then(() => leases.delete(lease))
      return lease
    },
    async close() {
      stop.abort(new WeftError('CANCELLED', 'the store is closed'))
      for (const lease of leases) await lease.close()
      client.close()
    },
  }
  void store
    .identity({ timeoutMs: 3000 })
    .then(({ version }) => {
      const [, major, minor, patch] = /(\d+)\.(\d+)\.(\d+)/.exec(version)?.map(Number) ?? []
      const good =
        (major === 3 &&
          ((minor === 4 && patch! >= 36) || (minor === 5 && patch! >= 33) || (minor === 6 && patch! >= 14))) ||
        (major ?? 0) > 3
      if (good) log.info({ version }, 'store')
      else
        log.warn(
          { version, advice: '3.4.36, 3.5.33, 3.6.14 or later: this one has known watch and authorization bugs' },
          'store',
        )
    })
    .catch(error => {
      if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'store not reached yet')
    })
  return store
}

/** Connection trouble that passes; answers of the server are not. */
const transient = (error: unknown): boolean =>
  /unavailable|no connection|ECONNREFUSED|ECONNRESET|breaker|leader changed|GOAWAY|dropped|timed? ?out/i.test(
    describe(error),
  ) || (error as { name?: string }).name === 'BrokenCircuitError'

const check = (writes: readonly Write[]): void => {
  if (writes.length > limits.writesPerCommit)
    throw new WeftError('INVALID', `a commit has ${writes.length} writes, at most ${limits.writesPerCommit} fit`)
  for (const write of writes)
    if (write.kind === 'put' && Buffer.byteLength(write.value) > limits.valueBytes)
      throw new WeftError('INVALID', `the value of ${write.key} is larger than ${limits.valueBytes} bytes`)
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

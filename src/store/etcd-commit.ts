// SPDX-License-Identifier: Apache-2.0
// A commit as one transaction of etcd. When a member does not answer (it dies, or lost the others) nobody knows whether
// the transaction was done. One that cannot be done twice, because it puts a key that it compares, is sent again to the
// next member; when a compare does not hold then, what that key held since tells whether the first was done. Any other
// is never repeated.
import type { Etcd3, IKeyValue } from 'etcd3'
import { ConflictError, WeftError } from '../base/errors.ts'
import { type Attempt, neverSent } from './etcd-call.ts'
import type { Compare, Write } from './store.ts'

export interface Commit {
  /** May it be sent again when there was no answer? */
  readonly repeatable: boolean
  /** One try. */
  send(client: Etcd3, attempt: Attempt): Promise<Outcome>
}

export type Outcome =
  | { readonly kind: 'done'; readonly revision: bigint }
  | { readonly kind: 'conflict' }
  /** A compare does not hold, and what an earlier try did cannot be told any more. */
  | { readonly kind: 'unknown' }

/** Throws ConflictError when nothing was written, STORE_UNAVAILABLE when that is unknown. */
export const revisionOf = (outcome: Outcome, compares: readonly Compare[]): bigint => {
  switch (outcome.kind) {
    case 'done':
      return outcome.revision
    case 'conflict':
      throw new ConflictError(`somebody else changed ${compares.map(compare => compare.key).join(', ')}`)
    case 'unknown':
      throw new WeftError('STORE_UNAVAILABLE', 'etcd did not answer (commit), and its keys do not tell any more')
  }
}

export const openCommit = (prefix: string, compares: readonly Compare[], writes: readonly Write[]): Commit => {
  const keyOf = (key: string): Buffer => Buffer.from(prefix + key)
  const transaction = {
    compare: compares.map(one => comparison(keyOf(one.key), one)),
    success: writes.map(write => request(keyOf(write.key), write)),
    failure: [],
  }
  const guard = guardOf(compares, writes)
  let unanswered = false
  return {
    repeatable: guard !== undefined,
    async send(client, attempt) {
      try {
        const again = unanswered
        const answer = await client.kv.txn(transaction, attempt)
        if (answer.succeeded) return { kind: 'done', revision: BigInt(answer.header.revision) }
        if (!again || !guard) return { kind: 'conflict' }
        return await trace(guard, writes, async (key, revision) => {
          const at = revision === undefined ? {} : { revision: String(revision) }
          return (await client.kv.range({ key: keyOf(key), ...at }, attempt)).kvs[0]
        })
      } catch (error) {
        unanswered ||= !neverSent(error)
        throw error
      }
    },
  }
}

type Guard = Exclude<Compare, { is: 'present' }>

/** A compare that does not hold any more once the commit was done. */
const guardOf = (compares: readonly Compare[], writes: readonly Write[]): Guard | undefined => {
  const puts = new Set(writes.flatMap(({ key, kind }) => (kind === 'put' ? [key] : [])))
  return compares.find((one): one is Guard => one.is !== 'present' && puts.has(one.key))
}

type Read = (key: string, revision?: bigint) => Promise<IKeyValue | undefined>

const mostSteps = 32

/**
 * From what the guarded key holds back to what it was compared with: done where a version is ours, else another was
 * first. A key that is deleted within a call's time hides what was before: keys that are claimed rest for a minute.
 */
const trace = async (guard: Guard, writes: readonly Write[], read: Read): Promise<Outcome> => {
  let kv = await read(guard.key)
  for (let step = 0; step < mostSteps; step++) {
    if (!kv) return guard.is === 'absent' ? { kind: 'conflict' } : { kind: 'unknown' }
    const revision = BigInt(kv.mod_revision)
    if (guard.is === 'at' && revision <= guard.revision) return { kind: 'conflict' }
    if (await isWrittenAt(revision, writes, read)) return { kind: 'done', revision }
    kv = await read(guard.key, revision - 1n)
  }
  return { kind: 'unknown' }
}

/** Are all of the writes of this revision? */
const isWrittenAt = async (revision: bigint, writes: readonly Write[], read: Read): Promise<boolean> => {
  for (const write of writes) {
    const kv = await read(write.key, revision)
    const same =
      write.kind === 'delete' ? !kv : kv?.value.toString('utf8') === write.value && BigInt(kv.mod_revision) === revision
    if (!same) return false
  }
  return true
}

const comparison = (key: Buffer, compare: Compare) => {
  switch (compare.is) {
    case 'absent':
      return { key, result: 'Equal' as const, target: 'Create' as const, create_revision: '0' }
    case 'present':
      return { key, result: 'Greater' as const, target: 'Create' as const, create_revision: '0' }
    case 'at':
      return { key, result: 'Equal' as const, target: 'Mod' as const, mod_revision: String(compare.revision) }
  }
}

const request = (key: Buffer, write: Write) => {
  if (write.kind === 'delete') return { request_delete_range: { key } }
  const lease = write.lease ? { lease: write.lease.id } : {}
  return { request_put: { key, value: Buffer.from(write.value), ...lease } }
}

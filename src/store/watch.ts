// SPDX-License-Identifier: Apache-2.0
// Our own list-and-watch loop on etcd's raw watch stream. The package's Watcher resumes from the revision in an
// answer's *header*, the store's present, and so loses what the catch-up had not delivered yet; we resume from the last
// event that we really saw. Compacted away, or cancelled: list again, and tell the difference.
import type { Etcd3, IWatchResponse } from 'etcd3'
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { endOf, entryOf } from './etcd-client.ts'
import type { CallOptions, Change, Entry, WatchEvent } from './store.ts'

export interface WatchParts {
  readonly client: Etcd3
  readonly prefix: string
  readonly part: string
  readonly list: (part: string, options?: CallOptions) => Promise<{ entries: readonly Entry[]; revision: bigint }>
  readonly unavailable: (cause: unknown) => Error
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly log: Log
  readonly onAuditRepair: (count: number) => void
}

const auditEveryMs = 10 * 60_000
/** Without a word for this long the stream is asked for progress; without an answer it is given up. */
const silenceMs = 5000

export const watchPrefix = async function* (parts: WatchParts): AsyncGenerator<WatchEvent> {
  const { signal, clock, log } = parts
  const mirror = new Map<string, bigint>() // key → mod revision, what the consumer has been told
  const retry = backoff(50, 2000)
  let revision: bigint | undefined // up to and with this the consumer knows everything
  let down = false
  let audit = clock.monotonic() + auditEveryMs
  const relist = async (): Promise<WatchEvent> => {
    const { entries, revision: at } = await parts.list(parts.part, { signal })
    const first = revision === undefined
    const changes = difference(mirror, entries)
    revision = at
    audit = clock.monotonic() + auditEveryMs * (0.9 + Math.random() / 5)
    return first
      ? { kind: 'snapshot', entries, revision: at }
      : { kind: 'changes', changes, revision: at, relisted: true }
  }
  let listed = false
  while (!signal.aborted) {
    try {
      if (!listed) {
        const event = await relist()
        listed = true
        if (down) yield { kind: 'available' }
        down = false
        if (event.kind !== 'changes' || event.changes.length > 0) yield event
      }
      for await (const answer of follow(parts, revision! + 1n)) {
        if (answer === 'created') {
          retry.reset()
          if (down) yield { kind: 'available' }
          down = false
          continue
        }
        if (answer === 'compacted') {
          listed = false
          break
        }
        const changes = take(mirror, parts, answer, revision!)
        if (changes.length > 0) {
          revision = BigInt(answer.events.at(-1)!.kv.mod_revision)
          yield { kind: 'changes', changes, revision, relisted: false }
        } else if (answer.events.length === 0) revision = BigInt(answer.header.revision)
        if (clock.monotonic() > audit) {
          const event = await relist()
          if (event.kind === 'changes' && event.changes.length > 0) {
            log.error({ changes: event.changes.length }, 'the watch had missed changes: repaired')
            parts.onAuditRepair(event.changes.length)
            yield event
          }
          break // the stream began before the list: begin anew after it
        }
      }
    } catch (error) {
      if (signal.aborted) return
      const wait = retry.next()
      // a cut that heals at once is no outage worth telling
      if (!down && wait > 100) {
        down = true
        yield { kind: 'unavailable', error: parts.unavailable(error) }
      }
      log.debug({ err: describe(error) }, 'watch broke off')
      await sleep(clock, wait, signal).catch(() => {})
    }
  }
}

/** New list against what was told; the map becomes the list. */
const difference = (mirror: Map<string, bigint>, entries: readonly Entry[]): Change[] => {
  const changes: Change[] = []
  const gone = new Set(mirror.keys())
  for (const entry of entries) {
    gone.delete(entry.key)
    if (mirror.get(entry.key) === entry.revision) continue
    mirror.set(entry.key, entry.revision)
    changes.push({ key: entry.key, entry })
  }
  for (const key of gone) {
    mirror.delete(key)
    changes.push({ key, entry: undefined })
  }
  return changes
}

const take = (mirror: Map<string, bigint>, { prefix }: WatchParts, answer: IWatchResponse, after: bigint): Change[] => {
  const changes: Change[] = []
  for (const { type, kv } of answer.events) {
    if (BigInt(kv.mod_revision) <= after) continue
    const entry = entryOf(prefix, kv)
    if (String(type) === 'Delete') {
      mirror.delete(entry.key)
      changes.push({ key: entry.key, entry: undefined })
    } else {
      mirror.set(entry.key, entry.revision)
      changes.push({ key: entry.key, entry })
    }
  }
  return changes
}

/** Answers of one stream from a revision on, fragments joined. Ends only by throwing, abort or compaction. */
const follow = async function* (
  parts: WatchParts,
  from: bigint,
): AsyncGenerator<IWatchResponse | 'created' | 'compacted'> {
  const { client, prefix, part, signal, clock } = parts
  const stream = await client.watchClient.watch()
  const queue: IWatchResponse[] = []
  let failed: Error | undefined
  let wake = Promise.withResolvers<void>()
  let heard = clock.monotonic()
  const fail = (error: Error): void => {
    failed ??= error
    wake.resolve()
  }
  stream.on('data', answer => {
    heard = clock.monotonic()
    queue.push(answer)
    wake.resolve()
  })
  stream.on('error', fail)
  stream.on('end', () => fail(new Error('the stream ended')))
  const onAbort = (): void => fail(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  const pulse = setInterval(() => {
    const silent = clock.monotonic() - heard
    if (silent > 2 * silenceMs) fail(new Error('etcd has gone silent'))
    else if (silent > silenceMs) stream.write({ progress_request: {} })
  }, silenceMs / 2)
  try {
    const key = Buffer.from(prefix + part)
    stream.write({
      create_request: {
        key,
        range_end: endOf(key),
        start_revision: String(from),
        progress_notify: true,
        fragment: true,
      },
    })
    let parted: IWatchResponse | undefined
    for (;;) {
      if (signal.aborted) return
      const answer = queue.shift()
      if (!answer) {
        if (failed) throw failed
        wake = Promise.withResolvers()
        await wake.promise
        continue
      }
      if (answer.canceled) {
        if (BigInt(answer.compact_revision ?? 0) > 0n) {
          yield 'compacted'
          return
        }
        throw new Error(`etcd cancelled the watch: ${answer.cancel_reason || 'no reason given'}`)
      }
      if (answer.created) {
        yield 'created'
        continue
      }
      if (parted) answer.events.unshift(...parted.events)
      parted = answer.fragment ? answer : undefined
      if (!parted) yield answer
    }
  } finally {
    clearInterval(pulse)
    signal.removeEventListener('abort', onAbort)
    stream.on('error', () => {})
    stream.end()
    ;(stream as unknown as { cancel?(): void }).cancel?.()
  }
}

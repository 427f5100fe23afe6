// SPDX-License-Identifier: Apache-2.0
// Our own list-and-watch loop on etcd's raw watch stream. The package's Watcher resumes from the revision in an
// answer's *header*, the store's present, and so loses what the catch-up had not delivered yet; we resume from the last
// event that we really saw. Compacted away, or cancelled: list again, and tell the difference.
//
// A member cut off from the others keeps its streams open and says nothing. So a quiet stream is checked: a
// linearizable read says where the cluster is, and the member must show that it has come as far.
import { GRPCOutOfRangeError, type IEvent } from 'etcd3'
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { codeOf, describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { entryOf, type Member, type Members } from './etcd-client.ts'
import type { CallOptions, Change, Entry, WatchEvent } from './store.ts'
import { openWatchStream } from './watch-stream.ts'

export interface WatchParts {
  readonly members: Members
  /** Of the store, and of this watch below it. */
  readonly prefix: string
  readonly part: string
  /** All entries below `part`, at the present or a past revision. */
  readonly list: (part: string, options: CallOptions, at?: bigint) => Promise<Listed>
  /** Where the cluster is: linearizable, from any member. */
  readonly head: (options: CallOptions) => Promise<Head>
  readonly unavailable: (cause: unknown) => Error
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly log: Log
  /** With jitter. */
  readonly auditEveryMs: number
  readonly onAuditRepair: (count: number) => void
  /** An event came, or the member has shown that it has all there is. */
  readonly onHeard: () => void
}

export interface Head {
  /** Cluster id. */
  readonly engine: string
  readonly revision: bigint
}

export interface Listed extends Head {
  readonly entries: readonly Entry[]
}

const auditAgainMs = 60_000
/** Without a word for this long the stream is checked. */
const silenceMs = 5000
/** How long a member may take to make the watch, and to come as far as the cluster. */
const proofMs = 3000
/** While something is expected the stream is asked this often; so long without a word after proof: caught up. */
const quietMs = 250
const listMs = { first: 5000, most: 60_000 }

/** The connection stands, the member does not do its part: that is an outage at once, a cut may heal. */
class SilentMember extends Error {}

interface Progress {
  /** key → mod revision: what the consumer has been told. */
  readonly told: Map<string, bigint>
  /** Up to and with this the consumer knows everything; undefined: nothing yet. */
  revision: bigint | undefined
  /** Whose revision that is. */
  engine: string
  listed: boolean
  /** `unavailable` was told. */
  down: boolean
  /** What was told then. */
  why: string
  auditAt: number
  /** Failures since the last proof. */
  strikes: number
}

/** Ends when the signal aborts; never throws for an unreachable store. */
export const watchPrefix = async function* (parts: WatchParts): AsyncGenerator<WatchEvent> {
  const { members, signal, clock, log } = parts
  const progress: Progress = {
    told: new Map(),
    revision: undefined,
    engine: '',
    listed: false,
    down: false,
    why: '',
    auditAt: 0,
    strikes: 0,
  }
  const retry = backoff(50, 2000)
  while (!signal.aborted) {
    const member = members.current()
    try {
      if (!progress.listed) yield* listAgain(parts, progress)
      yield* attend(parts, progress, member)
    } catch (error) {
      if (signal.aborted) return
      members.passOver(member)
      if (progress.strikes === 0) retry.reset()
      progress.strikes++
      log.debug({ err: describe(error), endpoint: member.endpoint }, 'watch broke off')
      const outage = progress.strikes > 1 || progress.revision === undefined || error instanceof SilentMember
      const said = parts.unavailable(error)
      // told again where it is another file's fault than before
      if (outage && (!progress.down || (codeOf(said.cause) === 'INVALID' && said.message !== progress.why))) {
        progress.down = true
        progress.why = said.message
        yield { kind: 'unavailable', error: said }
      }
      await sleep(clock, retry.next(), signal).catch(() => {})
    }
  }
}

const nextAudit = ({ clock, auditEveryMs }: WatchParts): number =>
  clock.monotonic() + auditEveryMs * (0.9 + Math.random() / 5)

const listAgain = async function* (parts: WatchParts, progress: Progress): AsyncGenerator<WatchEvent> {
  const timeoutMs = Math.min(listMs.first * 2 ** progress.strikes, listMs.most)
  const { entries, revision, engine } = await parts.list(parts.part, { signal: parts.signal, timeoutMs })
  const first = progress.revision === undefined
  const changes = first ? [] : differences(progress.told, entries)
  if (first) for (const entry of entries) progress.told.set(entry.key, entry.revision)
  progress.revision = revision
  progress.engine = engine
  progress.listed = true
  progress.auditAt = nextAudit(parts)
  if (first) yield { kind: 'snapshot', entries, revision }
  else if (changes.length > 0) yield { kind: 'changes', changes, revision, relisted: true }
}

/** One stream from the revision on. Returns when a new list is needed, throws when the stream is no good. */
const attend = async function* (
  parts: WatchParts,
  progress: Progress,
  { client, endpoint }: Member,
): AsyncGenerator<WatchEvent> {
  const { prefix, part, signal, clock, log } = parts
  const key = Buffer.from(prefix + part)
  const stream = await openWatchStream(client, key, progress.revision! + 1n, clock, signal)
  let proven = false
  let head = 0n // what the member must have
  let proofBy: number | undefined = clock.monotonic() + proofMs
  const prove = (): void => {
    parts.onHeard()
    proofBy = undefined
    proven = true
    progress.strikes = 0
  }
  try {
    for (let created = false; ; ) {
      const idleMs = Math.min(silenceMs, Math.max(quietMs, progress.auditAt - clock.monotonic()))
      const message = await stream.next(proofBy !== undefined || progress.down ? quietMs : idleMs)
      switch (message?.kind) {
        case 'created':
          created = true
          if (message.engine !== progress.engine) return swapped(parts, progress)
          break
        case 'events': {
          parts.onHeard()
          const changes = take(progress, prefix, message.events)
          if (changes.length > 0) yield { kind: 'changes', changes, revision: progress.revision!, relisted: false }
          break
        }
        case 'progress':
          if (message.revision > progress.revision!) progress.revision = message.revision
          break
        case 'member':
          if (proofBy !== undefined && message.revision >= head) prove()
          break
        case 'compacted':
          log.info({ revision: String(progress.revision) }, 'history compacted while away: listing again')
          progress.listed = false
          return
        case 'cancelled':
          progress.listed = false
          throw new Error(`etcd cancelled the watch: ${message.reason}`)
      }
      const now = clock.monotonic()
      if (proofBy !== undefined && now > proofBy)
        throw new SilentMember(
          created ? `${endpoint} is behind the cluster, or silent` : `${endpoint} does not begin the watch`,
        )
      const due = message?.kind === 'created' || (message === undefined && proofBy === undefined && !progress.down)
      if (due) {
        const present = await parts.head({ signal }).catch(error => {
          throw new SilentMember('no linearizable read', { cause: error })
        })
        if (present.engine !== progress.engine || present.revision < progress.revision!) return swapped(parts, progress)
        head = present.revision
        proofBy = clock.monotonic() + proofMs
        // nothing has happened that could be missing; and a member does not answer a watch that begins later than it
        // stands (since 3.4.25 and 3.5.8)
        if (head === progress.revision) prove()
      }
      if (created && proofBy !== undefined && (due || message === undefined)) stream.ask()
      if (progress.down && proven && (message === undefined || progress.revision! >= head)) {
        progress.down = false
        yield { kind: 'available' }
      }
      if (now >= progress.auditAt && proven) {
        yield* audit(parts, progress)
        if (!progress.listed) return
      }
    }
  } finally {
    stream.close()
  }
}

/** Another store, or an older copy, answers at this address: a watch from our revision would wait for ever. */
const swapped = ({ log }: WatchParts, progress: Progress): void => {
  log.warn({ engine: progress.engine, revision: String(progress.revision) }, 'another store answers: listing again')
  progress.listed = false
}

/** Reads what the consumer should know, at exactly the revision it is at, and tells what it does not. */
const audit = async function* (parts: WatchParts, progress: Progress): AsyncGenerator<WatchEvent> {
  const { part, signal, clock, log } = parts
  const revision = progress.revision!
  progress.auditAt = nextAudit(parts)
  let entries: readonly Entry[]
  try {
    entries = (await parts.list(part, { signal, timeoutMs: listMs.most }, revision)).entries
  } catch (error) {
    if (signal.aborted) throw error
    progress.auditAt = clock.monotonic() + auditAgainMs
    // nothing happened here for so long that the revision is history: begin at a younger one
    if (error instanceof Error && error.cause instanceof GRPCOutOfRangeError) progress.listed = false
    else log.warn({ err: describe(error) }, 'audit of the watch put off')
    return
  }
  const changes = differences(progress.told, entries)
  if (changes.length === 0) return
  log.error({ changes: changes.length, key: changes[0]?.key }, 'the watch had missed changes: repaired')
  parts.onAuditRepair(changes.length)
  yield { kind: 'changes', changes, revision, relisted: true }
}

/** New list against what was told, which becomes the list. */
const differences = (told: Map<string, bigint>, entries: readonly Entry[]): Change[] => {
  const changes: Change[] = []
  const gone = new Set(told.keys())
  for (const entry of entries) {
    gone.delete(entry.key)
    if (told.get(entry.key) === entry.revision) continue
    told.set(entry.key, entry.revision)
    changes.push({ key: entry.key, entry })
  }
  for (const key of gone) {
    told.delete(key)
    changes.push({ key, entry: undefined })
  }
  return changes
}

const take = (progress: Progress, prefix: string, events: readonly IEvent[]): Change[] => {
  const changes: Change[] = []
  const before = progress.revision!
  for (const { type, kv } of events) {
    const entry = entryOf(prefix, kv)
    if (entry.revision <= before) continue // sent twice
    progress.revision = entry.revision
    if (String(type) === 'Delete') {
      progress.told.delete(entry.key)
      changes.push({ key: entry.key, entry: undefined })
    } else {
      progress.told.set(entry.key, entry.revision)
      changes.push({ key: entry.key, entry })
    }
  }
  return changes
}

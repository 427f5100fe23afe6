// SPDX-License-Identifier: Apache-2.0
// The embedded store's disk: one line per commit, checksummed, durable before the answer. A torn last line is what a
// power cut leaves: it was never answered, and is cut off. A damaged line before good ones is not that: an error.
import { type FileHandle, open, readFile, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { WeftError } from '../base/errors.ts'

export interface JournalWrite {
  readonly k: string
  /** Absent: deleted. */
  readonly v?: string
}

export interface JournalRecord {
  readonly r: string
  readonly w: readonly JournalWrite[]
}

export interface StoredEntry {
  readonly k: string
  readonly v: string
  readonly r: string
}

export interface Loaded {
  readonly engine: string
  readonly entries: readonly StoredEntry[]
  readonly records: readonly JournalRecord[]
  readonly revision: bigint
  /** Bytes of a torn last line that were cut off. */
  readonly torn: number
}

export interface Journal {
  /** Resolves when the record is on the disk. Many at once share one sync. */
  append(record: JournalRecord): Promise<void>
  readonly length: number
  /** Writes everything anew beside the old, then begins an empty journal. */
  compact(engine: string, entries: Iterable<StoredEntry>, revision: bigint): Promise<void>
  close(): Promise<void>
}

const line = (value: object): string => {
  const json = JSON.stringify(value)
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`
}

const parse = (text: string): unknown => {
  const json = text.slice(9)
  if (text.length < 10 || crc32(json).toString(16).padStart(8, '0') !== text.slice(0, 8)) return undefined
  return JSON.parse(json)
}

/** Lines of a file; a bad last one is torn, a bad one before is an error naming file and line. */
const readLines = async (path: string): Promise<{ values: unknown[]; good: number; size: number }> => {
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { values: [], good: 0, size: 0 }
    throw error
  }
  const values: unknown[] = []
  let good = 0
  for (let from = 0; from < bytes.length; ) {
    const end = bytes.indexOf(10, from)
    const value = end < 0 ? undefined : parse(bytes.toString('utf8', from, end))
    if (value === undefined) {
      if (end >= 0 && end + 1 < bytes.length && hasGoodLine(bytes, end + 1))
        throw new WeftError(
          'INTERNAL',
          `${path} is damaged in line ${values.length + 1}: restore it from a backup, or move it away to start empty`,
        )
      break
    }
    values.push(value)
    from = good = end + 1
  }
  return { values, good, size: bytes.length }
}

const hasGoodLine = (bytes: Buffer, from: number): boolean => {
  for (let at = from; at < bytes.length; ) {
    const end = bytes.indexOf(10, at)
    if (end < 0) return false
    if (parse(bytes.toString('utf8', at, end)) !== undefined) return true
    at = end + 1
  }
  return false
}

/** Reads what is there and opens the journal for appending; a new engine id is made by `newEngine` if there is none. */
export const openJournal = async (
  dir: string,
  newEngine: () => string,
): Promise<{ journal: Journal; loaded: Loaded }> => {
  const snapshotPath = join(dir, 'snapshot')
  const journalPath = join(dir, 'journal')
  const snapshot = await readLines(snapshotPath)
  const [head, ...rest] = snapshot.values as [
    { engine: string; revision: string; count: number } | undefined,
    ...StoredEntry[],
  ]
  if (snapshot.size > 0 && (head === undefined || rest.length !== head.count))
    throw new WeftError(
      'INTERNAL',
      `${snapshotPath} is damaged: restore it from a backup, or move ${dir} away to start empty`,
    )
  const log = await readLines(journalPath)
  const base = BigInt(head?.revision ?? 0)
  const records = (log.values as JournalRecord[]).filter(record => BigInt(record.r) > base)
  const loaded: Loaded = {
    engine: head?.engine ?? newEngine(),
    entries: rest,
    records,
    revision: records.length > 0 ? BigInt(records.at(-1)!.r) : base,
    torn: log.size - log.good,
  }
  if (loaded.torn > 0) {
    const file = await open(journalPath, 'r+')
    await file.truncate(log.good)
    await file.sync()
    await file.close()
  }
  const journal = await appender(dir, log.good)
  if (!head) await journal.compact(loaded.engine, entriesOf(loaded), loaded.revision)
  return { journal, loaded }
}

const entriesOf = ({ entries, records }: Loaded): StoredEntry[] => {
  const all = new Map(entries.map(entry => [entry.k, entry]))
  for (const { r, w } of records)
    for (const { k, v } of w) {
      if (v === undefined) all.delete(k)
      else all.set(k, { k, v, r })
    }
  return [...all.values()]
}

const appender = async (dir: string, size: number): Promise<Journal> => {
  const path = join(dir, 'journal')
  let file: FileHandle = await open(path, 'a', 0o600)
  let length = size
  let waiting: { text: string; done: PromiseWithResolvers<void> }[] = []
  let writing: Promise<void> | undefined
  let broken: Error | undefined

  const flush = async (): Promise<void> => {
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      const text = batch.map(one => one.text).join('')
      try {
        if (broken) throw broken
        await file.write(text)
        await file.datasync()
        length += Buffer.byteLength(text)
        for (const one of batch) one.done.resolve()
      } catch (cause) {
        // what is on the disk is not known any more: nothing further is answered
        broken = new WeftError('STORE_UNAVAILABLE', `write ${path}`, { cause })
        for (const one of batch) one.done.reject(broken)
      }
    }
  }
  const run = (): Promise<void> => {
    writing ??= flush().finally(() => {
      writing = undefined
    })
    return writing
  }

  return {
    append(record) {
      const done = Promise.withResolvers<void>()
      waiting.push({ text: line(record), done })
      void run()
      return done.promise
    },
    get length() {
      return length
    },
    async compact(engine, entries, revision) {
      const list = [...entries]
      await run()
      const snapshot = join(dir, 'snapshot')
      const temporary = `${snapshot}.new`
      const out = await open(temporary, 'w', 0o600)
      await out.writeFile(line({ engine, revision: String(revision), count: list.length }) + list.map(line).join(''))
      await out.sync()
      await out.close()
      await rename(temporary, snapshot)
      const folder = await open(dir, 'r')
      await folder.sync()
      await folder.close()
      // records up to this revision are skipped when read again, so a crash before the next line costs nothing
      const behind = waiting.length > 0
      if (behind) return
      await file.close()
      await unlink(path).catch(() => {})
      file = await open(path, 'a', 0o600)
      length = 0
    },
    async close() {
      await run()
      await file.close()
    },
  }
}

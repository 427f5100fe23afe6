// SPDX-License-Identifier: Apache-2.0
// Reads the embedded store's disk. A line is `<crc32 of the rest, 8 hex digits> <JSON>`.
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { WeftError } from '../base/errors.ts'

export interface StoredEntry {
  readonly k: string
  readonly v: string
  /** Revision. */
  readonly r: string
  /** Hangs on a lease: does not survive a restart. */
  readonly l?: true
}

export interface JournalRecord {
  readonly r: string
  /** v absent: deleted. */
  readonly w: readonly { readonly k: string; readonly v?: string; readonly l?: true }[]
}

export interface Loaded {
  readonly engine: string
  readonly entries: readonly StoredEntry[]
  readonly revision: bigint
  /** Good bytes; a snapshot of 0: there is none. */
  readonly sizes: { readonly journal: number; readonly snapshot: number }
  /** Bytes of a torn last line; the caller cuts them off. */
  readonly torn: number
}

export const line = (json: string): Buffer => Buffer.from(`${crc32(json).toString(16).padStart(8, '0')} ${json}\n`)

export const syncFolder = async (dir: string): Promise<void> => {
  const folder = await open(dir, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Snapshot and journal played together. Throws INTERNAL for damage. */
export const readJournal = async (dir: string, newEngine: () => string): Promise<Loaded> => {
  const [snapshotPath, journalPath] = [join(dir, 'snapshot'), join(dir, 'journal')]
  const remedy = `restore ${dir} from a backup, or move it away to start empty`
  const snapshot = await readLines(snapshotPath, remedy)
  const [head, ...rest] = snapshot.values as [SnapshotHead | undefined, ...StoredEntry[]]
  if (snapshot.torn > 0 || rest.length !== (head?.count ?? 0))
    throw new WeftError('INTERNAL', `${snapshotPath} is damaged: ${remedy}`)
  const journal = await readLines(journalPath, remedy)
  const records = (journal.values as (JournalRecord | JournalRecord[])[]).flat()
  if (!head && records.length > 0) throw new WeftError('INTERNAL', `${snapshotPath} is missing: ${remedy}`)
  const all = new Map(rest.map(entry => [entry.k, entry]))
  let revision = BigInt(head?.revision ?? 0)
  for (const { r, w } of records) {
    if (BigInt(r) <= revision) continue // already in the snapshot
    if (BigInt(r) !== revision + 1n)
      throw new WeftError('INTERNAL', `${journalPath} lacks what came after revision ${revision}: ${remedy}`)
    revision = BigInt(r)
    for (const { k, v, l } of w) {
      if (v === undefined) all.delete(k)
      else all.set(k, { k, v, r, ...(l ? { l } : {}) })
    }
  }
  return {
    engine: head?.engine ?? newEngine(),
    entries: [...all.values()],
    revision,
    sizes: { journal: journal.good, snapshot: snapshot.good },
    torn: journal.torn,
  }
}

interface SnapshotHead {
  readonly engine: string
  readonly revision: string
  readonly count: number
}

/** A bad last line is torn, a bad one before is an error naming file and line. */
const readLines = async (path: string, remedy: string): Promise<{ values: unknown[]; good: number; torn: number }> => {
  const bytes = await readFile(path).catch(error => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw error
  })
  const values: unknown[] = []
  let good = 0
  for (let from = 0; from < bytes.length; ) {
    const end = bytes.indexOf(10, from)
    const value = end < 0 ? undefined : parse(bytes.toString('utf8', from, end))
    if (value === undefined) {
      if (end >= 0 && hasGoodLine(bytes, end + 1))
        throw new WeftError('INTERNAL', `${path} is damaged in line ${values.length + 1}: ${remedy}`)
      break
    }
    values.push(value)
    from = good = end + 1
  }
  return { values, good, torn: bytes.length - good }
}

const parse = (text: string): unknown => {
  const json = text.slice(9)
  if (text[8] !== ' ' || crc32(json).toString(16).padStart(8, '0') !== text.slice(0, 8)) return undefined
  return JSON.parse(json)
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

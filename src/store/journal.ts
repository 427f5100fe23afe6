// SPDX-License-Identifier: Apache-2.0
// The embedded store's disk: `snapshot` (everything at a revision) and `journal` (the commits since). One line per
// write to the disk, checksummed, holding all commits that were waiting: they become durable together or not at all. A
// torn last line is what a power cut leaves: it was never answered, and is cut off. A bad line before good ones is not
// that: an error.
import { type FileHandle, open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { WeftError } from '../base/errors.ts'
import { closedError } from './call.ts'
import { type JournalRecord, type Loaded, line, readJournal, type StoredEntry, syncFolder } from './journal-read.ts'

export interface Journal {
  /** Resolves when the record is on the disk, in order. While the disk refuses it waits; rejects only by close. */
  append(record: JournalRecord): Promise<void>
  /** Bytes of the journal, and of the snapshot before it. */
  readonly size: { readonly journal: number; readonly snapshot: number }
  /** Writes the state after the last appended record as the new snapshot, and begins an empty journal. */
  compact(entries: readonly StoredEntry[], revision: bigint): Promise<void>
  close(): Promise<void>
}

export interface JournalParts {
  readonly dir: string
  readonly clock: Clock
  readonly newEngine: () => string
  /** The disk refuses (error), or takes again (undefined). Nothing is lost in between: it is written again. */
  readonly onTrouble: (error: WeftError | undefined) => void
}

/** A line is not longer than this, unless one record is. */
const batchBytes = 16 << 20
const chunkBytes = 1 << 20

/** Throws INTERNAL, naming the file and the remedy, for damage that is no torn tail. */
export const openJournal = async (parts: JournalParts): Promise<{ journal: Journal; loaded: Loaded }> => {
  const { dir, newEngine } = parts
  const loaded = await readJournal(dir, newEngine)
  const file = await open(join(dir, 'journal'), 'a', 0o600)
  await file.truncate(loaded.sizes.journal)
  await file.sync()
  await syncFolder(dir)
  const journal = appender(parts, loaded, file)
  if (loaded.sizes.snapshot === 0) await journal.compact([], 0n) // pins the engine id
  return { journal, loaded }
}

const appender = ({ dir, clock, onTrouble }: JournalParts, loaded: Loaded, opened: FileHandle): Journal => {
  const path = join(dir, 'journal')
  const stop = new AbortController()
  let file = opened
  const size = { ...loaded.sizes }
  const waiting: { json: string; done: PromiseWithResolvers<void> }[] = []
  let flushing: Promise<void> | undefined
  let since: Buffer[] | undefined // lines written while a snapshot is being made
  let compacting: Promise<void> | undefined
  let closing: Promise<void> | undefined
  let swap: PromiseWithResolvers<void> | undefined // the snapshot is there: begin a journal of `since`

  /** Repeats until the disk takes it; throws only at the end of the store. */
  const untilDone = async (work: (again: boolean) => Promise<void>): Promise<void> => {
    const retry = backoff(100, 5000)
    for (let again = false; ; again = true) {
      try {
        await work(again)
        if (again) onTrouble(undefined)
        return
      } catch (cause) {
        onTrouble(new WeftError('STORE_UNAVAILABLE', `write ${path}`, { cause }))
        await sleep(clock, retry.next(), stop.signal)
      }
    }
  }

  /** After a failed sync the kernel may have dropped pages: cut off, and written again. */
  const persist = async (bytes: Buffer): Promise<void> => {
    await untilDone(async again => {
      if (again) await file.truncate(size.journal)
      await file.appendFile(bytes)
      await file.datasync()
    })
    size.journal += bytes.length
    since?.push(bytes)
  }

  const takeBatch = () => {
    let bytes = 0
    let count = 0
    while (count < waiting.length && (count === 0 || bytes + waiting[count]!.json.length < batchBytes))
      bytes += waiting[count++]!.json.length
    return waiting.splice(0, count)
  }

  const flush = async (): Promise<void> => {
    while (waiting.length > 0 || swap) {
      if (swap) {
        const done = swap
        swap = undefined
        await beginAnew().then(done.resolve, done.reject)
        continue
      }
      const batch = takeBatch()
      try {
        await persist(line(`[${batch.map(one => one.json).join(',')}]`))
        for (const one of batch) one.done.resolve()
      } catch (error) {
        for (const one of batch) one.done.reject(error)
      }
    }
  }
  const run = (): void => {
    flushing ??= flush().finally(() => {
      flushing = undefined
      if (waiting.length > 0 || swap) run()
    })
  }

  /** Between two batches. A crash before the rename costs nothing: records up to the snapshot's revision are skipped. */
  const beginAnew = async (): Promise<void> => {
    const lines = since ?? []
    since = undefined
    const fresh = await writeBeside(path, lines)
    // the name is the new file's: nothing more may go to the old one, nor be answered before the folder says so too
    await untilDone(async () => {
      const next = await open(path, 'a', 0o600)
      const old = file
      file = next
      await old.close()
      await syncFolder(dir)
    })
    size.journal = fresh
  }

  const compact = async (entries: readonly StoredEntry[], revision: bigint): Promise<void> => {
    since = []
    try {
      const head = { engine: loaded.engine, revision: String(revision), count: entries.length }
      // what waits now is in the entries already: it comes to the journal too, and is skipped when read
      size.snapshot = await writeBeside(join(dir, 'snapshot'), snapshotLines(head, entries))
      await syncFolder(dir)
      swap = Promise.withResolvers()
      const swapped = swap.promise
      run()
      await swapped
    } finally {
      since = undefined
    }
  }

  const settle = async (): Promise<void> => {
    // a disk that refuses does not hold the end up
    const patience = clock.after(2000, () => stop.abort(closedError()))
    await compacting?.catch(() => {})
    while (flushing) await flushing
    patience.cancel()
    stop.abort(closedError())
    await file.close()
  }

  return {
    size,
    append(record) {
      if (closing) return Promise.reject(closedError())
      const done = Promise.withResolvers<void>()
      waiting.push({ json: JSON.stringify(record), done })
      run()
      return done.promise
    },
    compact(entries, revision) {
      if (closing) return Promise.reject(closedError())
      compacting ??= compact(entries, revision).finally(() => {
        compacting = undefined
      })
      return compacting
    },
    async close() {
      closing ??= settle()
      return closing
    },
  }
}

const snapshotLines = function* (head: object, entries: readonly StoredEntry[]): Generator<Buffer> {
  yield line(JSON.stringify(head))
  for (const entry of entries) yield line(JSON.stringify(entry))
}

/** Whole and on the disk before it takes the name. Returns its size. */
const writeBeside = async (path: string, lines: Iterable<Buffer>): Promise<number> => {
  const temporary = `${path}.new`
  const file = await open(temporary, 'w', 0o600)
  let size = 0
  try {
    let chunk: Buffer[] = []
    let bytes = 0
    const write = async (): Promise<void> => {
      await file.appendFile(Buffer.concat(chunk))
      size += bytes
      chunk = []
      bytes = 0
    }
    for (const one of lines) {
      chunk.push(one)
      bytes += one.length
      if (bytes >= chunkBytes) await write()
    }
    await write()
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  return size
}

// SPDX-License-Identifier: Apache-2.0
// What a guard keeps on disk: the pins and the last believed records, so that a start without a store begins where the
// kernel is. One file, `believed`, a line each: the pins, the records at one moment, then what came after. A line is with
// the kernel before the change goes on (a killed agent loses none); on the disk soon after, because a power cut empties
// the tables that it stands for as well.
//
// A line that the disk refused or a power cut tore is a gap. Nothing after a gap is read, nor written before a new file
// with everything has taken the name: so what is read is always the state of one moment, if need be an earlier one, which
// the first look at the store brings up to date. With a line left out it could give one address to two endpoints.
import { closeSync, fdatasync, ftruncateSync, openSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock, Timer } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { readIfPresent, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import type { Believed, Pins } from './belief.ts'
import { syncFolder } from './journal-read.ts'
import type { Change, Entry } from './store.ts'

export interface GuardDisk {
  readonly pins: Pins | undefined
  /** As they were read; the caller's from then on. */
  readonly entries: Map<string, Entry>
  /** The pins as they are now, and what has changed in the records. */
  append(changes: readonly Change[]): void
  /** All of it durable before this resolves. */
  close(): Promise<void>
}

export interface GuardDiskParts {
  readonly dir: string
  readonly clock: Clock
  readonly log: Log
  /** What to write, asked when it is written. */
  readonly state: () => { readonly pins: Pins | undefined; readonly believed: Believed }
}

const syncMs = 2000
/** The changes are folded into new records when they are larger than those, and than this. */
const leastBytes = 1 << 20
const retryMs = 5000

/** Throws INTERNAL for pins that cannot be read. Records that cannot are left out: the store has them. */
export const openGuardDisk = async ({ dir, clock, log, state }: GuardDiskParts): Promise<GuardDisk> => {
  const path = join(dir, 'believed')
  const next = `${path}.next`
  // the pins are durable before the file has its name: a first line that cannot be read is damage, not a power cut
  if ((await readIfPresent(path)) === undefined) await writeDurably(path, line(undefined, []))
  const loaded = await load(path)
  let fd = openSync(path, 'a')
  let { bytes, snapshotBytes } = loaded
  if (loaded.torn) {
    log.warn({ path }, 'last believed state ends in a damaged line: cut off')
    ftruncateSync(fd, bytes)
  }
  let behind = false // a line is missing at the end
  let since: string[] | undefined // lines of the time in which a new file is being made
  let folding: Promise<void> | undefined
  let unsynced = false
  let timer: Timer | undefined

  const fold = async (): Promise<void> => {
    const lines: string[] = []
    since = lines
    try {
      const { pins, believed } = state()
      const records = [...believed.values()].map((entry): Change => ({ key: entry.key, entry }))
      const whole = line(pins, []) + line(pins, records)
      await writeDurably(next, whole)
      // nothing waits from here to the end, so that no line comes in between
      const opened = openSync(next, 'a')
      let more: number
      try {
        more = writeAll(opened, lines.join(''))
        renameSync(next, path)
      } catch (error) {
        closeSync(opened)
        throw error
      }
      closeSync(fd)
      fd = opened
      snapshotBytes = Buffer.byteLength(whole)
      bytes = snapshotBytes + more
      unsynced = more > 0
      behind = false
    } finally {
      since = undefined
    }
    await syncFolder(dir)
  }
  const due = (): boolean => behind || bytes - snapshotBytes > Math.max(leastBytes, snapshotBytes)
  const foldSoon = (): void => {
    folding ??= fold()
      .catch(error => log.error({ err: describe(error) }, 'last believed state not written'))
      .finally(() => {
        folding = undefined
        arm(due() ? retryMs : syncMs)
      })
  }
  const sync = (): void => {
    timer = undefined
    if (due()) return foldSoon()
    if (!unsynced) return
    unsynced = false
    fdatasync(fd, error => {
      if (error) log.error({ err: describe(error) }, 'last believed state not on the disk')
    })
  }
  const arm = (ms: number): void => {
    timer ??= clock.after(ms, sync)
  }

  return {
    pins: loaded.pins,
    entries: loaded.entries,
    append(changes) {
      const text = line(state().pins, changes)
      since?.push(text)
      if (!behind) {
        try {
          bytes += writeAll(fd, text)
          unsynced = true
        } catch (error) {
          log.error({ err: describe(error) }, 'last believed state not written')
          behind = true
          cutOff(fd, bytes)
        }
      }
      arm(syncMs)
    },
    async close() {
      await folding
      timer?.cancel()
      await fold().catch(error => log.error({ err: describe(error) }, 'last believed state not written'))
      closeSync(fd)
    },
  }
}

type WrittenPins = { engine: string; cluster: string; revision: string } | null
type Line = [WrittenPins, [string, string?, string?][]]

const line = (pins: Pins | undefined, changes: readonly Change[]): string =>
  `${JSON.stringify([
    pins ? { ...pins, revision: String(pins.revision) } : null,
    changes.map(({ key, entry }) => (entry ? [key, entry.value, String(entry.revision)] : [key])),
  ] satisfies Line)}\n`

/** Returns the bytes. Throws when not all were taken: a disk that is nearly full takes a part without an error. */
const writeAll = (fd: number, text: string): number => {
  const size = Buffer.byteLength(text)
  const taken = writeSync(fd, text)
  if (taken < size) throw new WeftError('INTERNAL', `write: the disk took ${taken} of ${size} bytes`)
  return size
}

/** What a refused line left; a disk that refuses this too leaves it to the next load. */
const cutOff = (fd: number, bytes: number): void => {
  try {
    ftruncateSync(fd, bytes)
  } catch {}
}

interface Loaded {
  pins: Pins | undefined
  readonly entries: Map<string, Entry>
  /** Of the good lines, and of those of them that are pins and records at one moment. */
  bytes: number
  snapshotBytes: number
  torn: boolean
}

const load = async (path: string): Promise<Loaded> => {
  const text = (await readIfPresent(path)) ?? ''
  const loaded: Loaded = { pins: undefined, entries: new Map(), bytes: 0, snapshotBytes: 0, torn: false }
  let from = 0
  for (let lines = 1; ; lines++) {
    const end = text.indexOf('\n', from) + 1
    const one = end > 0 ? parse(text.slice(from, end)) : undefined
    if (!one) break
    replay(loaded, one)
    loaded.bytes += Buffer.byteLength(text.slice(from, end))
    if (lines <= 2) loaded.snapshotBytes = loaded.bytes
    from = end
  }
  if (from === 0)
    throw new WeftError('INTERNAL', `${path} is damaged: remove it to believe the store that is there now`)
  loaded.torn = from < text.length
  return loaded
}

const parse = (text: string): Line | undefined => {
  try {
    return JSON.parse(text) as Line
  } catch {
    return undefined
  }
}

const replay = (loaded: Loaded, [pins, changes]: Line): void => {
  loaded.pins = pins ? { ...pins, revision: BigInt(pins.revision) } : undefined
  for (const [key, value, revision] of changes)
    if (value === undefined || revision === undefined) loaded.entries.delete(key)
    else loaded.entries.set(key, { key, value, revision: BigInt(revision) })
}

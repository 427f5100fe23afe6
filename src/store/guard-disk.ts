// SPDX-License-Identifier: Apache-2.0
// What a guard keeps on disk: the pins and the last believed records, so that a start without a store begins where the
// kernel is. `snapshot.json` and `pins.json` are everything at one moment, `changes` what came after, a line each. A line
// is with the kernel before the change goes on (a killed agent loses none); on the disk soon after, because a power cut
// empties the tables that it stands for as well.
import { closeSync, fdatasync, openSync, writeSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock, Timer } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { readIfPresent, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import type { Believed, Pins } from './belief.ts'
import type { Change, Entry } from './store.ts'

export interface GuardDisk {
  readonly pins: Pins | undefined
  readonly entries: readonly Entry[]
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
/** The changes are folded into a new snapshot when they are larger than it, and than this. */
const leastBytes = 1 << 20
const retryMs = 5000

/** Throws INTERNAL for pins that cannot be read. A snapshot that cannot is left out: the store has it. */
export const openGuardDisk = async ({ dir, clock, log, state }: GuardDiskParts): Promise<GuardDisk> => {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const file = (name: string): string => join(dir, name)
  const loaded = await load(file, log)
  let fd = openSync(file('changes'), 'a', 0o600)
  let { bytes, snapshotBytes } = loaded
  let behind = false // a line is missing: only a snapshot makes it whole again
  let folding: Promise<void> | undefined
  let unsynced = false
  let timer: Timer | undefined

  const fold = async (): Promise<void> => {
    // from here on lines go to the next file; until the snapshot is there a start reads both
    if (!loaded.folded) await rename(file('changes'), file('changes.old'))
    loaded.folded = true
    const next = openSync(file('changes'), 'a', 0o600)
    closeSync(fd)
    fd = next
    bytes = 0
    behind = false
    const { pins, believed } = state()
    const list = JSON.stringify(
      [...believed.values()].map(({ key, value, revision }) => [key, value, String(revision)]),
    )
    await writeDurably(file('snapshot.json'), list)
    await writeDurably(file('pins.json'), JSON.stringify(written(pins)))
    await rm(file('changes.old'), { force: true })
    loaded.folded = false
    snapshotBytes = list.length
  }
  const foldSoon = (): void => {
    folding ??= fold()
      .catch(error => {
        log.error({ err: describe(error) }, 'last believed state not written')
        behind = true
      })
      .finally(() => {
        folding = undefined
        if (behind) arm(retryMs)
      })
  }
  const sync = (): void => {
    timer = undefined
    if (behind) return foldSoon()
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
    entries: [...loaded.entries.values()],
    append(changes) {
      const { pins } = state()
      const line = `${JSON.stringify([written(pins), changes.map(({ key, entry }) => (entry ? [key, entry.value, String(entry.revision)] : [key]))])}\n`
      try {
        writeSync(fd, line)
        bytes += line.length
        unsynced = true
      } catch (error) {
        if (!behind) log.error({ err: describe(error) }, 'last believed state not written')
        behind = true
      }
      arm(syncMs)
      if (bytes > Math.max(leastBytes, snapshotBytes)) foldSoon()
    },
    async close() {
      timer?.cancel()
      await folding
      await fold().catch(error => log.error({ err: describe(error) }, 'last believed state not written'))
      closeSync(fd)
    },
  }
}

const written = (pins: Pins | undefined) => (pins ? { ...pins, revision: String(pins.revision) } : null)

interface Loaded {
  pins: Pins | undefined
  readonly entries: Map<string, Entry>
  /** There is a `changes.old`: a snapshot was being made. */
  folded: boolean
  /** Of all changes. */
  bytes: number
  snapshotBytes: number
}

const load = async (file: (name: string) => string, log: Log): Promise<Loaded> => {
  const snapshot = await readIfPresent(file('snapshot.json'))
  const loaded: Loaded = {
    pins: await readPins(file('pins.json')),
    entries: new Map(readEntries(snapshot, log).map(entry => [entry.key, entry])),
    folded: false,
    bytes: 0,
    snapshotBytes: snapshot?.length ?? 0,
  }
  for (const name of ['changes.old', 'changes']) {
    const text = await readIfPresent(file(name))
    if (text === undefined) continue
    if (name === 'changes.old') loaded.folded = true
    loaded.bytes += text.length
    for (const line of text.split('\n')) {
      if (line === '') continue
      try {
        replay(loaded, JSON.parse(line) as Line)
      } catch {
        break // torn by a power cut: nothing after it was written
      }
    }
  }
  return loaded
}

type Line = [{ engine: string; cluster: string; revision: string } | null, [string, string?, string?][]]

const replay = (loaded: Loaded, [pins, changes]: Line): void => {
  loaded.pins = pins ? { ...pins, revision: BigInt(pins.revision) } : undefined
  for (const [key, value, revision] of changes)
    if (value === undefined || revision === undefined) loaded.entries.delete(key)
    else loaded.entries.set(key, { key, value, revision: BigInt(revision) })
}

const readPins = async (path: string): Promise<Pins | undefined> => {
  const text = await readIfPresent(path)
  if (text === undefined) return undefined
  try {
    const pins = JSON.parse(text) as { engine: string; cluster: string; revision: string } | null
    return pins ? { ...pins, revision: BigInt(pins.revision) } : undefined
  } catch (cause) {
    throw new WeftError('INTERNAL', `${path} is damaged: remove it to believe the store that is there now`, { cause })
  }
}

const readEntries = (text: string | undefined, log: Log): readonly Entry[] => {
  if (text === undefined) return []
  try {
    return (JSON.parse(text) as [string, string, string][]).map(([key, value, revision]) => ({
      key,
      value,
      revision: BigInt(revision),
    }))
  } catch (error) {
    log.error({ err: describe(error) }, 'the last believed state is damaged: starting without it')
    return []
  }
}

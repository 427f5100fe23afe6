// SPDX-License-Identifier: Apache-2.0
// What a guard keeps on disk: the pins, and the last believed records, so that a start without a store begins there.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock, Timer } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { readIfPresent, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import type { Believed, Pins } from './belief.ts'
import type { Entry } from './store.ts'

export interface GuardDisk {
  readonly pins: Pins | undefined
  readonly entries: readonly Entry[]
  /** Something changed: written soon, not each time. */
  touch(): void
  /** Written before this resolves. */
  flush(): Promise<void>
}

export interface GuardDiskParts {
  readonly dir: string
  readonly clock: Clock
  readonly log: Log
  /** What to write, asked when it is written. */
  readonly state: () => { readonly pins: Pins | undefined; readonly believed: Believed }
}

const pauseMs = 2000
/** Writing takes at most one part in so many of the time. */
const shareOfTime = 50

/** Throws INTERNAL for pins that cannot be read. A snapshot that cannot is left out: the store has it. */
export const openGuardDisk = async ({ dir, clock, log, state }: GuardDiskParts): Promise<GuardDisk> => {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const pinsPath = join(dir, 'pins.json')
  const snapshotPath = join(dir, 'snapshot.json')
  let timer: Timer | undefined
  let dirty = false
  let writing: Promise<void> = Promise.resolve()
  let waitMs = 0 // the first at once

  const write = async (): Promise<void> => {
    dirty = false
    const begin = clock.monotonic()
    const { pins, believed } = state()
    const list = [...believed.values()].map(({ key, value, revision }) => [key, value, String(revision)])
    await writeDurably(snapshotPath, JSON.stringify(list))
    await writeDurably(pinsPath, JSON.stringify(pins ? { ...pins, revision: String(pins.revision) } : null))
    waitMs = Math.max(pauseMs, (clock.monotonic() - begin) * shareOfTime)
  }
  const queue = (): Promise<void> => {
    writing = writing.then(write, write)
    return writing
  }
  const run = (): void => {
    timer = undefined
    queue().then(
      () => {
        if (dirty) schedule()
      },
      error => {
        log.error({ err: describe(error) }, 'last believed state not written')
        dirty = true
        waitMs = pauseMs
        schedule()
      },
    )
  }
  const schedule = (): void => {
    timer ??= clock.after(waitMs, run)
  }

  return {
    pins: await readPins(pinsPath),
    entries: await readEntries(snapshotPath, log),
    touch() {
      dirty = true
      schedule()
    },
    async flush() {
      timer?.cancel()
      timer = undefined
      await (dirty ? queue() : writing)
    },
  }
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

const readEntries = async (path: string, log: Log): Promise<readonly Entry[]> => {
  const text = await readIfPresent(path)
  if (text === undefined) return []
  try {
    return (JSON.parse(text) as [string, string, string][]).map(([key, value, revision]) => ({
      key,
      value,
      revision: BigInt(revision),
    }))
  } catch (error) {
    log.error({ path, err: describe(error) }, 'the last believed state is damaged: starting without it')
    return []
  }
}

// SPDX-License-Identifier: Apache-2.0
// One process per folder. The lock is a file that names its holder: process id, when that process started, and in which
// boot, so that a number used again by another process does not count. It appears whole (link) and is left behind by kill -9, then
// the next process finds nobody there and takes it over.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { link, readFile, rename, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { WeftError } from './errors.ts'
import { readIfPresent } from './file.ts'
import type { Closeable } from './lifecycle.ts'

/** Throws TAKEN, naming the process that has it. */
export const lockDir = async (dir: string): Promise<Closeable> => {
  const path = join(dir, 'lock')
  const own = `${path}.${randomUUID()}`
  const boot = bootId()
  const text = `${process.pid} ${startOf(process.pid)} ${boot}\n`
  await writeFile(own, text, { mode: 0o600 })
  try {
    for (;;) {
      try {
        await link(own, path)
        return { close: () => release(path, text) }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      }
      const holder = await readIfPresent(path)
      if (holder === undefined) continue
      const [pid, start, since = boot] = holder.trim().split(' ')
      if (start !== undefined && since === boot && startOf(Number(pid)) === start)
        throw new WeftError('TAKEN', `${dir} is in use by process ${pid}: stop that one first`)
      await takeAway(path, holder)
    }
  } finally {
    await unlink(own)
  }
}

/** Moves a lock without a living holder aside. When somebody was faster, what was moved is theirs: it goes back. */
const takeAway = async (path: string, stale: string): Promise<void> => {
  const aside = `${path}.${randomUUID()}`
  try {
    await rename(path, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  if ((await readFile(aside, 'utf8')) !== stale) await link(aside, path).catch(() => {})
  await unlink(aside)
}

const release = async (path: string, text: string): Promise<void> => {
  if ((await readIfPresent(path)) === text) await unlink(path)
}

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

/** When a process started, in ticks since boot (proc(5), field 22 of stat); undefined: there is none. */
const startOf = (pid: number): string | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return state === 'Z' ? undefined : rest[18]
  } catch {
    return undefined
  }
}

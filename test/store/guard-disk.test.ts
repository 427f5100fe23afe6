// SPDX-License-Identifier: Apache-2.0
// A start after a kill, a power cut or a full disk begins with the state of one moment: of the last one, unless the disk
// refused what came after.
import fs, { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/base/log.ts'
import type { Pins } from '../../src/store/belief.ts'
import { type GuardDisk, openGuardDisk } from '../../src/store/guard-disk.ts'
import type { Change, Entry } from '../../src/store/store.ts'
import { manualClock } from './clock.ts'

const { writeSync } = fs
/** As a full disk does: nothing and an error, or a part and none. */
let disk: 'takes' | 'refuses' | 'takes a part' = 'takes'
fs.writeSync = ((fd: number, text: string) => {
  if (disk === 'refuses') throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
  return writeSync(fd, disk === 'takes' ? text : text.slice(0, text.length / 2))
}) as typeof writeSync
syncBuiltinESMExports()

const folder = async (): Promise<string> => mkdtemp(join(tmpdir(), 'weft-guard-disk-'))

const open = async (dir: string) => {
  const clock = manualClock()
  const believed = new Map<string, Entry>()
  let revision = 0n
  const pins = (): Pins => ({ engine: 'e', cluster: 'c', revision })
  const guard: GuardDisk = await openGuardDisk({
    dir,
    clock,
    log: silentLog,
    state: () => ({ pins: pins(), believed }),
  })
  for (const entry of guard.entries.values()) believed.set(entry.key, entry)
  revision = guard.pins?.revision ?? 0n
  const state = (): string =>
    JSON.stringify([String(revision), ...[...believed].map(([k, e]) => `${k}=${e.value}`).sort()])
  return {
    guard,
    clock,
    state,
    put(key: string, value: string | undefined): void {
      revision++
      const entry = value === undefined ? undefined : { key, value, revision }
      if (entry) believed.set(key, entry)
      else believed.delete(key)
      guard.append([{ key, entry } satisfies Change])
    },
    /** Everything in new records, or an attempt at it that fails. */
    async fold(ok: boolean): Promise<void> {
      const obstacle = join(dir, 'believed.next.new')
      const before = ino(dir)
      if (!ok) mkdirSync(obstacle)
      clock.advance(5000)
      for (let turns = 0; turns < (ok ? 500 : 3) && ino(dir) === before; turns++)
        await new Promise(resolve => setTimeout(resolve, 1))
      if (!ok) rmdirSync(obstacle)
    },
  }
}
const ino = (dir: string): bigint => fs.statSync(join(dir, 'believed'), { bigint: true }).ino

/** What a start would find if the agent were killed now. */
const afterKill = async (dir: string): Promise<string> => {
  const copy = await folder()
  copyFileSync(join(dir, 'believed'), join(copy, 'believed'))
  const { guard, state } = await open(copy)
  const found = state()
  await guard.close()
  await rm(copy, { recursive: true })
  return found
}

const fresh = async (t: Test): Promise<string> => {
  const dir = await folder()
  t.teardown(() => {
    disk = 'takes'
    return rm(dir, { recursive: true, force: true })
  })
  return dir
}

t.test('what follows a torn line is there at the next start', async t => {
  const dir = await fresh(t)
  const first = await open(dir)
  first.put('a', 'ä')
  // killed here: not closed; then the power went
  appendFileSync(join(dir, 'believed'), '[{"engine":"torn')
  const second = await open(dir)
  t.equal(second.state(), first.state())
  second.put('b', '1')
  t.equal(await afterKill(dir), second.state())
  await second.guard.close()
  await first.guard.close()
})

for (const what of ['refuses', 'takes a part'] as const)
  t.test(`a disk that ${what}: the state before, whole, and all of it when there is room`, async t => {
    const dir = await fresh(t)
    const one = await open(dir)
    one.put('a', '1')
    const before = one.state()
    disk = what
    one.put('a', '2')
    disk = 'takes'
    one.put('b', '1')
    t.equal(await afterKill(dir), before, 'not one line is left out of the middle')
    t.match(readFileSync(join(dir, 'believed'), 'utf8'), /\n$/, 'nothing half is left')
    await one.fold(false)
    one.put('c', '1')
    t.equal(await afterKill(dir), before)
    await one.fold(true)
    t.equal(await afterKill(dir), one.state())
    one.put('d', '1')
    t.equal(await afterKill(dir), one.state())
    await one.guard.close()
  })

t.test('new records that could not be written lose nothing', async t => {
  const dir = await fresh(t)
  const one = await open(dir)
  one.put('big', 'x'.repeat(1 << 21))
  await one.fold(false)
  one.put('a', '1')
  t.equal(await afterKill(dir), one.state())
  disk = 'refuses'
  one.put('a', '2')
  disk = 'takes'
  await one.fold(false)
  await one.fold(true)
  t.equal(await afterKill(dir), one.state(), 'the line from before does not win over the newer records')
  await one.guard.close()
})

t.test('any sequence of kills, power cuts and full disks leaves the state of one moment', async t => {
  const put = fc.record({
    what: fc.constant('put' as const),
    key: fc.constantFrom('a', 'b', 'c'),
    value: fc.option(fc.string()),
  })
  const step = fc.oneof(
    { arbitrary: put, weight: 5 },
    fc.record({ what: fc.constantFrom('refuses' as const, 'takes a part' as const, 'takes' as const) }),
    fc.record({ what: fc.constantFrom('fold' as const, 'fold fails' as const, 'kill' as const) }),
    fc.record({ what: fc.constant('power cut' as const), bytes: fc.nat(120) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25, size: 'max' }), async steps => {
      const dir = await folder()
      disk = 'takes'
      const killed: GuardDisk[] = []
      let one = await open(dir)
      const past = [one.state()]
      let whole = true // the disk has taken every line
      for (const now of steps) {
        if (now.what === 'put') {
          one.put(now.key, now.value ?? undefined)
          past.push(one.state())
          if (disk !== 'takes') whole = false
        } else if (now.what === 'fold' && disk === 'takes') {
          if (!whole) await one.fold(true)
          whole = true
        } else if (now.what === 'fold' || now.what === 'fold fails') await one.fold(false)
        else if (now.what === 'kill' || now.what === 'power cut') {
          if (now.what === 'power cut') {
            const path = join(dir, 'believed')
            const pins = readFileSync(path, 'utf8').indexOf('\n') + 1
            fs.truncateSync(path, Math.max(pins, fs.statSync(path).size - now.bytes))
          }
          killed.push(one.guard)
          one = await open(dir)
          // the pins are newer than no records at all when the cut is in the records themselves
          if (one.guard.entries.size > 0 && !past.includes(one.state())) return false
          past.push(one.state())
          whole = true
        } else disk = now.what
        const found = await afterKill(dir)
        if (whole ? found !== one.state() : !past.includes(found)) return false
      }
      disk = 'takes'
      await one.guard.close()
      const kept = (await afterKill(dir)) === one.state()
      for (const guard of killed) await guard.close()
      await rm(dir, { recursive: true })
      return kept
    }),
    { numRuns: 30 },
  )
  t.pass('always')
})

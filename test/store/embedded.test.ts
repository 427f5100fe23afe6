// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process'
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Log, silentLog } from '../../src/base/log.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { guardStore } from '../../src/store/guard.ts'
import type { Write } from '../../src/store/store.ts'
import { follow, storeSuite } from '../suites/store.ts'
import { fastClock, manualClock } from './clock.ts'

const put = (key: string, value = ''): Write => ({ kind: 'put', key, value })
const folder = async (t: Test): Promise<string> => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-store-'))
  t.teardown(() => rm(dir, { recursive: true }))
  return dir
}
const listen = (): { log: Log; lines: string[] } => {
  const lines: string[] = []
  const take = (fields: object, message: string): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  return { lines, log: { ...silentLog, info: take, warn: take, error: take } }
}

storeSuite(t, 'memory', async () => {
  const store = await openEmbeddedStore({})
  return { store, close: () => store.close() }
})

storeSuite(t, 'embedded', async () => {
  const store = await openEmbeddedStore({ dir: await folder(t) })
  return { store, close: () => store.close() }
})

storeSuite(t, 'guarded', async () => {
  const inner = await openEmbeddedStore({})
  const store = await guardStore(inner, { dir: await folder(t), log: silentLog, clock: fastClock(1) })
  return { store, close: () => store.close() }
})

t.test('a torn last record is cut off at every byte, all before it is there', async t => {
  const dir = await folder(t)
  const store = await openEmbeddedStore({ dir })
  const { engine } = await store.identity()
  await store.commit([], [put('a', '1')])
  const journal = join(dir, 'journal')
  const whole = statSync(journal).size
  await store.commit([], [put('b', 'zwei\n')])
  await store.close()
  const bytes = readFileSync(journal)
  for (let size = whole; size < bytes.length; size++) {
    writeFileSync(journal, bytes)
    truncateSync(journal, size)
    const { log, lines } = listen()
    const again = await openEmbeddedStore({ dir, log })
    t.same(
      (await again.list('')).entries.map(entry => entry.value),
      ['1'],
      `cut to ${size}`,
    )
    t.equal((await again.identity()).engine, engine)
    t.equal(lines.filter(line => /torn/.test(line)).length, size === whole ? 0 : 1, 'and said so')
    await again.commit([], [put('c')])
    await again.close()
    const third = await openEmbeddedStore({ dir })
    t.equal((await third.list('')).entries.length, 2, 'what comes after is whole')
    await third.close()
  }
})

t.test('damage that is no torn tail is an error that names file and remedy', async t => {
  const dir = await folder(t)
  const store = await openEmbeddedStore({ dir })
  for (const key of ['a', 'b', 'c']) await store.commit([], [put(key)])
  await store.close()
  const [journal, snapshot] = [join(dir, 'journal'), join(dir, 'snapshot')]
  const [good, goodSnapshot] = [readFileSync(journal), readFileSync(snapshot)]
  const damaged = (bytes: Buffer, at: number): Buffer => {
    const copy = Buffer.from(bytes)
    copy[at]! ^= 1
    return copy
  }
  const refuses = async (message: RegExp): Promise<void> => {
    await t.rejects(openEmbeddedStore({ dir }), { code: 'INTERNAL', message })
    await t.rejects(openEmbeddedStore({ dir }), { message: /restore .* from a backup, or move it away/ })
  }
  writeFileSync(journal, damaged(good, 12))
  await refuses(/journal is damaged in line 1/)
  writeFileSync(journal, good.subarray(good.indexOf('\n') + 1))
  await refuses(/journal lacks what came after revision 0/)
  writeFileSync(journal, good)
  for (let at = 0; at < goodSnapshot.length; at++) {
    writeFileSync(snapshot, damaged(goodSnapshot, at))
    await t.rejects(openEmbeddedStore({ dir }), { message: /snapshot is damaged/ })
  }
  await rm(snapshot)
  await refuses(/snapshot is missing/)
  writeFileSync(snapshot, goodSnapshot)
  const whole = await openEmbeddedStore({ dir })
  t.equal((await whole.list('')).entries.length, 3)
  await whole.close()
})

t.test('files are for their owner alone, and one process has them', async t => {
  const dir = join(await folder(t), 'new')
  const store = await openEmbeddedStore({ dir })
  await store.commit([], [put('a')])
  t.equal(statSync(dir).mode & 0o777, 0o700)
  for (const file of ['journal', 'snapshot', 'lock']) t.equal(statSync(join(dir, file)).mode & 0o777, 0o600)
  await t.rejects(openEmbeddedStore({ dir }), {
    code: 'TAKEN',
    message: `${dir} is in use by process ${process.pid}: stop that one first`,
  })
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
  await store.close()
  const start = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(' ')[21]
  writeFileSync(join(dir, 'lock'), `${child.pid} ${start}\n`)
  await t.rejects(openEmbeddedStore({ dir }), { message: new RegExp(`in use by process ${child.pid}`) })
  writeFileSync(join(dir, 'lock'), `${child.pid} ${Number(start) - 1}\n`)
  const reused = await openEmbeddedStore({ dir })
  t.ok(await reused.get('a'), 'the number belongs to a later process')
  await reused.close()
  writeFileSync(join(dir, 'lock'), `${child.pid} ${start} 00000000-0000-0000-0000-000000000000\n`)
  await (await openEmbeddedStore({ dir })).close() // that was in another boot
  const gone = new Promise(resolve => child.once('close', resolve))
  child.kill('SIGKILL')
  await gone
})

t.test('a long journal becomes a snapshot while writes go on, and nothing is lost', async t => {
  const dir = await folder(t)
  const store = await openEmbeddedStore({ dir })
  const value = 'x'.repeat(60_000)
  let folded = false
  for (let round = 0; round < 14; round++) {
    const work = Array.from({ length: 40 }, (_, i) => store.commit([], [put(`k/${round}/${i % 30}`, `${i}${value}`)]))
    await Promise.all(work)
    if (statSync(join(dir, 'snapshot')).size > 1 << 20) folded = true
  }
  t.ok(folded, 'a snapshot was written')
  const before = await store.list('')
  await store.close()
  t.ok(statSync(join(dir, 'journal')).size < 30 << 20, 'the journal began anew')
  const again = await openEmbeddedStore({ dir })
  t.same(await again.list(''), before)
  await again.close()
})

t.test('everything answered before a kill -9 is there after it, leased keys are not', async t => {
  const round = async (number: number): Promise<void> => {
    const dir = await folder(t)
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer], {
      env: { ...process.env, DIR: dir, MODULE: new URL('../../src/store/embedded.ts', import.meta.url).href },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let answered = ''
    child.stdout.on('data', chunk => {
      answered += String(chunk)
      if (answered.length > 100 + number * 200) child.kill('SIGKILL')
    })
    await new Promise(resolve => child.once('close', resolve))
    const done = answered.split('\n').slice(0, -1)
    const store = await openEmbeddedStore({ dir })
    const there = new Set((await store.list('')).entries.map(entry => entry.key))
    t.ok(done.length > 0 && done.every(key => there.has(key)), `${done.length} answered are there`)
    t.notOk(there.has('leased'))
    await store.close()
  }
  for (let number = 0; number < 20; number += 4) await Promise.all([0, 1, 2, 3].map(i => round(number + i)))
})

const writer = `
const { openEmbeddedStore } = await import(process.env.MODULE)
const store = await openEmbeddedStore({ dir: process.env.DIR })
const lease = await store.lease(60000)
await store.commit([], [{ kind: 'put', key: 'leased', value: '', lease }])
const work = async name => {
  for (let i = 0; ; i++) {
    const key = name + i
    await store.commit([], [{ kind: 'put', key, value: 'v'.repeat(i % 50) }])
    process.stdout.write(key + '\\n')
  }
}
for (const name of ['a', 'b', 'c', 'd']) work(name)`

t.test('a lease ends when its process stood still for longer than the TTL', async t => {
  const clock = manualClock()
  const store = await openEmbeddedStore({ clock })
  const lease = await store.lease(3000)
  await store.commit([], [{ ...put('l'), lease } as Write])
  clock.advance(60_000)
  t.ok(await store.get('l'), 'kept while the process runs')
  let lost = false
  void lease.lost.then(() => {
    lost = true
  })
  clock.jump(3500)
  t.equal(await store.get('l'), undefined)
  t.ok(lost)
  await lease.close()
  await store.close()
})

/** Until healed, every sync of a file's data fails after the bytes were written, as on a disk with bad blocks. */
const failingSync = async (t: Test): Promise<{ heal(): void }> => {
  const file = await open('/dev/null')
  const prototype = Object.getPrototypeOf(file) as typeof file
  const { datasync } = prototype
  await file.close()
  prototype.datasync = () => Promise.reject(new Error('EIO: i/o error, fdatasync'))
  const heal = (): void => {
    prototype.datasync = datasync
  }
  t.teardown(heal)
  return { heal }
}

t.test('a disk that refuses: unavailable, nobody sees what is not on it, and it goes on by itself', async t => {
  const dir = join(await folder(t), 'store')
  const { log, lines } = listen()
  const store = await openEmbeddedStore({ dir, log, clock: fastClock(10) })
  await store.commit([], [put('a', '1')])
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  const disk = await failingSync(t)
  await t.rejects(store.commit([], [put('a', '2')], { timeoutMs: 2000 }), { code: 'STORE_UNAVAILABLE' })
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'))
  await t.rejects(store.get('a', { timeoutMs: 500 }), { code: 'STORE_UNAVAILABLE' })
  await t.rejects(store.commit([], [put('b')]), { code: 'STORE_UNAVAILABLE', message: /journal/ })
  t.equal(watch.state.get('a'), '1')
  disk.heal()
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'available'))
  t.equal(watch.state.get('a'), '2', 'what was written down late is told before')
  await store.commit([], [put('b', '3')])
  t.equal(lines.filter(line => /the disk refuses/.test(line)).length, 1)
  await watch.close()
  await store.close()
  const again = await openEmbeddedStore({ dir })
  t.same(
    (await again.list('')).entries.map(({ key, value }) => key + value),
    ['a2', 'b3'],
  )
  await again.close()
})

// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { guardStore } from '../../src/store/guard.ts'
import { storeSuite } from '../suites/store.ts'

const folder = async (): Promise<string> => mkdtemp(join(tmpdir(), 'weft-store-'))

storeSuite(t, 'memory', async () => {
  const store = await openEmbeddedStore({})
  return { store, close: () => store.close() }
})

storeSuite(t, 'embedded', async () => {
  const dir = await folder()
  const store = await openEmbeddedStore({ dir })
  return {
    store,
    async close() {
      await store.close()
      await rm(dir, { recursive: true })
    },
  }
})

storeSuite(t, 'guarded', async () => {
  const dir = await folder()
  const store = await guardStore(await openEmbeddedStore({}), { dir, log: silentLog, clock: systemClock })
  return {
    store,
    async close() {
      await store.close()
      await rm(dir, { recursive: true })
    },
  }
})

t.test('a torn last record is cut off at every byte, all before it is there', async t => {
  const dir = await folder()
  const store = await openEmbeddedStore({ dir })
  await store.commit([], [{ kind: 'put', key: 'a', value: '1' }])
  const journal = join(dir, 'journal')
  const whole = readFileSync(journal).length
  await store.commit([], [{ kind: 'put', key: 'b', value: '2' }])
  await store.close()
  const bytes = readFileSync(journal)
  for (let size = whole; size < bytes.length; size++) {
    writeFileSync(journal, bytes)
    truncateSync(journal, size)
    const again = await openEmbeddedStore({ dir })
    t.equal((await again.get('a'))?.value, '1')
    t.equal(await again.get('b'), undefined)
    await again.close()
  }
  await rm(dir, { recursive: true })
})

t.test('damage in the middle is an error that names the file', async t => {
  const dir = await folder()
  const store = await openEmbeddedStore({ dir })
  for (const key of ['a', 'b', 'c']) await store.commit([], [{ kind: 'put', key, value: '1' }])
  await store.close()
  const journal = join(dir, 'journal')
  const bytes = readFileSync(journal)
  bytes[12]! ^= 1
  writeFileSync(journal, bytes)
  await t.rejects(openEmbeddedStore({ dir }), { message: /journal is damaged in line 1/ })
  await rm(dir, { recursive: true })
})

t.test('everything answered before a kill -9 is there after it', async t => {
  for (let round = 0; round < 8; round++) {
    const dir = await folder()
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer], {
      env: { ...process.env, DIR: dir, MODULE: new URL('../../src/store/embedded.ts', import.meta.url).href },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let answered = ''
    child.stdout.on('data', chunk => {
      answered += String(chunk)
      if (answered.length > 200 + round * 300) child.kill('SIGKILL')
    })
    await new Promise(resolve => child.once('close', resolve))
    const last = Number(answered.split('\n').at(-2))
    const store = await openEmbeddedStore({ dir })
    const { entries } = await store.list('k')
    t.ok(entries.length > last, `${entries.length} of ${last + 1} answered`)
    await store.close()
    await rm(dir, { recursive: true })
  }
})

const writer = `
const { openEmbeddedStore } = await import(process.env.MODULE)
const store = await openEmbeddedStore({ dir: process.env.DIR })
for (let i = 0; ; i++) {
  await store.commit([], [{ kind: 'put', key: 'k' + i, value: 'v'.repeat(i % 50) }])
  process.stdout.write(i + '\\n')
}`

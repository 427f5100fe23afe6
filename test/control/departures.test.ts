// SPDX-License-Identifier: Apache-2.0
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openDepartures } from '../../src/control/departures.ts'
import { fastClock, manualClock } from '../store/clock.ts'

const { rename } = fs
let writes = 0
fs.rename = (from, to) => {
  writes++
  return rename(from, to)
}
syncBuiltinESMExports()

t.test('endpoints of before a boot are noted in one write, and erased after the next start too', async t => {
  const dir = await fs.mkdtemp(join(tmpdir(), 'weft-departures-'))
  t.teardown(() => fs.rm(dir, { recursive: true, force: true }))
  const path = join(dir, 'departures.json')
  let told = 0
  const open = () => openDepartures(path, manualClock(), silentLog, () => told++)
  const first = await open()
  await first.addAll([])
  t.equal(writes, 0, 'nothing to note')
  const past = Array.from({ length: 500 }, (_, i) => [`e${i}`, `n${i % 3}`] as const)
  await first.addAll(past)
  t.equal(writes, 1)
  t.equal(told, 1)
  await first.add('n0', 'later')
  t.equal(writes, 2)
  await first.close()

  const second = await open()
  t.equal(second.size, 501)
  const erased: [string, string][] = []
  const all = Promise.withResolvers<void>()
  second.start(async (network, endpoint) => {
    if (erased.push([endpoint, network]) === 501) all.resolve()
  })
  await all.promise
  t.same(erased, [...past, ['later', 'n0']], 'in order')
  await second.close()
  t.equal((await open()).size, 0)
})

t.test('one that cannot be erased keeps no other waiting, and who waits for one goes first', async t => {
  const dir = await fs.mkdtemp(join(tmpdir(), 'weft-departures-'))
  t.teardown(() => fs.rm(dir, { recursive: true, force: true }))
  const departures = await openDepartures(join(dir, 'departures.json'), fastClock(50), silentLog, () => {})
  await departures.addAll(['bad', 'one', 'two', 'three'].map(id => [id, 'n']))
  const erased: string[] = []
  let isBad = true
  const waiting = departures.hasten('three', AbortSignal.timeout(5000))
  departures.start(async (_, endpoint) => {
    await new Promise(resolve => setTimeout(resolve, 30))
    if (endpoint === 'bad' && isBad) throw new Error('no')
    erased.push(endpoint)
  })
  await waiting
  t.notOk(departures.has('three'))
  await departures.hasten('unknown', AbortSignal.timeout(5000))
  await t.rejects(departures.hasten('bad', AbortSignal.timeout(5000)), { message: 'no' })
  t.ok(departures.has('bad'))
  while (departures.size > 1) await new Promise(resolve => setTimeout(resolve, 5))
  t.same([...erased].sort(), ['one', 'three', 'two'], 'each once')
  isBad = false
  while (departures.size > 0) await new Promise(resolve => setTimeout(resolve, 5))
  await departures.close()
})

t.test('a disk that is full: the caller hears it, and the endpoint goes all the same', async t => {
  const dir = await fs.mkdtemp(join(tmpdir(), 'weft-departures-'))
  t.teardown(() => fs.rm(dir, { recursive: true, force: true }))
  const gone: string[] = []
  const departures = await openDepartures(join(dir, 'departures.json'), fastClock(50), silentLog, departed =>
    gone.push(...departed.map(([endpoint]) => endpoint)),
  )
  departures.start(async () => {})
  const { rename } = fs
  fs.rename = () => Promise.reject(Object.assign(new Error('no space left'), { code: 'ENOSPC' }))
  syncBuiltinESMExports()
  await t.rejects(departures.add('n', 'one'))
  t.same(gone, ['one'])
  fs.rename = rename
  syncBuiltinESMExports()
  while (departures.size > 0) await new Promise(resolve => setTimeout(resolve, 5))
  await departures.close()
})

// SPDX-License-Identifier: Apache-2.0
// Who has a floating address: with hosts that freeze, die, are cut off and come back, in order and at random. At no moment
// do two kernels have it; when all is well again, one has.
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { holdMs, restartMs, ttlMs } from '../../src/floating/seat.ts'
import { lateMs } from '../../src/kernel/host-addresses.ts'
import { openWorld, type SimHost, type World } from './world.ts'

/** mulberry32 */
const seeded = (seed: number) => {
  let state = seed
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const open = async (t: Test) => {
  const world = openWorld(seeded(7), ['a', 'b', 'c'])
  t.teardown(() => world.close())
  const alone = (): void => {
    if (world.holders().length > 1) throw new Error(`${world.holders().join(' and ')} have it at ${world.now} ms`)
  }
  const run = (ms: number) => world.run(ms, alone)
  await run(1500)
  const [holder] = world.holders()
  t.ok(holder, 'somebody has it soon')
  const host = world.hosts.find(({ name }) => name === holder) as SimHost
  /** How long nobody had it from now on, until another has; ms. */
  const gap = async (limit: number): Promise<{ gone: number; back: number }> => {
    const from = world.now
    let gone = 0
    while (world.now - from < limit) {
      await run(10)
      const [now] = world.holders()
      if (!gone && now !== holder) gone = world.now - from
      if (now !== undefined && now !== holder) return { gone, back: world.now - from }
    }
    throw new Error(`nobody took it in ${limit} ms`)
  }
  return { world, host, run, gap }
}

/** Probe, turns of the others and two calls of the store. */
const takingMs = 1000
const storeLateMs = 500
/** One that was under way when the store came back, and the pause after it. */
const callMs = 1300

t.test('a host that dies: another has it after the TTL', async t => {
  const { host, gap } = await open(t)
  host.kill()
  const { gone, back } = await gap(10_000)
  t.ok(gone <= holdMs + lateMs, `the kernel drops it after ${gone} ms`)
  t.ok(back <= ttlMs + storeLateMs + takingMs, `back after ${back} ms`)
})

t.test('a frozen host: its kernel drops it, and it takes nothing back when it wakes', async t => {
  const { world, host, run, gap } = await open(t)
  host.freeze(true)
  const { back } = await gap(10_000)
  t.ok(back <= ttlMs + storeLateMs + takingMs, `back after ${back} ms`)
  host.freeze(false)
  await run(5000)
  t.not(world.holders()[0], host.name)
})

t.test('a holder that is cut off from the store drops at half the TTL; healed, one has it', async t => {
  const { world, host, run, gap } = await open(t)
  host.store = false
  const { gone } = await gap(10_000)
  t.ok(gone <= holdMs + 50, `dropped after ${gone} ms`)
  host.store = true
  await run(1000)
  t.equal(world.holders().length, 1)
})

t.test('the store away from everybody and back: dropped, and one has it as soon as a call gets through', async t => {
  const { world, host, run } = await open(t)
  world.storeUp(false)
  await run(holdMs + 100)
  t.same(world.holders(), [], 'nobody can say that it is alone')
  await run(60_000)
  world.storeUp(true)
  const from = world.now
  while (world.holders().length === 0 && world.now - from < 5000) await run(10)
  t.comment(`after ${world.now - from} ms`)
  t.ok(world.now - from < callMs + takingMs, `after ${world.now - from} ms`)
  t.ok(host)
})

t.test('a short outage of the store is no reason to drop', async t => {
  const { world, host, run } = await open(t)
  for (let i = 0; i < 20; i++) {
    world.storeUp(false)
    await run(500)
    t.same(world.holders(), [host.name])
    world.storeUp(true)
    await run(2000)
  }
})

t.test('stopped and started again: not a moment without it; stopped for good: another has it', async t => {
  const { world, host, run, gap } = await open(t)
  const check = (): void => void t.same(world.holders(), [host.name])
  const stopped = host.stop()
  await world.run(500, check)
  await stopped
  await world.run(5000, check)
  host.start()
  await world.run(20_000, check)
  await Promise.all([host.stop(), run(500)])
  const { gone, back } = await gap(restartMs + 5000)
  t.ok(gone > restartMs - 3000, `served for ${gone} ms more`)
  t.ok(back - gone <= 2 * lateMs + storeLateMs + takingMs, `nobody for ${back - gone} ms`)
})

t.test('killed and back at once: adopted, without a moment without it', async t => {
  const { world, host } = await open(t)
  host.kill()
  await world.run(800)
  host.start()
  await world.run(10_000, () => void t.same(world.holders(), [host.name]))
})

t.test('drain moves it, with a gap of less than the taking', async t => {
  const { world, host, run, gap } = await open(t)
  host.drain(true)
  const { gone, back } = await gap(5000)
  t.ok(back - gone <= takingMs, `nobody for ${back - gone} ms`)
  for (const other of world.hosts) other.drain(true)
  await run(5000)
  t.equal(world.holders().length, 1, 'where all are drained, one of them has it')
})

t.test('a foreign machine that answers: not taken, taken when it is gone', async t => {
  const world = openWorld(seeded(3), ['a', 'b', 'x'])
  t.teardown(() => world.close())
  const x = world.hosts[2] as SimHost
  x.kill()
  x.foreign(true)
  await world.run(10_000)
  t.same(world.holders(), ['x'])
  x.foreign(false)
  await world.run(4000)
  t.equal(world.holders().length, 1)
})

type Step = { readonly after: number; readonly host: 0 | 1 | 2; readonly what: string }
const step = fc.record({
  after: fc.oneof(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 0, max: 6000 })),
  host: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
  what: fc.constantFrom(
    ...['freeze', 'thaw', 'kill', 'start', 'stop', 'cut store', 'join store', 'cut link', 'join link'],
    ...['store down', 'store up', 'drain', 'undrain'],
  ),
})

/** What happens, and then all is well for a while. */
const live = async (world: World, steps: readonly Step[]): Promise<void> => {
  const alone = (): void => {
    if (world.holders().length > 1) throw new Error(`${world.holders().join(' and ')} have it at ${world.now} ms`)
  }
  const running = new Set(world.hosts)
  const stopping: Promise<void>[] = []
  for (const { after, host: index, what } of steps) {
    await world.run(after, alone)
    const host = world.hosts[index]!
    if (what === 'freeze' || what === 'thaw') host.freeze(what === 'freeze')
    else if (what === 'kill' && running.delete(host)) host.kill()
    else if (what === 'stop' && running.delete(host)) stopping.push(host.stop())
    else if (what === 'start' && !running.has(host) && running.add(host)) {
      host.freeze(false)
      host.kill() // one that is still stopping
      host.start()
    } else if (what.endsWith(' store')) host.store = what === 'join store'
    else if (what.endsWith(' link')) host.link = what === 'join link'
    else if (what.startsWith('store ')) world.storeUp(what === 'store up')
    else if (what.endsWith('drain')) host.drain(what === 'drain')
  }
  world.storeUp(true)
  for (const host of world.hosts) {
    host.freeze(false)
    host.store = true
    host.link = true
    if (!running.has(host)) {
      host.kill()
      host.start()
    }
  }
  await world.run(restartMs + 8000, alone)
  if (world.holders().length !== 1) throw new Error(`${world.holders().length} holders at the end`)
}

const runs = Number(process.env['WEFT_RUNS'] ?? 40)

t.test('whatever happens, at no moment do two have it, and in the end one has', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), fc.integer(), async (steps, seed) => {
      const world = openWorld(seeded(seed), ['a', 'b', 'c'])
      try {
        await live(world, steps)
      } finally {
        await world.close()
      }
    }),
    { numRuns: runs },
  )
})

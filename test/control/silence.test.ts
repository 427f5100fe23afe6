// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openSilence } from '../../src/control/silence.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'

/** A day in a moment: minute by minute, and what each set off is done. */
const passer = () => {
  const clock = manualClock()
  const pass = async (hours: number): Promise<void> => {
    for (let minute = 0; minute < hours * 60; minute++) {
      clock.advance(60_000)
      await new Promise(resolve => setImmediate(resolve))
    }
  }
  return { clock, pass }
}

const open = () => {
  const { clock, pass } = passer()
  const snapshot = testCluster()
  for (const name of ['a', 'b', 'c']) snapshot.putNode({ name })
  const status = { available: true, error: undefined, damaged: new Map<string, string>(), records: 0 }
  const here = new Set(['a', 'b'])
  const fenced: string[] = []
  const released: string[] = []
  const silence = openSilence(
    { mirror: { snapshot, status } as never, node: 'a', clock, log: silentLog },
    {
      present: name => here.has(name),
      async fence(name) {
        fenced.push(name)
        snapshot.putNode({ name, fenced: 'now' })
        return { endpoints: 0 }
      },
      async release(name) {
        released.push(name)
        if (released.length === 1) throw new Error('no store')
        for (const id of snapshot.endpoints('n').keys()) snapshot.dropEndpoint('n', id)
        return { endpoints: 1 }
      },
    },
  )
  return { silence, clock, snapshot, pass, status, here, fenced, released }
}

t.test('a node that is not seen for a day is fenced, once; living ones are not', async t => {
  const { silence, pass, fenced } = open()
  await pass(23.9)
  t.same(fenced, [])
  await pass(0.2)
  t.same(fenced, ['c'])
  await pass(48)
  t.same(fenced, ['c'])
  await silence.close()
})

t.test('coming back in between begins the day anew', async t => {
  const { silence, pass, here, fenced } = open()
  await pass(20)
  here.add('c')
  await pass(1)
  here.delete('c')
  await pass(23.5)
  t.same(fenced, [])
  await pass(1)
  t.same(fenced, ['c'])
  await silence.close()
})

t.test('time without a store does not count', async t => {
  const { silence, pass, status, fenced } = open()
  await pass(12)
  Object.assign(status, { available: false })
  await pass(72)
  Object.assign(status, { available: true })
  await pass(11)
  t.same(fenced, [])
  await pass(1.5)
  t.same(fenced, ['c'])
  await silence.close()
})

t.test('time in which this process stood still does not count', async t => {
  const { silence, clock, pass, fenced } = open()
  await pass(1)
  clock.jump(48 * 3600_000)
  await pass(22.5)
  t.same(fenced, [])
  await pass(1)
  t.same(fenced, ['c'])
  await silence.close()
})

t.test('a fencing that broke off half-way is finished', async t => {
  const { silence, snapshot, pass, status, here, fenced, released } = open()
  snapshot.putNetwork({ id: 'n' })
  snapshot.putEndpoint({ id: 'e', network: 'n', node: 'a' })
  await pass(1)
  t.same(released, [], 'nobody is fenced')
  snapshot.putNode({ name: 'c', fenced: 'now' })
  await pass(0.1)
  t.same(released, [], 'nothing is left of it')
  snapshot.putEndpoint({ id: 'e', network: 'n', node: 'c' })
  snapshot.putNode({ name: 'c', fenced: 'now' })
  await pass(1 / 60)
  t.same(released, [], 'who fenced it may be at it')
  here.add('c')
  await pass(1)
  here.delete('c')
  Object.assign(status, { available: false })
  await pass(1)
  t.same(released, [], 'not while it is here, nor without a store')
  Object.assign(status, { available: true })
  await pass(1 / 60)
  t.same(released, ['c'])
  await pass(24)
  t.same(released, ['c', 'c'], 'tried again until nothing is left')
  t.same(fenced, [])
  await silence.close()
})

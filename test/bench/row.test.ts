// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { interleave } from '../../bench/frame/interleave.ts'
import { formatNumber, renderTable } from '../../bench/frame/render.ts'
import { percentile, type Row, ratios, spread, verdict } from '../../bench/frame/row.ts'

const row: Row = {
  section: 's',
  name: 'n',
  unit: 'ms',
  better: 'less',
  ours: [1, 2, 4],
  peer: { name: 'p', values: [4, 6, 20] },
}

t.test('a spread is of all values, and of nothing there is none', async t => {
  t.same(spread([3, 1, 2]), { median: 2, min: 1, max: 3 })
  t.same(spread([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 })
  t.throws(() => spread([]), RangeError)
  t.throws(() => spread([1, Number.NaN]), RangeError)
  t.equal(percentile([5, 1, 4, 2, 3], 0.5), 3)
  t.equal(percentile([5, 1, 4, 2, 3], 0.99), 5)
})

t.test('above 1 is better for us, of times and of rates', async t => {
  t.same(ratios(row), [4, 3, 5])
  t.same(ratios({ ...row, better: 'more' }), [0.25, 1 / 3, 0.2])
})

t.test('a goal is held against the median', async t => {
  t.equal(verdict(row), 'reported')
  t.equal(verdict({ ...row, goal: { kind: 'ratio', atLeast: 4 } }), 'met')
  t.equal(verdict({ ...row, goal: { kind: 'ratio', atLeast: 4.1 } }), 'missed')
  t.equal(verdict({ ...row, goal: { kind: 'value', atMost: 2 } }), 'met')
  t.equal(verdict({ ...row, goal: { kind: 'value', atMost: 1.9 } }), 'missed')
  const { peer: _, ...alone } = row
  t.throws(() => verdict({ ...alone, goal: { kind: 'ratio', atLeast: 1 } }), RangeError)
})

t.test('variants take turns, every value is kept', async t => {
  const order: string[] = []
  const variant = (name: string) => async () => order.push(name)
  t.same(await interleave(3, { a: variant('a'), b: variant('b') }), { a: [1, 3, 5], b: [2, 4, 6] })
  t.same(order, ['a', 'b', 'a', 'b', 'a', 'b'])
})

t.test('the table shows spread, ratio, goal and load', async t => {
  const goal = { kind: 'ratio', atLeast: 5 } as const
  const load = { others: 12, steal: 3, average: 1.5 }
  const table = renderTable([{ section: 's', rows: [{ ...row, goal, note: 'why' }], load }])
  t.match(table, /s +n +2 ms \(1\.\.4\) +6 ms \(4\.\.20\) p +4x \(3\.\.5\) +>= 5x +missed/)
  t.match(table, 'n: why')
  t.match(table, 's: others used 12 % of the CPUs, the hypervisor 3 %; load average 1.5')
  t.equal(formatNumber(12345.6), '12,346')
  t.equal(formatNumber(0.01234), '0.0123')
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { quickRows } from './bench.ts'

t.test('section scale measures all its rows at each size', async t => {
  const rows = await quickRows('scale')
  t.equal(rows.length, 2 * 9)
  for (const { name, ours } of rows) if (name.endsWith('rows that the restart wrote')) t.same(ours, [0], name)
  const written = rows.filter(({ name }) => name.endsWith('rows written to the kernel')).map(({ ours }) => ours[0]!)
  t.ok(written[0]! > 500 && written[1]! > written[0]!, 'a larger cluster has more rows')
})

t.test('section ipam measures all its rows, and loses no address', async t => {
  const rows = await quickRows('ipam')
  t.equal(rows.length, 4)
  t.ok(rows.slice(0, 3).every(({ ours }) => ours[0]! > 0))
})

t.test('section store measures all its rows', async t => {
  const rows = await quickRows('store')
  t.equal(rows.length, 5)
  t.ok(rows.every(({ ours, peer }) => ours[0]! > 0 && peer!.values[0]! > 0))
})

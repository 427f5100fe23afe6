// SPDX-License-Identifier: Apache-2.0
// The sections that bring up Docker hosts, in their small sizes.
import t from 'tap'
import { quickRows } from './bench.ts'

t.test('section datapath measures all paths', async t => {
  const rows = await quickRows('datapath')
  t.equal(rows.length, 4 * 4, 'four measurements in small, four comparisons each')
  for (const { name, ours, peer } of rows) t.ok(ours[0]! > 0 && peer!.values[0]! > 0, name)
})

t.test('section start measures all its rows', async t => {
  const rows = await quickRows('start')
  t.equal(rows.length, 5 * 2)
  for (const { name, ours, peer } of rows) t.ok(ours[0]! > 0 && peer!.values[0]! > 0, name)
})

t.test('section answer: every container is reached and found by its name', async t => {
  const rows = await quickRows('answer')
  t.equal(rows.length, 4)
  for (const { name, ours, peer } of rows) t.ok(ours[0]! > 0 && peer!.values[0]! > 0, name)
})

t.test('section mesh: every way answers', async t => {
  const rows = await quickRows('mesh')
  t.ok(rows.length >= 2 * 3, 'by nftables at least')
  for (const { name, ours, peer } of rows) t.ok(ours[0]! > 0 && peer!.values[0]! > 0, name)
})

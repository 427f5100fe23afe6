// SPDX-License-Identifier: Apache-2.0
// Link networks beside what others have from the same range.
import t from 'tap'
import { linkMeets, linkNetwork, linkProblems, slots } from '../../src/plan/links.ts'

const met = (prefix: string): number[] =>
  Array.from({ length: 300 }, (_, slot) => slot).filter(slot => linkMeets(slot, [{ dev: 'x', prefix }]) !== undefined)
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

t.test('an address of another, its network, or a route to one', async t => {
  t.equal(linkNetwork(0).gateway4, '169.254.1.2')
  t.same(met('169.254.1.2/24'), range(0, 64))
  t.same(met('169.254.2.0/24'), range(64, 128))
  t.same(met('169.254.1.6/32'), [1])
  t.same(met('fd69:7765:6674:5::9/64'), [5])
})

t.test('of the whole range the address alone', async t => {
  t.same(met('169.254.1.9/16'), [2])
  t.same(met('fd69:7765:6674:7::1/48'), [7])
  t.same(
    [met('169.254.0.0/16'), met('fd69:7765:6674::/48'), met('169.254.169.254/32'), met('10.0.0.1/8')],
    [[], [], [], []],
  )
  t.ok(slots > 300)
})

t.test('what came later is told, with the remedy', async t => {
  const bound = new Map([...['n', 'm'].entries()].map(([slot, id]) => [id, { slot }]))
  t.same(
    [...linkProblems(bound, [{ dev: 'idrac', prefix: '169.254.1.5/32' }])],
    [
      [
        'm',
        'its link weft1 with 169.254.1.5/30 meets 169.254.1.5/32 of idrac: give idrac another network, or remove this one and make it again, on another link',
      ],
    ],
  )
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { poolUsage } from '../../src/ipam/usage.ts'
import type { AddressClaim } from '../../src/model/endpoint.ts'

const at = { node: 'a', boot: 'b' }
const bound: AddressClaim = { kind: 'bound', ...at, endpoint: 'e' }
const reserved: AddressClaim = { kind: 'reserved', ...at, since: 0 }
const spare: AddressClaim = { kind: 'spare', ...at, since: 0 }
const vip: AddressClaim = { kind: 'vip', service: 'label web' }
const resting: AddressClaim = { kind: 'resting', until: 100 }

t.test('one pool of each family', async t => {
  const pools = [
    { prefix: '10.1.0.0/24', gateway: '10.1.0.1', aux: { printer: '10.1.0.9' } },
    { prefix: 'fd00::/64', gateway: 'fd00::1' },
  ]
  const claims: [string, AddressClaim][] = [
    ['10.1.0.2', bound],
    ['10.1.0.3', reserved],
    ['10.1.0.4', spare],
    ['10.1.0.5', resting],
    ['10.1.0.254', vip],
    ['fd00::2', bound],
  ]
  t.same(poolUsage(pools, claims, 99), [
    { pool: '10.1.0.0/24', count: { used: 1, vip: 1, reserved: 1, spare: 1, resting: 1, free: 254 - 2 - 5 } },
    { pool: 'fd00::/64', count: { used: 1, vip: 0, reserved: 0, spare: 0, resting: 0, free: Number(2n ** 64n - 3n) } },
  ])
  t.match(poolUsage(pools, claims, 100)[0], { count: { resting: 0, free: 254 - 2 - 4 } }, 'the rest is over')
  const ahead: [string, AddressClaim][] = [['10.1.0.5', { kind: 'resting', until: 7_200_000 }]]
  t.match(poolUsage(pools, ahead, 99)[0], { count: { resting: 0 } }, 'of a host whose clock was ahead')
  t.match(poolUsage(pools, [], 0)[0], { count: { free: 252 } })
})

t.test('a range: what is free in it, what is used anywhere', async t => {
  const pool = { prefix: '10.1.0.0/24', range: '10.1.0.16/29', gateway: '10.1.0.1', aux: { one: '10.1.0.17' } }
  const [one] = poolUsage(
    [pool],
    [
      ['10.1.0.18', bound],
      ['10.1.0.200', bound],
    ],
    0,
  )
  t.same(one, { pool: '10.1.0.0/24', count: { used: 2, vip: 0, reserved: 0, spare: 0, resting: 0, free: 8 - 1 - 1 } })
})

t.test('several pools of one family', async t => {
  const pools = [{ prefix: '10.1.0.0/30' }, { prefix: '10.2.0.0/24' }]
  const claims: [string, AddressClaim][] = [
    ['10.1.0.1', bound],
    ['10.1.0.2', bound],
    ['10.2.0.7', bound],
    ['10.3.0.7', bound],
  ]
  t.same(
    poolUsage(pools, claims, 0).map(({ count }) => [count.used, count.free]),
    [
      [2, 0],
      [1, 253],
    ],
    'and what is in none counts in none',
  )
})

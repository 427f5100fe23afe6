// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { chooseSpares, idleAtLeast, reserveMost, reserveSize, surplus } from '../../src/ipam/reserve.ts'
import { poolUsage } from '../../src/ipam/usage.ts'
import { contains, parseAddress, parsePrefix } from '../../src/model/address.ts'

t.test('all reserves together are a small part of what is idle, and none when the pool is short', t => {
  for (const nodes of [0, 1, 2, 3, 16, 100, 1000])
    for (const idle of [0, 1, 15, 16, 47, 48, 125, 4093, 65_534, 1e9]) {
      const size = reserveSize(idle, nodes)
      t.ok(size >= 0 && size <= reserveMost)
      t.ok(size * nodes <= idle / 16, `${nodes} nodes, ${idle} idle: ${size}`)
    }
  t.equal(reserveSize(4093, 3), 16)
  t.equal(reserveSize(125, 3), 2)
  t.equal(reserveSize(47, 3), 0)
  t.end()
})

t.test('what is above is given back at once when none is to be kept, else when it is twice as much', t => {
  t.equal(surplus(3, 0), 3)
  t.equal(surplus(8, 4), 0)
  t.equal(surplus(9, 4), 5)
  t.end()
})

t.test('what is idle for sure is never more than what is', t => {
  for (const pool of [
    { prefix: '10.1.0.0/24', gateway: '10.1.0.1', aux: { a: '10.1.0.9' } },
    { prefix: '10.1.0.0/24' },
    { prefix: '10.1.0.0/24', range: '10.1.0.64/28', gateway: '10.1.0.1' },
    { prefix: 'fd00::/64', gateway: 'fd00::1' },
  ])
    for (const used of [0, 1, 50, 250]) {
      const claims = Array.from(
        { length: used },
        (_, i) => [`10.1.0.${i + 2}`, { kind: 'bound', node: 'a', boot: 'b', endpoint: `e${i}` }] as const,
      )
      const [usage] = poolUsage([pool], claims, 0)
      const least = idleAtLeast(pool, used)
      t.ok(least >= 0 && least <= usage!.count.free, `${pool.prefix} ${used}: ${least} of ${usage!.count.free}`)
    }
  t.equal(idleAtLeast({ prefix: '10.1.0.0/24' }, 50), 203)
  t.end()
})

t.test('they are free, different, containers may have them, and they lie behind the first half', t => {
  for (const prefix of ['10.1.0.0/20', '10.1.0.0/28', '10.0.0.0/8', 'fd00::/64', 'fd00::/125'])
    for (const random of [0, 0.3, 0.999]) {
      const gateway = prefix.includes(':') ? 'fd00::1' : '10.1.0.1'
      const isTaken = (address: string): boolean => /[05]$/.test(address)
      const chosen = chooseSpares({ prefix, gateway }, isTaken, 5, random)
      t.equal(new Set(chosen).size, 5)
      for (const address of chosen) {
        t.ok(contains(parsePrefix(prefix), parseAddress(address)))
        t.notOk(isTaken(address))
        t.not(address, gateway)
      }
    }
  const [first] = chooseSpares({ prefix: '10.1.0.0/24' }, () => false, 1, 0)
  t.equal(first, '10.1.0.128')
  t.equal(chooseSpares({ prefix: '10.1.0.0/24', range: '10.1.0.64/28' }, () => false, 20, 0.5).length, 16)
  t.same(
    chooseSpares({ prefix: '10.1.0.0/30', gateway: '10.1.0.1' }, () => false, 5, 0.9),
    ['10.1.0.2'],
    'what there is',
  )
  t.same(
    chooseSpares({ prefix: '10.1.0.0/24' }, () => true, 5, 0.5),
    [],
  )
  t.end()
})

// SPDX-License-Identifier: Apache-2.0
// What a request for a pool is answered, over a store on disk.
import t from 'tap'
import { limit, openHost as open } from './host.ts'

t.test('a second network of one name within two seconds is no clash, an engine that asks on and on is', async t => {
  const { pools } = await open(t)
  const ask = () => pools.request({ family: 4, wanted: 'app' }, limit())
  const first = await ask()
  t.same(await ask(), first)
  t.same(await ask(), first)
  await t.rejects(ask(), { code: 'TAKEN', message: /clashes with a route or resolver of host a/ })
})

t.test('where a route of this host is in the way, the first repetition gets it named', async t => {
  const { pools, node, mirror } = await open(t)
  const ask = () => pools.request({ family: 4, wanted: 'app' }, limit())
  await ask()
  await mirror.reached(await node('10.224.1.0/24'), limit())
  await t.rejects(ask(), { code: 'TAKEN', message: /clashes with route 10\.224\.1\.0\/24 of host a: remove the route/ })
})

t.test('subnets that no container can have are refused with what they are', async t => {
  const { pools } = await open(t)
  const ask = (prefix: string) => pools.request({ family: prefix.includes(':') ? 6 : 4, prefix }, limit())
  for (const [prefix, what] of [
    ['0.0.0.0/8', 'this host'],
    ['0.0.0.0/0', 'this host'],
    ['127.5.0.0/24', 'loopback'],
    ['169.254.77.0/24', 'link-local'],
    ['224.0.0.0/4', 'multicast'],
    ['239.1.0.0/16', 'multicast'],
    ['250.0.0.0/24', 'reserved'],
    ['::1/120', 'loopback'],
    ['::ffff:10.1.0.0/112', 'IPv4-mapped'],
    ['fe80:1::/64', 'link-local'],
    ['ff05::/64', 'multicast'],
  ] as const)
    await t.rejects(ask(prefix), { code: 'INVALID', message: new RegExp(`\\(.*${what}.*\\).*: choose one inside`) })
  for (const prefix of [
    '1.0.0.0/24',
    '100.64.0.0/24',
    '169.253.0.0/16',
    '223.255.255.0/24',
    '2001:db8::/64',
    'fc00::/64',
  ])
    t.equal((await ask(prefix)).prefix, prefix)
})

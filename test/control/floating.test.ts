// SPDX-License-Identifier: Apache-2.0
// Which floating addresses a service may ask for, and who is to have them.
import t from 'tap'
import { newFloating, parseAddresses } from '../../src/control/floating.ts'
import { floatingOf } from '../../src/model/floating.ts'
import { candidates, unheldBecause, wantedFloating } from '../../src/model/floating-hosts.ts'
import { testCluster } from '../overlay/cluster.ts'

const open = () => {
  const snapshot = testCluster()
  const presence = snapshot.presence as Map<string, unknown>
  for (const [i, name] of ['a', 'b', 'c'].entries()) {
    const addresses = [
      { dev: 'eth0', address: `192.0.2.${i + 1}/24` },
      { dev: 'eth0', address: `2001:db8::${i + 1}/64` },
      { dev: `eth${i + 1}`, address: `198.51.100.${i + 1}/24` },
    ]
    snapshot.putNode({ name, addresses })
    presence.set(name, {})
  }
  snapshot.putNetwork({ id: 'app' })
  ;(snapshot.pools as Map<string, unknown>).set('10.80.0.0/24', { record: { network: 'app' }, revision: 1n })
  return { snapshot, presence }
}
const options = (service: string, ...addresses: string[]) => ({
  network: 'app',
  service,
  addresses: addresses.map(one => ({ dev: one.split(' ')[1] ?? 'eth0', address: one.split(' ')[0]! })),
})

t.test('as typed: canonical, one device, none takes all away', async t => {
  const parse = (...texts: string[]) => parseAddresses(texts, 'eth0', undefined)
  t.same(parse('192.0.2.100/24', '2001:DB8:0::64/64'), [
    { dev: 'eth0', address: '192.0.2.100/24' },
    { dev: 'eth0', address: '2001:db8::64/64' },
  ])
  const before = [{ dev: 'eth1', address: '192.0.2.9/24' }]
  t.same(parseAddresses([], undefined, before), before, 'not named: as it was')
  t.equal(parseAddresses(['none'], undefined, before), undefined)
  for (const [texts, dev, message] of [
    [['none', '192.0.2.1/24'], 'eth0', /--address none stands alone/],
    [[], 'eth0', /--dev eth0: give --address as well/],
    [['192.0.2.100/24'], undefined, /give --dev as well/],
    [['192.0.2.100/24'], 'weft3', /--dev "weft3": give a network device/],
    [['192.0.2.100/24'], 'a b', /--dev "a b"/],
    [['192.0.2.100/24'], 'lo', /--dev "lo"/],
    [['192.0.2.100'], 'eth0', /--address "192.0.2.100" is not an address with a prefix length/],
    [['192.0.2.300/24'], 'eth0', /--address "192.0.2.300" is not an IP address/],
    [['192.0.2.100/33'], 'eth0', /the prefix length is at most 32/],
    [['192.0.2.0/24'], 'eth0', /is the address of its subnet/],
    [['192.0.2.255/24'], 'eth0', /is its subnet's broadcast address/],
    [['2001:db8::/64'], 'eth0', /routers' anycast address/],
    [['224.0.0.1/24'], 'eth0', /multicast/],
    [['fe80::1/64'], 'eth0', /link-local/],
    [['::1/128'], 'eth0', /loopback/],
    [['192.0.2.9/24', '192.0.2.009/24'], 'eth0', /./],
    [['192.0.2.9/24', '192.0.2.9/24'], 'eth0', /is given twice/],
    [Array.from({ length: 17 }, (_, i) => `192.0.2.${i + 1}/24`), 'eth0', /at most 16/],
  ] as const)
    t.throws(() => parseAddresses(texts, dev, undefined), { message }, texts.join(' '))
})

t.test('what somebody has already is refused by name, and where no host could have it', async t => {
  const { snapshot } = open()
  snapshot.putService(options('label other', '192.0.2.50/24'))
  const ask = (address: string) => newFloating(snapshot, undefined, options('label web', address))
  t.same(ask('192.0.2.100/24'), [
    { address: '192.0.2.100', cidr: '192.0.2.100/24', dev: 'eth0', network: 'app', service: 'label web' },
  ])
  for (const [address, code, message] of [
    ['192.0.2.50/24', 'TAKEN', /192.0.2.50\/24 is of service other of network app/],
    ['192.0.2.2/24', 'TAKEN', /is of node b: give one that nobody has/],
    ['10.80.0.9/24', 'TAKEN', /is of network app, in its subnet 10.80.0.0\/24/],
    ['10.225.0.9/24', 'TAKEN', /pools of weft's networks, 10.224.0.0\/12/],
    ['203.0.113.5/24', 'NOT_FOUND', /no live host has an address of 203.0.113.0\/24 on a device eth0/],
    ['192.0.2.100/24 eth7', 'NOT_FOUND', /on a device eth7/],
    ['192.0.2.100/32', 'NOT_FOUND', /no live host has an address of 192.0.2.100\/32/],
  ] as const)
    t.throws(() => ask(address), { code, message }, address)
  const before = options('label web', '203.0.113.5/24')
  t.same(newFloating(snapshot, before, before), [], 'what was there before is not asked again')
})

t.test('who is to have it: those that can, with a container of the service first, drained ones last', async t => {
  const { snapshot, presence } = open()
  const floating = floatingOf({ dev: 'eth0', address: '192.0.2.100/24' }, 'app', 'label web')
  const order = candidates(snapshot, floating)
  t.same([...order].sort(), ['a', 'b', 'c'])
  t.same(candidates(snapshot, floating), order, 'always the same')
  const last = order[2]!
  snapshot.putEndpoint({ id: 'e1', network: 'app', node: last, service: 'container web' })
  t.equal(candidates(snapshot, floating)[0], last)
  snapshot.putEndpoint({ id: 'e1', network: 'app', node: last, service: 'container web', withheld: 'unhealthy' })
  t.same(candidates(snapshot, floating), order)
  const drain = (name: string) => snapshot.putNode({ ...snapshot.nodes.get(name)!.record, drained: true })
  drain(order[0]!)
  t.same(candidates(snapshot, floating), order.slice(1))
  for (const name of order) drain(name)
  t.same(candidates(snapshot, floating), order, 'better a drained one than none')
  presence.clear()
  t.same(candidates(snapshot, floating), [])
  t.same(candidates(snapshot, floating, 'b'), ['b'], 'who asks is alive')
  t.match(unheldBecause(snapshot, floating), /no live host/)
  const only = floatingOf({ dev: 'eth2', address: '198.51.100.9/24' }, 'app', 'label web')
  for (const name of order) presence.set(name, {})
  t.same(candidates(snapshot, only), ['b'])
})

t.test('where two services ask for one address, one of them has it, on every host the same', async t => {
  const { snapshot } = open()
  snapshot.putService(options('label web', '192.0.2.100/24'))
  snapshot.putService(options('label api', '192.0.2.100/24', '2001:db8::64/64'))
  const wanted = wantedFloating(snapshot)
  t.equal(wanted.get('192.0.2.100')?.service, 'label api')
  t.equal(wanted.size, 2)
})

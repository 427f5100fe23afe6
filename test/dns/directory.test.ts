// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import t from 'tap'
import { openDirectory, throughHost } from '../../src/dns/directory.ts'
import { lookup } from '../../src/dns/records.ts'
import { namesOf } from '../../src/model/names.ts'
import type { ChangedKey } from '../../src/store/mirror.ts'
import { testCluster } from '../overlay/cluster.ts'

const open = () => {
  const snapshot = testCluster()
  let tell = (_: readonly ChangedKey[] | 'all'): void => {}
  const directory = openDirectory({
    snapshot,
    subscribe(listener) {
      tell = listener
      return () => {}
    },
  })
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  for (const id of ['n1', 'n2']) snapshot.putNetwork({ id })
  return { snapshot, directory, tell: (changed: readonly ChangedKey[] | 'all') => tell(changed) }
}
const workload = (name: string, container: string) => ({
  name,
  container,
  aliases: [`${name}-alias`],
  hostname: 'Host',
  service: 'web',
  labels: {},
})

const step = fc.record({
  network: fc.constantFrom('n1', 'n2'),
  id: fc.constantFrom('e1', 'e2', 'e3', 'e4'),
  node: fc.constantFrom('a', 'b'),
  what: fc.constantFrom('put', 'named', 'dropped', 'all'),
  name: fc.constantFrom('One', 'two', 'three'),
  container: fc.constantFrom('c1', 'c2'),
})

t.test('kept up change by change it answers like a look at everything', async t => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => {
      const { snapshot, directory, tell } = open()
      for (const { network, id, node, what, name, container } of steps) {
        const endpoint = `${network}-${id}`
        if (what === 'all') tell('all')
        else {
          if (what === 'dropped') snapshot.dropEndpoint(network, endpoint)
          else
            snapshot.putEndpoint({
              id: endpoint,
              network,
              node,
              addresses: [`10.80.0.${id.slice(1)}`],
              ...(what === 'named' ? { workload: workload(name, container) } : {}),
            })
          tell([['endpoints', network, endpoint]])
        }
      }
      for (const network of ['n1', 'n2']) {
        const all = [...snapshot.endpoints(network).values()].map(({ record }) => record)
        for (const name of ['one', 'two', 'two-alias', 'host', 'web', 'tasks.web', 'c1', 'none']) {
          const looked = all.filter(endpoint => namesOf(endpoint).includes(name)).map(endpoint => endpoint.id)
          const filed = directory.named(network, name).map(endpoint => endpoint.id)
          if (looked.sort().join() !== filed.sort().join()) return false
        }
        for (const { id, addresses } of all) if (directory.at(network, addresses[0]!)?.id !== id) return false
      }
      return true
    }),
  )
  t.pass('for any sequence')
})

t.test('who asks decides which networks are looked at', async t => {
  const { snapshot, directory, tell } = open()
  const put = (network: string, id: string, node: string, name: string, container: string): void => {
    snapshot.putEndpoint({ id, network, node, workload: workload(name, container) })
    tell([['endpoints', network, id]])
  }
  put('n1', 'e1', 'a', 'one', 'c1')
  put('n2', 'e2', 'a', 'one', 'c1')
  put('n2', 'e3', 'b', 'far', 'c1') // another host's container of the same id is another container
  const from = directory.at('n1', '10.80.0.2')?.addresses[0] ?? ''
  t.same(directory.networksOf('n1', from), ['n1', 'n2'])
  t.same(directory.networksOf('n1', '192.0.2.9'), ['n1'], 'an unknown asker: the network that it asked through')
  const through = directory.networksOf(throughHost, '172.17.0.2')
  t.same(through, [], 'from the host: none')
  t.equal(lookup(directory, through, { name: 'far', type: 'A' }), undefined)
  t.match(lookup(directory, through, { name: 'FAR.n2.weft', type: 'A' }), { kind: 'address' })
  t.match(lookup(directory, through, { name: 'b.weft', type: 'A' }), { kind: 'address', addresses: ['192.0.2.2'] })
  t.match(lookup(directory, through, { name: 'nobody.weft', type: 'A' }), { kind: 'absent' })
})

t.test('a service by its name: containers come first, but for the full name of their own service', async t => {
  const { snapshot, directory, tell } = open()
  const put = (id: string, name: string, labels: Record<string, string>, network = 'n1'): void => {
    const label = labels['weft.service']
    const service = label === undefined ? {} : { service: label }
    snapshot.putEndpoint({ id, network, node: 'a', workload: { name, container: id, aliases: [], labels, ...service } })
    tell([['endpoints', network, id]])
  }
  const vip = (service: string, ...addresses: string[]): void => {
    snapshot.putVip('n1', service, ...addresses)
    tell([['vips', 'n1', service]])
  }
  const asked = (name: string, type = 'A') => lookup(directory, ['n1'], { name, type })
  const address = (...addresses: string[]) => ({ kind: 'address', addresses })
  vip('label Web', '10.80.0.254', 'fd00:80::ffff')
  t.same(asked('web.n1.weft'), { kind: 'absent' }, 'nobody is there')
  t.equal(asked('web'), undefined)
  put('e1', 'one', { 'weft.service': 'Web' })
  put('e2', 'two', { 'weft.service': 'Web' })
  for (const name of ['WEB', 'web.n1.weft']) {
    t.same(asked(name), address('10.80.0.254'))
    t.same(asked(name, 'AAAA'), address('fd00:80::ffff'))
    t.same(asked(name, 'MX'), { kind: 'empty' })
  }
  for (const name of ['tasks.web', 'tasks.web.n1.weft']) t.same(asked(name), address('10.80.0.2', '10.80.0.3'))
  const names = { kind: 'ptr', names: ['Web.n1.weft'] }
  t.same(asked('254.0.80.10.in-addr.arpa', 'PTR'), names)
  t.same(lookup(directory, ['n2'], { name: 'web', type: 'A' }), undefined, 'not from another network')
  put('e3', 'web', { 'weft.service': 'Web' })
  t.same(asked('web'), address('10.80.0.4'), "a container's name")
  t.same(asked('web.n1.weft'), address('10.80.0.254'), 'one of its own: still the service')
  put('e4', 'web', {})
  t.same(asked('web.n1.weft'), address('10.80.0.4', '10.80.0.5'))
  snapshot.dropVip('n1', 'label Web')
  for (const id of ['e3', 'e4']) snapshot.dropEndpoint('n1', id)
  tell([
    ['vips', 'n1', 'label Web'],
    ['endpoints', 'n1', 'e3'],
    ['endpoints', 'n1', 'e4'],
  ])
  t.same(asked('web'), address('10.80.0.2', '10.80.0.3'), 'a subnet that is full has no address for it')
  t.equal(asked('254.0.80.10.in-addr.arpa', 'PTR'), undefined)
})

t.test('a service of compose: its bare name is that of its containers, the full one its address', async t => {
  const { snapshot, directory, tell } = open()
  const compose = { name: 'shop-api-1', container: 'c', aliases: ['api'], labels: {}, project: 'shop', service: 'api' }
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'a', workload: compose })
  snapshot.putVip('n1', 'compose shop api', '10.80.0.254')
  tell('all')
  t.same(lookup(directory, ['n1'], { name: 'api', type: 'A' }), { kind: 'address', addresses: ['10.80.0.2'] })
  t.same(lookup(directory, [], { name: 'api.n1.weft', type: 'A' }), { kind: 'address', addresses: ['10.80.0.254'] })
})

t.test('a full name is found without a look at every network and node, whatever it is split into', async t => {
  const { snapshot, directory, tell } = open()
  const ask = (name: string) => lookup(directory, [], { name, type: 'A' })
  snapshot.putNetwork({ id: 'n3', name: 'Shop.East' })
  snapshot.putEndpoint({
    ...{ id: 'e', network: 'n3', node: 'a', addresses: ['10.80.0.7'] },
    workload: workload('One', 'c1'),
  })
  tell('all')
  const found = { kind: 'address', addresses: ['10.80.0.7'] }
  t.same(ask('one.shop.east.weft'), found)
  t.match(ask('B.weft'), { kind: 'address' })
  let looks = 0
  for (const table of [snapshot.networks, snapshot.nodes] as Map<string, unknown>[])
    table.values = function values(this: Map<string, unknown>) {
      looks++
      return Map.prototype.values.call(this) as MapIterator<unknown>
    }
  t.same(ask(`${'a.'.repeat(120)}weft`), { kind: 'absent' })
  t.same(ask('one.shop.east.weft'), found)
  t.equal(looks, 0)
  snapshot.putNetwork({ id: 'n3', name: 'West' })
  snapshot.putNode({ name: 'c' })
  tell([
    ['networks', 'n3'],
    ['nodes', 'c'],
  ])
  t.same(ask('one.shop.east.weft'), { kind: 'absent' })
  t.same(ask('one.west.weft'), found)
  t.match(ask('c.weft'), { kind: 'address' })
})

// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import t from 'tap'
import { namesOf, openDirectory, throughHost } from '../../src/dns/directory.ts'
import { lookup } from '../../src/dns/records.ts'
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

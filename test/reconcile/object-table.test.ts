// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { keyOf, nsOf, nsOfKey } from '../../src/kernel/objects.ts'
import { allUnits } from '../../src/plan/unit.ts'
import { objectTable } from '../../src/reconcile/object-table.ts'
import { plan } from '../../src/reconcile/plan.ts'
import { testCluster, testHost } from '../overlay/cluster.ts'

t.test('a key tells the namespace of its object, whatever is planned', async t => {
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1' })
  const ports = [{ proto: 'tcp', port: 80, hostPort: 8080 }] as const
  for (const node of ['a', 'b'])
    snapshot.putEndpoint({ id: `e${node}`, network: 'n1', node, gateway: true, ports, service: 'label web' })
  snapshot.putPort('tcp/8080', { cluster: { network: 'n1', service: 'label web', holders: ['ea', 'eb'] }, local: [] })
  const kinds = new Set<string>()
  for (const balancer of ['nft', 'ipvs'] as const) {
    const host = testHost(new Map([['n1', { slot: 0 }]]), {
      balancer,
      guestChains: [{ family: 'ip', table: 'filter', chain: 'DOCKER-USER' }],
    })
    for (const unit of allUnits(snapshot, host))
      for (const { object } of plan(unit, { snapshot, host }).wanted) {
        if (nsOfKey(keyOf(object)) !== nsOf(object)) t.fail(keyOf(object))
        kinds.add(object.kind)
      }
  }
  t.ok(kinds.size >= 18, [...kinds].join(' '))
})

t.test('by key and by namespace', async t => {
  const table = objectTable<number>()
  table.set('netns weft-n1', 1)
  table.set('link weft-n1 br0', 2)
  table.set('link  weft0', 3)
  table.set('nexthop 7', 4)
  table.set('link weft-n1 br0', 5)
  t.equal(table.size, 4)
  t.equal(table.get('link weft-n1 br0'), 5)
  table.adopt('nexthop 7', 6)
  table.adopt('nexthop 8', 6)
  t.equal(table.get('nexthop 7'), 6)
  t.equal(table.size, 4, 'what is not there is not adopted')
  table.set('nexthop 7', 4)
  t.same(table.keys('weft-n1'), ['netns weft-n1', 'link weft-n1 br0'])
  t.same(table.keys(''), ['link  weft0', 'nexthop 7'])
  for (const key of table.keys('')) table.delete(key)
  t.same(table.keys(''), [])
  t.notOk(table.has('nexthop 7'))
  table.delete('nexthop 7')
  t.equal(table.size, 2)
})

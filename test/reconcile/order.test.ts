// SPDX-License-Identifier: Apache-2.0
// What has to be there before what.
import t from 'tap'
import type { KernelObject } from '../../src/kernel/objects.ts'
import { planHost } from '../../src/overlay/host-plan.ts'
import { inOrder } from '../../src/reconcile/order.ts'
import { testCluster, testHost } from '../overlay/cluster.ts'

t.test('the host forwards when it is guarded and its devices go on listening to their routers', t => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  const node = snapshot.nodes.get('a')!.record
  const wanted = planHost(node, snapshot.cluster!.record, testHost(new Map(), { acceptsRa: ['eth0', 'eth1'] }))
  const order = inOrder(wanted.map(object => ({ kind: 'add', object }))).map(({ object }) => object)
  const places = (which: (o: KernelObject) => boolean): number[] => order.flatMap((o, i) => (which(o) ? [i] : []))
  const isSetting = (name: string) => (o: KernelObject) => o.kind === 'sysctl' && o.path.endsWith(name)
  const forwarding = places(isSetting('/forwarding'))
  const before = [...places(isSetting('/accept_ra')), ...places(o => o.kind === 'nft-chain' && o.chain === 'forward')]
  t.same([forwarding.length, before.length], [2, 3])
  t.ok(Math.max(...before) < Math.min(...forwarding))
  t.end()
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openFlows } from '../../src/mesh/flows.ts'
import { testCluster } from '../overlay/cluster.ts'

const open = () => {
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  for (const id of ['n1', 'n2']) snapshot.putNetwork({ id })
  for (const id of ['e1', 'e2']) snapshot.putEndpoint({ id, network: 'n1', node: 'b', addresses: [`10.0.0.${id[1]}`] })
  snapshot.putPort('tcp/80', { cluster: { network: 'n1', holders: ['e1', 'e2'] }, local: [] })
  const departed = new Set<string>()
  const forgotten: string[] = []
  const tracked = ['10.0.0.1', '10.0.0.2', '10.0.0.9']
  const bound = new Map([
    ['n1', { slot: 0 }],
    ['n2', { slot: 1 }],
  ])
  const flows = openFlows({
    snapshot,
    host: () => ({ bound, departed: id => departed.has(id) }),
    async forget(ns, which) {
      const gone = 'to' in which ? which.to : tracked.filter(address => !which.toOthersThan.has(address))
      forgotten.push(...gone.map(address => `${ns} ${address}`))
      return gone.length
    },
    log: silentLog,
  })
  return { snapshot, flows, departed, forgotten }
}

t.test('at the start, whatever leads to nobody; then what has just gone, in its network', async t => {
  const { snapshot, flows, departed, forgotten } = open()
  flows.look()
  t.same(forgotten.splice(0), [
    'weft-m1048576 10.0.0.9',
    ...['10.0.0.1', '10.0.0.2', '10.0.0.9'].map(address => `weft-m1048577 ${address}`),
  ])
  flows.look()
  t.same(forgotten, [], 'nothing has changed')
  snapshot.putEndpoint({ id: 'e2', network: 'n1', node: 'b', addresses: ['10.0.0.2'], withheld: 'stopping' })
  flows.look()
  t.same(forgotten, [], 'who gets no new ones keeps what it has')
  departed.add('e2')
  flows.look()
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.2'])
  snapshot.putNode({ name: 'b', fenced: 'x' })
  flows.look()
  t.same(forgotten, ['weft-m1048576 10.0.0.1'])
})

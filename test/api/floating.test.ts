// SPDX-License-Identifier: Apache-2.0
// What people are told of a floating address: who has it, or why nobody.
import t from 'tap'
import { floatingMessage, unheld } from '../../src/api/floating.ts'
import { floatingOf } from '../../src/model/floating.ts'
import { testCluster } from '../overlay/cluster.ts'

const address = '192.0.2.100/24'

t.test('its holder; what this host met; nobody that could; another service that asks for it', async t => {
  const snapshot = testCluster()
  const floating = floatingOf({ dev: 'eth0', address }, 'app', 'label web')
  const met = new Map([['192.0.2.100', '02:00:00:00:00:99 answers for it on eth0, without a claim']])
  const told = (local = new Map<string, string>()) => floatingMessage(snapshot, floating, local)
  snapshot.putNetwork({ id: 'app' })
  t.same(unheld(snapshot, met), [], 'nobody asks for one')
  snapshot.putService({ network: 'app', service: 'label web', addresses: [{ dev: 'eth0', address }] })
  const none = 'no live host has an address of 192.0.2.0/24 on a device eth0'
  t.same(told(met), { address, dev: 'eth0', node: '', since: '', problem: none })
  t.same(unheld(snapshot, met), [`address ${address} of service web of network app has no holder: ${none}`])
  snapshot.putNode({ name: 'a', addresses: [{ dev: 'eth0', address: '192.0.2.1/24' }] })
  ;(snapshot.presence as Map<string, unknown>).set('a', {})
  t.equal(told().problem, 'it is being taken')
  t.match(told(met).problem, /02:00:00:00:00:99 answers/)
  const since = '2026-01-01T00:00:00.000Z'
  const claim = { node: 'a', instance: 'i', boot: 'b', network: 'app', service: 'label web', dev: 'eth0', since }
  ;(snapshot.floating as Map<string, unknown>).set('192.0.2.100', { record: claim, revision: 9n })
  t.same(told(met), { address, dev: 'eth0', node: 'a', since, problem: '' })
  t.same(unheld(snapshot, met), [])
  snapshot.putService({ network: 'app', service: 'label api', addresses: [{ dev: 'eth0', address }] })
  t.same(told(), { address, dev: 'eth0', node: '', since: '', problem: 'service api of network app asks for it too' })
})

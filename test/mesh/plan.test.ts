// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { format } from '../../src/kernel/objects.ts'
import { planPort } from '../../src/mesh/plan.ts'
import type { PortMapping } from '../../src/model/port.ts'
import { type TestCluster, testCluster, testHost } from '../overlay/cluster.ts'

const bound = new Map([['n1', { slot: 0 }]])
const open = (): TestCluster => {
  const snapshot = testCluster()
  for (const name of ['a', 'b', 'c']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1' })
  return snapshot
}
const web = (
  snapshot: TestCluster,
  id: string,
  node: string,
  more: Partial<PortMapping> & { service?: string } = {},
) => {
  const { service = 'container web', ...mapping } = more
  const ports: PortMapping[] = [{ proto: 'tcp', port: 80, hostPort: 8080, ...mapping }]
  snapshot.putEndpoint({ id, network: 'n1', node, gateway: true, ports, service })
}
const lines = (snapshot: TestCluster, more = {}): string[] =>
  planPort('tcp', 8080, snapshot, testHost(bound, more)).wanted.map(({ object }) => format(object))
const cluster = (...holders: string[]) => ({ network: 'n1', service: 'container web', holders })

t.test('every host answers, and gives each new connection the next of the containers', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'b')
  web(snapshot, 'e2', 'c')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  t.same(lines(snapshot), [
    'weft-m1048576: table inet weft chain tcp_8080 { meta nfproto ipv4 dnat ip to numgen inc mod 2 map { 0 : 10.80.0.2, 1 : 10.80.0.3 }; meta nfproto ipv6 dnat ip6 to numgen inc mod 2 map { 0 : fd00:80::2, 1 : fd00:80::3 } }',
    'weft-m1048576: table inet weft element balanced { tcp . 8080 : goto tcp_8080 }',
    'H: table inet weft element ports4 { tcp . 8080 : 169.254.1.2 }',
    'H: table inet weft element ports6 { tcp . 8080 : fd69:7765:6674::2 }',
  ])
})

t.test("not to one of another service, on a fenced node, or that is not its container's gateway", async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'b')
  web(snapshot, 'e2', 'c', { service: 'container other' })
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  t.match(lines(snapshot)[0], /dnat ip to 10\.80\.0\.2;/)
  snapshot.putNode({ name: 'b', fenced: 'x' })
  t.same(lines(snapshot), [])
  snapshot.putNode({ name: 'b' })
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'b', gateway: false })
  t.same(lines(snapshot), [])
})

t.test('a port that a process of the host has is left to it, and one of a foreign host is not ours', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'a')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1'), local: [] })
  t.same(lines(snapshot, { holds: () => false }), [])
  snapshot.putPort('tcp/8080', { local: [{ node: 'b', network: 'n1', endpoint: 'e1' }] })
  t.same(lines(snapshot), [])
})

t.test('-p IP:… is at that address of its host', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'a', { hostIp: '192.0.2.1', local: true })
  snapshot.putPort('tcp/8080', { local: [{ node: 'a', network: 'n1', endpoint: 'e1' }] })
  t.same(lines(snapshot).slice(2), ['H: table inet weft element ports_at4 { 192.0.2.1 . tcp . 8080 : 169.254.1.2 }'])
})

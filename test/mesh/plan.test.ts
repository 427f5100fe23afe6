// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { format } from '../../src/kernel/objects.ts'
import { planPort } from '../../src/mesh/plan.ts'
import type { PortMapping } from '../../src/model/port.ts'
import { optionsKeyOf, type ServiceOptions } from '../../src/model/service-options.ts'
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

t.test('by IPVS: a service for each family, and who gets no new connections stays for those that it has', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'b')
  web(snapshot, 'e2', 'c')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  const { record } = snapshot.endpoints('n1').get('e2')!
  snapshot.putEndpoint({ ...record, withheld: 'stopping' })
  const by = { balancer: 'ipvs' }
  t.same(lines(snapshot, by), [
    'weft-m1048576: ipvs tcp 169.254.1.2:8080 scheduler rr',
    'weft-m1048576: ipvs tcp 169.254.1.2:8080 to 10.80.0.2 weight 1',
    'weft-m1048576: ipvs tcp 169.254.1.2:8080 to 10.80.0.3 weight 0',
    'weft-m1048576: ipvs tcp [fd69:7765:6674::2]:8080 scheduler rr',
    'weft-m1048576: ipvs tcp [fd69:7765:6674::2]:8080 to fd00:80::2 weight 1',
    'weft-m1048576: ipvs tcp [fd69:7765:6674::2]:8080 to fd00:80::3 weight 0',
    'weft-m1048576: ipvs timeout tcp 432000',
    'H: table inet weft element ports4 { tcp . 8080 : 169.254.1.2 }',
    'H: table inet weft element ports6 { tcp . 8080 : fd69:7765:6674::2 }',
  ])
  const { record: other } = snapshot.endpoints('n1').get('e1')!
  snapshot.putEndpoint({ ...other, drained: true })
  t.notOk(
    lines(snapshot, by).some(line => line.startsWith('H:')),
    'nobody for new ones: refused',
  )
  t.equal(lines(snapshot, by).length, 7)
  t.same(lines(snapshot), [], 'nftables keeps them in its connection table')
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

t.test('as the service was said to be served', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'b')
  web(snapshot, 'e2', 'c')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  const { record } = snapshot.endpoints('n1').get('e2')!
  const workload = { container: 'c', name: 'web', aliases: [], labels: { 'weft.weight': '3' } }
  snapshot.putEndpoint({ ...record, workload })
  const say = (options: Partial<ServiceOptions>): void =>
    snapshot.putService({ network: 'n1', service: optionsKeyOf('web'), ...options })
  const chain = (): string => /dnat ip to (.*?);/.exec(lines(snapshot)[0]!)![1]!
  const ipvs = (): string[] => lines(snapshot, { balancer: 'ipvs' })
  say({ scheduler: 'wrr' })
  t.equal(chain(), 'numgen inc mod 4 map { 0 : 10.80.0.3, 1 : 10.80.0.2, 2 : 10.80.0.3, 3 : 10.80.0.3 }')
  t.match(ipvs()[0], /scheduler wrr$/)
  t.match(ipvs()[2], /10\.80\.0\.3 weight 3$/)
  say({ scheduler: 'sh' })
  t.equal(chain(), 'jhash ip saddr mod 2 seed 2003134068 map { 0 : 10.80.0.2, 1 : 10.80.0.3 }')
  t.match(ipvs()[0], /scheduler sh -b sh-fallback$/)
  say({ affinity: 300 })
  t.match(chain(), /^jhash/)
  t.match(ipvs()[0], /scheduler rr persistent 300$/)
  say({ scheduler: 'lc', timeoutTcp: 60 })
  t.equal(lines(snapshot)[0], 'weft-m1048576: table inet weft ct timeout tcp_60_60')
  t.match(lines(snapshot)[1], /ipv4 ct timeout set "tcp_60_60" dnat ip to numgen inc mod 2/, 'as the first that it has')
  t.match(ipvs()[0], /scheduler lc$/)
  t.equal(ipvs()[6], 'weft-m1048576: ipvs timeout tcp 60')
  say({ scheduler: 'wrr' })
  snapshot.putEndpoint({ ...record, workload: { ...workload, labels: { 'weft.weight': '1000' } } })
  const turns = chain().match(/: 10/g)!
  t.ok(turns.length > 900 && turns.length <= 1001, `${turns.length} turns`)
  snapshot.putEndpoint({ ...record, workload: { ...workload, labels: { 'weft.weight': '0' } } })
  t.equal(chain(), '10.80.0.2')
})

t.test('not to a node that does not answer, unless none does', async t => {
  const snapshot = open()
  web(snapshot, 'e1', 'b')
  web(snapshot, 'e2', 'c')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  const both = lines(snapshot)
  const silent = (...nodes: string[]) => ({ silent: (id: string, node: string) => id === 'n1' && nodes.includes(node) })
  t.match(lines(snapshot, silent('b'))[0], /dnat ip to 10\.80\.0\.3;/)
  t.same(lines(snapshot, silent('b', 'c')), both)
  web(snapshot, 'e3', 'a')
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2', 'e3'), local: [] })
  t.match(lines(snapshot, silent('b', 'c'))[0], /dnat ip to 10\.80\.0\.4;/, 'the own one')
  const dead = { ...silent('b', 'c'), dead: (_: string, node: string) => node === 'c' }
  t.same(
    lines(snapshot, { ...dead, balancer: 'ipvs' }).filter(line => / to 10\./.test(line)),
    [
      'weft-m1048576: ipvs tcp 169.254.1.2:8080 to 10.80.0.2 weight 0',
      'weft-m1048576: ipvs tcp 169.254.1.2:8080 to 10.80.0.4 weight 1',
    ],
    'a dead one has no connections any more',
  )
  snapshot.putPort('tcp/8080', { cluster: cluster('e1', 'e2'), local: [] })
  t.same(lines(snapshot, dead), both, 'while nobody answers, neither is anybody dead')
})

// SPDX-License-Identifier: Apache-2.0
// What a virtual address becomes in the switch of a host: the choice, who keeps what it has, and what a backend's own
// node adds.
import t from 'tap'
import { format } from '../../src/kernel/objects.ts'
import { planVip } from '../../src/mesh/vip-plan.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'
import { optionsKeyOf, type ServiceOptions } from '../../src/model/service-options.ts'
import type { Host } from '../../src/plan/host.ts'
import { unitsOfChange, unitsOfEndpoint } from '../../src/plan/unit.ts'
import { type TestCluster, testCluster, testHost } from '../overlay/cluster.ts'

const bound = new Map([['n1', { slot: 0 }]])
const web = 'label web'
const open = (): TestCluster => {
  const snapshot = testCluster()
  for (const name of ['a', 'b', 'c']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1' })
  snapshot.putVip('n1', web, '10.80.0.254', 'fd00:80::ffff')
  return snapshot
}
const put = (snapshot: TestCluster, id: string, node: string, more: Partial<Endpoint> = {}): void =>
  snapshot.putEndpoint({ id, network: 'n1', node, service: web, ...more })
const lines = (snapshot: TestCluster, more: Partial<Host> = {}): string[] =>
  planVip('n1', web, snapshot, testHost(bound, more)).wanted.map(({ object }) => format(object))
const choice = (snapshot: TestCluster, more: Partial<Host> = {}): string | undefined =>
  lines(snapshot, more).find(line => line.includes(' chain '))
const table = 'weft-n1048576: table inet weft'

t.test('a node without a backend: where it is found, the choice, and the MAC of each mark', async t => {
  const snapshot = open()
  put(snapshot, 'e1', 'b')
  put(snapshot, 'e2', 'c')
  const turns = 'numgen inc mod 2 map { 0 : 0x0a500002, 1 : 0x0a500003 }'
  t.same(lines(snapshot), [
    `${table} chain vip_10_80_0_254 { meta nfproto ipv4 ct mark set ${turns}; meta nfproto ipv6 ct mark set ${turns} }`,
    'weft-n1048576: neigh 10.80.0.254 lladdr 02:7e:00:00:00:01 dev br0 permanent',
    `${table} element vips4 { 10.80.0.254 }`,
    `${table} element choice4 { 10.80.0.254 : jump vip_10_80_0_254 }`,
    'weft-n1048576: neigh fd00:80::ffff lladdr 02:7e:00:00:00:01 dev br0 permanent',
    `${table} element vips6 { fd00:80::ffff }`,
    `${table} element choice6 { fd00:80::ffff : jump vip_10_80_0_254 }`,
    `${table} element backends { 0x0a500002 : 02:77:0a:50:00:02 }`,
    `${table} element backends { 0x0a500003 : 02:77:0a:50:00:03 }`,
    'weft-n1048576: sysctl net/bridge/bridge-nf-call-iptables=1',
    'weft-n1048576: sysctl net/bridge/bridge-nf-call-ip6tables=1',
  ])
})

t.test("a backend's own node puts its address in, tracks it, and lets it call itself", async t => {
  const snapshot = open()
  put(snapshot, 'e1', 'a')
  t.match(choice(snapshot), /nfproto ipv4 ct mark set 0x0a500002; meta nfproto ipv6 ct mark set 0x0a500002 \}$/)
  t.same(lines(snapshot).slice(8, -2), [
    `${table} element tracked { 02:77:0a:50:00:02 }`,
    `${table} element own_backends4 { 02:77:0a:50:00:02 . 10.80.0.254 : 10.80.0.2 }`,
    `${table} element self_calls4 { 10.80.0.2 . 10.80.0.2 : 10.80.0.1 }`,
    `${table} element own_backends6 { 02:77:0a:50:00:02 . fd00:80::ffff : fd00:80::2 }`,
    `${table} element self_calls6 { fd00:80::2 . fd00:80::2 : fd00:80::1 }`,
  ])
  snapshot.putNetwork({ id: 'n1', internal: true, pools: [{ prefix: '10.80.0.0/24' }, { prefix: 'fd00:80::/64' }] })
  t.match(lines(snapshot).join('\n'), /self_calls4 \{ 10\.80\.0\.2 \. 10\.80\.0\.2 : 10\.80\.0\.254 \}/)
})

t.test('who gets no new connections keeps what it has, who is gone does not', async t => {
  const snapshot = open()
  put(snapshot, 'e1', 'b')
  put(snapshot, 'e2', 'c', { drained: true })
  t.match(choice(snapshot), /ipv4 ct mark set 0x0a500002;/)
  t.ok(lines(snapshot).includes(`${table} element backends { 0x0a500003 : 02:77:0a:50:00:03 }`))
  put(snapshot, 'e1', 'b', { withheld: 'stopping' })
  t.match(choice(snapshot), /\{ +\}$/, 'nobody is chosen: refused')
  t.ok(lines(snapshot).includes(`${table} element vips4 { 10.80.0.254 }`))
  t.notMatch(lines(snapshot, { departed: id => id === 'e2' }).join('\n'), /0x0a500003/)
  snapshot.putNode({ name: 'b', fenced: 'x' })
  t.notMatch(lines(snapshot).join('\n'), /0x0a500002/)
  snapshot.dropEndpoint('n1', 'e2')
  t.same(lines(snapshot), [], 'nothing is tracked for a service without containers')
})

t.test(
  'a node that does not answer gets no new connections, a dead one loses what it had, where there is another',
  async t => {
    const snapshot = open()
    put(snapshot, 'e1', 'b')
    put(snapshot, 'e2', 'c')
    const mute = (name: string) => (network: string, node: string) => network === 'n1' && node === name
    const kept = `${table} element backends { 0x0a500002 : 02:77:0a:50:00:02 }`
    t.match(choice(snapshot, { silent: mute('b') }), /ipv4 ct mark set 0x0a500003;/)
    t.ok(lines(snapshot, { silent: mute('b') }).includes(kept), 'silent alone is not enough')
    const dead = { silent: mute('b'), dead: mute('b') }
    t.notOk(lines(snapshot, dead).includes(kept))
    put(snapshot, 'e2', 'c', { drained: true })
    t.match(choice(snapshot, dead), /ipv4 ct mark set 0x0a500002;/, 'there is nobody else')
    t.ok(lines(snapshot, dead).includes(kept))
  },
)

t.test('marks name a backend whoever else is there; with IPv6 alone they are of its MAC', async t => {
  const snapshot = open()
  snapshot.putVip('n1', web, 'fd00:80::ffff')
  const six = (id: string, mac: string): void => put(snapshot, id, 'b', { mac, addresses: [`fd00:80::1:${id[1]}`] })
  six('e1', '02:77:f1:23:45:67')
  six('e2', '0a:00:12:34:56:78')
  const marks = (): string[] => lines(snapshot).filter(line => line.includes(' backends '))
  t.same(marks(), [
    `${table} element backends { 0xf1234567 : 02:77:f1:23:45:67 }`,
    `${table} element backends { 0xf2345678 : 0a:00:12:34:56:78 }`,
  ])
  six('e0', '0a:00:12:34:00:00')
  t.same(marks().slice(1)[0], `${table} element backends { 0xf1234567 : 02:77:f1:23:45:67 }`)
  six('e3', '0b:00:02:34:56:78')
  t.equal(marks().length, 3, 'of two with one mark the first has it')
  t.match(choice(snapshot), /numgen inc mod 3 /)
})

t.test('as the service was said to be served', async t => {
  const snapshot = open()
  const weighing = (weight: number): Partial<Endpoint> => ({
    workload: {
      container: 'c',
      name: 'web',
      aliases: [],
      labels: { 'weft.service': 'web', 'weft.weight': `${weight}` },
    },
  })
  put(snapshot, 'e1', 'b', weighing(3))
  put(snapshot, 'e2', 'c')
  put(snapshot, 'e3', 'c', weighing(0))
  const say = (options: Partial<ServiceOptions>): void =>
    snapshot.putService({ network: 'n1', service: optionsKeyOf('web'), ...options })
  const [one, two] = ['0x0a500002', '0x0a500003']
  t.match(choice(snapshot), `ipv4 ct mark set numgen inc mod 2 map { 0 : ${one}, 1 : ${two} };`, 'weights are of wrr')
  say({ scheduler: 'wrr' })
  t.match(choice(snapshot), `ipv4 ct mark set numgen inc mod 4 map { 0 : ${one}, 1 : ${one}, 2 : ${two}, 3 : ${one} }`)
  t.ok(lines(snapshot).includes(`${table} element backends { 0x0a500004 : 02:77:0a:50:00:04 }`), '0: no new ones')
  say({ scheduler: 'sh' })
  t.match(choice(snapshot), /ipv4 ct mark set jhash ip saddr mod 2 .*ipv6 ct mark set jhash ip6 saddr mod 2 /)
  say({ affinity: 60 })
  t.match(choice(snapshot), /jhash ip saddr/)
  say({ scheduler: 'lc' })
  t.match(choice(snapshot), /numgen inc mod 2 /)
  const changed = unitsOfChange(['services', 'n1', optionsKeyOf('web')], snapshot, testHost(bound))
  t.same([...changed], [{ kind: 'vip', network: 'n1', service: web }])
})

t.test('an endpoint that changes touches its own service, and the one it has left', async t => {
  const snapshot = open()
  snapshot.putVip('n1', 'label other', '10.80.0.253')
  put(snapshot, 'e1', 'b')
  put(snapshot, 'e2', 'b', { service: 'container lone' })
  const vip = { kind: 'vip', network: 'n1', service: web }
  t.same(unitsOfEndpoint('n1', 'e1', snapshot), [{ kind: 'endpoint', network: 'n1', endpoint: 'e1' }, vip])
  t.equal(unitsOfEndpoint('n1', 'e2', snapshot).length, 1)
  t.same([...unitsOfChange(['members', 'n1', web], snapshot, testHost(bound))], [vip])
  t.same([...unitsOfChange(['vips', 'n1', web], snapshot, testHost(new Map()))], [])
})

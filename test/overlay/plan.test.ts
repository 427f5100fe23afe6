// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import t from 'tap'
import { format, type KernelObject, keyOf } from '../../src/kernel/objects.ts'
import { settled } from '../../src/model/port.ts'
import { optionsKeyOf } from '../../src/model/service-options.ts'
import { allUnits, type Unit, unitKey, unitsOfChange } from '../../src/plan/unit.ts'
import { openDirtyUnits } from '../../src/reconcile/dirty-units.ts'
import { plan } from '../../src/reconcile/plan.ts'
import { wantedObjects } from '../../src/reconcile/wanted.ts'
import { type TestCluster, testCluster, testHost } from './cluster.ts'

const all = (snapshot: TestCluster, bound: Map<string, { slot: number }>): string[] => {
  const wanted = wantedObjects()
  const host = testHost(bound)
  for (const unit of allUnits(snapshot, host)) wanted.update(unitKey(unit), plan(unit, { snapshot, host }))
  return [...wanted.keys()].map(key => format(wanted.get(key)!)).sort()
}

const objectsOf = (unit: Unit, snapshot: TestCluster, bound: Map<string, { slot: number }>): KernelObject[] =>
  plan(unit, { snapshot, host: testHost(bound) }).wanted.map(({ object }) => object)

const small = (): { snapshot: TestCluster; bound: Map<string, { slot: number }> } => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a' })
  snapshot.putNode({ name: 'b' })
  snapshot.putNetwork({ id: 'n1' })
  return { snapshot, bound: new Map([['n1', { slot: 0 }]]) }
}

t.test('a remote endpoint is two FDB rows and its neighbours, in the words of bridge and ip', async t => {
  const { snapshot, bound } = small()
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'b' })
  const lines = objectsOf({ kind: 'endpoint', network: 'n1', endpoint: 'e1' }, snapshot, bound).map(format)
  t.same(lines, [
    'weft-n1048576: fdb 02:77:0a:50:00:02 dev vx0 nhid 1996488709 self',
    'weft-n1048576: fdb 02:77:0a:50:00:02 dev vx0 master static',
    'weft-n1048576: neigh 10.80.0.2 lladdr 02:77:0a:50:00:02 dev br0 permanent',
    'weft-m1048576: neigh 10.80.0.2 lladdr 02:77:0a:50:00:02 dev gw0 permanent',
    'weft-n1048576: neigh fd00:80::2 lladdr 02:77:0a:50:00:02 dev br0 permanent',
    'weft-m1048576: neigh fd00:80::2 lladdr 02:77:0a:50:00:02 dev gw0 permanent',
  ])
})

t.test('the port of a container is put in on its node, when it is the gateway of its container', async t => {
  const { snapshot, bound } = small()
  const ports = [{ proto: 'tcp' as const, port: 80, hostPort: 8080 }]
  const unit: Unit = { kind: 'endpoint', network: 'n1', endpoint: 'e1' }
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'a', ports, gateway: false })
  t.notOk(objectsOf(unit, snapshot, bound).some(object => format(object).includes('published')))
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'a', ports, gateway: true })
  const lines = objectsOf(unit, snapshot, bound).map(format)
  t.ok(
    lines.some(line => line.includes('element published { 02:77:0a:50:00:03 . tcp . 8080 : 80 }')),
    lines.join('\n'),
  )
  t.ok(lines.includes('weft-n1048576: sysctl net/bridge/bridge-nf-call-iptables=1'))
})

t.test('nothing is wanted of a fenced node, of an unbound network, of a departed endpoint', async t => {
  const { snapshot, bound } = small()
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'b' })
  const unit: Unit = { kind: 'endpoint', network: 'n1', endpoint: 'e1' }
  t.same(objectsOf(unit, snapshot, new Map()), [])
  t.same(plan(unit, { snapshot, host: testHost(bound, { departed: id => id === 'e1' }) }).wanted, [])
  snapshot.putNode({ name: 'b', fenced: '2026-01-01T00:00:00Z' })
  t.same(objectsOf(unit, snapshot, bound), [])
})

t.test('an internal network has no way out', async t => {
  const { snapshot, bound } = small()
  snapshot.putNetwork({ id: 'n1', internal: true })
  const keys = objectsOf({ kind: 'network', network: 'n1' }, snapshot, bound).map(keyOf)
  t.notOk(keys.some(key => key.includes('up0') || key.startsWith('link  weft')))
  t.ok(keys.includes('address weft-m1048576 gw0 169.254.77.53/32'), 'but names are answered')
})

t.test('names are answered at one address of each family of the network, in H of both', async t => {
  const { snapshot, bound } = small()
  const resolvers = (unit: Unit): string[] =>
    objectsOf(unit, snapshot, bound)
      .map(format)
      .filter(line => /(169\.254\.77\.53|:ffff::53)( lladdr|\/)/.test(line))
  const network: Unit = { kind: 'network', network: 'n1' }
  const inM = (address: string) => `weft-m1048576: address ${address} dev gw0`
  const inN = (address: string) => `weft-n1048576: neigh ${address} lladdr 02:7e:00:00:00:01 dev br0 permanent`
  const four = [inN('169.254.77.53'), inM('169.254.77.53/32')]
  const six = [inN('fd69:7765:6674:ffff::53'), inM('fd69:7765:6674:ffff::53/128')]
  t.same(resolvers(network).sort(), [...four, ...six].sort())
  snapshot.putNetwork({ id: 'n1', pools: [{ prefix: 'fd00:80::/64' }], internal: true })
  t.same(resolvers(network).sort(), six.sort())
  snapshot.putNetwork({ id: 'n1', pools: [{ prefix: '10.80.0.0/24', gateway: '10.80.0.1' }] })
  t.same(resolvers(network).sort(), four.sort())
  const onHost = ['169.254.77.53/32', 'fd69:7765:6674:ffff::53/128'].map(text => `H: address ${text} dev weftdns`)
  t.same(resolvers({ kind: 'host' }), onHost)
})

t.test('names of interfaces fit the kernel', async t => {
  const { snapshot, bound } = small()
  snapshot.putEndpoint({ id: 'f'.repeat(64), network: 'n1', node: 'a' })
  for (const unit of allUnits(snapshot, testHost(bound)))
    for (const object of objectsOf(unit, snapshot, bound)) {
      if ('name' in object) t.ok(object.name.length <= 15, object.name)
      if ('peer' in object) t.ok(object.peer.name.length <= 15, object.peer.name)
    }
})

type Step =
  | { kind: 'node'; name: string; vtep: number; fenced: boolean }
  | { kind: 'network'; id: string; internal: boolean }
  | { kind: 'endpoint'; network: string; id: string; node: string; gateway: boolean; service: string; drained: boolean }
  | { kind: 'vip'; network: string; service: string; on: boolean }
  | { kind: 'options'; network: string; title: string; timeoutTcp: number }
  | { kind: 'drop endpoint'; network: string; id: string }
  | { kind: 'drop network'; id: string }
  | { kind: 'bind'; id: string; on: boolean }

const nodes = fc.constantFrom('a', 'b', 'c')
const networkIds = fc.constantFrom('n1', 'n2')
const ids = fc.constantFrom('e1', 'e2', 'e3', 'e4')
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('node' as const),
    name: nodes,
    vtep: fc.integer({ min: 1, max: 9 }),
    fenced: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('network' as const), id: networkIds, internal: fc.boolean() }),
  fc.record({
    kind: fc.constant('endpoint' as const),
    network: networkIds,
    id: ids,
    node: nodes,
    gateway: fc.boolean(),
    service: fc.constantFrom('label x', 'label y', 'container z'),
    drained: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('vip' as const),
    network: networkIds,
    service: fc.constantFrom('label x', 'label y'),
    on: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('options' as const),
    network: networkIds,
    title: fc.constantFrom('x', 'z'),
    timeoutTcp: fc.constantFrom(77, 78),
  }),
  fc.record({ kind: fc.constant('drop endpoint' as const), network: networkIds, id: ids }),
  fc.record({ kind: fc.constant('drop network' as const), id: networkIds }),
  fc.record({ kind: fc.constant('bind' as const), id: networkIds, on: fc.boolean() }),
)

t.test('what is said of a service touches its ports, whatever made it one, and no others', async t => {
  const { snapshot, bound } = small()
  const claim = (service: string, network = 'n1') => ({ cluster: { network, service, holders: [] }, local: [] })
  snapshot.putPort('tcp/1', claim('label web'))
  snapshot.putPort('udp/2', claim('container web'))
  snapshot.putPort('tcp/3', claim('compose shop web'))
  snapshot.putPort('tcp/4', claim('label web', 'n2'))
  const units = (network: string, title: string): string[] => {
    const touched = unitsOfChange(['services', network, optionsKeyOf(title)], snapshot, testHost(bound))
    return touched === 'all' ? ['all'] : [...touched].map(unitKey)
  }
  t.same(units('n1', 'web'), ['port tcp 1', 'port udp 2'])
  t.same(units('n1', 'shop/web'), ['port tcp 3'])
  t.same(units('n2', 'web'), [], 'a network that is not here')
})

/** Most sequences begin with a cluster that has something to change. */
const begun: readonly Step[] = [
  ...['a', 'b', 'c'].map((name, i): Step => ({ kind: 'node', name, vtep: i + 1, fenced: false })),
  ...['n1', 'n2'].flatMap((id): Step[] => [
    { kind: 'network', id, internal: false },
    { kind: 'bind', id, on: true },
    { kind: 'vip', network: id, service: 'label x', on: true },
  ]),
]
const sequence = fc
  .tuple(fc.array(step, { maxLength: 60, size: 'max' }), fc.constantFrom([], begun, begun))
  .map(([steps, before]) => [...before, ...steps])

t.test('any sequence of changes planned by units is the final snapshot planned at once', async () => {
  fc.assert(
    fc.property(sequence, steps => {
      const snapshot = testCluster()
      const bound = new Map<string, { slot: number }>()
      const wanted = wantedObjects()
      const known = new Map<string, Unit>()
      const dirty = openDirtyUnits(snapshot, () => testHost(bound), known)
      const change = (key: readonly string[]): void => dirty.changed([key])
      /** The claim changes with its endpoint, as in the transactions of control/ports. */
      const claim = (network: string, id: string, there: boolean): void => {
        const before = snapshot.ports.get('tcp/8080')?.record.cluster
        const others = before?.holders.filter(holder => before.network !== network || holder !== id) ?? []
        const joins = there && (before === undefined || before.network === network || others.length === 0)
        const holders = joins ? [...others, id] : others
        const of = joins ? network : before?.network
        const serviceOf = (holder: string) => snapshot.endpoints(of!).get(holder)?.record.service
        const service = before?.service === undefined ? {} : { service: before.service }
        if (holders.length === 0) snapshot.dropPort('tcp/8080')
        else
          snapshot.putPort('tcp/8080', {
            cluster: settled({ network: of!, holders, ...service }, serviceOf),
            local: [],
          })
        change(['ports', 'tcp', '8080'])
      }
      /** As the mirror tells it: the service that the endpoint has left. */
      const leaves = (network: string, id: string, work: () => void): void => {
        const of = (): string | undefined => snapshot.endpoints(network).get(id)?.record.service
        const before = of()
        work()
        if (before !== undefined && before !== of()) change(['members', network, before])
      }
      for (const one of steps) {
        switch (one.kind) {
          case 'vip':
            if (one.on) snapshot.putVip(one.network, one.service, one.service === 'label x' ? '10.0.1.1' : '10.0.1.2')
            else snapshot.dropVip(one.network, one.service)
            change(['vips', one.network, one.service])
            break
          case 'options': {
            const { network, title, timeoutTcp } = one
            snapshot.putService({ network, service: optionsKeyOf(title), timeoutTcp })
            change(['services', network, optionsKeyOf(title)])
            break
          }
          case 'node':
            snapshot.putNode({ name: one.name, vtep: `192.0.2.${one.vtep}`, ...(one.fenced ? { fenced: 'x' } : {}) })
            change(['nodes', one.name])
            break
          case 'network':
            snapshot.putNetwork({ id: one.id, internal: one.internal })
            change(['networks', one.id])
            break
          case 'endpoint':
            leaves(one.network, one.id, () => {
              const { drained, ...record } = one
              snapshot.putEndpoint({
                ...record,
                addresses: [`10.0.0.${one.id.slice(1)}`],
                ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
                ...(drained ? { drained } : {}),
              })
            })
            claim(one.network, one.id, true)
            change(['endpoints', one.network, one.id])
            break
          case 'drop endpoint':
            leaves(one.network, one.id, () => snapshot.dropEndpoint(one.network, one.id))
            claim(one.network, one.id, false)
            change(['endpoints', one.network, one.id])
            break
          case 'drop network':
            snapshot.dropNetwork(one.id)
            change(['networks', one.id])
            break
          case 'bind':
            if (one.on) bound.set(one.id, { slot: one.id === 'n1' ? 0 : 1 })
            else bound.delete(one.id)
            dirty.network(one.id)
        }
        for (const [key, unit] of dirty.units) {
          const planned = plan(unit, { snapshot, host: testHost(bound) })
          if (planned.wanted.length > 0) known.set(key, unit)
          else known.delete(key)
          wanted.update(key, planned)
        }
        dirty.clear()
      }
      const byUnits = [...wanted.keys()].map(key => format(wanted.get(key)!)).sort()
      return JSON.stringify(byUnits) === JSON.stringify(all(snapshot, bound))
    }),
    { numRuns: 400 },
  )
})

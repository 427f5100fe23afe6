// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openFlows } from '../../src/mesh/flows.ts'
import type { Unit } from '../../src/plan/unit.ts'
import { testCluster, testHost } from '../overlay/cluster.ts'

const open = () => {
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  for (const id of ['n1', 'n2']) snapshot.putNetwork({ id })
  for (const id of ['e1', 'e2']) snapshot.putEndpoint({ id, network: 'n1', node: 'b', addresses: [`10.0.0.${id[1]}`] })
  snapshot.putPort('tcp/80', { cluster: { network: 'n1', holders: ['e1', 'e2'] }, local: [] })
  const departed = new Set<string>()
  const silent = new Set<string>()
  const dead = new Set<string>() // these are silent too
  const forgotten: string[] = []
  const refuses = { next: false }
  const tracked = ['10.0.0.1', '10.0.0.2', '10.0.0.9']
  const bound = new Map([
    ['n1', { slot: 0 }],
    ['n2', { slot: 1 }],
  ])
  const flows = openFlows({
    snapshot,
    host: () =>
      testHost(bound, {
        departed: id => departed.has(id),
        silent: (network, node) => network === 'n1' && (silent.has(node) || dead.has(node)),
        dead: (network, node) => network === 'n1' && dead.has(node),
      }),
    async forget(ns, which) {
      if (refuses.next) {
        refuses.next = false
        throw new Error('EBUSY')
      }
      if ('led' in which) {
        forgotten.push(...which.led.map(({ port, at = [], to }) => `H ${port} ${[...at, '->', ...to].join(' ')}`))
        return which.led.length
      }
      const gone = 'to' in which ? which.to : tracked.filter(address => !which.toOthersThan.has(address))
      forgotten.push(...gone.map(address => `${ns} ${address}`))
      return gone.length
    },
    log: silentLog,
  })
  const look = (): void => flows.look([{ kind: 'port', proto: 'tcp', port: 80 }])
  return { snapshot, flows, look, refuses, departed, silent, dead, forgotten }
}

t.test('at the start, whatever leads to nobody; then what has just gone, in its network', async t => {
  const { snapshot, look, departed, forgotten } = open()
  look()
  t.same(forgotten.splice(0), [
    'weft-m1048576 10.0.0.9',
    ...['weft-n1048576', 'weft-m1048577', 'weft-n1048577'].flatMap(ns =>
      ['10.0.0.1', '10.0.0.2', '10.0.0.9'].map(address => `${ns} ${address}`),
    ),
  ])
  look()
  t.same(forgotten, [], 'nothing has changed')
  snapshot.putEndpoint({ id: 'e2', network: 'n1', node: 'b', addresses: ['10.0.0.2'], withheld: 'stopping' })
  look()
  t.same(forgotten, [], 'who gets no new ones keeps what it has')
  departed.add('e2')
  look()
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.2'])
  snapshot.putNode({ name: 'b', fenced: 'x' })
  look()
  t.same(forgotten, ['weft-m1048576 10.0.0.1'])
})

t.test('what a container of this node began goes with it, and with no restart of ours', async t => {
  const { snapshot, flows, departed, forgotten } = open()
  snapshot.putEndpoint({ id: 'own', network: 'n1', node: 'a', addresses: ['10.0.0.9', 'fd00::9'] })
  const look = () => flows.look(['own', 'e1'].map(endpoint => ({ kind: 'endpoint', network: 'n1', endpoint })))
  look()
  t.notOk(forgotten.splice(0).some(one => one.includes('from')))
  look()
  t.same(forgotten, [])
  departed.add('own')
  departed.add('e1')
  look()
  t.same(forgotten.splice(0), ['weft-m1048576 from 10.0.0.9', 'weft-m1048576 from fd00::9'])
})

t.test('those of a dead node go once, where there is another backend', async t => {
  const { snapshot, look, silent, dead, forgotten } = open()
  const put = (id: string, node: string) =>
    snapshot.putEndpoint({
      id,
      network: 'n1',
      node,
      gateway: true,
      addresses: [`10.0.0.${id[1]}`],
      service: 'container w',
    })
  put('e1', 'b')
  put('e2', 'b')
  snapshot.putNode({ name: 'c' })
  snapshot.putPort('tcp/80', { cluster: { network: 'n1', service: 'container w', holders: ['e1', 'e2'] }, local: [] })
  look()
  forgotten.splice(0)
  dead.add('b')
  look()
  t.same(forgotten, [], 'there is nobody else: they wait')
  put('e3', 'c')
  const holders = ['e1', 'e2', 'e3']
  snapshot.putPort('tcp/80', { cluster: { network: 'n1', service: 'container w', holders }, local: [] })
  dead.clear()
  silent.add('b')
  look()
  t.same(forgotten, [], 'silent alone is not enough')
  dead.add('b')
  look()
  look()
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.1', 'weft-m1048576 10.0.0.2'])
  silent.clear()
  dead.clear()
  look()
  t.same(forgotten, [], 'it is back')
  dead.add('b')
  look()
  t.equal(forgotten.length, 2, 'and dead again')
})

t.test('one that serves by another port too keeps its connections', async t => {
  const { snapshot, look, flows, forgotten } = open()
  snapshot.putPort('tcp/81', { cluster: { network: 'n1', holders: ['e1'] }, local: [] })
  const other = { kind: 'port', proto: 'tcp', port: 81 } as const
  flows.look([{ kind: 'port', proto: 'tcp', port: 80 }, other])
  forgotten.splice(0)
  snapshot.dropPort('tcp/80')
  look()
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.2'])
  snapshot.dropPort('tcp/81')
  look()
  t.same(forgotten, [], 'nobody said that it was planned anew')
  flows.look([other])
  t.same(forgotten, ['weft-m1048576 10.0.0.1'])
})

t.test('what was sent to a UDP port before it led to where it leads now is forgotten in H, once', async t => {
  const { snapshot, flows, refuses, forgotten } = open()
  const look = (): string[] => {
    flows.look([{ kind: 'port', proto: 'udp', port: 53 }])
    return forgotten.splice(0).filter(line => line.startsWith('H'))
  }
  const claim = (network: string, holder: string): void =>
    snapshot.putPort('udp/53', { cluster: { network, service: 'container w', holders: [holder] }, local: [] })
  const put = (id: string, network: string, more = {}): void =>
    snapshot.putEndpoint({ id, network, node: 'b', gateway: true, service: 'container w', ...more })
  t.same(look(), [], 'nobody has it')
  put('u1', 'n1')
  claim('n1', 'u1')
  const first = ['H 53 -> 169.254.1.2 fd69:7765:6674::2']
  t.same(look(), first)
  t.same(look(), [])
  put('u1', 'n1', { withheld: 'unhealthy' })
  t.same(look(), [], 'refused meanwhile')
  put('u1', 'n1')
  t.same(look(), first, 'what came meanwhile')
  put('u2', 'n2')
  claim('n2', 'u2')
  refuses.next = true
  t.same(look(), [])
  await new Promise(setImmediate)
  t.same(look(), ['H 53 -> 169.254.1.6 fd69:7765:6674:1::2'], 'by another network now; tried again')
})

t.test('a switch forgets what led to a container of its own, by a port or by a virtual address', async t => {
  const { snapshot, flows, departed, forgotten } = open()
  snapshot.putEndpoint({ id: 'e1', network: 'n1', node: 'a', addresses: ['10.0.0.1'] })
  snapshot.putVip('n1', 'label web', '10.0.0.99')
  for (const [id, node] of [
    ['v1', 'a'],
    ['v2', 'b'],
  ] as const)
    snapshot.putEndpoint({ id, network: 'n1', node, addresses: [`10.0.1.${id[1]}`], service: 'label web' })
  const port: Unit = { kind: 'port', proto: 'tcp', port: 80 }
  const vip: Unit = { kind: 'vip', network: 'n1', service: 'label web' }
  flows.look([port, vip])
  t.same(
    forgotten.splice(0).filter(line => line.startsWith('weft-n1048576')),
    ['weft-n1048576 10.0.0.2', 'weft-n1048576 10.0.0.9'],
  )
  for (const id of ['e1', 'v1', 'v2']) departed.add(id)
  flows.look([port])
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.1', 'weft-n1048576 10.0.0.1'])
  flows.look([vip])
  t.same(forgotten.splice(0), ['weft-n1048576 10.0.1.1', 'weft-n1048576 0x0a000101', 'weft-n1048576 0x0a000102'])
})

t.test('a switch forgets by its mark what led to a dead node by a virtual address', async t => {
  const { snapshot, flows, dead, forgotten } = open()
  snapshot.putNode({ name: 'c' })
  snapshot.putVip('n1', 'label web', '10.0.0.99')
  for (const [id, node] of [
    ['v1', 'b'],
    ['v2', 'c'],
  ] as const)
    snapshot.putEndpoint({ id, network: 'n1', node, addresses: [`10.0.1.${id[1]}`], service: 'label web' })
  const vip: Unit = { kind: 'vip', network: 'n1', service: 'label web' }
  flows.look([vip])
  forgotten.splice(0)
  dead.add('b')
  flows.look([vip])
  t.same(forgotten, ['weft-n1048576 0x0a000101'])
})

t.test('what could not be forgotten is owed', async t => {
  const { look, departed, forgotten, refuses } = open()
  look()
  forgotten.splice(0)
  departed.add('e2')
  refuses.next = true
  look()
  await new Promise(resolve => setImmediate(resolve))
  t.same(forgotten, [])
  look()
  t.same(forgotten.splice(0), ['weft-m1048576 10.0.0.2'])
  look()
  t.same(forgotten, [], 'once')
})

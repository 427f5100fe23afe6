// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import type { Target } from '../../src/health/peer-probes.ts'
import type { Verdict } from '../../src/health/peer-verdict.ts'
import { type AskerEvents, openPeers } from '../../src/health/peers.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'

const open = () => {
  const clock = manualClock()
  const snapshot = testCluster()
  for (const name of ['a', 'b', 'c']) snapshot.putNode({ name })
  for (const id of ['n1', 'n2']) snapshot.putNetwork({ id })
  const bound = new Map([['n1', { slot: 0 }]])
  const put = (id: string, network: string, node: string, hostPort: number): void =>
    snapshot.putEndpoint({ id, network, node, ports: [{ proto: 'tcp', port: 80, hostPort }] })
  const claim = (port: number, network: string, ...holders: string[]): void =>
    snapshot.putPort(`tcp/${port}`, { cluster: { network, holders }, local: [] })
  const asked = new Map<number, Target>()
  const touched: string[] = []
  let events: AskerEvents | undefined
  let starts = 0
  let open = 0
  const peers = openPeers({
    snapshot,
    host: () => ({ node: 'a', bound }),
    addressOf: node => `fe80::${node.number}`,
    pathOf: ns => `/${ns}`,
    start(told) {
      events = told
      starts++
      open++
      asked.clear()
      return {
        order({ drop, add }) {
          for (const id of drop) if (!asked.delete(id)) throw new Error(`${id} was not asked`)
          for (const target of add) asked.set(target.id, target)
        },
        async close() {
          open--
        },
      }
    },
    changed: leads => {
      for (const lead of leads)
        touched.push(lead.kind === 'port' ? `${lead.proto}/${lead.port}` : `${lead.network} ${lead.service}`)
    },
    clock,
    log: silentLog,
  })
  const targets = (): string[] =>
    [...asked.values()].map(({ node, netns, address }) => `${node} ${netns} ${address}`).sort()
  const say = (node: string, verdict: Verdict): string[] => {
    events!.report([...asked.values()].filter(target => target.node === node).map(({ id }) => [id, verdict] as const))
    return touched.splice(0).sort()
  }
  const die = (): void => {
    open--
    events!.died(new Error('x'))
  }
  const running = () => ({ starts, open })
  return { clock, snapshot, bound, put, claim, touched, peers, targets, say, die, running }
}

t.test('nodes that run backends are asked, in the networks that are here', async t => {
  const { snapshot, bound, put, claim, peers, targets, running } = open()
  put('e1', 'n1', 'b', 80)
  put('e2', 'n1', 'a', 80)
  put('e3', 'n2', 'c', 81)
  put('e4', 'n1', 'c', 82)
  peers.look('all')
  t.same([targets(), running().starts], [[], 0], 'nobody publishes')
  claim(80, 'n1', 'e1', 'e2')
  claim(81, 'n2', 'e3')
  peers.look([
    ['ports', 'tcp', '80'],
    ['ports', 'tcp', '81'],
  ])
  t.same(targets(), ['b /weft-m1048576 fe80::2%gw0'], 'not this one, nor in a network that is not here')
  bound.set('n2', { slot: 1 })
  peers.look('all')
  const both = ['b /weft-m1048576 fe80::2%gw0', 'c /weft-m1048577 fe80::3%gw0']
  t.same(targets(), both)
  peers.look('all')
  t.same(targets(), both, 'the same again')
  claim(80, 'n1', 'e4', 'e2')
  peers.look([['ports', 'tcp', '80']])
  t.same(targets(), ['c /weft-m1048576 fe80::3%gw0', 'c /weft-m1048577 fe80::3%gw0'])
  snapshot.putNode({ name: 'c', number: 9 })
  peers.look([['nodes', 'c']])
  t.same(targets(), ['c /weft-m1048576 fe80::9%gw0', 'c /weft-m1048577 fe80::9%gw0'])
  snapshot.putNode({ name: 'c', number: 9, fenced: 'x' })
  peers.look([['nodes', 'c']])
  t.same(targets(), [])
  snapshot.putNode({ name: 'c', number: 4 })
  peers.look([['nodes', 'c']])
  t.equal(targets().length, 2, 'joined again')
  snapshot.dropNetwork('n2')
  peers.look([['networks', 'n2']])
  t.same(targets(), ['c /weft-m1048576 fe80::4%gw0'])
  snapshot.dropPort('tcp/80')
  snapshot.dropPort('tcp/81')
  peers.look('all')
  t.same(targets(), [])
  t.same(running(), { starts: 1, open: 1 })
  await peers.close()
  t.equal(running().open, 0)
})

t.test('a claim that comes before the endpoint', async t => {
  const { put, claim, peers, targets } = open()
  claim(80, 'n1', 'e1')
  peers.look([['ports', 'tcp', '80']])
  t.same(targets(), [])
  put('e1', 'n1', 'b', 80)
  peers.look([['endpoints', 'n1', 'e1']])
  t.equal(targets().length, 1)
  await peers.close()
})

t.test('a verdict touches the ports of that node, once', async t => {
  const { clock, put, claim, peers, say } = open()
  put('e1', 'n1', 'b', 80)
  put('e2', 'n1', 'b', 81)
  put('e3', 'n1', 'c', 82)
  claim(80, 'n1', 'e1')
  claim(81, 'n1', 'e2')
  claim(82, 'n1', 'e3')
  peers.look('all')
  t.same(say('b', 'answers'), [])
  clock.advance(5000)
  t.same(say('b', 'silent'), ['tcp/80', 'tcp/81'])
  t.ok(peers.silent('n1', 'b'))
  t.notOk(peers.dead('n1', 'b') || peers.silent('n1', 'c') || peers.silent('n2', 'b'))
  clock.advance(5000)
  t.same(say('b', 'dead'), ['tcp/80', 'tcp/81'])
  t.ok(peers.silent('n1', 'b') && peers.dead('n1', 'b'))
  t.same(peers.silences, [{ network: 'n1', node: 'b', since: '1970-01-01T00:00:05.000Z' }])
  t.same(
    peers.verdicts.map(({ network, node, verdict }) => `${network} ${node} ${verdict}`),
    ['n1 b dead', 'n1 c unasked'],
  )
  t.same(say('b', 'answers'), ['tcp/80', 'tcp/81'])
  t.same(peers.silences, [])
  await peers.close()
})

t.test('the thread ends by itself: nobody is silent, and it is started again', async t => {
  const { clock, put, claim, touched, peers, targets, say, die, running } = open()
  put('e1', 'n1', 'b', 80)
  claim(80, 'n1', 'e1')
  peers.look('all')
  say('b', 'dead')
  die()
  t.same(touched.splice(0), ['tcp/80'])
  t.notOk(peers.silent('n1', 'b'))
  put('e2', 'n1', 'c', 81)
  claim(81, 'n1', 'e2')
  peers.look([['ports', 'tcp', '81']])
  clock.advance(1000)
  t.same(running(), { starts: 2, open: 1 })
  t.equal(targets().length, 2)
  t.same(say('b', 'silent'), ['tcp/80'])
  die()
  await peers.close()
  clock.advance(60_000)
  t.same(running(), { starts: 2, open: 0 }, 'not after the end')
})

t.test('settled: everybody has been heard of, or five seconds have passed', async t => {
  const { clock, put, claim, peers, say } = open()
  await peers.settled()
  put('e1', 'n1', 'b', 80)
  put('e2', 'n1', 'c', 80)
  claim(80, 'n1', 'e1', 'e2')
  peers.look('all')
  const order: string[] = []
  const first = peers.settled().then(() => order.push('settled'))
  say('b', 'answers')
  await new Promise(resolve => setImmediate(resolve))
  t.same(order, [])
  say('c', 'unasked')
  await first
  put('e3', 'n1', 'b', 81)
  claim(81, 'n1', 'e3')
  peers.look('all')
  await peers.settled()
  claim(80, 'n1', 'e1')
  peers.look('all')
  claim(80, 'n1', 'e1', 'e2')
  peers.look('all')
  const second = peers.settled()
  clock.advance(5000)
  await second
  await peers.close()
})

t.test('nodes that run backends of a virtual address are asked as well, on internal networks too', async t => {
  const { snapshot, put, peers, targets, say } = open()
  const web = (id: string, network: string, node: string): void => {
    snapshot.putEndpoint({ id, network, node, service: 'label web' })
  }
  snapshot.putNetwork({ id: 'n1', internal: true })
  put('e0', 'n1', 'c', 80)
  web('e1', 'n1', 'a')
  web('e2', 'n1', 'b')
  peers.look('all')
  t.same(targets(), [], 'it has no virtual address yet')
  snapshot.putVip('n1', 'label web', '10.80.0.254')
  peers.look([['vips', 'n1', 'label web']])
  t.same(targets(), ['b /weft-m1048576 fe80::2%gw0'])
  t.same(say('b', 'silent'), ['n1 label web'])
  t.ok(peers.silent('n1', 'b'))
  web('e3', 'n1', 'c')
  peers.look([['endpoints', 'n1', 'e3']])
  t.equal(targets().length, 2)
  for (const id of ['e2', 'e3']) snapshot.dropEndpoint('n1', id)
  peers.look([['members', 'n1', 'label web']])
  t.same(targets(), [])
  t.notOk(peers.silent('n1', 'b'))
  await peers.close()
})

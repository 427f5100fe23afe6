// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openReadiness, patienceMs, patienceOfAllMs } from '../../src/health/readiness.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await new Promise(resolve => setImmediate(resolve))
}
const open = () => {
  const clock = manualClock()
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n' })
  const put = (id: string, more: object = { unready: true }): void =>
    snapshot.putEndpoint({ id, network: 'n', node: 'a', ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }], ...more })
  const listening = new Set<string>()
  const knocks: string[] = []
  const ready: string[] = []
  let refuses = 0
  const readiness = openReadiness({
    snapshot,
    node: 'a',
    clock,
    log: silentLog,
    async accepts(ns, address, port) {
      knocks.push(`${ns} ${address} ${port}`)
      return listening.has(address) || listening.has(`${address} ${port}`)
    },
    async ready(_, id) {
      if (refuses-- > 0) throw new Error('no store')
      ready.push(id)
      put(id, {})
    },
  })
  const pass = async (ms: number): Promise<void> => {
    for (let i = 0; i < ms; i += 50) {
      clock.advance(50)
      await settle()
    }
  }
  const refuse = (times: number): void => {
    refuses = times
  }
  return { snapshot, put, listening, knocks, ready, readiness, pass, refuse }
}

t.test('ready when it listens, by the port that is published', async t => {
  const { put, listening, knocks, ready, readiness, pass, refuse, snapshot } = open()
  put('e1')
  refuse(1)
  readiness.look([['n', 'e1']])
  await pass(1000)
  t.same(ready, [])
  listening.add(snapshot.endpoints('n').get('e1')!.record.addresses[0]!)
  await pass(1000)
  t.same(ready, ['e1'], 'also where the store refused at first')
  t.match(knocks[0], /^weft-m\d+ 10\.80\.0\.2 8080$/)
  await readiness.close()
})

t.test('who never listens is not waited for; foreign ones and those that are gone are not asked', async t => {
  const { put, knocks, ready, readiness, pass, snapshot } = open()
  put('e1')
  put('far', { unready: true, node: 'b' })
  put('gone')
  readiness.look(['e1', 'far', 'gone'].map(id => ['n', id] as const))
  const asked = ['e1', 'gone'].flatMap(id => snapshot.endpoints('n').get(id)!.record.addresses)
  snapshot.dropEndpoint('n', 'gone')
  await pass(patienceOfAllMs - 500)
  t.same(ready, [])
  await pass(2500)
  t.same(ready, ['e1'])
  t.ok(knocks.every(knock => asked.includes(knock.split(' ')[1]!)))
  await readiness.close()
})

t.test('one that is as slow as a JVM is waited for; of several ports one is enough after a while', async t => {
  const { put, listening, ready, readiness, pass, snapshot } = open()
  put('slow')
  put('half', {
    unready: true,
    ports: [443, 80].map(port => ({ proto: 'tcp', port, hostPort: 8000 + port })),
  })
  put('datagrams', {
    unready: true,
    ports: ['tcp', 'udp'].map(proto => ({ proto, port: 53, hostPort: 53 })),
  })
  put('six', { unready: true, addresses: ['10.80.0.66', 'fd00::66'] })
  listening.add('fd00::66')
  listening.add(`${snapshot.endpoints('n').get('half')!.record.addresses[0]!} 8080`)
  readiness.look(['slow', 'half', 'datagrams', 'six'].map(id => ['n', id] as const))
  await pass(patienceMs - 500)
  t.same(ready.splice(0), ['six'], 'by either family')
  await pass(2500)
  t.same(ready.splice(0).sort(), ['datagrams', 'half'])
  await pass(20_000)
  listening.add(snapshot.endpoints('n').get('slow')!.record.addresses[0]!)
  await pass(2000)
  t.same(ready, ['slow'])
  await readiness.close()
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import type { Question } from '../../src/health/ask.ts'
import { openBackendProbes } from '../../src/health/backends.ts'
import { optionsKeyOf, type Probe } from '../../src/model/service-options.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await new Promise(resolve => setImmediate(resolve))
}
const tcp: Probe = { target: { kind: 'tcp' }, intervalMs: 1000, timeoutMs: 500, failures: 3 }
const open = (probe: Probe = tcp) => {
  const clock = manualClock()
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n' })
  const say = (next: Probe | undefined): void =>
    snapshot.putService({ network: 'n', service: optionsKeyOf('web'), ...(next ? { probe: next } : {}) })
  say(probe)
  const put = (more: object = {}): void =>
    snapshot.putEndpoint({
      id: 'e1',
      network: 'n',
      node: 'a',
      gateway: true,
      service: 'label web',
      ports: [
        { proto: 'tcp', port: 80, hostPort: 8080 },
        { proto: 'udp', port: 53, hostPort: 53 },
      ],
      ...more,
    })
  put()
  const asked: Question[] = []
  const told: boolean[] = []
  let answers = true
  let store = true
  let askable = true
  let meanwhile = (): void => {}
  const probes = openBackendProbes({
    snapshot,
    node: 'a',
    clock,
    log: silentLog,
    async ask(_, question) {
      asked.push(question)
      if (!askable) throw new Error('no such namespace')
      return answers ? undefined : 'it is ill'
    },
    async fail(_, __, failing) {
      if (!store) throw new Error('no store')
      told.push(failing)
      put(failing ? { failing } : {})
      meanwhile()
    },
  })
  const pass = async (ms: number): Promise<void> => {
    for (let i = 0; i < ms; i += 100) {
      clock.advance(100)
      await settle()
    }
  }
  probes.look([['n', 'e1']])
  return {
    ...{ snapshot, put, say, asked, told, probes, pass },
    answer: (well: boolean): void => {
      answers = well
    },
    reach: (there: boolean): void => {
      store = there
    },
    whileTelling: (work: () => void): void => {
      meanwhile = work
    },
    allow: (asking: boolean): void => {
      askable = asking
    },
  }
}

t.test('out after three failures in a row, back after two good answers', async t => {
  const { answer, told, probes, pass, asked } = open()
  await pass(3000)
  t.match(asked[0], { port: 8080, timeoutMs: 500, http: undefined })
  t.ok(asked.length >= 3 && asked.length <= 4, 'once in a second, TCP only')
  answer(false)
  await pass(2000)
  answer(true)
  await pass(1000)
  t.same(told, [], 'two are not three in a row')
  answer(false)
  await pass(3000)
  t.same(told, [true])
  t.equal(probes.failures.get('e1'), 'it is ill')
  answer(true)
  await pass(1000)
  t.same(told, [true])
  await pass(1000)
  t.same(told, [true, false])
  t.equal(probes.failures.size, 0)
  await probes.close()
})

t.test('who goes to and fro has to answer for longer each time', async t => {
  const { answer, told, probes, pass } = open({ ...tcp, failures: 1 })
  const outage = async (): Promise<number> => {
    answer(false)
    while (told.at(-1) !== true) await pass(500)
    answer(true)
    let ms = 0
    for (; told.at(-1) === true && ms < 120_000; ms += 500) await pass(500)
    return ms
  }
  const waits = [await outage(), await outage(), await outage(), await outage()]
  t.ok(waits[0]! <= 3000, String(waits))
  for (const i of [1, 2, 3]) t.ok(waits[i]! > waits[i - 1]!, String(waits))
  await pass(301_000)
  t.ok((await outage()) <= 3000, 'its past is forgotten after a calm time')
  await probes.close()
})

t.test('while the store is away the outcome is kept', async t => {
  const { answer, reach, told, probes, pass } = open()
  reach(false)
  answer(false)
  await pass(5000)
  t.same(told, [])
  reach(true)
  await pass(1000)
  t.same(told, [true])
  await probes.close()
})

t.test('while it cannot be asked the container stays what it was, and is asked again', async t => {
  const { answer, allow, asked, told, probes, pass } = open()
  await pass(2000)
  allow(false)
  await pass(10_000)
  t.same(told, [], 'nobody can say that it is ill')
  answer(false)
  allow(true)
  await pass(4000)
  t.same(told, [true])
  allow(false)
  answer(true)
  await pass(10_000)
  t.same(told, [true], 'nor that it is well')
  allow(true)
  await pass(8000)
  t.same(told, [true, false])
  t.ok(asked.length > 30)
  await probes.close()
})

t.test('a probe that is taken away and given back at once', async t => {
  const { answer, say, whileTelling, asked, told, probes, pass } = open()
  answer(false)
  await pass(4000)
  t.same(told, [true])
  say(undefined)
  whileTelling(() => {
    say(tcp)
    probes.look([['n', 'e1']])
  })
  await pass(1000)
  t.same(told, [true, false])
  const before = asked.length
  await pass(5000)
  t.ok(asked.length > before)
  await probes.close()
})

t.test('without a probe, or as a container of no such service, nobody is asked', async t => {
  const { answer, say, put, asked, told, probes, pass } = open()
  answer(false)
  await pass(3500)
  t.same(told, [true])
  say(undefined)
  await pass(2000)
  t.same(told, [true, false], 'whoever was out is back')
  const before = asked.length
  probes.look([['n', 'e1']])
  await pass(3000)
  t.equal(asked.length, before)
  say(tcp)
  put({ node: 'b' })
  probes.look([['n', 'e1']])
  put({ unready: true })
  probes.look([['n', 'e1']])
  await pass(3000)
  t.equal(asked.length, before, 'nor elsewhere, nor before it is ready')
  await probes.close()
})

t.test('a container without a TCP port is named, and stays in service', async t => {
  const { put, told, probes, pass, asked } = open()
  const ports = [{ proto: 'udp', port: 53, hostPort: 53 }]
  put({ ports })
  await pass(3000)
  t.equal(asked.length, 1, 'at first it had one')
  t.same(told, [])
  t.match(probes.failures.get('e1'), /publishes no TCP port; --probe tcp:PORT/)
  put()
  await pass(2000)
  t.equal(probes.failures.size, 0, 'it has one now')
  await probes.close()
})

t.test('HTTP by a port that is published, and by one that is not', async t => {
  for (const [port, reached] of [
    [80, 8080],
    [9090, 9090],
  ] as const) {
    const http = { kind: 'http', port, path: '/healthz', status: { first: 200, last: 204 } } as const
    const { asked, probes, pass } = open({ ...tcp, target: http })
    await pass(1000)
    t.match(asked[0], { port: reached, http: { path: '/healthz', status: { first: 200, last: 204 } } })
    await probes.close()
  }
})

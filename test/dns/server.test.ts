// SPDX-License-Identifier: Apache-2.0
// When a listener is tried, and what is said while it cannot be opened.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import type { Log } from '../../src/base/log.ts'
import { openDnsServer } from '../../src/dns/server.ts'
import { netnsSocket } from '../../src/netlink/netns.ts'
import { manualClock } from '../store/clock.ts'

const gw = { network: 'n', ns: 'gw', address: '127.0.0.1' }

const open = (t: Test) => {
  const clock = manualClock()
  const namespaces = new Map<string, string>()
  const tries: number[] = []
  let opening: Promise<unknown> = Promise.resolve()
  const warnings: string[] = []
  const refusal: { reason: string | undefined } = { reason: undefined }
  const server = openDnsServer({
    resolver: { answer: async () => undefined } as never,
    sockets: {
      async identity(ns) {
        const found = namespaces.get(ns)
        if (found === undefined) throw new Error('no such namespace')
        return found
      },
      async open(ns, type, address) {
        if (type === 'tcp') tries.push(clock.monotonic())
        if (ns === 'gw' && address === gw.address && refusal.reason !== undefined) throw new Error(refusal.reason)
        const socket = netnsSocket(undefined, { type, address, port: 0 })
        opening = socket
        return socket
      },
    },
    clock,
    log: {
      debug() {},
      info() {},
      warn: (fields: { err?: string }) => warnings.push(fields.err ?? ''),
    } as unknown as Log,
  })
  t.teardown(() => server.close())
  /** In steps of what is least waited for. */
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 50) {
      clock.advance(50)
      for (let turns = 0; turns < 4; turns++) {
        await new Promise(resolve => setImmediate(resolve))
        await opening
      }
    }
  }
  return { server, namespaces, tries, warnings, refusal, pass }
}

t.test('a port that another program holds is tried ever less often, and said once', async t => {
  const { server, namespaces, tries, warnings, refusal, pass } = open(t)
  namespaces.set('gw', '1')
  refusal.reason = 'bind tcp 127.0.0.1 port 53: EADDRINUSE'
  server.serve([gw])
  await pass(3000)
  t.ok(tries.length >= 25, `${tries.length} tries in the first seconds`)
  t.same([warnings, [...server.problems]], [[], []], 'which may be a namespace that is being made')
  await pass(120_000)
  const before = tries.length
  await pass(300_000)
  t.ok(tries.length - before <= 21, `${tries.length - before} tries in five minutes`)
  t.same(warnings, [refusal.reason])
  t.same([...server.problems], [['n', refusal.reason]])
  for (let i = 0; i < 100; i++) server.serve([gw])
  await pass(50)
  t.ok(tries.length - before <= 22, 'however often the networks are told')
  refusal.reason = 'bind udp 127.0.0.1 port 53: EACCES'
  await pass(60_000)
  t.equal(warnings.length, 2, 'another reason is said')
  refusal.reason = undefined
  await pass(30_000)
  t.equal(server.listening, 1)
  t.same([...server.problems], [])
})

t.test('beside it, a namespace that is being made, or made anew, has its listener at once', async t => {
  const { server, namespaces, refusal, pass } = open(t)
  namespaces.set('gw', '1')
  refusal.reason = 'EADDRINUSE'
  server.serve([gw])
  await pass(300_000)
  server.serve([gw, { ...gw, network: 'm', ns: 'new' }])
  await pass(2000)
  t.equal(server.listening, 0)
  namespaces.set('new', '1')
  await pass(150)
  t.equal(server.listening, 1)
  refusal.reason = undefined
  namespaces.set('gw', '2')
  await pass(3000)
  t.equal(server.listening, 2, 'what held the port went with the namespace')
  server.serve([])
  await pass(50)
  t.equal(server.listening, 0)
})

t.test('one family is answered while a program holds the port of the other', async t => {
  const { server, namespaces, refusal, pass } = open(t)
  namespaces.set('gw', '1')
  refusal.reason = 'bind tcp 127.0.0.1 port 53: EADDRINUSE'
  const six = { ...gw, address: '::1' }
  server.serve([gw, six, { ...gw, network: 'm', address: '::1' }])
  await pass(20_000)
  t.equal(server.listening, 1, 'the network of IPv6 alone; of the other one, only half')
  t.same([...server.problems], [['n', refusal.reason]])
  server.serve([six])
  await pass(50)
  t.same([server.listening, [...server.problems]], [1, []], 'half a network is wanted, and that half was there')
})

t.test('a query that cannot be answered ends at most its own connection', async t => {
  const probe = createSocket('udp4').bind(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  const warnings: string[] = []
  const server = openDnsServer({
    resolver: {
      async answer(query) {
        if (query.toString() === 'ill') throw new RangeError('it cannot be written')
        return Buffer.alloc(query.toString() === 'long' ? 70_000 : 4, 'well')
      },
    },
    sockets: {
      identity: async () => '1',
      open: (_, type) => netnsSocket(undefined, { type, address: '127.0.0.1', port }),
    },
    clock: systemClock,
    log: {
      debug() {},
      info() {},
      warn: (fields: { err?: string }) => warnings.push(fields.err ?? ''),
    } as unknown as Log,
  })
  t.teardown(() => server.close())
  server.serve([gw])
  while (server.listening === 0) await new Promise(resolve => setTimeout(resolve, 10))
  const framed = (text: string): Buffer => Buffer.from([0, text.length, ...Buffer.from(text)])
  const stream = connect(port, '127.0.0.1')
  t.teardown(() => stream.destroy())
  for (const text of ['ill', 'long', 'any']) stream.write(framed(text))
  const [bytes] = await once(stream, 'data')
  t.equal(String(bytes), '\0\x04well')
  const datagram = createSocket('udp4')
  t.teardown(() => void datagram.close())
  datagram.send('ill', port, '127.0.0.1')
  datagram.send('any', port, '127.0.0.1')
  const [answer] = await once(datagram, 'message')
  t.equal(String(answer), 'well')
  t.match(warnings, [/cannot be written/, /out of range/, /cannot be written/])
})

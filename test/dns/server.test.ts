// SPDX-License-Identifier: Apache-2.0
// When a listener is tried, and what is said while it cannot be opened; what one asker by TCP can take from others.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import type { Log } from '../../src/base/log.ts'
import type { Resolver } from '../../src/dns/resolver.ts'
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

/** Really listening, on a port of its own; answers by `answer`. */
const listening = async (t: Test, answer: Resolver['answer']) => {
  const probe = createSocket('udp4').bind(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  const warnings: string[] = []
  const server = openDnsServer({
    resolver: { answer },
    sockets: {
      identity: async () => '1',
      open: (_, type, address, port) => netnsSocket(undefined, { type, address, port }),
    },
    clock: systemClock,
    log: {
      debug() {},
      info() {},
      warn: (fields: { err?: string }) => warnings.push(fields.err ?? ''),
    } as unknown as Log,
  })
  t.teardown(() => server.close())
  server.serve([{ ...gw, port }])
  while (server.listening === 0) await sleep(10)
  const dial = (localAddress = '127.0.0.1'): Socket => {
    const socket = connect({ port, host: '127.0.0.1', localAddress })
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    return socket
  }
  return { port, warnings, dial }
}
const framed = (text: string): Buffer => Buffer.from([0, text.length, ...Buffer.from(text)])

t.test('a query that cannot be answered ends at most its own connection', async t => {
  const { port, warnings, dial } = await listening(t, async query => {
    if (query.toString() === 'ill') throw new RangeError('it cannot be written')
    return Buffer.alloc(query.toString() === 'long' ? 70_000 : 4, 'well')
  })
  const stream = dial()
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

t.test('one query of a connection at a time, its answers in their order, also after it has said all', async t => {
  let atOnce = 0
  let most = 0
  const { dial } = await listening(t, async query => {
    most = Math.max(most, ++atOnce)
    await sleep(query.toString() === 'slow' ? 50 : 0)
    atOnce--
    return query
  })
  const stream = dial()
  const texts = ['slow', ...Array.from({ length: 50 }, (_, i) => `q${i}`)]
  stream.end(Buffer.concat(texts.map(framed)))
  t.equal(Buffer.concat(await stream.toArray()).toString(), texts.map(text => framed(text).toString()).join(''))
  t.equal(most, 1)
})

t.test('who asks and does not read is not asked for, and let go; others are answered meanwhile', async t => {
  const asked = { idler: 0, reader: 0 }
  const { dial } = await listening(t, async (query, { address }) => {
    asked[address === '127.0.0.2' ? 'idler' : 'reader']++
    return query.toString() === 'all' ? Buffer.alloc(40_000) : query
  })
  const idler = dial('127.0.0.2').pause()
  idler.write(Buffer.concat(Array.from({ length: 100_000 }, () => framed('all'))))
  const reader = dial()
  for (let i = 0; i < 100; i++) {
    reader.write(framed('mine'))
    const [bytes] = await once(reader, 'data')
    if (i === 0) t.equal(String(bytes), '\0\x04mine')
  }
  let before = -1
  while (before !== asked.idler) {
    before = asked.idler
    await sleep(300)
  }
  t.ok(asked.idler < 1000, `${asked.idler} of 100,000 until the buffers were full`)
  const from = Date.now()
  for (; !idler.destroyed && Date.now() - from < 20_000; await sleep(200)) idler.write(framed('more'))
  t.ok(Date.now() - from < 15_000, `${Date.now() - from} ms until it was let go`)
})

t.test('so many connections of one asker', async t => {
  const { dial } = await listening(t, async query => query)
  const ask = async (stream: Socket): Promise<string> => {
    stream.write(framed('any'))
    const [bytes] = await Promise.race([once(stream, 'data'), once(stream, 'close').then(() => ['closed'])])
    return String(bytes)
  }
  const many = Array.from({ length: 32 }, () => dial())
  t.same(new Set(await Promise.all(many.map(ask))), new Set(['\0\x03any']))
  t.equal(await ask(dial()), 'closed', 'one more')
  t.equal(await ask(dial('127.0.0.2')), '\0\x03any', 'of another asker')
  many.pop()!.destroy()
  await sleep(100)
  t.equal(await ask(dial()), '\0\x03any', 'when one is gone')
})

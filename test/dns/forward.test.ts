// SPDX-License-Identifier: Apache-2.0
// What is not ours goes on byte for byte; who asks without end is refused, and nobody else.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import t from 'tap'
import { openForward } from '../../src/dns/forward.ts'
import type { Asker } from '../../src/dns/resolver.ts'

const by = (address: string): Asker => ({ network: 'n1', address, transport: 'udp' })
const query = (id: number): Buffer => Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0x78, 0])

t.test('a resolver that is silent for a while, and one that asks and asks', async t => {
  const server = createSocket('udp4')
  server.bind(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  let silent = true
  const waiting: (() => void)[] = []
  server.on('message', (message, from) => {
    const answer = (): void => server.send(Buffer.concat([message, Buffer.from('answer')]), from.port, from.address)
    if (silent) waiting.push(answer)
    else answer()
  })
  const forward = openForward(() => ['127.0.0.1'], server.address().port)
  const descriptors = (): number => readdirSync('/proc/self/fd').length
  const before = descriptors()
  const answers = Array.from({ length: 5000 }, (_, i) => forward(query(i), by('10.80.0.2')))
  const refused = answers.slice(128)
  t.same(new Set(await Promise.all(refused)), new Set([undefined]), 'at once')
  t.ok(descriptors() - before <= 130, `${descriptors() - before} descriptors`)
  const another = forward(query(7), by('10.80.0.3'))
  for (let i = 0; i < 200 && waiting.length < 129; i++) await new Promise(resolve => setTimeout(resolve, 5))
  t.equal(waiting.length, 129, 'another is still asked for')
  silent = false
  for (const answer of waiting) answer()
  t.match((await another)?.toString('latin1'), /answer$/)
  const arrived = await Promise.all(answers.slice(0, 128))
  t.equal(arrived.filter((answer, i) => answer?.readUInt16BE(0) === i).length, 128, 'each its own')
  t.match((await forward(query(9), by('10.80.0.2')))?.toString('latin1'), /answer$/, 'and may ask again')
  // all together
  silent = true
  const crowd = Array.from({ length: 1200 }, (_, i) => forward(query(i), by(`10.80.1.${i % 200}`)))
  t.same(new Set(await Promise.all(crowd.slice(1024))), new Set([undefined]))
  await Promise.all(crowd)
})

t.test('one that refuses: the next is asked; where all refuse, the first has the word', async t => {
  const rcodes = new Map([
    ['127.0.0.1', 2],
    ['127.0.0.2', 5],
    ['127.0.0.3', 3],
  ])
  const port = await (async () => {
    let port = 0
    for (const [address, rcode] of rcodes) {
      const server = createSocket('udp4')
      server.bind(port, address)
      await once(server, 'listening')
      t.teardown(() => server.close())
      port = server.address().port
      server.on('message', (message, from) => {
        const answer = Buffer.from(message)
        answer[2] = 0x81
        answer[3] = rcode
        server.send(answer, from.port, from.address)
      })
    }
    return port
  })()
  const rcode = async (...servers: string[]) => (await openForward(() => servers, port)(query(1), by('10.80.0.2')))?.[3]
  t.equal(await rcode('127.0.0.1', '127.0.0.2', '127.0.0.3'), 3, 'NXDOMAIN is an answer')
  t.equal(await rcode('127.0.0.1', '127.0.0.2'), 2)
  t.equal(await rcode('127.0.0.1', '127.0.0.9'), 2, 'and one that does not answer')
})

t.test('nobody to ask', async t => {
  t.equal(await openForward(() => [])(query(1), by('10.80.0.2')), undefined)
})

// SPDX-License-Identifier: Apache-2.0
// Answers as bytes: whatever containers are called and however many there are, they can be written and read. Whose
// questions go on to others, and which are not even read.
import { decode, encode, type OptAnswer, type RecordType } from 'dns-packet'
import fc from 'fast-check'
import t from 'tap'
import { openDirectory } from '../../src/dns/directory.ts'
import { openResolver } from '../../src/dns/resolver.ts'
import { serviceKey } from '../../src/model/service.ts'
import { testCluster } from '../overlay/cluster.ts'

const open = () => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a' })
  snapshot.putNetwork({ id: 'n1' })
  const put = (id: string, address: string, label: string): void =>
    snapshot.putEndpoint({
      ...{ id, network: 'n1', node: 'a', addresses: [address] },
      workload: { name: id, container: id, aliases: ['all'], labels: { 'weft.service': label } },
    })
  const ask = async (name: string, type: RecordType, transport: 'udp' | 'tcp', takes?: number) => {
    const directory = openDirectory({ snapshot, subscribe: () => () => {} })
    const opt = { type: 'OPT', name: '.', udpPayloadSize: takes, flags: 0, options: [] } as unknown as OptAnswer
    const additionals = takes === undefined ? [] : [opt]
    const query = encode({ type: 'query', id: 7, questions: [{ type, name }], additionals })
    const bytes = await openResolver(directory, async () => undefined).answer(query, {
      network: 'n1',
      address: '',
      transport,
    })
    const { answers, flag_tc, additionals: more } = decode(bytes!)
    return { length: bytes!.length, answers: answers!, truncated: flag_tc, more }
  }
  return { snapshot, put, ask }
}

t.test('a label that is no name of DNS', async t => {
  const { snapshot, put, ask } = open()
  const labels = [
    'Web',
    'x'.repeat(64),
    'x'.repeat(70_000),
    'a..b',
    '\u{1F600}'.repeat(16),
    `${'y'.repeat(60)}.`.repeat(5),
  ]
  for (const [i, label] of labels.entries()) {
    put(`e${i}`, `10.80.0.${i + 2}`, label)
    snapshot.putVip('n1', serviceKey({ by: 'label', name: label }), `10.80.0.${254 - i}`)
  }
  for (const transport of ['udp', 'tcp'] as const) {
    for (const i of labels.keys()) {
      const { answers } = await ask(`${254 - i}.0.80.10.in-addr.arpa`, 'PTR', transport)
      t.match(answers, i === 0 ? [{ data: 'Web.n1.weft' }] : [])
      t.equal(answers.length, i === 0 ? 1 : 0)
    }
  }
})

t.test('more addresses than an answer has room for', async t => {
  const { put, ask } = open()
  for (let i = 0; i < 5000; i++) put(`e${i}`, `10.80.${i >> 8}.${i & 255}`, 'web')
  t.match(await ask('all', 'A', 'udp', 1232), { truncated: true }, 'by UDP it is to be asked again')
  const { length, answers } = await ask('all', 'A', 'tcp')
  t.ok(length <= 0xffff)
  t.ok(answers.length > 2000, String(answers.length))
})

t.test('by UDP no more bytes than the client takes, and what fits is there', async t => {
  const { put, ask } = open()
  for (let i = 0; i < 26; i++) put(`e${i}`, `10.80.0.${i + 2}`, 'web')
  const plain = await ask('all', 'A', 'udp')
  t.match(plain, { truncated: false, more: [] })
  t.equal(plain.answers.length, 26)
  t.same([...new Set(plain.answers.map(({ name }) => name))], ['all'])
  for (let i = 26; i < 70; i++) put(`e${i}`, `10.80.0.${i + 2}`, 'web')
  const cut = await ask('all', 'A', 'udp')
  t.match(cut, { truncated: true })
  t.ok(cut.length <= 512 && cut.length > 490 && cut.answers.length > 25, `${cut.answers.length} in ${cut.length} bytes`)
  const more = await ask('all', 'A', 'udp', 4096)
  t.match(more, { truncated: false, more: [{ type: 'OPT', udpPayloadSize: 1232 }] })
  t.equal(more.answers.length, 70)
  const less = await ask('all', 'A', 'udp', 100)
  t.match(less, { truncated: true })
  t.ok(less.length <= 512 && less.length > 490, 'less than 512 is 512')
  t.equal((await ask('all', 'A', 'tcp')).answers.length, 70)
})

t.test('who has no way out has none by names: other networks decide, from the moment that he joins them', async t => {
  const { snapshot } = open()
  for (const [id, internal] of Object.entries({ in1: true, in2: true, out1: false }))
    snapshot.putNetwork({ id, internal, pools: [{ prefix: '10.90.0.0/24' }] })
  const put = (id: string, network: string, address: string, container?: string): void =>
    snapshot.putEndpoint({
      ...{ id, network, node: 'a', addresses: [address] },
      ...(container === undefined ? {} : { workload: { name: container, container, aliases: [], labels: {} } }),
    })
  put('e1', 'in1', '10.90.0.1', 'shut')
  put('e2', 'in2', '10.90.0.1', 'shut')
  put('e3', 'in1', '10.90.0.3', 'both')
  put('e4', 'out1', '10.90.0.3', 'both')
  put('e5', 'in1', '10.90.0.5') // Docker has not said yet which containers these are
  put('e6', 'out1', '10.90.0.5')
  put('e7', 'in1', '10.90.0.7')
  const directory = openDirectory({ snapshot, subscribe: () => () => {} }, id => (id === 'e5' ? ['e5', 'e6'] : [id]))
  const forwarded: string[] = []
  const resolver = openResolver(directory, async (query, { network, address }) => {
    forwarded.push(`${network} ${address}`)
    return query
  })
  const ask = async (network: string, address: string, name = 'example.com', type: RecordType = 'A') => {
    const query = encode({ type: 'query', id: 7, questions: [{ type, name }] })
    const bytes = await resolver.answer(query, { network, address, transport: 'udp' })
    return bytes!.equals(query) ? 'forwarded' : (decode(bytes!) as { rcode?: string }).rcode
  }
  for (const [network, address] of [
    ['in1', '10.90.0.1'],
    ['in2', '10.90.0.1'],
    ['in1', '10.90.0.7'],
    ['in1', '10.90.0.99'], // nobody we know
  ] as const) {
    t.equal(await ask(network, address), 'REFUSED', `${address} through ${network}`)
    t.equal(await ask(network, address, '1.2.0.192.in-addr.arpa', 'PTR'), 'REFUSED')
    t.equal(await ask(network, address, '_dns._udp.example.com', 'SRV'), 'REFUSED')
  }
  t.same(forwarded, [])
  t.equal(await ask('in1', '10.90.0.1', 'both'), 'NOERROR', 'what is ours is answered')
  t.equal(await ask('in1', '10.90.0.3'), 'forwarded', 'by whichever of its networks it asks')
  t.equal(await ask('out1', '10.90.0.3'), 'forwarded')
  t.equal(await ask('in1', '10.90.0.5'), 'forwarded')
  t.equal(await ask('', '172.17.0.2'), 'forwarded', "a container of Docker's own bridge")
})

t.test('a query made to be slow is not read', async t => {
  const { snapshot } = open()
  const resolver = openResolver(openDirectory({ snapshot, subscribe: () => () => {} }), async query => query)
  const asker = { network: 'n1', address: '', transport: 'tcp' } as const
  const name = Buffer.from(`${'\x01a'.repeat(126)}\0`, 'latin1')
  /** A question of the longest name, and as many entries that point to it as fit: questions, or other records. */
  const full = (bytes: number, count: 4 | 10): Buffer => {
    const head = Buffer.alloc(12)
    head.writeUInt16BE(1, 4)
    const entry = Buffer.from(count === 4 ? 'c00c00010001' : 'c00c000a0001000000000000', 'hex')
    const entries = Math.floor((bytes - 12 - name.length - 4) / entry.length)
    head.writeUInt16BE(entries + head.readUInt16BE(count), count)
    return Buffer.concat([head, name, Buffer.from([0, 1, 0, 1]), ...Array.from({ length: entries }, () => entry)])
  }
  for (const query of [full(65_000, 4), full(65_000, 10), full(4000, 4), full(4000, 10), Buffer.alloc(5)]) {
    t.equal(await resolver.answer(query, asker), undefined, `${query.length} bytes`)
  }
  const signed = full(12 + name.length + 4 + 2 * 12, 10)
  t.equal(await resolver.answer(signed, asker), signed, 'EDNS and a signature are')
})

t.test('a damaged query is dropped, handed on as it is, or answered with a packet that can be read', async t => {
  const { snapshot, put } = open()
  for (let i = 0; i < 40; i++) put(`e${i}`, `10.80.0.${i + 2}`, 'web')
  const forwarded = Buffer.from('forwarded')
  const resolver = openResolver(openDirectory({ snapshot, subscribe: () => () => {} }), async () => forwarded)
  const asked: [RecordType, string][] = [
    ['A', 'all'],
    ['AAAA', 'e1'],
    ['SRV', '_http._tcp.web.n1.weft'],
    ['PTR', '2.0.80.10.in-addr.arpa'],
    ['A', 'nobody'],
  ]
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options: [] } as unknown as OptAnswer
  const queries = asked.flatMap(([type, name]) =>
    [[], [opt]].map(additionals => encode({ type: 'query', id: 7, questions: [{ type, name }], additionals })),
  )
  const survives = async (query: Buffer, transport: 'udp' | 'tcp'): Promise<void> => {
    const before = Buffer.from(query)
    const answer = await resolver.answer(query, { network: 'n1', address: '', transport })
    if (!query.equals(before)) throw new Error('the query was changed')
    if (answer === undefined || answer === forwarded) return
    const { id, type, questions } = decode(answer)
    const isSame = JSON.stringify(questions) === JSON.stringify(decode(query).questions)
    if (id !== query.readUInt16BE(0) || type !== 'response' || !isSame)
      throw new Error(`${query.toString('hex')} is answered by ${answer.toString('hex')}`)
    if (transport === 'udp' && answer.length > 1232) throw new Error(`${answer.length} bytes`)
  }
  const some = fc.constantFrom(...queries)
  const transport = fc.constantFrom('udp' as const, 'tcp' as const)
  const octets = fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 5 })
  const damaged = fc.asyncProperty(some, octets, fc.nat(80), transport, async (query, damage, length, by) => {
    const copy = Buffer.from(query)
    for (const [at, value] of damage) if (at < copy.length) copy[at] = value
    await survives(copy, by)
    await survives(copy.subarray(0, length), by)
  })
  await t.resolves(fc.assert(damaged, { numRuns: 3000 }))
  // a dot within a label, bytes that are no UTF-8: not ours, whatever they look like as text
  const odd = [Buffer.from('\x07e1.n1.w\x02ft\0', 'latin1'), Buffer.from('\x05e1.n1\x04weft\0', 'latin1')]
  for (const name of [...odd, Buffer.from([2, 0xff, 0xfe, 0])]) {
    const query = Buffer.concat([queries[0]!.subarray(0, 12), name, Buffer.from([0, 1, 0, 1])])
    t.equal(await resolver.answer(query, { network: 'n1', address: '', transport: 'udp' }), forwarded)
  }
  const any = fc.asyncProperty(fc.uint8Array({ minLength: 0, maxLength: 600 }), transport, (octets, by) =>
    survives(Buffer.from(octets), by),
  )
  await t.resolves(fc.assert(any, { numRuns: 500 }))
})

t.test('who is gone from here has no name, though the store is away', async t => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a' })
  snapshot.putNetwork({ id: 'n1', name: 'app' })
  for (const [id, address] of [
    ['e1', '10.90.0.1'],
    ['e2', '10.90.0.2'],
  ] as const)
    snapshot.putEndpoint({
      ...{ id, network: 'n1', node: 'a', addresses: [address] },
      workload: { name: 'web', container: id, aliases: [], labels: {} },
    })
  const departed = new Set<string>()
  const directory = openDirectory(
    { snapshot, subscribe: () => () => {} },
    () => [],
    id => departed.has(id),
  )
  t.same(
    directory.named('n1', 'web').map(({ id }) => id),
    ['e1', 'e2'],
  )
  departed.add('e1')
  t.same(
    directory.named('n1', 'web').map(({ id }) => id),
    ['e2'],
  )
  t.equal(directory.at('n1', '10.90.0.1'), undefined)
})

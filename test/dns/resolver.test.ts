// SPDX-License-Identifier: Apache-2.0
// Answers as bytes: whatever containers are called and however many there are, they can be written and read.
import { decode, encode, type OptAnswer, type RecordType } from 'dns-packet'
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

// SPDX-License-Identifier: Apache-2.0
// Elements of every type: in by us, out by our dump and by nft; replaced, removed; many; wrong ones.
import t from 'tap'
import { type NftBatch, nftBatch } from '../../../src/netlink/nft/batch.ts'
import { listObjects } from '../../../src/netlink/nft/dump.ts'
import type { SetElement } from '../../../src/netlink/nft/element.ts'
import type { SetDeclaration } from '../../../src/netlink/nft/set.ts'
import { failure, openNft } from './compare.ts'
import { set } from './rules.ts'

const family = 'inet'
const table = 'weft'

const cases: readonly (readonly [SetDeclaration, readonly SetElement[]])[] = [
  [set('v4', ['ipv4_addr']), [{ key: ['10.1.0.1'] }, { key: ['192.0.2.255'] }]],
  [set('v6', ['ipv6_addr']), [{ key: ['fd77::1'] }, { key: ['::'] }, { key: ['2001:db8:0:1::'] }]],
  [set('mac', ['ether_addr']), [{ key: ['02:77:0a:01:00:0b'] }]],
  [set('proto', ['inet_proto']), ['tcp', 'udp', 'icmp', 'ipv6-icmp', 'sctp', '47'].map(word => ({ key: [word] }))],
  [set('port', ['inet_service']), [{ key: ['80'] }, { key: ['0'] }, { key: ['65535'] }]],
  [set('marks', ['mark']), [{ key: ['0x02000001'] }, { key: ['0xffffffff'] }]],
  [set('names', ['ifname']), [{ key: ['eth0'] }, { key: ['weft0123456789a'] }]],
  [set('zones', ['ct_zone']), [{ key: ['1'] }, { key: ['65535'] }]],
  [
    set('verdicts', ['mark'], ['verdict']),
    [
      { key: ['0x00000001'], value: ['accept'] },
      { key: ['0x00000002'], value: ['drop'] },
      { key: ['0x00000003'], value: ['goto there'] },
      { key: ['0x00000004'], value: ['jump there'] },
    ],
  ],
  [
    set('five', ['ether_addr', 'inet_proto', 'inet_service', 'mark', 'ipv4_addr'], ['mark']),
    [{ key: ['02:77:0a:01:00:0b', 'tcp', '8080', '0x00000007', '10.0.0.1'], value: ['0x01000002'] }],
  ],
  [
    set('zones_in', ['ether_addr', 'ct_zone', 'ipv4_addr'], ['mark']),
    [{ key: ['02:77:0a:01:00:0b', '9', '10.0.0.1'], value: ['0x01000002'] }],
  ],
  [
    set('long', ['ipv6_addr', 'ipv6_addr', 'ifname'], ['ipv6_addr', 'inet_service']),
    [{ key: ['fd77::1', 'fd77::2', 'weft1'], value: ['fd77::3', '80'] }],
  ],
  [set('zone_of', ['ether_addr'], ['ct_zone']), [{ key: ['02:7e:00:00:00:01'], value: ['1'] }]],
  [set('mac_of_zone', ['ct_zone'], ['ether_addr']), [{ key: ['1'], value: ['02:7e:00:00:00:01'] }]],
  [set('name_of', ['mark'], ['ifname']), [{ key: ['0x00000001'], value: ['eth0'] }]],
  [
    set('verdict_of', ['mark', 'ipv4_addr', 'inet_proto', 'inet_service'], ['verdict']),
    [{ key: ['0x0000000a', '10.0.0.1', 'udp', '53'], value: ['accept'] }],
  ],
  [
    set('near4', ['ipv4_addr'], undefined, true),
    ['10.0.0.0/8', '192.0.2.1', '192.0.2.2/31', '0.0.0.0', '240.0.0.0/4'].map(word => ({ key: [word] })),
  ],
  [
    set('near6', ['ipv6_addr'], ['mark'], true),
    [
      { key: ['fd00::/8'], value: ['0x00000001'] },
      { key: ['fe80::/10'], value: ['0x00000002'] },
      { key: ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'], value: ['0x00000003'] },
    ],
  ],
  [
    set('near', ['ipv4_addr', 'inet_service', 'ipv6_addr'], ['mark'], true),
    [
      { key: ['10.0.0.0/9', '80', 'fd77::/64'], value: ['0x00000001'] },
      { key: ['192.0.2.1', '443', 'fd77::1'], value: ['0x00000002'] },
    ],
  ],
]

interface PrintedSet {
  readonly name: string
  readonly elem: readonly unknown[]
}

const text = ({ key, value }: SetElement): string => `${key.join(' . ')}${value ? ` : ${value.join(' . ')}` : ''}`
const sorted = (elements: readonly SetElement[]): string[] => elements.map(text).sort()

const addAll = (batch: NftBatch): void => {
  for (const [one, elements] of cases) for (const element of elements) batch.addElement(family, table, one, element)
}

t.test('every type, by us and by nft', async t => {
  const lab = await openNft(t, 'e1')
  const batch = nftBatch()
  batch.addTable(family, table)
  batch.addChain(family, table, 'there')
  for (const [one] of cases) batch.addSet(family, table, one)
  addAll(batch)
  await batch.commit(lab.netlink, 'load')

  const elementsOf = async (name: string) =>
    (await listObjects(lab.netlink)).elements.filter(element => element.set === name)
  const found = await listObjects(lab.netlink)
  t.strictSame(
    found.sets.map(({ name, key, value, interval }) => ({
      name,
      key,
      ...(value ? { value } : {}),
      ...(interval ? { interval } : {}),
    })),
    cases.map(([one]) => one),
    'declarations come back',
  )
  for (const [{ name }, elements] of cases) {
    t.strictSame(sorted(found.elements.filter(element => element.set === name)), sorted(elements), name)
  }

  const printed: { nftables: { set?: PrintedSet; map?: PrintedSet }[] } = JSON.parse(lab.nft(['-j', 'list', 'ruleset']))
  const sets = printed.nftables.flatMap(object => object.set ?? object.map ?? [])
  for (const [{ name }, elements] of cases) {
    t.equal(sets.find(one => one.name === name)?.elem.length, elements.length, `nft sees ${name}`)
  }
  const json = (name: string) => JSON.stringify(sets.find(one => one.name === name)!.elem)
  t.equal(json('zone_of'), '[["02:7e:00:00:00:01",1]]')
  t.equal(json('mac_of_zone'), '[[1,"02:7e:00:00:00:01"]]')
  t.equal(json('verdict_of'), '[[{"concat":[10,"10.0.0.1","udp",53]},{"accept":null}]]')

  // what nft says, it takes back, and means the same by it
  const ruleset = lab.nft(['list', 'ruleset'])
  t.comment(ruleset)
  for (const word of ['10.1.0.1', 'fd77::1', '02:77:0a:01:00:0b', '0x02000001', '"eth0"', 'goto there', '10.0.0.0/8']) {
    t.ok(ruleset.includes(word), word)
  }
  const other = await openNft(t, 'e2')
  other.nft(['-f', '-'], ruleset)
  t.equal(other.nft(['list', 'ruleset']), ruleset)
  t.strictSame((await listObjects(other.netlink)).elements.map(text).sort(), found.elements.map(text).sort())

  const again = nftBatch()
  addAll(again)
  await again.commit(lab.netlink, 'the same again')
  t.equal(lab.nft(['list', 'ruleset']), ruleset)

  const different = nftBatch()
  const [verdicts, [rule]] = cases.find(([one]) => one.name === 'verdict_of')!
  different.addElement(family, table, verdicts, { ...rule!, value: ['drop'] })
  t.match(await failure(different.commit(lab.netlink, 'another value')), {
    errnoName: 'EEXIST',
    op: /^add nft element inet weft verdict_of \{ 0x0000000a . /,
  })
  const replace = nftBatch()
  replace.removeElement(family, table, verdicts, rule!)
  replace.addElement(family, table, verdicts, { ...rule!, value: ['drop'] })
  await replace.commit(lab.netlink, 'replace')
  t.strictSame(sorted(await elementsOf('verdict_of')), ['0x0000000a . 10.0.0.1 . udp . 53 : drop'])

  const remove = nftBatch()
  for (const [one, elements] of cases) for (const element of elements) remove.removeElement(family, table, one, element)
  await remove.commit(lab.netlink, 'remove all')
  t.strictSame((await listObjects(lab.netlink)).elements, [])
  const absent = nftBatch()
  absent.removeElement(family, table, verdicts, rule!)
  t.match(await failure(absent.commit(lab.netlink, 'remove')), { errnoName: 'ENOENT', absent: true })

  const end = nftBatch()
  for (const [{ name }] of cases) end.removeSet(family, table, name)
  end.removeTable(family, table)
  await end.commit(lab.netlink, 'remove all')
  t.strictSame(await listObjects(lab.netlink), {
    tables: [],
    chains: [],
    rules: [],
    sets: [],
    elements: [],
    timeouts: [],
  })
})

t.test('touching intervals stay apart', async t => {
  const lab = await openNft(t, 'e3')
  const near = set('near', ['ipv4_addr'], undefined, true)
  const batch = nftBatch()
  batch.addTable(family, table)
  batch.addSet(family, table, near)
  for (const word of ['10.0.0.0/9', '10.128.0.0/9', '11.0.0.0/8'])
    batch.addElement(family, table, near, { key: [word] })
  await batch.commit(lab.netlink, 'load')
  const remove = nftBatch()
  remove.removeElement(family, table, near, { key: ['10.128.0.0/9'] })
  await remove.commit(lab.netlink, 'remove the middle')
  t.strictSame((await listObjects(lab.netlink)).elements.map(text).sort(), ['10.0.0.0/9', '11.0.0.0/8'])
})

t.test('100,000 elements in one commit', async t => {
  const lab = await openNft(t, 'e4')
  const pol = set('pol', ['mark', 'ipv4_addr', 'inet_proto', 'inet_service'], ['mark'])
  const batch = nftBatch()
  batch.addTable(family, table)
  batch.addSet(family, table, pol)
  const count = 100_000
  const start = performance.now()
  for (let i = 0; i < count; i++) {
    const ip = `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`
    batch.addElement(family, table, pol, { key: ['0x00000001', ip, 'tcp', '80'], value: [`0x${i.toString(16)}`] })
  }
  const encoded = performance.now()
  await batch.commit(lab.netlink, 'load')
  const sent = performance.now()
  const { elements } = await listObjects(lab.netlink)
  const read = performance.now()
  t.comment(`encode ${(encoded - start) | 0} ms, send ${(sent - encoded) | 0} ms, read ${(read - sent) | 0} ms`)
  t.equal(elements.length, count)
  t.equal(new Set(elements.map(text)).size, count, 'each once, though the kernel still grows its table')
})

t.test('words that are not of their type', async t => {
  const batch = nftBatch()
  const wrong: [SetDeclaration, SetElement, RegExp][] = [
    [set('a', ['ipv4_addr']), { key: ['fd77::1'] }, /"fd77::1" is not of type ipv4_addr/],
    [set('a', ['ipv4_addr']), { key: ['10.0.0.256'] }, /10.0.0.256/],
    [set('a', ['ipv4_addr']), { key: ['10.0.0.0/8'] }, /10.0.0.0\/8/],
    [set('a', ['ipv4_addr'], undefined, true), { key: ['10.0.0.0/33'] }, /prefix/],
    [set('a', ['inet_service']), { key: ['65536'] }, /inet_service/],
    [set('a', ['inet_proto']), { key: ['tcpp'] }, /inet_proto/],
    [set('a', ['mark']), { key: ['-1'] }, /mark/],
    [set('a', ['ifname']), { key: ['sixteen-bytes-xx'] }, /ifname/],
    [set('a', ['ether_addr']), { key: ['02'] }, /MAC/],
    [set('a', ['mark', 'mark']), { key: ['1'] }, /1 fields, not 2/],
    [set('a', ['mark'], ['mark']), { key: ['1'] }, /map needs/],
    [set('a', ['mark']), { key: ['1'], value: ['1'] }, /set has no/],
    [set('a', ['mark'], ['verdict']), { key: ['1'], value: ['jump'] }, /verdict/],
    [set('a', ['mark'], ['verdict']), { key: ['1'], value: ['accept it'] }, /verdict/],
  ]
  for (const [one, element, message] of wrong) {
    t.throws(() => batch.addElement(family, table, one, element), { code: 'INVALID', message })
  }
  const bad: SetDeclaration[] = [
    set('a', []),
    set('a', ['verdict']),
    set('a', ['mark'], []),
    set('a', ['mark'], ['verdict', 'mark']),
    set('a', ['mark'], undefined, true),
    set('a', ['ipv6_addr', 'ipv6_addr', 'ipv6_addr', 'ipv6_addr', 'mark']),
    set('a', ['mark', 'mark', 'mark', 'mark', 'mark', 'mark']),
  ]
  for (const one of bad) t.throws(() => batch.addSet(family, table, one), { code: 'INVALID' })
})

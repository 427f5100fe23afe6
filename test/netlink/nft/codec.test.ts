// SPDX-License-Identifier: Apache-2.0
// Bytes by hand from linux/netfilter/nf_tables.h, words there and back, and damaged messages.
import fc from 'fast-check'
import t from 'tap'
import { WeftError } from '../../../src/base/errors.ts'
import { type Message, messages, Writer } from '../../../src/netlink/message.ts'
import { decodeChain, decodeElementList, decodeRule, decodeSet, decodeTable } from '../../../src/netlink/nft/dump.ts'
import { decodeElements, encodeElement, writeElement } from '../../../src/netlink/nft/element.ts'
import { writeExpressions } from '../../../src/netlink/nft/encode.ts'
import { writeHook } from '../../../src/netlink/nft/hook.ts'
import { messageType, namePath, writeHeader } from '../../../src/netlink/nft/request.ts'
import { compileRule } from '../../../src/netlink/nft/rule.ts'
import { commentTypes, type SetDeclaration, setUserdata, writeDeclaration } from '../../../src/netlink/nft/set.ts'
import { decodeTimeout, type TimeoutDeclaration, writeTimeout } from '../../../src/netlink/nft/timeout.ts'
import { decodeWords, encodeWords, type NftType } from '../../../src/netlink/nft/types.ts'
import {
  NFT_MSG,
  NFTA_CHAIN,
  NFTA_EXPR,
  NFTA_LIST,
  NFTA_MATCH,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
} from '../../../src/netlink/nft/uapi.ts'
import { readUserdata, ruleComment, ruleUserdata } from '../../../src/netlink/nft/userdata.ts'
import { set } from './rules.ts'

const bytes = (write: (w: Writer) => void): Buffer => {
  const w = new Writer()
  write(w)
  return Buffer.from(w.buffer.subarray(0, w.length))
}
const message = (type: number, write: (w: Writer) => void): Buffer =>
  bytes(w => {
    w.begin(messageType(type), 0)
    writeHeader(w, 1)
    write(w)
    w.end()
  })
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\/\/.*|\s/g, ''), 'hex')

t.test('expressions, byte by byte', async t => {
  const context = { setId: () => 1, device: () => 7 }
  const rule = bytes(w =>
    writeExpressions(w, NFTA_RULE.EXPRESSIONS, compileRule('ip', 'ip protocol 6 accept'), context),
  )
  t.same(
    rule,
    hex(`
      9400 0480                    // NFTA_RULE_EXPRESSIONS, nested
      3400 0180                    // NFTA_LIST_ELEM
      0c00 0100 7061796c6f616400   // NFTA_EXPR_NAME "payload"
      2400 0280                    // NFTA_EXPR_DATA
      0800 0100 00000001           // NFTA_PAYLOAD_DREG 1
      0800 0200 00000001           // NFTA_PAYLOAD_BASE network header
      0800 0300 00000009           // NFTA_PAYLOAD_OFFSET
      0800 0400 00000001           // NFTA_PAYLOAD_LEN
      2c00 0180
      0800 0100 636d7000           // "cmp"
      2000 0280
      0800 0100 00000001           // NFTA_CMP_SREG 1
      0800 0200 00000000           // NFTA_CMP_OP equal
      0c00 0380                    // NFTA_CMP_DATA
      0500 0100 06000000           // NFTA_DATA_VALUE, one byte
      3000 0180
      0e00 0100 696d6d656469617465000000 // "immediate"
      1c00 0280
      0800 0100 00000000           // NFTA_IMMEDIATE_DREG verdict
      1000 0280                    // NFTA_IMMEDIATE_DATA
      0c00 0280                    // NFTA_DATA_VERDICT
      0800 0100 00000001           // NFTA_VERDICT_CODE accept
    `),
  )
})

t.test('a comment is userdata of libnftnl', async t => {
  t.same(ruleUserdata('hi'), hex('00 03 686900'))
  t.equal(ruleComment(hex('00 03 686900')), 'hi')
  t.equal(ruleComment(hex('00 02 6869')), 'hi', 'without its NUL')
  t.equal(ruleComment(hex('05 01 00  00 03 686900')), 'hi', 'behind others')
  t.equal(ruleComment(hex('00 09 686900')), undefined, 'cut')
  t.equal(ruleComment(hex('')), undefined)
})

t.test('a declaration is read back from its comment where nft has no number', async t => {
  t.same(setUserdata(set('m', ['mark'], ['mark'])), hex('00 04 01000000  01 04 01000000'))
  t.equal(commentTypes(setUserdata(set('m', ['mark'], ['mark']))), undefined)
  const zones = set('z', ['ct_zone', 'ether_addr'], ['ct_zone'])
  t.same(commentTypes(setUserdata(zones)), { key: zones.key, value: zones.value })
  for (const text of ['hello', 'ct_zone : ', ' : mark', 'mark : mark : mark', 'mark . ct_zoo']) {
    const comment = Buffer.from(`${text}\0`)
    t.equal(commentTypes(Buffer.concat([Buffer.from([7, comment.length]), comment])), undefined, text)
  }
})

const words: Readonly<Record<Exclude<NftType, 'verdict'>, fc.Arbitrary<string>>> = {
  ipv4_addr: fc.ipV4(),
  ipv6_addr: fc
    .uint8Array({ minLength: 16, maxLength: 16 })
    .map(raw => decodeWords(['ipv6_addr'], Buffer.from(raw))![0]!),
  ether_addr: fc
    .uint8Array({ minLength: 6, maxLength: 6 })
    .map(raw => decodeWords(['ether_addr'], Buffer.from(raw))![0]!),
  inet_proto: fc.oneof(
    fc.constantFrom('tcp', 'udp', 'icmp', 'ipv6-icmp', 'sctp'),
    fc.integer({ min: 133, max: 255 }).map(String),
  ),
  inet_service: fc.integer({ min: 0, max: 65_535 }).map(String),
  mark: fc.integer({ min: 0, max: 0xffffffff }).map(n => `0x${n.toString(16).padStart(8, '0')}`),
  ifname: fc.stringMatching(/^[a-z][a-z0-9.-]{0,14}$/),
  ct_zone: fc.integer({ min: 0, max: 65_535 }).map(String),
}
const field = fc.constantFrom(...(Object.keys(words) as (keyof typeof words)[]))

t.test('words of every type come back', async () => {
  const fields = fc.array(field, { minLength: 1, maxLength: 5 })
  const pairs = fields.chain(types => fc.tuple(fc.constant(types), fc.tuple(...types.map(type => words[type]))))
  fc.assert(
    fc.property(pairs, ([types, values]) => {
      const back = decodeWords(types, encodeWords(types, values))
      return back !== undefined && back.join(' ') === values.join(' ')
    }),
  )
})

t.test('prefixes of intervals come back', async () => {
  const prefix = fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 32 }))
  const near = set('near', ['ipv4_addr'], undefined, true)
  const both = set('near', ['ipv4_addr', 'inet_service'], undefined, true)
  fc.assert(
    fc.property(prefix, ([address, length]) => {
      const word = length === 32 ? address : `${address}/${length}`
      const [once] = decodeElements(near, encodeElement(near, { key: [word] }, true))
      const [twice] = decodeElements(near, encodeElement(near, once!, true))
      const [pair] = decodeElements(both, encodeElement(both, { key: [word, '80'] }, true))
      return once!.key[0] === twice!.key[0] && pair!.key.join() === `${once!.key[0]},80`
    }),
  )
})

t.test('an attribute has its name', async t => {
  t.equal(namePath(NFT_MSG.NEWSETELEM, '3.1.1'), 'NFTA_SET_ELEM_LIST_ELEMENTS.NFTA_LIST_ELEM.NFTA_SET_ELEM_KEY')
  t.equal(namePath(NFT_MSG.NEWRULE, '4.1.2.9'), 'NFTA_RULE_EXPRESSIONS.NFTA_LIST_ELEM.NFTA_EXPR_DATA.9')
  t.equal(namePath(NFT_MSG.NEWRULE, ''), '')
  t.equal(namePath(99, '1.2'), '1.2')
})

const near = set('near', ['ipv4_addr', 'inet_service'], ['mark'], true)
const declarations: readonly SetDeclaration[] = [
  near,
  set('zones', ['ct_zone'], ['ether_addr']),
  set('verdicts', ['mark', 'ifname'], ['verdict']),
  set('plain', ['ipv6_addr'], undefined, true),
]
const timeouts: readonly TimeoutDeclaration[] = [
  { name: 'tcp_77_5', protocol: 'tcp', seconds: 77, halfClosed: 5 },
  { name: 'udp_78', protocol: 'udp', seconds: 78 },
]
const samples: readonly Buffer[] = [
  message(NFT_MSG.NEWTABLE, w => w.attrString(NFTA_TABLE.NAME, 'weft')),
  message(NFT_MSG.NEWCHAIN, w => {
    w.attrString(NFTA_CHAIN.TABLE, 'weft')
    w.attrString(NFTA_CHAIN.NAME, 'in_gw')
    writeHook(w, 'inet', { type: 'filter', hook: 'ingress', priority: -5, policy: 'drop', device: 'gw' })
  }),
  message(NFT_MSG.NEWRULE, w => {
    w.attrString(NFTA_RULE.TABLE, 'weft')
    w.attrString(NFTA_RULE.CHAIN, 'in_gw')
    w.attrBe64(NFTA_RULE.HANDLE, 77n)
    w.attrBytes(NFTA_RULE.USERDATA, ruleUserdata('#0123456789ab'))
  }),
  ...declarations.map(declaration =>
    message(NFT_MSG.NEWSET, w => {
      w.attrString(NFTA_SET.TABLE, 'weft')
      writeDeclaration(w, declaration, 1)
    }),
  ),
  message(NFT_MSG.NEWSETELEM, w => {
    const list = w.beginNest(NFTA_SET_ELEM_LIST.ELEMENTS)
    const wire = [
      ...encodeElement(near, { key: ['10.0.0.0/8', '80'], value: ['5'] }, true),
      ...encodeElement(declarations[2]!, { key: ['5', 'eth0'], value: ['jump there'] }, true),
      ...encodeElement(declarations[3]!, { key: ['fd77::/64'] }, true),
    ]
    for (const one of wire) writeElement(w, one)
    w.endNest(list)
  }),
  message(NFT_MSG.NEWRULE, w => {
    w.attrString(NFTA_RULE.TABLE, 'filter')
    w.attrString(NFTA_RULE.CHAIN, 'DOCKER-USER')
    w.attrBe64(NFTA_RULE.HANDLE, 78n)
    w.nest(NFTA_RULE.EXPRESSIONS, () => {
      for (const [match, info] of [
        ['tcp', 'a port'],
        ['comment', 'weft #0123456789ab'],
      ] as const)
        w.nest(NFTA_LIST.ELEM, () => {
          w.attrString(NFTA_EXPR.NAME, 'match')
          w.nest(NFTA_EXPR.DATA, () => {
            w.attrString(NFTA_MATCH.NAME, match)
            w.attrBytes(NFTA_MATCH.INFO, Buffer.alloc(256, `${info}${'\0'.repeat(256 - info.length)}`))
          })
        })
    })
  }),
  ...timeouts.map(timeout => message(NFT_MSG.NEWOBJ, w => writeTimeout(w, 'weft', timeout))),
]

const decodeAll = (received: Message): unknown[] => {
  const elements = decodeElementList(received)
  return [
    decodeTable(received),
    decodeChain(received),
    decodeRule(received),
    decodeSet(received),
    decodeTimeout(received),
    ...(elements ? declarations.map(declaration => decodeElements(declaration, elements)) : []),
  ].filter(found => found !== undefined)
}

t.test('what we write, we read', async t => {
  const read = samples.map(sample => decodeAll([...messages(sample)][0]!))
  t.same(read.slice(0, 3).flat(), [
    { family: 'inet', table: 'weft' },
    {
      family: 'inet',
      table: 'weft',
      chain: 'in_gw',
      hook: { type: 'filter', hook: 'ingress', priority: -5, policy: 'drop', device: 'gw' },
    },
    { family: 'inet', table: 'weft', chain: 'in_gw', handle: 77n, comment: '#0123456789ab' },
  ])
  t.same(
    read.slice(3, 7).flat(),
    declarations.map(declaration => ({ family: 'inet', table: 'weft', ...declaration })),
  )
  t.same(read[7], [
    [{ key: ['10.0.0.0/8', '80'], value: ['0x00000005'] }],
    [],
    [{ key: ['0x00000005', 'eth0'], value: ['jump there'] }],
    [{ key: ['fd77::/64'] }],
  ])
  t.same(read[8], [
    { family: 'inet', table: 'filter', chain: 'DOCKER-USER', handle: 78n, comment: 'weft #0123456789ab' },
  ])
  t.same(
    read.slice(9).flat(),
    timeouts.map(timeout => ({ family: 'inet', table: 'weft', ...timeout })),
  )
})

t.test('damaged messages are refused, or read as what they now say', async () => {
  const decodeDamaged = (buffer: Buffer): void => {
    try {
      for (const received of messages(buffer)) decodeAll(received)
    } catch (error) {
      if (!(error instanceof WeftError && error.code === 'KERNEL')) throw error
    }
  }
  for (const sample of samples) {
    for (let length = 0; length < sample.length; length++) {
      const cut = Buffer.from(sample.subarray(0, length))
      decodeDamaged(cut)
      if (length < 16) continue
      cut.writeUInt32LE(length)
      decodeDamaged(cut)
    }
  }
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(fc.constantFrom(...samples), damage, (sample, changes) => {
      const damaged = Buffer.from(sample)
      for (const [at, value] of changes) damaged[6 + (at % (damaged.length - 6))] = value
      decodeDamaged(damaged)
    }),
    { numRuns: 20_000 },
  )
  fc.assert(
    fc.property(fc.uint8Array(), raw => {
      readUserdata(Buffer.from(raw))
      commentTypes(Buffer.from(raw))
      ruleComment(Buffer.from(raw))
    }),
  )
})

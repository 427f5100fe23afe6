// SPDX-License-Identifier: Apache-2.0
// Conntrack: our bytes by hand from linux/netfilter/nfnetlink_conntrack.h, the kernel's as recorded on Linux 6.18,
// damaged input, and that nothing is found but what the filter asks for.
import fc from 'fast-check'
import t from 'tap'
import { findConntrack, removeConntrack } from '../../../src/netlink/ct/conntrack.ts'
import { decodeConntrack, isRemovedConntrack } from '../../../src/netlink/ct/decode.ts'
import { type Conntrack, type ConntrackFilter, tupleText } from '../../../src/netlink/ct/types.ts'
import { attributePath } from '../../../src/netlink/explain.ts'
import type { Message } from '../../../src/netlink/message.ts'
import type { Netlink, Request } from '../../../src/netlink/socket.ts'
import { AF_INET, AF_INET6, IPPROTO } from '../../../src/netlink/uapi.ts'
import { bytes, encode, message, only, survivesDamage, tame } from '../bytes.ts'

const entryType = 0x0100 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW

// A connection from 192.0.2.9 to port 8080 of 198.51.100.1, answered by 10.1.0.5, port 80.
const tcp = `
  02 00 0000                                   // AF_INET
  3400 0180                                    // CTA_TUPLE_ORIG
    1400 0180 0800 0100 c0000209 0800 0200 c6336401
    1c00 0280 0500 0100 06000000 0600 0200 03e8 0000 0600 0300 1f90 0000
  3400 0280                                    // CTA_TUPLE_REPLY
    1400 0180 0800 0100 0a010005 0800 0200 c0000209
    1c00 0280 0500 0100 06000000 0600 0200 0050 0000 0600 0300 03e8 0000
  0800 0300 0000002c                           // CTA_STATUS: ASSURED, CONFIRMED, DST_NAT
  0800 0800 00000007                           // CTA_MARK
  0800 0c00 93d30d38                           // CTA_ID
  0800 0b00 00000001                           // CTA_USE
  0800 0700 0000012b                           // CTA_TIMEOUT
  3000 0480                                    // CTA_PROTOINFO
    2c00 0180 0500 0100 03000000 0500 0200 00000000 0500 0300 00000000 0600 0400 0a00 0000 0600 0500 0a00 0000
  1c00 1880 0800 0100 00000000 0800 0200 00000000 0800 0300 00000000`
// Its original direction alone is in zone 6.
const udp = `
  02 00 0000
  3c00 0180
    1400 0180 0800 0100 c0000209 0800 0200 c0000201
    1c00 0280 0500 0100 11000000 0600 0200 03e8 0000 0600 0300 0035 0000
    0600 0300 0006 0000                        // CTA_TUPLE_ZONE
  3400 0280
    1400 0180 0800 0100 c0000201 0800 0200 c0000209
    1c00 0280 0500 0100 11000000 0600 0200 0035 0000 0600 0300 03e8 0000
  0800 0300 00000008 0800 0800 00000000 0800 0c00 a2c46012 0800 0b00 00000001 0800 0700 0000001d`
const ping = `
  02 00 0000
  3c00 0180
    1400 0180 0800 0100 c0000209 0800 0200 c0000201
    2400 0280 0500 0100 01000000 0600 0400 004d 0000 0500 0500 08000000 0500 0600 00000000
  3c00 0280
    1400 0180 0800 0100 c0000201 0800 0200 c0000209
    2400 0280 0500 0100 01000000 0600 0400 004d 0000 0500 0500 00000000 0500 0600 00000000
  0800 0300 00000008 0800 0800 00000000 0800 0c00 57b5b83b 0800 0700 0000001d`
const udp6 = `
  0a 00 0000
  4c00 0180
    2c00 0180 1400 0300 fd770000000000000000000000000009 1400 0400 fd770000000000000000000000000001
    1c00 0280 0500 0100 11000000 0600 0200 03e8 0000 0600 0300 0035 0000
  4c00 0280
    2c00 0180 1400 0300 fd770000000000000000000000000001 1400 0400 fd770000000000000000000000000009
    1c00 0280 0500 0100 11000000 0600 0200 0035 0000 0600 0300 03e8 0000
  0800 0300 00000008 0800 0800 00000000 0800 0c00 00000001 0800 0700 0000001d
  0600 1200 0005 0000                          // CTA_ZONE`
const recorded = { tcp, udp, ping, udp6 } as const
const decoded = (body: string): Conntrack => decodeConntrack(only(message(entryType, body)))!

t.test('what the kernel sends', async t => {
  const client = { source: '192.0.2.9', sourcePort: 1000, icmp: undefined, zone: undefined }
  t.strictSame(decoded(tcp), {
    family: AF_INET,
    original: { ...client, destination: '198.51.100.1', destinationPort: 8080, protocol: IPPROTO.TCP },
    reply: {
      ...{ source: '10.1.0.5', sourcePort: 80, destination: '192.0.2.9', destinationPort: 1000 },
      ...{ protocol: IPPROTO.TCP, icmp: undefined, zone: undefined },
    },
    zone: 0,
    id: 0x93d30d38,
    mark: 7,
    timeoutSeconds: 299,
    status: 0x2c,
    seenReply: false,
    assured: true,
    sourceNat: false,
    destinationNat: true,
    tcpState: 'ESTABLISHED',
  })
  t.match(decoded(udp), { zone: 0, original: { zone: 6, protocol: IPPROTO.UDP }, reply: { zone: undefined } })
  t.match(decoded(udp), { tcpState: undefined, timeoutSeconds: 29, destinationNat: false })
  t.match(decoded(ping), {
    original: { icmp: { id: 77, type: 8, code: 0 }, sourcePort: undefined },
    reply: { icmp: { id: 77, type: 0 } },
  })
  t.match(decoded(udp6), { family: AF_INET6, zone: 5, original: { source: 'fd77::9', destination: 'fd77::1' } })
  t.equal(tupleText(decoded(tcp).original), 'tcp 192.0.2.9:1000 to 198.51.100.1:8080')
  t.equal(tupleText(decoded(udp).original), 'udp 192.0.2.9:1000 to 192.0.2.1:53 in zone 6')
  t.equal(tupleText(decoded(ping).original), 'icmp 192.0.2.9 to 192.0.2.1')
  t.equal(decodeConntrack(only(message(0x0101, tcp))), undefined, 'another message')
  t.equal(decodeConntrack(only(message(entryType, tcp.replace('02 00', '07 00')))), undefined, 'another family')
  t.notOk(isRemovedConntrack(only(message(entryType, tcp))))
  t.ok(isRemovedConntrack(only(message(0x0102, tcp))))
  t.match(decodeConntrack(only(message(0x0102, tcp))), { id: 0x93d30d38 })
  t.equal(decoded(tcp.replace('0100 03000000', '0100 63000000')).tcpState, 'state 99')
})

t.test('removal of an entry, byte for byte', async t => {
  const request = removeConntrack(decoded(tcp))
  t.equal(request.op, 'remove conntrack entry tcp 192.0.2.9:1000 to 198.51.100.1:8080')
  t.equal(
    encode(request).toString('hex'),
    bytes(`
      50000000 0201 0100 00000000 00000000 // length 80, CTNETLINK DELETE, REQUEST
      02 00 0000                           // AF_INET
      3400 0180                            // CTA_TUPLE_ORIG, nested
        1400 0180                          // CTA_TUPLE_IP
          0800 0100 c0000209
          0800 0200 c6336401
        1c00 0280                          // CTA_TUPLE_PROTO
          0500 0100 06000000
          0600 0200 03e8 0000              // ports in network order
          0600 0300 1f90 0000
      0800 0c00 93d30d38                   // CTA_ID, network order
    `),
  )
  const part = (body: string, from: number) =>
    encode(removeConntrack(decoded(body)))
      .subarray(from)
      .toString('hex')
  t.equal(part(udp, 72), bytes('0600 0300 0006 0000 0800 0c00 a2c46012'), 'a zone of one direction: in its tuple')
  t.equal(part(udp6, 96), bytes('0600 1200 0005 0000 0800 0c00 00000001'), 'a zone of both: CTA_ZONE')
  t.equal(removeConntrack(decoded(udp6)).op, 'remove conntrack entry udp [fd77::9]:1000 to [fd77::1]:53 in zone 5')
  t.equal(
    part(ping, 44),
    bytes('2400 0280 0500010001000000 06000400004d0000 0500050008000000 0500060000000000 0800 0c00 57b5b83b'),
  )
  const ping6 = {
    source: 'fd77::9',
    destination: 'fd77::1',
    protocol: IPPROTO.ICMPV6,
    icmp: { id: 77, type: 128, code: 0 },
  }
  t.equal(
    encode(removeConntrack({ original: ping6 }))
      .subarray(68)
      .toString('hex'),
    bytes('2400 0280 050001003a000000 06000700004d0000 0500080080000000 0500090000000000'),
  )
  t.equal(attributePath(encode(request), 48, request.names), 'CTA_TUPLE_ORIG.CTA_TUPLE_PROTO.CTA_PROTO_NUM')
  const original = decoded(udp).original
  t.throws(() => encode(removeConntrack({ original, zone: 1 })), { code: 'INVALID' }, 'two zones')
  t.throws(() => encode(removeConntrack({ original: { ...original, sourcePort: 65_536 } })), { code: 'INVALID' })
  t.throws(() => encode(removeConntrack({ original: { ...original, protocol: 300 } })), { code: 'INVALID' })
  t.throws(() => encode(removeConntrack({ original: { ...original, source: 'x' } })), { code: 'INVALID' })
})

/** A kernel that knows no filter: it answers with everything, and shows what it was asked. */
const asked: string[] = []
const deaf = {
  dump: async (request: Request, decode: (m: Message) => unknown) => {
    asked.push(encode(request).subarray(16).toString('hex'))
    return Object.values(recorded)
      .map(body => decode(only(message(entryType, body))))
      .filter(entry => entry !== undefined)
  },
} as unknown as Netlink
const found = async (filter?: ConntrackFilter) =>
  (await findConntrack(deaf, filter)).map(
    entry => Object.entries(recorded).find(([, body]) => decoded(body).id === entry.id)?.[0],
  )

t.test('what the kernel is asked, and what is found whether it listens or not', async t => {
  const requested = async (filter: ConntrackFilter, names: string[], hex: string) => {
    t.strictSame(await found(filter), names, JSON.stringify(filter))
    t.equal(asked.pop(), bytes(hex), JSON.stringify(filter))
  }
  await requested({}, ['tcp', 'udp', 'ping', 'udp6'], '00000000')
  await requested({ family: AF_INET6 }, ['udp6'], '0a000000')
  await requested({ mark: { value: 7 } }, ['tcp'], '00000000 0800 0800 00000007 0800 1500 ffffffff')
  await requested({ mark: { value: 0xf3, mask: 3 } }, ['tcp'], '00000000 0800 0800 00000003 0800 1500 00000003')
  await requested(
    { mark: { value: 0 }, family: AF_INET },
    ['udp', 'ping'],
    '02000000 0800 0800 00000000 0800 1500 ffffffff',
  )
  await requested({ zone: 6 }, ['udp'], '00000000')
  await requested({ zone: 5 }, ['udp6'], '00000000')
  await requested({ zone: 0 }, ['tcp', 'ping'], '00000000')
  await requested({ destinationNat: true }, ['tcp'], '00000000')
  await requested({ original: { protocol: IPPROTO.UDP } }, ['udp', 'udp6'], '00000000')
  await requested(
    { reply: { source: '10.1.0.5', protocol: IPPROTO.TCP, sourcePort: 80 } },
    ['tcp'],
    `02000000
     2400 0280 0c00 0180 0800 0100 0a010005 1400 0280 0500 0100 06000000 0600 0200 0050 0000
     1400 1980 0800 0100 00000000 0800 0200 19000000 // CTA_FILTER: nothing of the original; src, protocol, sport`,
  )
  // IPv6 addresses the kernel would compare the wrong way round
  await requested({ original: { destination: 'FD77:0::1', destinationPort: 53 } }, ['udp6'], '0a000000')
  await requested(
    { original: { destination: 'fd77::1', destinationPort: 53, protocol: IPPROTO.UDP } },
    ['udp6'],
    `0a000000
     1c00 0180 0400 0180 1400 0280 0500 0100 11000000 0600 0300 0035 0000
     1400 1980 0800 0100 28000000 0800 0200 00000000`,
  )
  await requested(
    { family: AF_INET, original: { protocol: IPPROTO.UDP } },
    ['udp'],
    `02000000
     1400 0180 0400 0180 0c00 0280 0500 0100 11000000
     1400 1980 0800 0100 08000000 0800 0200 00000000`,
  )
})

t.test('not what only resembles it', async t => {
  for (const reply of [
    { source: '10.1.0.6', protocol: IPPROTO.TCP, sourcePort: 80 },
    { source: '10.1.0.5', protocol: IPPROTO.UDP, sourcePort: 80 },
    { source: '10.1.0.5', protocol: IPPROTO.TCP, sourcePort: 81 },
    { source: '10.1.0.5', destination: '192.0.2.8' },
  ])
    t.strictSame(await found({ reply }), [], JSON.stringify(reply))
  t.strictSame(await found({ original: { source: '10.1.0.5' } }), [])
  t.strictSame(await found({ reply: { source: '10.1.0.5' }, destinationNat: false }), [])
  t.strictSame(await found({ reply: { source: '10.1.0.5' }, mark: { value: 6 } }), [])
  await t.rejects(found({ reply: { source: '10.1.0' } }), { code: 'INVALID' })
})

t.test('what the kernel would never send is refused', async t => {
  const refused = (name: string, body: string) => t.throws(() => decoded(body), { code: 'KERNEL' }, name)
  refused('no tuples', '02000000')
  refused('no id', tcp.replace('0800 0c00 93d30d38', ''))
  refused('IPv4 addresses under IPv6', tcp.replace('02 00 0000', '0a 00 0000'))
  refused('no protocol', udp.replaceAll('0500 0100 11000000', '0500 0a00 11000000'))
})

for (const [name, body] of Object.entries(recorded))
  t.test(`${name}: cut anywhere, damaged anywhere`, async t =>
    survivesDamage(t, message(entryType, body), decodeConntrack),
  )

t.test('random bytes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.constantFrom('02', '0a', '00'), (noise, family) => {
      const whole = message(entryType, `${family}000000${Buffer.from(noise).toString('hex')}`)
      tame(() => decodeConntrack(only(whole)))
    }),
    { numRuns: 2000 },
  )
})

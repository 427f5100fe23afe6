// SPDX-License-Identifier: Apache-2.0
import { isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import {
  formatIp,
  formatIpPort,
  formatMac,
  formatProtocol,
  ipLength,
  parsePrefix,
  writeIp,
  writeMac,
} from '../../src/netlink/text.ts'

const ip = (text: string): string => {
  const out = new Uint8Array(ipLength(text))
  writeIp(text, out, 0)
  return formatIp(out, 0, out.length)!
}
const mac = (text: string): string => {
  const out = new Uint8Array(6)
  writeMac(text, out, 0)
  return formatMac(out, 0, 6)
}

t.test('IPv6 as RFC 5952 writes it', async t => {
  for (const [text, canonical] of [
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['fd77:0:0:0:0:0:0:0', 'fd77::'],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['1:0:0:4:5:0:0:8', '1::4:5:0:0:8'],
  ] as const) {
    t.equal(ip(text), canonical)
  }
})

t.test('what is no address is refused', async t => {
  const texts = [
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.',
    '.1.2.3',
    '1.2.3.4 ',
    'a.b.c.d',
    '1e1.2.3.4',
  ]
  const texts6 = [
    ':',
    ':::',
    '1:::2',
    '1::2::3',
    '12345::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    ':1::',
    '1:',
    'g::',
  ]
  const mixed = ['::1.2.3', '::1.2.3.256', '1:2:3:4:5:6:7:1.2.3.4', '::1.2.3.4:5', 'fe80::1%eth0', '::1/64']
  for (const text of [...texts, ...texts6, ...mixed]) t.throws(() => ip(text), { code: 'INVALID' }, text)
  for (const text of ['', '02:00:00:00:00', '02:00:00:00:00:0g', '02-00-00-00-00-00', '02:00:00:00:00:00:']) {
    t.throws(() => mac(text), { code: 'INVALID' }, text)
  }
  for (const text of ['10.0.0.0/33', '::/129', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/1x']) {
    t.throws(() => parsePrefix(text), { code: 'INVALID' }, text)
  }
  t.strictSame(parsePrefix('10.0.0.0/8'), { address: '10.0.0.0', length: 8 })
  t.strictSame(parsePrefix('fd77::1'), { address: 'fd77::1', length: 128 })
})

t.test('every address survives the way through text, and we agree with Node on what one is', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      fc.constantFrom(4, 16),
      fc.nat(0xffff),
      (all, size, zeros) => {
        const raw = all.slice(0, size).map((byte, i) => (zeros & (1 << i) ? 0 : byte))
        const out = new Uint8Array(size)
        writeIp(formatIp(raw, 0, size)!, out, 0)
        return Buffer.compare(raw, out) === 0
      },
    ),
    { numRuns: 2000 },
  )
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(':', '::', '.', '0', '1', '25', 'fF', 'abcd', '255', '1.2.3.4'), { maxLength: 17 }),
      parts => {
        const text = parts.join('')
        let accepted = true
        try {
          ip(text)
        } catch {
          accepted = false
        }
        return accepted === (text.includes(':') ? isIPv6(text) : isIPv4(text))
      },
    ),
    { numRuns: 5000 },
  )
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 6, maxLength: 6 }),
      raw => mac(formatMac(raw, 0, 6)) === formatMac(raw, 0, 6),
    ),
  )
})

t.test('an address with a port, a protocol', async t => {
  t.equal(formatIpPort('192.0.2.1', 80), '192.0.2.1:80')
  t.equal(formatIpPort('fd77::1', 80), '[fd77::1]:80')
  t.strictSame([6, 17, 132, 58, 47].map(formatProtocol), ['tcp', 'udp', 'sctp', 'icmpv6', 'protocol 47'])
})

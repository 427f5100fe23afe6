// SPDX-License-Identifier: Apache-2.0
// Frames byte by byte, as the RFCs draw them; and whatever comes in.
import fc from 'fast-check'
import t from 'tap'
import { announcementFrames, answererOf, answerPattern, probeFrame } from '../../src/floating/frames.ts'
import { parseAddress } from '../../src/model/address.ts'

const mac = '02:09:00:00:00:01'
const v4 = parseAddress('192.0.2.10')
const v6 = parseAddress('2001:db8::a:b:c')
const hex = (...parts: string[]): string => parts.join('').replaceAll(' ', '')
const padding = '00'.repeat(18)

t.test('ARP: probe and announcements', async t => {
  const head = (op: string): string => hex('ffffffffffff 020900000001 0806', '0001 0800 06 04', op, '020900000001')
  // RFC 5227 2.1.1: the sender's address is zero
  t.equal(probeFrame(mac, v4).toString('hex'), hex(head('0001'), '00000000 000000000000 c000020a', padding))
  t.same(
    announcementFrames(mac, v4).map(frame => frame.toString('hex')),
    [
      hex(head('0001'), 'c000020a 000000000000 c000020a', padding),
      hex(head('0002'), 'c000020a ffffffffffff c000020a', padding),
    ],
  )
})

t.test('ND: probe and announcement, with checksums that add up', async t => {
  const address = '20010db800000000 0000000a000b000c'
  const probe = probeFrame(mac, v6).toString('hex')
  t.equal(probe.slice(0, 28), hex('3333ff0b000c 020900000001 86dd'))
  t.equal(probe.slice(28, 108), hex('60000000 0018 3a ff', '00'.repeat(16), 'ff02000000000000 00000001ff0b000c'))
  t.equal(probe.slice(108, 112), '8700')
  t.equal(probe.slice(116), hex('00000000', address))
  const [told] = announcementFrames(mac, v6).map(frame => frame.toString('hex')) as [string]
  t.equal(told.slice(0, 28), hex('333300000001 020900000001 86dd'))
  t.equal(told.slice(28, 108), hex('60000000 0020 3a ff', address, 'ff02000000000000 0000000000000001'))
  t.equal(told.slice(108, 112), '8800')
  t.equal(told.slice(116), hex('20000000', address, '0201 020900000001'), 'override, not solicited, our MAC')
  for (const text of [probe, told]) {
    const body = Buffer.from(text.slice(28), 'hex')
    const sum = [...body.subarray(8), 0, body.length - 40, 0, 58].reduce(
      (all, byte, i) => all + (i % 2 ? byte : byte << 8),
      0,
    )
    t.equal(((sum & 0xffff) + (sum >>> 16)) % 0xffff, 0)
  }
})

t.test('who answers: only of this address, with the MAC that it names', async t => {
  for (const address of [v4, v6])
    for (const frame of announcementFrames('02:00:00:00:00:77', address)) {
      t.equal(answererOf(frame, address), '02:00:00:00:00:77')
      t.equal(answererOf(frame, { ...address, value: address.value + 1n }), undefined)
      for (const { at, size, value } of answerPattern(address))
        t.equal(size === 1 ? frame[at] : frame.readUInt32BE(at), value, 'the filter lets it up')
      for (let length = 0; length < 50; length++) answererOf(frame.subarray(0, length), address)
    }
  t.equal(answererOf(probeFrame(mac, v4), v4), undefined, 'a question is no answer')
  t.equal(answererOf(probeFrame(mac, v6), v6), undefined)
  const [bare] = announcementFrames(mac, v6) as [Buffer]
  t.equal(answererOf(bare.subarray(0, 78), v6), mac, 'without the option: who sent it')
})

t.test('any bytes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.constantFrom(v4, v6), (bytes, address) => {
      answererOf(bytes, address)
    }),
  )
})

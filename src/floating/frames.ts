// SPDX-License-Identifier: Apache-2.0
// The frames by which an address is asked for and announced: ARP (RFC 826, 5227) and neighbour discovery (RFC 4861,
// 4862). Pure bytes, both families behind the same three words: probe, announcements, answerer.
import { type Address, parseAddress } from '../model/address.ts'

const broadcast = 'ff:ff:ff:ff:ff:ff'
const zero = '00:00:00:00:00:00'
export const etherTypes = { 4: 0x0806, 6: 0x86dd } as const
const arp = { header: [0, 1, 8, 0, 6, 4], request: 1, reply: 2 } as const
const icmp6 = { next: 58, solicit: 135, advertise: 136 } as const
const override = 0x2000_0000
const allNodes = parseAddress('ff02::1').value

const macBytes = (mac: string): number[] => mac.split(':').map(byte => Number.parseInt(byte, 16))
const macText = (bytes: Uint8Array): string => [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join(':')

const ipBytes = ({ family, value }: Address): number[] => {
  const length = family === 4 ? 4 : 16
  return Array.from({ length }, (_, i) => Number((value >> BigInt(8 * (length - 1 - i))) & 255n))
}
const u16 = (value: number): number[] => [value >>> 8, value & 255]
const u32 = (value: number): number[] => [...u16(value >>> 16), ...u16(value & 0xffff)]

const ethernet = (to: string, from: string, type: number, body: readonly number[]): Buffer =>
  // 60 bytes at least, or hardware may refuse it
  Buffer.from([
    ...macBytes(to),
    ...macBytes(from),
    ...u16(type),
    ...body,
    ...Array(Math.max(0, 46 - body.length)).fill(0),
  ])

const arpFrame = (op: number, mac: string, sender: Address, targetMac: string, target: Address): Buffer =>
  ethernet(broadcast, mac, etherTypes[4], [
    ...arp.header,
    ...u16(op),
    ...macBytes(mac),
    ...ipBytes(sender),
    ...macBytes(targetMac),
    ...ipBytes(target),
  ])

/** RFC 1071, over the pseudo-header of RFC 8200 section 8.1. */
const checksum = (bytes: readonly number[]): number => {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

const neighbourFrame = (mac: string, toMac: string, from: Address, to: Address, message: readonly number[]): Buffer => {
  const addresses = [...ipBytes(from), ...ipBytes(to)]
  const sum = checksum([...addresses, ...u32(message.length), 0, 0, 0, icmp6.next, ...message])
  const body = [...message.slice(0, 2), ...u16(sum), ...message.slice(4)]
  // hop limit 255: nobody forwarded it
  return ethernet(toMac, mac, etherTypes[6], [
    0x60,
    0,
    0,
    0,
    ...u16(body.length),
    icmp6.next,
    255,
    ...addresses,
    ...body,
  ])
}

const v6 = (value: bigint): Address => ({ family: 6, value })

/** Does anybody have this address? Without saying that we want it: no cache learns from it. */
export const probeFrame = (mac: string, address: Address): Buffer => {
  if (address.family === 4) return arpFrame(arp.request, mac, { family: 4, value: 0n }, zero, address)
  const low = address.value & 0xff_ffffn
  const group = v6(parseAddress('ff02::1:ff00:0').value | low)
  const groupMac = macText(Uint8Array.from([0x33, 0x33, ...ipBytes(group).slice(12)]))
  return neighbourFrame(mac, groupMac, v6(0n), group, [icmp6.solicit, 0, 0, 0, ...u32(0), ...ipBytes(address)])
}

/** This MAC has it now: gratuitous ARP, in the form that asks and in the one that answers, as some listen to one only; unsolicited NA. */
export const announcementFrames = (mac: string, address: Address): readonly Buffer[] => {
  if (address.family === 4)
    return [arpFrame(arp.request, mac, address, zero, address), arpFrame(arp.reply, mac, address, broadcast, address)]
  const option = [2, 1, ...macBytes(mac)]
  const message = [icmp6.advertise, 0, 0, 0, ...u32(override), ...ipBytes(address), ...option]
  return [neighbourFrame(mac, '33:33:00:00:00:01', address, v6(allNodes), message)]
}

/** The MAC that says it has the address; undefined: the frame does not say so. Takes any bytes. */
export const answererOf = (frame: Uint8Array, address: Address): string | undefined => {
  const at = (start: number, length: number): Uint8Array => frame.subarray(start, start + length)
  const same = (start: number, bytes: readonly number[]): boolean =>
    frame.length >= start + bytes.length && bytes.every((byte, i) => frame[start + i] === byte)
  if (!same(12, u16(etherTypes[address.family]))) return undefined
  if (address.family === 4) return same(14, arp.header) && same(28, ipBytes(address)) ? macText(at(22, 6)) : undefined
  if (!same(20, [icmp6.next, 255]) || !same(54, [icmp6.advertise, 0]) || !same(62, ipBytes(address))) return undefined
  // the option may be missing: then it is who sent it
  return same(78, [2, 1]) && frame.length >= 86 ? macText(at(80, 6)) : macText(at(6, 6))
}

/** Words that must stand at these offsets of a frame that says somebody has the address: for a filter in the kernel. */
export const answerPattern = (address: Address): readonly { at: number; size: 1 | 4; value: number }[] => {
  const words = Array.from({ length: address.family === 4 ? 1 : 4 }, (_, i) => {
    const [a, b, c, d] = ipBytes(address).slice(4 * i) as [number, number, number, number]
    return {
      at: (address.family === 4 ? 28 : 62) + 4 * i,
      size: 4 as const,
      value: ((a << 24) | (b << 16) | (c << 8) | d) >>> 0,
    }
  })
  if (address.family === 4) return words
  return [{ at: 20, size: 1, value: icmp6.next }, { at: 54, size: 1, value: icmp6.advertise }, ...words]
}

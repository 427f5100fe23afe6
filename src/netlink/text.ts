// SPDX-License-Identifier: Apache-2.0
// Addresses between text and bytes. Loops over characters instead of a library: a full table is 100,000 entries.
// IPv6 is written as RFC 5952 wants it.
import { WeftError } from '../base/errors.ts'
import { AF_INET, AF_INET6, IPPROTO } from './uapi.ts'

export const macLength = 6

const bad = (what: string, text: string): WeftError => new WeftError('INVALID', `"${text}" is not ${what}`)

/** 4 for IPv4, 16 for IPv6, by the look of it; the digits are checked when written. */
export const ipLength = (text: string): 4 | 16 => (text.includes(':') ? 16 : 4)

/** AF_INET or AF_INET6. */
export const ipFamily = (text: string): number => (text.includes(':') ? AF_INET6 : AF_INET)

const writeV4 = (text: string, from: number, out: Uint8Array, at: number): void => {
  let part = 0
  let digits = 0
  let index = 0
  for (let i = from; i <= text.length; i++) {
    const c = i === text.length ? 46 : text.charCodeAt(i)
    if (c === 46) {
      if (digits === 0 || part > 255 || index > 3) throw bad('an IPv4 address', text)
      out[at + index] = part
      index++
      part = 0
      digits = 0
    } else {
      // A leading zero would be octal to some readers and decimal to others.
      if (c < 48 || c > 57 || digits === 3 || (digits === 1 && part === 0)) throw bad('an IPv4 address', text)
      part = part * 10 + c - 48
      digits++
    }
  }
  if (index !== 4) throw bad('an IPv4 address', text)
}

const hexValue = (c: number): number => {
  if (c >= 48 && c <= 57) return c - 48
  const lower = c | 0x20
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}

const writeV6 = (text: string, out: Uint8Array, at: number): void => {
  let bytes = 0 // written so far
  let gap = -1 // where "::" stands
  let i = 0
  if (text.startsWith('::')) {
    gap = 0
    i = 2
  }
  while (i < text.length) {
    if (bytes > 14) throw bad('an IPv6 address', text)
    let value = 0
    const first = i
    for (; i < text.length && i - first < 5; i++) {
      const digit = hexValue(text.charCodeAt(i))
      if (digit < 0) break
      value = value * 16 + digit
    }
    if (i === first || i - first > 4) throw bad('an IPv6 address', text)
    if (text.charCodeAt(i) === 46) {
      if (bytes > 12) throw bad('an IPv6 address', text)
      writeV4(text, first, out, at + bytes)
      bytes += 4
      i = text.length
      break
    }
    out[at + bytes] = value >> 8
    out[at + bytes + 1] = value & 255
    bytes += 2
    if (i === text.length) break
    if (text.charCodeAt(i) !== 58) throw bad('an IPv6 address', text)
    i++
    if (text.charCodeAt(i) === 58) {
      if (gap >= 0) throw bad('an IPv6 address', text)
      gap = bytes
      i++
    } else if (i === text.length) {
      throw bad('an IPv6 address', text)
    }
  }
  if (gap < 0 ? bytes !== 16 : bytes > 14) throw bad('an IPv6 address', text)
  if (gap >= 0) {
    const tail = bytes - gap
    out.copyWithin(at + 16 - tail, at + gap, at + bytes)
    out.fill(0, at + gap, at + 16 - tail)
  }
}

/** Writes 4 or 16 bytes; throws INVALID. */
export const writeIp = (text: string, out: Uint8Array, at: number): void => {
  if (text.includes(':')) writeV6(text, out, at)
  else writeV4(text, 0, out, at)
}

/** Writes 6 bytes from "02:42:0a:00:00:02"; throws INVALID. */
export const writeMac = (text: string, out: Uint8Array, at: number): void => {
  if (text.length !== 17) throw bad('a MAC address', text)
  for (let i = 0; i < macLength; i++) {
    const high = hexValue(text.charCodeAt(i * 3))
    const low = hexValue(text.charCodeAt(i * 3 + 1))
    if (high < 0 || low < 0 || (i < 5 && text.charCodeAt(i * 3 + 2) !== 58)) throw bad('a MAC address', text)
    out[at + i] = high * 16 + low
  }
}

const octets: readonly string[] = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'))

const formatV6 = (buffer: Uint8Array, at: number): string => {
  const groups: number[] = []
  for (let i = 0; i < 16; i += 2) groups.push((buffer[at + i]! << 8) | buffer[at + i + 1]!)
  let best = -1
  let bestLength = 1 // a single zero group is not shortened
  for (let i = 0; i < 8; i++) {
    let length = 0
    while (i + length < 8 && groups[i + length] === 0) length++
    if (length > bestLength) {
      best = i
      bestLength = length
    }
    if (length > 0) i += length
  }
  const hex = groups.map(group => group.toString(16))
  if (best === 0 && bestLength === 5 && groups[5] === 0xffff) {
    return `::ffff:${buffer[at + 12]}.${buffer[at + 13]}.${buffer[at + 14]}.${buffer[at + 15]}`
  }
  if (best < 0) return hex.join(':')
  return `${hex.slice(0, best).join(':')}::${hex.slice(best + bestLength).join(':')}`
}

/** Text of 4 or 16 bytes; undefined for any other length. */
export const formatIp = (buffer: Uint8Array, start: number, end: number): string | undefined => {
  if (end - start === 4) return `${buffer[start]}.${buffer[start + 1]}.${buffer[start + 2]}.${buffer[start + 3]}`
  return end - start === 16 ? formatV6(buffer, start) : undefined
}

/** Link-layer address of any length, "02:42:0a:00:00:02". */
export const formatMac = (buffer: Uint8Array, start: number, end: number): string => {
  let text = ''
  for (let i = start; i < end; i++) text += i === start ? octets[buffer[i]!]! : `:${octets[buffer[i]!]!}`
  return text
}

/** "192.0.2.1:80", "[fd77::1]:80". */
export const formatIpPort = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

/** "tcp"; "protocol 47" for what has no name here. */
export const formatProtocol = (protocol: number): string =>
  Object.entries(IPPROTO)
    .find(([, number]) => number === protocol)?.[0]
    .toLowerCase() ?? `protocol ${protocol}`

export interface Prefix {
  readonly address: string
  readonly length: number
}

/** "10.1.0.0/16"; without a length, that of a single address. Throws INVALID. */
export const parsePrefix = (text: string): Prefix => {
  const slash = text.indexOf('/')
  const address = slash < 0 ? text : text.slice(0, slash)
  const max = ipLength(address) * 8
  if (slash < 0) return { address, length: max }
  const digits = text.slice(slash + 1)
  const length = Number(digits)
  if (!/^\d{1,3}$/.test(digits) || length > max) throw bad('a prefix', text)
  return { address, length }
}

// SPDX-License-Identifier: Apache-2.0
// The words of nft for what keys and values are made of, and their bytes. A field has one canonical word, so that
// what the kernel says can be compared with what was wanted: mark '0x02000001', inet_proto 'tcp' (a number if it has
// no name here), inet_service and ct_zone decimal, addresses as RFC 5952 and lower case, verdict 'accept', 'drop',
// 'goto CHAIN', 'jump CHAIN'.
import { endianness } from 'node:os'
import { WeftError } from '../../base/errors.ts'
import { formatIp, formatMac, ipLength, writeIp, writeMac } from '../text.ts'
import { NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV } from './uapi.ts'

export type NftFamily = 'ip' | 'ip6' | 'inet' | 'netdev'

export type NftType =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'ifname'
  | 'ct_zone'
  | 'verdict'

export interface NftHook {
  readonly type: 'filter' | 'nat' | 'route'
  readonly hook: 'ingress' | 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting'
  readonly priority: number
  readonly policy: 'accept' | 'drop'
  /** Ingress chains of netdev tables. */
  readonly device?: string
}

export const familyNumbers: Readonly<Record<NftFamily, number>> = {
  ip: NFPROTO_IPV4,
  ip6: NFPROTO_IPV6,
  inet: NFPROTO_INET,
  netdev: NFPROTO_NETDEV,
}

/** undefined for arp, bridge and what newer kernels invent. */
export const familyOfNumber = (number: number): NftFamily | undefined =>
  (Object.keys(familyNumbers) as NftFamily[]).find(family => familyNumbers[family] === number)

export const little = endianness() === 'LE'

export const protocols: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  ipencap: 4,
  tcp: 6,
  udp: 17,
  gre: 47,
  esp: 50,
  ah: 51,
  'ipv6-icmp': 58,
  sctp: 132,
  udplite: 136,
}
const protocolNames = new Map(Object.entries(protocols).map(([name, number]) => [number, name]))
const typeNames = ['tcp', 'udp', 'icmp', 'ipv6-icmp', 'sctp']

interface TypeRow {
  /** Number of nft's own type, for `nft list`. */
  readonly id: number
  readonly length: number
  /** Host byte order: `nft list` has to be told. */
  readonly host: boolean
}

const rows: Readonly<Record<NftType, TypeRow>> = {
  verdict: { id: 1, length: 0, host: false },
  ct_zone: { id: 4, length: 2, host: true }, // nft has no name for it: an integer, `typeof ct zone`
  ipv4_addr: { id: 7, length: 4, host: false },
  ipv6_addr: { id: 8, length: 16, host: false },
  ether_addr: { id: 9, length: 6, host: false },
  inet_proto: { id: 12, length: 1, host: false },
  inet_service: { id: 13, length: 2, host: false },
  mark: { id: 19, length: 4, host: true },
  ifname: { id: 41, length: 16, host: true },
}

export const typeRow = (type: NftType): TypeRow => rows[type]
export const isNftType = (word: string): word is NftType => Object.hasOwn(rows, word)
export const typeOfId = (id: number): NftType | undefined =>
  (Object.keys(rows) as NftType[]).find(type => rows[type].id === id)

const padded = (length: number): number => (length + 3) & ~3

/** Bytes of a key or value: a single field as it is, each of several padded to a register of four bytes. */
export const lengthOf = (types: readonly NftType[]): number =>
  types.length === 1 ? rows[types[0]!].length : types.reduce((sum, type) => sum + padded(rows[type].length), 0)

/** nft's number for a type or, six bits each, a concatenation. */
export const idOf = (types: readonly NftType[]): number =>
  types.reduce((sum, type) => ((sum << 6) | rows[type].id) >>> 0, 0)

const bad = (type: NftType, word: string, why = ''): WeftError =>
  new WeftError('INVALID', `encode nft element: "${word}" is not of type ${type}${why}`)

const numberOf = (type: NftType, word: string, max: number): number => {
  const value = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(word) ? Number(word) : Number.NaN
  if (!(value <= max)) throw bad(type, word)
  return value
}

const writeWord = (type: NftType, word: string, out: Buffer, at: number): void => {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      if (ipLength(word) !== rows[type].length) throw bad(type, word)
      return writeIp(word, out, at)
    case 'ether_addr':
      return writeMac(word, out, at)
    case 'inet_proto':
      out[at] = Object.hasOwn(protocols, word) ? protocols[word]! : numberOf(type, word, 255)
      return
    case 'inet_service':
      out.writeUInt16BE(numberOf(type, word, 65_535), at)
      return
    case 'mark': {
      const value = numberOf(type, word, 0xffffffff)
      if (little) out.writeUInt32LE(value, at)
      else out.writeUInt32BE(value, at)
      return
    }
    case 'ct_zone': {
      const value = numberOf(type, word, 65_535)
      if (little) out.writeUInt16LE(value, at)
      else out.writeUInt16BE(value, at)
      return
    }
    case 'ifname':
      if (word === '' || Buffer.byteLength(word) > 15 || word.includes('\0')) throw bad(type, word)
      out.write(word, at)
      return
    case 'verdict':
      throw bad(type, word, ', which has no bytes')
  }
}

/** Throws INVALID, naming the word. */
export const encodeWords = (types: readonly NftType[], words: readonly string[]): Buffer => {
  if (types.length !== words.length) {
    throw new WeftError(
      'INVALID',
      `encode nft element: ${words.join(' . ')} has ${words.length} fields, not ${types.length}`,
    )
  }
  const out = Buffer.allocUnsafe(lengthOf(types)).fill(0) // of Node's pool: a large map has 100,000 keys
  let at = 0
  for (let i = 0; i < types.length; i++) {
    writeWord(types[i]!, words[i]!, out, at)
    at += padded(rows[types[i]!].length)
  }
  return out
}

const readWord = (type: NftType, bytes: Buffer, at: number, length: number): string | undefined => {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return formatIp(bytes, at, at + length)
    case 'ether_addr':
      return formatMac(bytes, at, at + length)
    case 'inet_proto': {
      const name = protocolNames.get(bytes[at]!)
      return name !== undefined && typeNames.includes(name) ? name : String(bytes[at])
    }
    case 'inet_service':
      return String(bytes.readUInt16BE(at))
    case 'mark':
      return `0x${(little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at)).toString(16).padStart(8, '0')}`
    case 'ct_zone':
      return String(little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at))
    case 'ifname': {
      const nul = bytes.indexOf(0, at)
      return bytes.toString('utf8', at, nul < 0 || nul > at + length ? at + length : nul)
    }
    case 'verdict':
      return undefined
  }
}

/** undefined if the bytes cannot be of these types. */
export const decodeWords = (types: readonly NftType[], bytes: Buffer): string[] | undefined => {
  if (bytes.length !== lengthOf(types) && bytes.length !== padded(lengthOf(types))) return undefined
  const words: string[] = []
  let at = 0
  for (const type of types) {
    const { length } = rows[type]
    const word = readWord(type, bytes, at, length)
    if (word === undefined) return undefined
    words.push(word)
    at += padded(length)
  }
  return words
}

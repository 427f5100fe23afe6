// SPDX-License-Identifier: Apache-2.0
// Addresses of both families on one path: canonical text outside, bigint inside, the family as data. Parsing is the
// ip-address library's; arithmetic is here. Everything that comes in is made canonical, so texts can be compared.
import { isIP } from 'node:net'
import { Address4, Address6 } from 'ip-address'
import { WeftError } from '../base/errors.ts'

export type Family = 4 | 6

export interface Address {
  readonly family: Family
  readonly value: bigint
}

export interface Prefix extends Address {
  /** value is the network address: no host bits. */
  readonly length: number
}

export const bits = (family: Family): number => (family === 4 ? 32 : 128)
export const familyOf = (text: string): Family => (text.includes(':') ? 6 : 4)

/** '10.1.0.1' or 'fd77::1'. Throws INVALID naming `field`. */
export const parseAddress = (text: string, field = 'address'): Address => {
  try {
    if (text.includes('/') || text.includes('%')) throw new Error('a plain address is wanted')
    return familyOf(text) === 4
      ? { family: 4, value: new Address4(text).bigInt() }
      : { family: 6, value: new Address6(text).bigInt() }
  } catch (error) {
    throw new WeftError('INVALID', `${field} ${JSON.stringify(text)} is not an IP address`, { cause: error })
  }
}

/** Throws what parseAddress throws. Node's own look costs a twentieth: for the records of a large cluster. */
export const checkAddress = (text: string): void => {
  if (isIP(text) === 0 || text.includes('%')) parseAddress(text)
}

/** Canonical text; IPv6 as in RFC 5952. */
export const formatAddress = ({ family, value }: Address): string => {
  if (family === 4) return `${(value >> 24n) & 255n}.${(value >> 16n) & 255n}.${(value >> 8n) & 255n}.${value & 255n}`
  return Address6.fromBigInt(value).correctForm()
}

/** Canonical text of an address in any spelling. */
export const canonical = (text: string, field?: string): string => formatAddress(parseAddress(text, field))

const mask = (family: Family, length: number): bigint => {
  const width = BigInt(bits(family))
  return ((1n << BigInt(length)) - 1n) << (width - BigInt(length))
}

/** '10.1.2.3/16' → address 10.1.2.3 and prefix 10.1.0.0/16. Throws INVALID. */
export const parseInterface = (text: string, field = 'prefix'): { address: Address; prefix: Prefix } => {
  const slash = text.indexOf('/')
  const length = Number(text.slice(slash + 1))
  if (slash < 0 || !/^\d{1,3}$/.test(text.slice(slash + 1)))
    throw new WeftError(
      'INVALID',
      `${field} ${JSON.stringify(text)} is not an address with a prefix length, such as 10.1.0.0/16`,
    )
  const address = parseAddress(text.slice(0, slash), field)
  if (length > bits(address.family))
    throw new WeftError(
      'INVALID',
      `${field} ${JSON.stringify(text)}: the prefix length is at most ${bits(address.family)}`,
    )
  return { address, prefix: { family: address.family, value: address.value & mask(address.family, length), length } }
}

/** '10.1.0.0/16'; host bits are refused. */
export const parsePrefix = (text: string, field = 'prefix'): Prefix => {
  const { address, prefix } = parseInterface(text, field)
  if (address.value !== prefix.value)
    throw new WeftError('INVALID', `${field} ${JSON.stringify(text)} has host bits set: write ${formatPrefix(prefix)}`)
  return prefix
}

export const formatPrefix = (prefix: Prefix): string => `${formatAddress(prefix)}/${prefix.length}`
export const withLength = (address: string, prefix: string): string =>
  `${address}/${prefix.slice(prefix.indexOf('/') + 1)}`

/** The prefix of this address alone, as in '10.1.0.7/32'. */
export const single = (address: string): string => `${address}/${bits(familyOf(address))}`

/** Number of addresses, network and broadcast included. */
export const sizeOf = (prefix: Prefix): bigint => 1n << BigInt(bits(prefix.family) - prefix.length)

export const contains = (prefix: Prefix, address: Address): boolean =>
  prefix.family === address.family && (address.value & mask(prefix.family, prefix.length)) === prefix.value

export const overlaps = (a: Prefix, b: Prefix): boolean =>
  a.family === b.family && (a.length <= b.length ? contains(a, b) : contains(b, a))

type Named = readonly [prefix: string, what: string]

/** What no container can be reached by, and what it is (RFC 6890). */
const special: readonly Named[] = [
  ['0.0.0.0/8', 'this host'],
  ['127.0.0.0/8', 'loopback'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved'],
  ['::/96', 'unspecified, loopback'],
  ['::ffff:0:0/96', 'IPv4-mapped'],
  ['fe80::/10', 'link-local'],
  ['ff00::/8', 'multicast'],
]

/** What is weft's on every host: plan/links. */
const own: readonly Named[] = [
  ['169.254.0.0/16', "link-local, with weft's own links and resolver"],
  ['fd69:7765:6674::/48', "weft's own links and resolver"],
]

const among = (named: readonly Named[], prefix: Prefix): string | undefined => {
  const found = named.find(([text]) => overlaps(prefix, parsePrefix(text)))
  return found && `${found[0]} (${found[1]})`
}

/** Why a network cannot have this prefix, as in '127.0.0.0/8 (loopback)'; undefined: it can. */
export const unusableFor = (prefix: Prefix): string | undefined => among([...special, ...own], prefix)

/** Throws INVALID, `what` in front, for a prefix that no network can have: of another use, or without room. */
export const refuseSubnet = (prefix: Prefix, what: string): void => {
  const unusable = unusableFor(prefix)
  if (unusable !== undefined)
    throw new WeftError(
      'INVALID',
      `${what} overlaps ${unusable}, which containers cannot have: choose one inside ${prefix.family === 4 ? '10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16' : 'fd00::/8'}, or leave it out`,
    )
  const most = bits(prefix.family) - 2
  if (prefix.length > most)
    throw new WeftError('INVALID', `${what} has no room for containers: the prefix length is at most ${most}`)
}

/** The same of an address that weft itself is to have, in every network. */
export const unusableForUs = (address: string): string | undefined => among(special, parsePrefix(single(address)))

/** Every prefix of `length` inside `within`, lowest first. */
export const subnets = function* (within: Prefix, length: number): Generator<Prefix> {
  const step = 1n << BigInt(bits(within.family) - length)
  const end = within.value + sizeOf(within)
  for (let value = within.value; value < end; value += step) yield { family: within.family, value, length }
}

const hex = (value: number): string => value.toString(16).padStart(2, '0')

/** MAC of a two-byte tag and 32 bits: '02:7e' + node number, '02:77' + IPv4 address. */
export const macOf = (tag: '02:7e' | '02:7f' | '02:77', value: number): string =>
  `${tag}:${hex(value >>> 24)}:${hex((value >>> 16) & 255)}:${hex((value >>> 8) & 255)}:${hex(value & 255)}`

/** The MAC of a container with these addresses; undefined: all are IPv6, which gives none. */
export const macFrom = (addresses: readonly string[]): string | undefined => {
  const v4 = addresses.map(text => parseAddress(text)).find(({ family }) => family === 4)
  return v4 && macOf('02:77', Number(v4.value))
}

/** The IPv4 address that a container's MAC of ours is made of (`macFrom`); undefined: it is made of none. */
export const addressOf = (mac: string): Address | undefined =>
  mac.startsWith('02:77:')
    ? { family: 4, value: BigInt(`0x${mac.slice('02:77:'.length).replaceAll(':', '')}`) }
    : undefined

/** Canonical lower-case MAC; throws INVALID. */
export const parseMac = (text: string, field = 'mac address'): string => {
  const lower = text.toLowerCase()
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(lower))
    throw new WeftError('INVALID', `${field} ${JSON.stringify(text)} is not six hexadecimal bytes with colons`)
  return lower
}

/** Link-local address with the modified EUI-64 of a MAC (RFC 4291 appendix A). */
export const linkLocalOf = (mac: string): string => {
  const b = mac.split(':').map(byte => Number.parseInt(byte, 16)) as [number, number, number, number, number, number]
  const groups = [0xfe80, 0, 0, 0, ((b[0] ^ 2) << 8) | b[1], (b[2] << 8) | 0xff, 0xfe00 | b[3], (b[4] << 8) | b[5]]
  return formatAddress({ family: 6, value: groups.reduce((sum, group) => (sum << 16n) | BigInt(group), 0n) })
}

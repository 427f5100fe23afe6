// SPDX-License-Identifier: Apache-2.0
// What kind of value a field has: how its words become bytes, and the number under which `nft list` knows it.
import { writeIp, writeMac } from '../text.ts'
import { little, protocols } from './types.ts'

export interface DataType {
  readonly name: string
  /** nft's number. */
  readonly id: number
  /** Bytes. */
  readonly length: number
  /** Byte order: the host's instead of the network's. */
  readonly host: boolean
  readonly form: 'number' | 'ip' | 'mac' | 'ifname'
  readonly symbols?: Readonly<Record<string, number>>
  /** A value names bits: `ct state new,established`. */
  readonly bits?: true
}

const ethertypes = { ip: 0x0800, arp: 0x0806, ip6: 0x86dd, vlan: 0x8100, '8021q': 0x8100, '8021ad': 0x88a8 }
const icmpCommon = { 'destination-unreachable': 3, redirect: 5, 'time-exceeded': 11, 'parameter-problem': 12 }

const number = (name: string, id: number, length: number, more: Partial<DataType> = {}): DataType => ({
  name,
  id,
  length,
  host: false,
  form: 'number',
  ...more,
})

export const dataTypes = {
  ipv4: { name: 'ipv4_addr', id: 7, length: 4, host: false, form: 'ip' },
  ipv6: { name: 'ipv6_addr', id: 8, length: 16, host: false, form: 'ip' },
  mac: { name: 'ether_addr', id: 9, length: 6, host: false, form: 'mac' },
  ifname: { name: 'ifname', id: 41, length: 16, host: true, form: 'ifname' },
  ethertype: number('ether_type', 10, 2, { symbols: ethertypes }),
  // the same words, but of metadata: nft calls it host order where it is not
  operation: number('arp_op', 11, 2, {
    symbols: { request: 1, reply: 2, rrequest: 3, rreply: 4, inrequest: 8, inreply: 9, nak: 10 },
  }),
  protocol: number('inet_proto', 12, 1, {
    symbols: { ...protocols, icmpv6: 58, comp: 108, dccp: 33 },
  }),
  port: number('inet_service', 13, 2),
  icmp: number('icmp_type', 14, 1, {
    symbols: {
      'echo-reply': 0,
      ...icmpCommon,
      'source-quench': 4,
      'echo-request': 8,
      'router-advertisement': 9,
      'router-solicitation': 10,
      'timestamp-request': 13,
      'timestamp-reply': 14,
    },
  }),
  icmpv6: number('icmpv6_type', 29, 1, {
    symbols: {
      'destination-unreachable': 1,
      'packet-too-big': 2,
      'time-exceeded': 3,
      'parameter-problem': 4,
      'echo-request': 128,
      'echo-reply': 129,
      'mld-listener-query': 130,
      'mld-listener-report': 131,
      'mld-listener-done': 132,
      'mld-listener-reduction': 132,
      'nd-router-solicit': 133,
      'nd-router-advert': 134,
      'nd-neighbor-solicit': 135,
      'nd-neighbor-advert': 136,
      'nd-redirect': 137,
      'router-renumbering': 138,
      'mld2-listener-report': 143,
    },
  }),
  code: number('integer', 4, 1),
  mark: number('mark', 19, 4, { host: true }),
  zone: number('integer', 4, 2, { host: true }),
  nfproto: number('nf_proto', 2, 1, { symbols: { ipv4: 2, ipv6: 10, arp: 3, bridge: 7 } }),
  pkttype: number('pkt_type', 31, 1, {
    symbols: { host: 0, unicast: 0, broadcast: 1, multicast: 2, other: 3 },
  }),
  state: number('ct_state', 26, 4, {
    host: true,
    bits: true,
    symbols: { invalid: 1, established: 2, related: 4, new: 8, untracked: 0x40 },
  }),
  direction: number('ct_dir', 27, 1, { host: true, symbols: { original: 0, reply: 1 } }),
  status: number('ct_status', 28, 4, {
    host: true,
    bits: true,
    symbols: {
      expected: 1,
      'seen-reply': 2,
      assured: 4,
      confirmed: 8,
      snat: 0x10,
      dnat: 0x20,
      dying: 0x200,
    },
  }),
  addressType: number('fib_addrtype', 38, 4, {
    host: true,
    symbols: {
      unspec: 0,
      unicast: 1,
      local: 2,
      broadcast: 3,
      anycast: 4,
      multicast: 5,
      blackhole: 6,
      unreachable: 7,
      prohibit: 8,
    },
  }),
  existence: number('boolean', 35, 4, { host: true, symbols: { missing: 0, exists: 1 } }),
  counter: number('integer', 4, 4, { host: true }),
} as const satisfies Readonly<Record<string, DataType>>

/** `@th,64,128`: an integer of so many bytes, in network order. An address may stand for one of 4 or 16 bytes. */
export const rawType = (length: number): DataType => number('integer', 4, length)

const digits = /^(\d{1,39}|0x[0-9a-f]{1,32})$/i

/** Bytes of one word; undefined if it is not of the type. */
export const encodeValue = (type: DataType, word: string): Buffer | undefined => {
  const out = Buffer.alloc(type.length)
  if (type.form === 'ifname') {
    if (word === '' || Buffer.byteLength(word) >= type.length || word.includes('*')) return undefined
    out.write(word)
    return out
  }
  if (type.form === 'ip' || (type.name === 'integer' && /[.:]/.test(word))) {
    if (word.includes(':') !== (type.length === 16) || (type.length !== 4 && type.length !== 16)) return undefined
    return attempt(() => writeIp(word, out, 0)) ? out : undefined
  }
  if (type.form === 'mac') return attempt(() => writeMac(word, out, 0)) ? out : undefined
  const symbol = type.symbols && Object.hasOwn(type.symbols, word) ? type.symbols[word] : undefined
  if (symbol === undefined && !digits.test(word)) return undefined
  let value = BigInt(symbol ?? word)
  for (let i = 0; i < type.length; i++) {
    out[type.host && little ? i : type.length - 1 - i] = Number(value & 255n)
    value >>= 8n
  }
  return value === 0n ? out : undefined
}

const attempt = (write: () => void): boolean => {
  try {
    write()
    return true
  } catch {
    return false
  }
}

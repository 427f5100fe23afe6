// SPDX-License-Identifier: Apache-2.0
// What a rule can look at: fields of headers, metadata, connections, routes. Each knows its type, what has to be
// checked before, and how it comes into a register.
import { type DataType, dataTypes, rawType } from './datatype.ts'
import type { Expression } from './expression.ts'
import type { Network, Scope } from './scope.ts'
import type { Tokens } from './tokenizer.ts'
import { little } from './types.ts'
import { NFT_CT, NFT_FIB_RESULT, NFT_META, NFT_PAYLOAD, NFTA_FIB_F } from './uapi.ts'

export interface Checksum {
  readonly type: number
  readonly offset: number
  readonly flags: number
}

export interface Field {
  readonly name: string
  readonly type: DataType
  /** Writes the checks into the scope; says why this rule can never have the field. */
  require(scope: Scope): string | undefined
  load(dreg: number): Expression
  /** What has to be done before: it needs a register of its own. */
  before?(): Expression
  /** Of `... set`: undefined if the field cannot be written. */
  store?(sreg: number): Expression
  /** A comparison with this value held. */
  learn?(scope: Scope, value: Buffer): void
  /** A comparison with several values held. */
  learnSeveral?(scope: Scope): void
  /** Present: bytes of the packet, of which fewer can be loaded. */
  readonly payload?: { readonly base: number; readonly offset: number }
  /** `@th,64,128`: bytes of no known field. */
  readonly raw?: true
}

const nothing = (): undefined => undefined
const { LL_HEADER, NETWORK_HEADER, TRANSPORT_HEADER } = NFT_PAYLOAD

const payload = (
  name: string,
  type: DataType,
  base: number,
  offset: number,
  require: Field['require'],
  checksum?: Checksum,
  learn?: Field['learn'],
): Field => ({
  name,
  type,
  require,
  payload: { base, offset },
  load: dreg => ({ kind: 'payload', dreg, base, offset, length: type.length }),
  ...(checksum
    ? {
        store: sreg => ({
          kind: 'payload-write',
          sreg,
          base,
          offset,
          length: type.length,
          checksumType: checksum.type,
          checksumOffset: checksum.offset,
          checksumFlags: checksum.flags,
        }),
      }
    : {}),
  ...(learn ? { learn } : {}),
})

const noChecksum: Checksum = { type: 0, offset: 0, flags: 0 }
const ipChecksum: Checksum = { type: 1, offset: 10, flags: 1 }
const tcpChecksum: Checksum = { type: 1, offset: 16, flags: 0 }
const udpChecksum: Checksum = { type: 1, offset: 6, flags: 0 }

const ether = (scope: Scope): undefined => scope.requireEther()
const network =
  (wanted: Network) =>
  (scope: Scope): string | undefined =>
    scope.requireNetwork(wanted)
const transport =
  (wanted: Parameters<Scope['requireTransport']>[0]) =>
  (scope: Scope): string | undefined =>
    scope.requireTransport(wanted)
const learnEthertype = (scope: Scope, value: Buffer): void => scope.learnEthertype(value.readUInt16BE())
const learnTransport = (scope: Scope, value: Buffer): void => scope.learnTransport(value[0]!)

const t = dataTypes
const headerFields: readonly Field[] = [
  payload('ether daddr', t.mac, LL_HEADER, 0, ether, noChecksum),
  payload('ether saddr', t.mac, LL_HEADER, 6, ether, noChecksum),
  payload('ether type', t.ethertype, LL_HEADER, 12, ether, undefined, learnEthertype),
  payload('ip protocol', t.protocol, NETWORK_HEADER, 9, network('ip'), undefined, learnTransport),
  payload('ip saddr', t.ipv4, NETWORK_HEADER, 12, network('ip'), ipChecksum),
  payload('ip daddr', t.ipv4, NETWORK_HEADER, 16, network('ip'), ipChecksum),
  payload('ip6 nexthdr', t.protocol, NETWORK_HEADER, 6, network('ip6'), undefined, learnTransport),
  payload('ip6 saddr', t.ipv6, NETWORK_HEADER, 8, network('ip6'), { ...noChecksum, flags: 1 }),
  payload('ip6 daddr', t.ipv6, NETWORK_HEADER, 24, network('ip6'), { ...noChecksum, flags: 1 }),
  payload('arp operation', t.operation, NETWORK_HEADER, 6, network('arp')),
  payload('arp saddr ether', t.mac, NETWORK_HEADER, 8, network('arp')),
  payload('arp saddr ip', t.ipv4, NETWORK_HEADER, 14, network('arp')),
  payload('arp daddr ether', t.mac, NETWORK_HEADER, 18, network('arp')),
  payload('arp daddr ip', t.ipv4, NETWORK_HEADER, 24, network('arp')),
  payload('tcp sport', t.port, TRANSPORT_HEADER, 0, transport('tcp'), tcpChecksum),
  payload('tcp dport', t.port, TRANSPORT_HEADER, 2, transport('tcp'), tcpChecksum),
  payload('udp sport', t.port, TRANSPORT_HEADER, 0, transport('udp'), udpChecksum),
  payload('udp dport', t.port, TRANSPORT_HEADER, 2, transport('udp'), udpChecksum),
  payload('sctp sport', t.port, TRANSPORT_HEADER, 0, transport('sctp')),
  payload('sctp dport', t.port, TRANSPORT_HEADER, 2, transport('sctp')),
  payload('th sport', t.port, TRANSPORT_HEADER, 0, nothing),
  payload('th dport', t.port, TRANSPORT_HEADER, 2, nothing),
  payload('icmp type', t.icmp, TRANSPORT_HEADER, 0, transport('icmp')),
  payload('icmp code', t.code, TRANSPORT_HEADER, 1, transport('icmp')),
  payload('icmpv6 type', t.icmpv6, TRANSPORT_HEADER, 0, transport('ipv6-icmp')),
  payload('icmpv6 code', t.code, TRANSPORT_HEADER, 1, transport('ipv6-icmp')),
]

const meta = (name: string, type: DataType, key: number, more: Partial<Field> = {}): Field => ({
  name: `meta ${name}`,
  type,
  require: nothing,
  load: dreg => ({ kind: 'meta', key, dreg }),
  ...more,
})

const metaFields: readonly Field[] = [
  meta('mark', t.mark, NFT_META.MARK, { store: sreg => ({ kind: 'meta-set', key: NFT_META.MARK, sreg }) }),
  meta('iifname', t.ifname, NFT_META.IIFNAME),
  meta('oifname', t.ifname, NFT_META.OIFNAME),
  // of a link that has no kind, as a network card, the rule says nothing
  meta('iifkind', t.ifname, NFT_META.IIFKIND),
  meta('l4proto', t.protocol, NFT_META.L4PROTO, {
    learn: learnTransport,
    learnSeveral: scope => scope.learnTransport('several'),
  }),
  meta('nfproto', t.nfproto, NFT_META.NFPROTO, {
    require: scope => (scope.family === 'inet' ? undefined : 'nfproto is only of use in a table of inet,'),
    learn: (scope, value) => scope.learnFamily(value[0]!),
  }),
  meta('protocol', t.ethertype, NFT_META.PROTOCOL, {
    learn: (scope, value) => (scope.family === 'netdev' ? learnEthertype(scope, value) : undefined),
  }),
  meta('pkttype', t.pkttype, NFT_META.PKTTYPE),
]

const ct = (name: string, type: DataType, key: number, direction: number | undefined, writable: boolean): Field => {
  const toward = direction === undefined ? {} : { direction }
  return {
    name: `ct ${name}`,
    type,
    require: nothing,
    load: dreg => ({ kind: 'ct', key, dreg, ...toward }),
    ...(writable ? { store: sreg => ({ kind: 'ct-set', key, sreg, ...toward }) } : {}),
  }
}

const ctFields: readonly Field[] = [
  ct('state', t.state, NFT_CT.STATE, undefined, false),
  ct('direction', t.direction, NFT_CT.DIRECTION, undefined, false),
  ct('status', t.status, NFT_CT.STATUS, undefined, false),
  ct('mark', t.mark, NFT_CT.MARK, undefined, true),
  ct('zone', t.zone, NFT_CT.ZONE, undefined, true),
  ct('original zone', t.zone, NFT_CT.ZONE, 0, true),
  ct('reply zone', t.zone, NFT_CT.ZONE, 1, true),
]

const fib = (name: string, type: DataType, result: number, flags: number): Field => ({
  name: `fib ${name}`,
  type,
  require: nothing,
  load: dreg => ({ kind: 'fib', dreg, result, flags }),
})

const fibFields: readonly Field[] = [
  fib('saddr type', t.addressType, NFT_FIB_RESULT.ADDRTYPE, NFTA_FIB_F.SADDR),
  fib('daddr type', t.addressType, NFT_FIB_RESULT.ADDRTYPE, NFTA_FIB_F.DADDR),
  // would what goes back leave by the interface that this came from?
  fib('saddr . iif oif', t.existence, NFT_FIB_RESULT.OIF, NFTA_FIB_F.SADDR | NFTA_FIB_F.IIF | NFTA_FIB_F.PRESENT),
]

const fields: ReadonlyMap<string, Field> = new Map(
  [...headerFields, ...metaFields, ...ctFields, ...fibFields].map(field => [field.name, field]),
)
/** These may stand without "meta". */
const short = new Set(['mark', 'iifname', 'oifname'])
const first = new Set([...[...fields.keys()].map(name => name.split(' ')[0]!), ...short, 'numgen', 'jhash'])

/** Does the next token begin a field? After `set` it may, so that a constant is none of these words. */
export const seesField = (tokens: Tokens): boolean => {
  const token = tokens.peek()
  return token.kind === 'raw' || (token.kind === 'word' && first.has(token.text))
}

const rawField = (tokens: Tokens): Field => {
  const token = tokens.take()
  const { base, offset, length } = token.raw!
  if (offset % 8 !== 0 || length % 8 !== 0 || length === 0 || length > 128) {
    throw tokens.error('only whole bytes, at most 16, of', token)
  }
  const bases = { ll: LL_HEADER, nh: NETWORK_HEADER, th: TRANSPORT_HEADER }
  return { ...payload(token.text, rawType(length / 8), bases[base], offset / 8, nothing), raw: true }
}

/** numgen inc|random mod N [offset N] */
const numgenField = (tokens: Tokens): Field => {
  tokens.expect('numgen')
  const way = tokens.word('"inc" or "random"')
  if (way.text !== 'inc' && way.text !== 'random') throw tokens.error('expected "inc" or "random"', way)
  tokens.expect('mod')
  const modulus = tokens.number('a modulus', 0xffffffff)
  const offset = tokens.accept('offset') ? tokens.number('an offset', 0xffffffff) : 0
  const type = way.text === 'inc' ? 0 : 1
  return {
    name: 'numgen',
    type: t.counter,
    require: nothing,
    load: dreg => ({ kind: 'numgen', dreg, modulus, type, offset }),
  }
}

const hashed = 2 // register of what is hashed, as nft has it
/** jhash FIELD mod N seed N [offset N]. Without a seed the kernel would take one of its own, on each host another. */
const jhashField = (tokens: Tokens): Field => {
  tokens.expect('jhash')
  const of = parseField(tokens)
  tokens.expect('mod')
  const modulus = tokens.number('a modulus', 0xffffffff)
  tokens.expect('seed')
  const seed = tokens.number('a seed', 0xffffffff)
  const offset = tokens.accept('offset') ? tokens.number('an offset', 0xffffffff) : 0
  return {
    name: 'jhash',
    type: t.counter,
    require: scope => of.require(scope),
    before: () => of.load(hashed),
    load: dreg => ({ kind: 'jhash', sreg: hashed, dreg, length: of.type.length, modulus, seed, offset }),
  }
}

/** The longest run of words that names a field. */
export const parseField = (tokens: Tokens): Field => {
  const start = tokens.peek()
  if (start.kind === 'raw') return rawField(tokens)
  if (start.text === 'numgen') return numgenField(tokens)
  if (start.text === 'jhash') return jhashField(tokens)
  let name = start.kind === 'word' && short.has(start.text) ? 'meta' : ''
  let found: Field | undefined
  let size = 0
  for (let ahead = 0; ahead < 5; ahead++) {
    const token = tokens.peek(ahead)
    const joined = token.kind === 'mark' && token.text === '.' && name.startsWith('fib ')
    if (token.kind !== 'word' && !joined) break
    name = name === '' ? token.text : `${name} ${token.text}`
    const field = fields.get(name)
    if (field) {
      found = field
      size = ahead + 1
    }
  }
  if (found === undefined) throw tokens.error('unknown field or statement', start)
  for (let i = 0; i < size; i++) tokens.take()
  return found
}

/** For values in the byte order of the host. */
export const hostU32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  if (little) out.writeUInt32LE(value)
  else out.writeUInt32BE(value)
  return out
}

// SPDX-License-Identifier: Apache-2.0
// Statements: verdicts, counter, notrack, log, limit, reject, fwd, ct timeout, and `FIELD set ...`. Those that change addresses
// are in nat.ts.
import type { Field } from './field.ts'
import { seesField } from './field.ts'
import { loadKey, parseBits, parseKey, requireField } from './key.ts'
import { parseSet, readVerdictWord } from './literal.ts'
import { parseMasquerade, parseNat, parseRedirect, parseTproxy } from './nat.ts'
import type { Scope } from './scope.ts'
import type { Tokens } from './tokenizer.ts'
import { NFT_OBJECT, NFT_REJECT } from './uapi.ts'

const levels: Readonly<Record<string, number>> = {
  emerg: 0,
  alert: 1,
  crit: 2,
  err: 3,
  warn: 4,
  notice: 5,
  info: 6,
  debug: 7,
}

const parseLog = (tokens: Tokens, scope: Scope): void => {
  const options: { prefix?: string; group?: number; level?: number; snaplen?: number; threshold?: number } = {}
  for (;;) {
    if (tokens.accept('prefix')) {
      const token = tokens.take()
      if (token.kind !== 'string' || token.text === '' || Buffer.byteLength(token.text) > 127) {
        throw tokens.error('expected a prefix of up to 127 bytes in quotes', token)
      }
      options.prefix = token.text
    } else if (tokens.accept('group')) {
      options.group = tokens.number('a group', 65_535)
    } else if (tokens.accept('snaplen')) {
      options.snaplen = tokens.number('a length', 0xffffffff)
    } else if (tokens.accept('queue-threshold')) {
      options.threshold = tokens.number('a number of packets', 65_535)
    } else if (tokens.accept('level')) {
      const token = tokens.word('a level')
      if (!Object.hasOwn(levels, token.text)) throw tokens.error('expected a level', token)
      options.level = levels[token.text]!
    } else {
      break
    }
  }
  if (options.group !== undefined && options.level !== undefined)
    throw tokens.error('log has a group or a level, not both,')
  scope.out.push({ kind: 'log', ...options })
}

const units: Readonly<Record<string, bigint>> = {
  second: 1n,
  minute: 60n,
  hour: 3600n,
  day: 86_400n,
  week: 604_800n,
}
const sizes: Readonly<Record<string, bigint>> = { bytes: 1n, kbytes: 1024n, mbytes: 1024n * 1024n }

/** limit rate [over] N/second [burst N packets], limit rate N kbytes/second [burst N kbytes] */
const parseLimit = (tokens: Tokens, scope: Scope): void => {
  tokens.expect('rate')
  const over = tokens.accept('over')
  const first = tokens.word('a rate')
  let [amount = '', unit] = first.text.split('/')
  let size: bigint | undefined
  let at = first
  if (unit === undefined) {
    at = tokens.word('a unit')
    const [name = '', per] = at.text.split('/')
    size = Object.hasOwn(sizes, name) ? sizes[name] : undefined
    if (size === undefined) throw tokens.error('expected bytes, kbytes or mbytes', at)
    unit = per
  }
  const seconds = unit !== undefined && Object.hasOwn(units, unit) ? units[unit] : undefined
  if (!/^[1-9]\d{0,9}$/.test(amount)) throw tokens.error('expected a rate', first)
  if (seconds === undefined) throw tokens.error('expected second, minute, hour, day or week', at)
  const bytes = size !== undefined
  let burst = bytes ? 0 : 5
  if (tokens.accept('burst')) {
    burst = tokens.number('a burst', 0xffffffff)
    const what = tokens.word('"packets" or bytes')
    const factor = Object.hasOwn(sizes, what.text) ? sizes[what.text]! : undefined
    if (bytes ? factor === undefined : what.text !== 'packets') {
      throw tokens.error(bytes ? 'expected bytes, kbytes or mbytes' : 'expected "packets"', what)
    }
    burst *= Number(factor ?? 1n)
    if (burst > 0xffffffff) throw tokens.error('burst of more than 4 GB', what)
  }
  scope.out.push({ kind: 'limit', rate: BigInt(amount) * (size ?? 1n), unit: seconds, burst, bytes, over })
}

const icmpCodes: Readonly<Record<string, number>> = {
  'net-unreachable': 0,
  'host-unreachable': 1,
  'prot-unreachable': 2,
  'port-unreachable': 3,
  'net-prohibited': 9,
  'host-prohibited': 10,
  'admin-prohibited': 13,
}
const icmpv6Codes: Readonly<Record<string, number>> = {
  'no-route': 0,
  'admin-prohibited': 1,
  'addr-unreachable': 3,
  'port-unreachable': 4,
  'policy-fail': 5,
  'reject-route': 6,
}
const icmpxCodes: Readonly<Record<string, number>> = {
  'no-route': 0,
  'port-unreachable': 1,
  'host-unreachable': 2,
  'admin-prohibited': 3,
}

const parseReject = (tokens: Tokens, scope: Scope): void => {
  const { ICMP_UNREACH, ICMPX_UNREACH, TCP_RST } = NFT_REJECT
  if (!tokens.accept('with')) {
    const code = scope.network === 'ip' ? 3 : scope.network === 'ip6' ? 4 : 1
    scope.out.push({ kind: 'reject', type: scope.network === undefined ? ICMPX_UNREACH : ICMP_UNREACH, code })
    return
  }
  const token = tokens.peek()
  if (tokens.accept('tcp')) {
    tokens.expect('reset')
    const why = scope.requireTransport('tcp')
    if (why !== undefined) throw tokens.error(why, token)
    scope.out.push({ kind: 'reject', type: TCP_RST, code: 0 })
    return
  }
  const kind = tokens.word('icmp, icmpv6, icmpx or tcp').text
  if (!['icmp', 'icmpv6', 'icmpx'].includes(kind)) throw tokens.error('expected icmp, icmpv6, icmpx or tcp', token)
  const codes = kind === 'icmp' ? icmpCodes : kind === 'icmpv6' ? icmpv6Codes : icmpxCodes
  tokens.accept('type')
  const word = tokens.word('a code')
  if (!Object.hasOwn(codes, word.text)) throw tokens.error(`expected a code of ${kind}`, word)
  if (kind === 'icmpx' && (scope.family === 'ip' || scope.family === 'ip6')) {
    throw tokens.error(`icmpx in a table of ${scope.family}`, token)
  }
  const why = kind === 'icmpx' ? undefined : scope.requireNetwork(kind === 'icmp' ? 'ip' : 'ip6')
  if (why !== undefined) throw tokens.error(why, token)
  scope.out.push({ kind: 'reject', type: kind === 'icmpx' ? ICMPX_UNREACH : ICMP_UNREACH, code: codes[word.text]! })
}

/** fwd to "DEVICE": its index is looked up where and when the batch is committed. */
const parseForward = (tokens: Tokens, scope: Scope): void => {
  tokens.expect('to')
  const token = tokens.take()
  if ((token.kind !== 'string' && token.kind !== 'word') || token.text === '' || Buffer.byteLength(token.text) > 15) {
    throw tokens.error('expected a device', token)
  }
  if (scope.family !== 'netdev') throw tokens.error('fwd is for tables of netdev:', token)
  scope.out.push({ kind: 'device', dreg: 1, name: token.text }, { kind: 'fwd', sreg: 1 })
}

/** ct timeout set "NAME": of a timeout in the same table; only the first packet of a connection can say it. */
const parseTimeout = (tokens: Tokens, scope: Scope): void => {
  tokens.expect('timeout')
  tokens.expect('set')
  const token = tokens.take()
  if (token.kind !== 'string' || token.text === '')
    throw tokens.error('expected the name of a timeout in quotes', token)
  scope.out.push({ kind: 'objref', type: NFT_OBJECT.CT_TIMEOUT, name: token.text })
}

/** FIELD set VALUE, FIELD set FIELD, FIELD set KEY map @m or { ... }; "set" is taken. */
export const parseAssignment = (tokens: Tokens, scope: Scope, field: Field): void => {
  if (field.store === undefined) throw tokens.error(`${field.name} cannot be set:`)
  if (!seesField(tokens)) {
    const data = parseBits(tokens, field)
    requireField(tokens, scope, field)
    scope.out.push({ kind: 'immediate', dreg: 1, data }, field.store(1))
    return
  }
  requireField(tokens, scope, field)
  const at = tokens.peek()
  const key = parseKey(tokens)
  if (tokens.accept('map')) {
    const set = tokens.peek().kind === 'set' ? tokens.take().text : parseSet(tokens, key, [field])
    loadKey(tokens, scope, key)
    scope.out.push({ kind: 'lookup', set, sreg: 1, dreg: 1, inverted: false }, field.store(1))
    return
  }
  const from = key.parts[0]!.field.type
  if (key.parts.length > 1 || from.length !== field.type.length || from.host !== field.type.host) {
    throw tokens.error(`cannot be put into ${field.name}:`, at)
  }
  loadKey(tokens, scope, key)
  scope.out.push(field.store(1))
}

/** False if the next word begins no statement of its own. */
export const parseStatement = (tokens: Tokens, scope: Scope): boolean => {
  const token = tokens.peek()
  if (token.kind !== 'word') return false
  const verdict = readVerdictWord(tokens)
  if (verdict) {
    scope.out.push({ kind: 'verdict', verdict })
    return true
  }
  const parse =
    token.text === 'ct' && tokens.peek(1).text === 'timeout'
      ? parseTimeout
      : Object.hasOwn(statements, token.text)
        ? statements[token.text]
        : undefined
  if (parse === undefined) return false
  tokens.take()
  parse(tokens, scope)
  return true
}

const statements: Readonly<Record<string, (tokens: Tokens, scope: Scope) => void>> = {
  counter: (_, scope) => void scope.out.push({ kind: 'counter' }),
  notrack: (_, scope) => void scope.out.push({ kind: 'notrack' }),
  log: parseLog,
  limit: parseLimit,
  reject: parseReject,
  fwd: parseForward,
  dnat: (tokens, scope) => parseNat(tokens, scope, 'dnat'),
  snat: (tokens, scope) => parseNat(tokens, scope, 'snat'),
  masquerade: parseMasquerade,
  redirect: parseRedirect,
  tproxy: parseTproxy,
}

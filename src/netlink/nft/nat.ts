// SPDX-License-Identifier: Apache-2.0
// Statements that change addresses: dnat, snat, masquerade, redirect, tproxy.
// `dnat ip to KEY map @m` takes the address from the map, `dnat to :KEY map @m` the port; a map that gives both has to
// be announced, `dnat ip addr . port to KEY map @m`, because a rule does not know the types of a named map.
import { dataTypes, encodeValue } from './datatype.ts'
import type { Field } from './field.ts'
import { seesField } from './field.ts'
import { type Key, loadKey, parseKey } from './key.ts'
import { parseSet } from './literal.ts'
import type { Scope } from './scope.ts'
import type { Token, Tokens } from './tokenizer.ts'
import { familyNumbers, type NftFamily } from './types.ts'
import { NF_NAT_RANGE, NFT_NAT } from './uapi.ts'

const flagWords: Readonly<Record<string, number>> = {
  random: NF_NAT_RANGE.PROTO_RANDOM,
  'fully-random': NF_NAT_RANGE.PROTO_RANDOM_FULLY,
  persistent: NF_NAT_RANGE.PERSISTENT,
}

const parseFlags = (tokens: Tokens): number => {
  let flags = 0
  for (;;) {
    const token = tokens.peek()
    if (token.kind !== 'word' || !Object.hasOwn(flagWords, token.text)) return flags
    tokens.take()
    flags |= flagWords[token.text]!
    tokens.accept(',')
  }
}

const unnamed = (name: string, type: Field['type']): Field => ({
  name,
  type,
  require: () => undefined,
  load: () => {
    throw new TypeError(`${name} is not loaded`)
  },
})
const portField = unnamed('port', dataTypes.port)
const addressField = {
  ip: unnamed('address', dataTypes.ipv4),
  ip6: unnamed('address', dataTypes.ipv6),
} as const

type IpFamily = 'ip' | 'ip6'

/** ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT */
interface Target {
  readonly address: Buffer
  readonly port?: Buffer
}

const parsePort = (tokens: Tokens, token: Token, text: string): Buffer => {
  const port = encodeValue(dataTypes.port, text)
  if (port === undefined) throw tokens.error('expected a port', token)
  return port
}

const parseTarget = (tokens: Tokens, family: IpFamily): Target => {
  const type = addressField[family].type
  const bracket = tokens.accept('[')
  const token = tokens.word(`an address of ${family}`)
  let text = token.text
  let port: Buffer | undefined
  if (bracket) {
    tokens.expect(']')
    if (tokens.accept(':')) port = parsePort(tokens, tokens.peek(), tokens.word('a port').text)
  } else if (family === 'ip' && text.includes(':')) {
    port = parsePort(tokens, token, text.slice(text.indexOf(':') + 1))
    text = text.slice(0, text.indexOf(':'))
  }
  const address = encodeValue(type, text)
  if (address === undefined) throw tokens.error(`expected an address of ${family}`, token)
  return port === undefined ? { address } : { address, port }
}

/** The family of the address: said, the table's, or what the rule compared before. */
const familyOf = (tokens: Tokens, scope: Scope, said: IpFamily | undefined): IpFamily => {
  const { family, network } = scope
  if (said !== undefined && (family === 'ip' || family === 'ip6') && said !== family) {
    throw tokens.error(`no ${said} in a table of ${family}:`)
  }
  const known = said ?? (family === 'ip' || family === 'ip6' ? family : network)
  if (known === 'ip' || known === 'ip6') return known
  throw tokens.error('say "ip" or "ip6" with an address in a table of inet:')
}

const requirePorts = (tokens: Tokens, scope: Scope, at: Token): void => {
  if (scope.transport === undefined) throw tokens.error('a port needs a transport protocol compared before', at)
}

const acceptFamily = (tokens: Tokens): IpFamily | undefined =>
  tokens.accept('ip') ? 'ip' : tokens.accept('ip6') ? 'ip6' : undefined

/** KEY map @m, or KEY map { ... }: the value comes into register 1. */
const parseMap = (tokens: Tokens, scope: Scope, value: readonly Field[]): void => {
  const key: Key = parseKey(tokens)
  tokens.expect('map')
  const set = tokens.peek().kind === 'set' ? tokens.take().text : parseSet(tokens, key, value)
  loadKey(tokens, scope, key)
  scope.out.push({ kind: 'lookup', set, sreg: 1, dreg: 1, inverted: false })
}

export const parseNat = (tokens: Tokens, scope: Scope, word: 'dnat' | 'snat'): void => {
  const type = word === 'dnat' ? NFT_NAT.DNAT : NFT_NAT.SNAT
  const said = acceptFamily(tokens)
  const both = tokens.accept('addr')
  if (both) {
    tokens.expect('.')
    tokens.expect('port')
  }
  tokens.expect('to')
  const at = tokens.peek()
  if (!both && tokens.accept(':')) {
    requirePorts(tokens, scope, at)
    const family = said ?? (scope.family as NftFamily)
    if (seesField(tokens)) parseMap(tokens, scope, [portField])
    else
      scope.out.push({ kind: 'immediate', dreg: 1, data: parsePort(tokens, tokens.peek(), tokens.word('a port').text) })
    const flags = parseFlags(tokens) | NF_NAT_RANGE.PROTO_SPECIFIED
    scope.out.push({ kind: 'nat', type, family: familyNumbers[family], port: 1, flags })
    return
  }
  if (seesField(tokens)) {
    const family = familyOf(tokens, scope, said)
    parseMap(tokens, scope, both ? [addressField[family], portField] : [addressField[family]])
    const port = both ? { port: family === 'ip' ? 9 : 2 } : {}
    const flags = parseFlags(tokens)
    scope.out.push({ kind: 'nat', type, family: familyNumbers[family], address: 1, ...port, flags })
    return
  }
  if (both) throw tokens.error('expected a key and "map"')
  const family = familyOf(tokens, scope, said)
  const target = parseTarget(tokens, family)
  scope.out.push({ kind: 'immediate', dreg: 1, data: target.address })
  if (target.port) {
    requirePorts(tokens, scope, at)
    scope.out.push({ kind: 'immediate', dreg: 2, data: target.port })
  }
  const flags = parseFlags(tokens) | (target.port ? NF_NAT_RANGE.PROTO_SPECIFIED : 0)
  const port = target.port ? { port: 2 } : {}
  scope.out.push({ kind: 'nat', type, family: familyNumbers[family], address: 1, ...port, flags })
}

export const parseMasquerade = (tokens: Tokens, scope: Scope): void => {
  scope.out.push({ kind: 'masquerade', flags: parseFlags(tokens) })
}

/** redirect [to :PORT] */
export const parseRedirect = (tokens: Tokens, scope: Scope): void => {
  if (!tokens.accept('to')) {
    scope.out.push({ kind: 'redirect', flags: parseFlags(tokens) })
    return
  }
  const at = tokens.peek()
  tokens.expect(':')
  requirePorts(tokens, scope, at)
  scope.out.push({ kind: 'immediate', dreg: 1, data: parsePort(tokens, tokens.peek(), tokens.word('a port').text) })
  const flags = parseFlags(tokens) | NF_NAT_RANGE.PROTO_SPECIFIED
  scope.out.push({ kind: 'redirect', port: 1, flags })
}

/** tproxy [ip|ip6] to ADDRESS, ADDRESS:PORT or :PORT */
export const parseTproxy = (tokens: Tokens, scope: Scope): void => {
  const said = acceptFamily(tokens)
  tokens.expect('to')
  const at = tokens.peek()
  requirePorts(tokens, scope, at)
  if (tokens.accept(':')) {
    const port = parsePort(tokens, tokens.peek(), tokens.word('a port').text)
    const family = said ?? (scope.family === 'ip' || scope.family === 'ip6' ? scope.family : undefined)
    scope.out.push({ kind: 'immediate', dreg: 1, data: port })
    scope.out.push({ kind: 'tproxy', family: family === undefined ? 0 : familyNumbers[family], port: 1 })
    return
  }
  const family = familyOf(tokens, scope, said)
  const target = parseTarget(tokens, family)
  scope.out.push({ kind: 'immediate', dreg: 1, data: target.address })
  if (target.port) scope.out.push({ kind: 'immediate', dreg: 2, data: target.port })
  const port = target.port ? { port: 2 } : {}
  scope.out.push({ kind: 'tproxy', family: familyNumbers[family], address: 1, ...port })
}

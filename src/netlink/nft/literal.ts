// SPDX-License-Identifier: Apache-2.0
// Values in a rule: words, prefixes, ranges, and sets without a name: `{ 10.0.0.0/8, 192.0.2.1 }`,
// `{ 80 : accept, 443 : jump tls }`.
import { prefixMask, successor } from './bits.ts'
import { encodeValue } from './datatype.ts'
import type { AnonymousElement, AnonymousSet } from './expression.ts'
import type { Field } from './field.ts'
import { type Key, keyId, keyLength, parseWord } from './key.ts'
import type { Token, Tokens } from './tokenizer.ts'
import { jumpCode, plainVerdict, type Verdict } from './verdict.ts'

/** From and to, both inclusive. */
export interface Range {
  readonly low: Buffer
  readonly high: Buffer
}

export interface Prefix {
  readonly address: Buffer
  readonly length: number
}

/** ADDRESS/LENGTH; undefined if the token is none. */
export const readPrefix = (tokens: Tokens, field: Field, token: Token): Prefix | undefined => {
  const slash = token.text.indexOf('/')
  if (token.kind !== 'word' || slash < 0 || field.type.form !== 'ip') return undefined
  const address = encodeValue(field.type, token.text.slice(0, slash))
  const digits = token.text.slice(slash + 1)
  const length = /^\d{1,3}$/.test(digits) ? Number(digits) : Number.NaN
  if (address === undefined || !(length <= field.type.length * 8)) {
    throw tokens.error(`expected ${field.type.name} with a prefix length`, token)
  }
  const mask = prefixMask(address.length, length)
  return { address: Buffer.from(address.map((byte, i) => byte & mask[i]!)), length }
}

/** LOW-HIGH; undefined if the token is none. Addresses and numbers only: names contain '-' themselves. */
export const readRange = (tokens: Tokens, field: Field, token: Token): Range | undefined => {
  const match = /^([0-9a-f.:]+)-([0-9a-f.:]+)$/i.exec(token.text)
  if (token.kind !== 'word' || match === null || field.type.form === 'ifname') return undefined
  const low = encodeValue(field.type, match[1]!)
  const high = encodeValue(field.type, match[2]!)
  if (low === undefined || high === undefined || Buffer.compare(low, high) > 0) {
    throw tokens.error(`expected a range of ${field.type.name}`, token)
  }
  if (field.type.host && field.type.length > 1) throw tokens.error('ranges are only for fields of the packet', token)
  return { low, high }
}

/** The range that a token is, be it a single value. */
const readSpan = (tokens: Tokens, field: Field): Range & { readonly single: boolean } => {
  const token = tokens.peek()
  const prefix = readPrefix(tokens, field, token)
  if (prefix) {
    tokens.take()
    const mask = prefixMask(prefix.address.length, prefix.length)
    const high = Buffer.from(prefix.address.map((byte, i) => byte | (~mask[i]! & 255)))
    return { low: prefix.address, high, single: prefix.length === prefix.address.length * 8 }
  }
  const range = readRange(tokens, field, token)
  if (range) {
    tokens.take()
    return { ...range, single: false }
  }
  const value = parseWord(tokens, field)
  return { low: value, high: value, single: true }
}

/** accept, drop, return, continue, jump CHAIN, goto CHAIN; undefined if the next token is none of them. */
export const readVerdictWord = (tokens: Tokens): Verdict | undefined => {
  const token = tokens.peek()
  if (token.kind !== 'word') return undefined
  const plain = plainVerdict(token.text)
  const code = jumpCode(token.text)
  if (plain === undefined && code === undefined) return undefined
  tokens.take()
  return plain ?? { code: code!, chain: tokens.word('a chain').text }
}

type Value = 'verdict' | readonly Field[] | undefined

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes], (bytes.length + 3) & ~3)
const join = (parts: readonly Buffer[]): Buffer => (parts.length === 1 ? parts[0]! : Buffer.concat(parts.map(padded)))

const readValue = (tokens: Tokens, value: Exclude<Value, undefined>): Buffer | Verdict => {
  if (value === 'verdict') {
    const verdict = readVerdictWord(tokens)
    if (verdict === undefined) throw tokens.error('expected a verdict')
    return verdict
  }
  return join(
    value.map((field, i) => {
      if (i > 0) tokens.expect('.')
      return parseWord(tokens, field)
    }),
  )
}

interface Span {
  readonly low: Buffer
  readonly high: Buffer
  readonly value?: Buffer | Verdict
}

/** '{' is next. `value`: what the map gives; left out, it is a set. */
export const parseSet = (tokens: Tokens, key: Key, value?: Exclude<Value, undefined>): AnonymousSet => {
  const open = tokens.peek()
  tokens.expect('{')
  const spans: Span[] = []
  let interval = false
  while (!tokens.accept('}')) {
    const parts = key.parts.map(({ field }, i) => {
      if (i > 0) tokens.expect('.')
      const at = tokens.peek()
      const span = readSpan(tokens, field)
      if (!span.single) interval = true
      if (!span.single && key.parts.length > 1) throw tokens.error('no ranges in a set of several fields:', at)
      return span
    })
    const low = join(parts.map(part => part.low))
    const high = join(parts.map(part => part.high))
    if (value !== undefined) tokens.expect(':')
    spans.push(value === undefined ? { low, high } : { low, high, value: readValue(tokens, value) })
    if (!tokens.sees('}')) tokens.expect(',')
  }
  if (spans.length === 0) throw tokens.error('an empty set matches nothing:', open)
  const valueFields = value === undefined || value === 'verdict' ? [] : value
  return {
    keyType: keyId(key),
    keyLength: keyLength(key),
    interval,
    hostKey: key.parts.length === 1 && key.parts[0]!.field.type.host,
    ...rawOf(key),
    hostValue: valueFields.length === 1 && valueFields[0]!.type.host,
    ...(value === undefined
      ? {}
      : {
          value:
            value === 'verdict'
              ? ('verdict' as const)
              : { type: keyId(keyOfFields(value)), length: keyLength(keyOfFields(value)) },
        }),
    elements: interval ? intervals(tokens, open, spans) : spans.map(({ low, value }) => element(low, value)),
  }
}

const rawOf = ({ parts }: Key): Pick<AnonymousSet, 'rawKey'> => {
  const only = parts.length === 1 ? parts[0]!.field : undefined
  return only?.raw && only.payload ? { rawKey: { ...only.payload, length: only.type.length } } : {}
}

const keyOfFields = (fields: readonly Field[]): Key => ({ parts: fields.map(field => ({ field })) })

const element = (key: Buffer, value: Buffer | Verdict | undefined): AnonymousElement =>
  value === undefined ? { key } : { key, value }

/** As nft lays them: sorted, touching spans of a set as one, each with its end, and an end before the first. */
const intervals = (tokens: Tokens, at: Token, spans: readonly Span[]): AnonymousElement[] => {
  const sorted = [...spans].sort((a, b) => Buffer.compare(a.low, b.low))
  const merged: Span[] = []
  for (const span of sorted) {
    const last = merged.at(-1)
    if (last && Buffer.compare(span.low, last.high) <= 0) {
      if (span.value !== undefined) throw tokens.error('overlapping intervals in the map', at)
      if (Buffer.compare(span.high, last.high) > 0) merged[merged.length - 1] = { low: last.low, high: span.high }
    } else if (last && span.value === undefined && successor(last.high)?.equals(span.low)) {
      merged[merged.length - 1] = { low: last.low, high: span.high }
    } else {
      merged.push(span)
    }
  }
  const out: AnonymousElement[] = []
  const zero = Buffer.alloc(sorted[0]!.low.length)
  if (!merged[0]!.low.equals(zero)) out.push({ key: zero, end: true })
  merged.forEach((span, i) => {
    out.push(element(span.low, span.value))
    const end = successor(span.high)
    if (end && !merged[i + 1]?.low.equals(end)) out.push({ key: end, end: true })
  })
  return out
}

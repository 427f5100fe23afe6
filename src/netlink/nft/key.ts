// SPDX-License-Identifier: Apache-2.0
// Keys: one field, perhaps masked, or several joined by '.', each of which begins at a register of four bytes.
import { encodeValue } from './datatype.ts'
import type { Expression } from './expression.ts'
import { type Field, parseField } from './field.ts'
import type { Scope } from './scope.ts'
import type { Tokens } from './tokenizer.ts'

export interface KeyPart {
  readonly field: Field
  /** Present: only these bits. */
  readonly mask?: Buffer
}

export interface Key {
  readonly parts: readonly KeyPart[]
}

const padded = (length: number): number => (length + 3) & ~3

/** Number of the register `bytes` behind the start of register 1, as the kernel itself counts. */
export const registerAt = (bytes: number): number => (bytes % 16 === 0 ? 1 + bytes / 16 : 8 + bytes / 4)

/** Bytes of the key: of a single field as it is, of several each padded. */
export const keyLength = ({ parts }: Key): number =>
  parts.length === 1
    ? parts[0]!.field.type.length
    : parts.reduce((sum, { field }) => sum + padded(field.type.length), 0)

/** nft's number of the type. */
export const keyId = ({ parts }: Key): number => parts.reduce((sum, { field }) => ((sum << 6) | field.type.id) >>> 0, 0)

/** The checks a field needs, in the scope; a rule that can never match is an error. */
export const requireField = (tokens: Tokens, scope: Scope, field: Field, at = tokens.peek()): void => {
  const why = field.require(scope)
  if (why !== undefined) throw tokens.error(why, at)
}

/** One word or several with '|' or ',', for types whose values are bits. */
export const parseBits = (tokens: Tokens, field: Field): Buffer => {
  let bits = parseWord(tokens, field)
  while (field.type.bits && (tokens.accept('|') || tokens.accept(','))) {
    const more = parseWord(tokens, field)
    bits = Buffer.from(bits.map((byte, i) => byte | more[i]!))
  }
  return bits
}

export const parseWord = (tokens: Tokens, field: Field): Buffer => {
  const token = tokens.take()
  const usable = token.kind === 'word' || (token.kind === 'string' && field.type.form === 'ifname')
  const value = usable ? encodeValue(field.type, token.text) : undefined
  if (value === undefined) throw tokens.error(`expected ${field.type.name} for ${field.name}`, token)
  return value
}

/** FIELD [& MASK] [. FIELD [& MASK]]... */
export const parseKey = (tokens: Tokens): Key => {
  const parts: KeyPart[] = []
  do {
    const field = parseField(tokens)
    const masked = tokens.accept('&') || tokens.accept('and')
    parts.push(masked ? { field, mask: parseBits(tokens, field) } : { field })
  } while (tokens.accept('.'))
  const length = padded(keyLength({ parts }))
  if (length > 64) throw tokens.error(`a key of ${length} bytes, at most 64, ends`)
  return { parts }
}

/** Checks and loads of a key, from register 1 on. */
export const loadKey = (tokens: Tokens, scope: Scope, key: Key): void => {
  for (const { field } of key.parts) requireField(tokens, scope, field)
  let bytes = 0
  for (const { field, mask } of key.parts) {
    const register = registerAt(bytes)
    if (field.before) scope.out.push(field.before())
    scope.out.push(field.load(register))
    if (mask) scope.out.push(maskOf(register, mask))
    bytes += padded(field.type.length)
  }
}

export const maskOf = (reg: number, mask: Uint8Array): Expression => ({
  kind: 'bitwise',
  reg,
  mask,
  xor: Buffer.alloc(mask.length),
})

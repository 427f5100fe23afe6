// SPDX-License-Identifier: Apache-2.0
// Comparisons: KEY [==|!=|<|<=|>|>=] VALUE, KEY [!=] { ... }, KEY [!=] @set, and KEY vmap. Of fields whose values are
// bits, `ct status dnat` means that the bit is set, `ct status ! dnat` that it is not.
import { prefixMask } from './bits.ts'
import type { Expression } from './expression.ts'
import type { Field } from './field.ts'
import { type Key, loadKey, maskOf, parseBits, requireField } from './key.ts'
import { parseSet, readPrefix, readRange } from './literal.ts'
import type { Scope } from './scope.ts'
import type { Tokens } from './tokenizer.ts'
import { NFT_CMP } from './uapi.ts'

const operators: Readonly<Record<string, number>> = {
  '==': NFT_CMP.EQ,
  '!=': NFT_CMP.NEQ,
  '<': NFT_CMP.LT,
  '<=': NFT_CMP.LTE,
  '>': NFT_CMP.GT,
  '>=': NFT_CMP.GTE,
}

const cmp = (op: number, data: Uint8Array): Expression => ({ kind: 'cmp', sreg: 1, op, data })

/** What follows a key that begins a statement. */
export const parseMatch = (tokens: Tokens, scope: Scope, key: Key): void => {
  if (tokens.accept('vmap')) return parseVerdictMap(tokens, scope, key)
  const token = tokens.peek()
  const op = token.kind === 'mark' && Object.hasOwn(operators, token.text) ? operators[token.text] : undefined
  if (op !== undefined) tokens.take()
  if (op === undefined && tokens.sees('!')) return parseUnset(tokens, scope, key)
  const next = tokens.peek()
  if (next.kind === 'set' || tokens.sees('{')) {
    if (op !== undefined && op !== NFT_CMP.EQ && op !== NFT_CMP.NEQ) throw tokens.error('expected a single value')
    return parseLookup(tokens, scope, key, op === NFT_CMP.NEQ)
  }
  if (key.parts.length > 1) throw tokens.error('expected "{", "@set" or "vmap" behind several fields')
  parseComparison(tokens, scope, key, op)
}

const parseUnset = (tokens: Tokens, scope: Scope, key: Key): void => {
  const only = key.parts.length === 1 ? key.parts[0]! : undefined
  if (!only?.field.type.bits || only.mask !== undefined) throw tokens.error('only fields of bits have')
  tokens.take()
  const value = parseBits(tokens, only.field)
  loadKey(tokens, scope, key)
  scope.out.push(maskOf(1, value), cmp(NFT_CMP.EQ, Buffer.alloc(value.length)))
}

const parseVerdictMap = (tokens: Tokens, scope: Scope, key: Key): void => {
  const next = tokens.peek()
  const set = next.kind === 'set' ? tokens.take().text : parseSet(tokens, key, 'verdict')
  loadKey(tokens, scope, key)
  scope.out.push({ kind: 'lookup', set, sreg: 1, dreg: 0, inverted: false })
}

const parseLookup = (tokens: Tokens, scope: Scope, key: Key, inverted: boolean): void => {
  const next = tokens.peek()
  const set = next.kind === 'set' ? tokens.take().text : parseSet(tokens, key)
  loadKey(tokens, scope, key)
  scope.out.push({ kind: 'lookup', set, sreg: 1, inverted })
  const only = key.parts.length === 1 ? key.parts[0]! : undefined
  if (only && only.mask === undefined && !inverted) only.field.learnSeveral?.(scope)
}

const parseComparison = (tokens: Tokens, scope: Scope, key: Key, op: number | undefined): void => {
  const { field, mask } = key.parts[0]!
  const token = tokens.peek()
  const equality = op === undefined || op === NFT_CMP.EQ || op === NFT_CMP.NEQ
  const compare = op ?? NFT_CMP.EQ
  const special = mask === undefined && equality && parseSpecial(tokens, scope, field, compare)
  if (special) return
  if (token.kind === 'word' && token.text.includes('/')) throw tokens.error('no prefix here:', token)
  const value = parseBits(tokens, field)
  if (!equality && field.type.host && field.type.length > 1) {
    throw tokens.error('order is only for fields of the packet', token)
  }
  loadKey(tokens, scope, key)
  // one of these bits, `ct state new,established`; with an operator, exactly these
  if (field.type.bits && mask === undefined && op === undefined) {
    scope.out.push(maskOf(1, value), cmp(NFT_CMP.NEQ, Buffer.alloc(value.length)))
    return
  }
  scope.out.push(cmp(compare, value))
  if (compare === NFT_CMP.EQ && mask === undefined) field.learn?.(scope, value)
}

/** Values that are more than one: prefix, range, name with a '*'. */
const parseSpecial = (tokens: Tokens, scope: Scope, field: Field, op: number): boolean => {
  const token = tokens.peek()
  const prefix = readPrefix(tokens, field, token)
  if (prefix) {
    tokens.take()
    requireField(tokens, scope, field, token)
    loadPrefix(scope, field, prefix.address, prefix.length, op)
    return true
  }
  const range = readRange(tokens, field, token)
  if (range) {
    tokens.take()
    requireField(tokens, scope, field, token)
    scope.out.push(field.load(1))
    if (op === NFT_CMP.NEQ) scope.out.push({ kind: 'range', sreg: 1, ...range, inverted: true })
    else scope.out.push(cmp(NFT_CMP.GTE, range.low), cmp(NFT_CMP.LTE, range.high))
    return true
  }
  if (field.type.form === 'ifname' && token.kind !== 'mark' && token.text.endsWith('*')) {
    tokens.take()
    const stem = Buffer.from(token.text.slice(0, -1))
    if (stem.length === 0 || stem.length > 15 || stem.includes('*')) {
      throw tokens.error('expected a name with one "*" at its end', token)
    }
    scope.out.push(field.load(1), cmp(op, stem))
    return true
  }
  return false
}

/** Whole bytes are loaded as such, other lengths are masked. */
const loadPrefix = (scope: Scope, field: Field, address: Buffer, length: number, op: number): void => {
  const load = field.load(1)
  if (length % 8 === 0 && length > 0 && load.kind === 'payload') {
    scope.out.push({ ...load, length: length / 8 }, cmp(op, address.subarray(0, length / 8)))
    return
  }
  scope.out.push(load, maskOf(1, prefixMask(address.length, length)), cmp(op, address))
}

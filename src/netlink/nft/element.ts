// SPDX-License-Identifier: Apache-2.0
// Elements of sets between words and attributes. A prefix in a set of intervals is two elements, its start and the
// address behind its end; in a set of several fields it is one, with KEY and KEY_END.
import { WeftError } from '../../base/errors.ts'
import type { Attribute, Writer } from '../message.ts'
import { parsePrefix } from '../text.ts'
import { prefixMask, successor } from './bits.ts'
import type { SetDeclaration } from './set.ts'
import { decodeWords, encodeWords, type NftType, typeRow } from './types.ts'
import { NFT_SET_ELEM, NFTA_DATA, NFTA_LIST, NFTA_SET_ELEM } from './uapi.ts'
import { formatVerdict, parseVerdict, readVerdict, type Verdict, writeVerdict } from './verdict.ts'

/** One NFTA_LIST_ELEM. */
export interface WireElement {
  readonly key: Uint8Array
  /** Inclusive; of intervals over several fields. */
  readonly keyEnd?: Uint8Array
  readonly value?: Uint8Array | Verdict
  /** The element ends the interval before it. */
  readonly end?: boolean
}

export interface SetElement {
  /** One word per field. */
  readonly key: readonly string[]
  readonly value?: readonly string[]
}

const data = (w: Writer, type: number, bytes: Uint8Array): void => {
  const at = w.beginNest(type)
  w.attrBytes(NFTA_DATA.VALUE, bytes)
  w.endNest(at)
}

export const writeElement = (w: Writer, { key, keyEnd, value, end }: WireElement): void => {
  const at = w.beginNest(NFTA_LIST.ELEM)
  if (end) w.attrBe32(NFTA_SET_ELEM.FLAGS, NFT_SET_ELEM.INTERVAL_END)
  data(w, NFTA_SET_ELEM.KEY, key)
  if (keyEnd) data(w, NFTA_SET_ELEM.KEY_END, keyEnd)
  if (value instanceof Uint8Array) data(w, NFTA_SET_ELEM.DATA, value)
  else if (value) writeVerdict(w, NFTA_SET_ELEM.DATA, value)
  w.endNest(at)
}

const ends = (types: readonly NftType[], key: readonly string[]): { low: string[]; high: string[] } => {
  const low: string[] = []
  const high: string[] = []
  key.forEach((word, i) => {
    const type = types[i]!
    const isIp = type === 'ipv4_addr' || type === 'ipv6_addr'
    if (!isIp || !word.includes('/')) {
      low.push(word)
      high.push(word)
      return
    }
    const { address, length } = parsePrefix(word)
    const mask = prefixMask(typeRow(type).length, length)
    const bytes = encodeWords([type], [address])
    const first = Buffer.from(bytes.map((byte, n) => byte & mask[n]!))
    const last = Buffer.from(bytes.map((byte, n) => byte | (~mask[n]! & 255)))
    low.push(decodeWords([type], first)![0]!)
    high.push(decodeWords([type], last)![0]!)
  })
  return { low, high }
}

const encodeValueWords = (types: readonly NftType[], words: readonly string[]): Uint8Array | Verdict =>
  types[0] === 'verdict' && words.length === 1 ? parseVerdict(words[0]!) : encodeWords(types, words)

/** Throws INVALID. Without values: what a removal needs. */
export const encodeElement = (set: SetDeclaration, element: SetElement, withValue: boolean): WireElement[] => {
  if (withValue && (set.value === undefined) !== (element.value === undefined)) {
    throw new WeftError('INVALID', `encode nft element: ${set.value ? 'a map needs' : 'a set has no'} value`)
  }
  const value = withValue && set.value ? { value: encodeValueWords(set.value, element.value!) } : {}
  if (!set.interval) return [{ key: encodeWords(set.key, element.key), ...value }]
  if (set.key.length !== element.key.length) return [{ key: encodeWords(set.key, element.key) }] // throws
  const { low, high } = ends(set.key, element.key)
  const key = encodeWords(set.key, low)
  const last = encodeWords(set.key, high)
  if (set.key.length > 1) return [{ key, keyEnd: last, ...value }]
  const end = successor(last)
  return [{ key, ...value }, ...(end ? [{ key: end, end: true }] : [])]
}

const valueBytes = (attribute: Attribute): Buffer | undefined => {
  for (const attr of attribute.nested()) if (attr.type === NFTA_DATA.VALUE) return attr.copy()
  return undefined
}

const verdictOf = (attribute: Attribute): Verdict | undefined => {
  for (const attr of attribute.nested()) if (attr.type === NFTA_DATA.VERDICT) return readVerdict(attr)
  return undefined
}

/** undefined for a catch-all element and for what makes no sense. */
export const readElement = (attribute: Attribute): WireElement | undefined => {
  let key: Buffer | undefined
  let keyEnd: Buffer | undefined
  let value: Buffer | Verdict | undefined
  let flags = 0
  for (const attr of attribute.nested()) {
    if (attr.type === NFTA_SET_ELEM.KEY) key = valueBytes(attr)
    else if (attr.type === NFTA_SET_ELEM.KEY_END) keyEnd = valueBytes(attr)
    else if (attr.type === NFTA_SET_ELEM.DATA) value = valueBytes(attr) ?? verdictOf(attr)
    else if (attr.type === NFTA_SET_ELEM.FLAGS) flags = attr.be32()
  }
  if (key === undefined || (flags & NFT_SET_ELEM.CATCHALL) !== 0) return undefined
  return {
    key,
    ...(keyEnd ? { keyEnd } : {}),
    ...(value ? { value } : {}),
    ...((flags & NFT_SET_ELEM.INTERVAL_END) !== 0 ? { end: true } : {}),
  }
}

const commonBits = (low: Uint8Array, high: Uint8Array): number | undefined => {
  let length = 0
  while (length < low.length * 8 && bit(low, length) === bit(high, length)) length++
  for (let i = length; i < low.length * 8; i++) if (bit(low, i) !== 0 || bit(high, i) !== 1) return undefined
  return length
}
const bit = (bytes: Uint8Array, at: number): number => (bytes[at >> 3]! >> (7 - (at & 7))) & 1

const spanWord = (type: NftType, low: Buffer, high: Buffer): string | undefined => {
  const first = decodeWords([type], low)?.[0]
  if (first === undefined || low.equals(high)) return first
  const length = type === 'ipv4_addr' || type === 'ipv6_addr' ? commonBits(low, high) : undefined
  const last = decodeWords([type], high)?.[0]
  return length === undefined ? last && `${first}-${last}` : `${first}/${length}`
}

const decodeValueWords = (types: readonly NftType[], value: Uint8Array | Verdict): string[] | undefined => {
  if (value instanceof Uint8Array) return decodeWords(types, value as Buffer)
  const word = formatVerdict(value)
  return types[0] === 'verdict' && word !== undefined ? [word] : undefined
}

const predecessor = (bytes: Buffer): Buffer => {
  const out = Buffer.from(bytes)
  for (let i = out.length - 1; i >= 0; i--) {
    out[i] = (out[i]! - 1) & 255
    if (out[i] !== 255) break
  }
  return out
}

const fieldsOf = (types: readonly NftType[], bytes: Buffer): Buffer[] => {
  let at = 0
  return types.map(type => {
    const { length } = typeRow(type)
    const field = bytes.subarray(at, at + length)
    at += (length + 3) & ~3
    return field
  })
}

/** All elements of a set as the kernel gave them, into words; what makes no sense for its types is left out. */
export const decodeElements = (set: SetDeclaration, wire: readonly WireElement[]): SetElement[] => {
  const out: SetElement[] = []
  const add = (key: readonly (string | undefined)[] | undefined, value: Uint8Array | Verdict | undefined): void => {
    if (key === undefined || key.includes(undefined)) return
    const words = set.value && value ? decodeValueWords(set.value, value) : undefined
    if ((set.value === undefined) !== (words === undefined)) return
    out.push({ key: key as string[], ...(words ? { value: words } : {}) })
  }
  if (!set.interval) {
    for (const { key, value } of wire) add(decodeWords(set.key, key as Buffer), value)
    return out
  }
  if (set.key.length > 1) {
    for (const { key, keyEnd, value } of wire) {
      const low = fieldsOf(set.key, key as Buffer)
      const high = fieldsOf(set.key, (keyEnd ?? key) as Buffer)
      if (set.key.some((type, i) => low[i]!.length !== typeRow(type).length || high[i]!.length !== low[i]!.length))
        continue
      add(
        set.key.map((type, i) => spanWord(type, low[i]!, high[i]!)),
        value,
      )
    }
    return out
  }
  const { length } = typeRow(set.key[0]!)
  // the end of one and the start of the next may be the same address: the end first
  const sorted = wire
    .filter(({ key }) => key.length === length)
    .sort((a, b) => Buffer.compare(a.key, b.key) || Number(b.end ?? false) - Number(a.end ?? false))
  sorted.forEach(({ key, value, end }, i) => {
    if (end) return
    const next = sorted[i + 1]
    const high = next ? predecessor(next.key as Buffer) : Buffer.alloc(length, 255)
    add([spanWord(set.key[0]!, key as Buffer, high)], value)
  })
  return out
}

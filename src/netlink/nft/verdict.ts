// SPDX-License-Identifier: Apache-2.0
// Verdicts: where a packet goes next.
import { WeftError } from '../../base/errors.ts'
import type { Attribute, Writer } from '../message.ts'
import { NF_ACCEPT, NF_DROP, NFT_CONTINUE, NFT_GOTO, NFT_JUMP, NFT_RETURN, NFTA_DATA, NFTA_VERDICT } from './uapi.ts'

export interface Verdict {
  readonly code: number
  /** Of jump and goto. */
  readonly chain?: string
}

const codes: Readonly<Record<string, number>> = {
  accept: NF_ACCEPT,
  drop: NF_DROP,
  continue: NFT_CONTINUE,
  return: NFT_RETURN,
}
const jumps: Readonly<Record<string, number>> = { jump: NFT_JUMP, goto: NFT_GOTO }

/** A word that stands alone: accept, drop, continue, return. */
export const plainVerdict = (word: string): Verdict | undefined =>
  Object.hasOwn(codes, word) ? { code: codes[word]! } : undefined

/** jump and goto need a chain. */
export const jumpCode = (word: string): number | undefined => (Object.hasOwn(jumps, word) ? jumps[word] : undefined)

/** "accept", "goto discovery"; throws INVALID. */
export const parseVerdict = (text: string): Verdict => {
  const bare = plainVerdict(text) // nearly every element of a large map
  if (bare) return bare
  const [word = '', chain, ...rest] = text.trim().split(/\s+/)
  const plain = plainVerdict(word)
  if (plain && chain === undefined) return plain
  const code = jumpCode(word)
  if (code !== undefined && chain !== undefined && rest.length === 0) return { code, chain }
  throw new WeftError('INVALID', `encode nft element: "${text}" is not of type verdict`)
}

/** undefined for a code that has no word. */
export const formatVerdict = ({ code, chain }: Verdict): string | undefined => {
  for (const [word, value] of Object.entries(codes)) if (value === code) return word
  for (const [word, value] of Object.entries(jumps)) {
    if (value === code) return chain === undefined ? undefined : `${word} ${chain}`
  }
  return undefined
}

/** Attribute `type` { NFTA_DATA_VERDICT { ... } }. */
export const writeVerdict = (w: Writer, type: number, { code, chain }: Verdict): void => {
  const outer = w.beginNest(type)
  const inner = w.beginNest(NFTA_DATA.VERDICT)
  w.attrHeader(NFTA_VERDICT.CODE, 4)
  w.be32(code >>> 0)
  if (chain !== undefined) w.attrString(NFTA_VERDICT.CHAIN, chain)
  w.endNest(inner)
  w.endNest(outer)
}

/** From inside NFTA_DATA_VERDICT; undefined without a code. */
export const readVerdict = (attribute: Attribute): Verdict | undefined => {
  let code: number | undefined
  let chain: string | undefined
  for (const attr of attribute.nested()) {
    if (attr.type === NFTA_VERDICT.CODE) code = attr.be32() | 0
    else if (attr.type === NFTA_VERDICT.CHAIN) chain = attr.text()
  }
  return code === undefined ? undefined : { code, ...(chain === undefined ? {} : { chain }) }
}

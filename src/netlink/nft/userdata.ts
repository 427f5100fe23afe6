// SPDX-License-Identifier: Apache-2.0
// Userdata: bytes the kernel keeps for us and never reads. nft and we fill it alike, with { u8 type, u8 length,
// value } one behind the other (libnftnl/udata.h), so that `nft list` shows our comments and types.
import { WeftError } from '../../base/errors.ts'
import { little } from './types.ts'

const UDATA_RULE_COMMENT = 0
const commentMax = 128 // with its NUL

export const userdata = (type: number, value: Uint8Array): Buffer => {
  if (value.length > 255) throw new WeftError('INVALID', `encode nft userdata: ${value.length} bytes, at most 255`)
  return Buffer.concat([Buffer.from([type, value.length]), value])
}

export const userdataU32 = (type: number, value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  if (little) bytes.writeUInt32LE(value)
  else bytes.writeUInt32BE(value)
  return userdata(type, bytes)
}

/** With its NUL. */
export const userdataText = (type: number, text: string): Buffer => userdata(type, Buffer.from(`${text}\0`))

/** By type; stops where the bytes make no sense, for others write them too. */
export const readUserdata = (bytes: Buffer): Map<number, Buffer> => {
  const found = new Map<number, Buffer>()
  for (let at = 0; at + 2 <= bytes.length; ) {
    const end = at + 2 + bytes[at + 1]!
    if (end > bytes.length) break
    found.set(bytes[at]!, bytes.subarray(at + 2, end))
    at = end
  }
  return found
}

/** `comment "..."` of a rule; throws INVALID for one that nft could not show. */
export const ruleUserdata = (comment: string): Buffer => {
  if (comment === '' || Buffer.byteLength(comment) >= commentMax || /["\0]/.test(comment)) {
    throw new WeftError('INVALID', `nft comment "${comment}" has to have 1 to ${commentMax - 1} bytes and no quotes`)
  }
  return userdataText(UDATA_RULE_COMMENT, comment)
}

export const ruleComment = (bytes: Buffer): string | undefined => {
  const value = readUserdata(bytes).get(UDATA_RULE_COMMENT)
  if (value === undefined) return undefined
  const nul = value.indexOf(0)
  return value.toString('utf8', 0, nul < 0 ? value.length : nul)
}

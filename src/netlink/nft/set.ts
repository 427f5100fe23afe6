// SPDX-License-Identifier: Apache-2.0
// Sets and maps: their declaration in the words of types.ts, and its bytes. Type numbers and userdata are nft's own,
// so that `nft list` shows what we declared; a conntrack zone has no type there and is `typeof ct original zone`.
import { WeftError } from '../../base/errors.ts'
import type { Writer } from '../message.ts'
import type { AnonymousSet } from './expression.ts'
import { idOf, isNftType, lengthOf, type NftType, typeRow } from './types.ts'
import { NFT_DATA_VERDICT, NFT_SET, NFTA_LIST, NFTA_SET, NFTA_SET_DESC, NFTA_SET_FIELD } from './uapi.ts'
import { readUserdata, userdata, userdataText, userdataU32 } from './userdata.ts'

export interface SetDeclaration {
  readonly name: string
  readonly key: readonly NftType[]
  /** Present: a map. */
  readonly value?: readonly NftType[]
  /** Elements may be prefixes: 10.0.0.0/8. */
  readonly interval?: boolean
}

// linux does not know these: enum nftnl_udata_set_types of libnftnl/udata.h
const UDATA_SET_KEYBYTEORDER = 0
const UDATA_SET_DATABYTEORDER = 1
const UDATA_SET_KEY_TYPEOF = 3
const UDATA_SET_DATA_TYPEOF = 4
const UDATA_SET_COMMENT = 7
const BYTEORDER_HOST = 1
const BYTEORDER_BIG = 2

// An expression of each type, as nft writes it into typeof: its number, and TLVs of its own.
const EXPR_VERDICT = 1
const EXPR_PAYLOAD = 7
const EXPR_META = 9
const EXPR_CT = 12
const EXPR_CONCAT = 13
const example: Readonly<Record<NftType, readonly [expression: number, ...fields: number[]]>> = {
  ether_addr: [EXPR_PAYLOAD, 17, 2],
  ipv4_addr: [EXPR_PAYLOAD, 12, 11],
  ipv6_addr: [EXPR_PAYLOAD, 13, 8],
  inet_service: [EXPR_PAYLOAD, 11, 2],
  inet_proto: [EXPR_META, 16],
  mark: [EXPR_META, 3],
  ifname: [EXPR_META, 6],
  ct_zone: [EXPR_CT, 17, 0],
  verdict: [EXPR_VERDICT],
}

const typeofOne = (type: NftType): Buffer => {
  const [expression, ...fields] = example[type]
  const data = Buffer.concat(fields.map((value, i) => userdataU32(i, value)))
  return Buffer.concat([userdataU32(0, expression), userdata(1, data)])
}

const typeofAll = (types: readonly NftType[]): Buffer => {
  if (types.length === 1) return typeofOne(types[0]!)
  const parts = Buffer.concat(types.map((type, i) => userdata(i, typeofOne(type))))
  return Buffer.concat([userdataU32(0, EXPR_CONCAT), userdata(1, parts)])
}

const byteOrder = (types: readonly NftType[]): number =>
  types.length > 1 || types[0] === 'verdict' ? 0 : typeRow(types[0]!).host ? BYTEORDER_HOST : BYTEORDER_BIG

/** "ct_zone : ether_addr" */
const formatTypes = (key: readonly NftType[], value: readonly NftType[] | undefined): string =>
  `${key.join(' . ')}${value ? ` : ${value.join(' . ')}` : ''}`

/** Undefined: the numbers of the types say it all. */
const declarationComment = ({ key, value }: SetDeclaration): string | undefined =>
  [...key, ...(value ?? [])].includes('ct_zone') ? formatTypes(key, value) : undefined

export const setUserdata = (set: SetDeclaration): Buffer => {
  const { key, value } = set
  const parts = [userdataU32(UDATA_SET_KEYBYTEORDER, byteOrder(key))]
  if (value) parts.push(userdataU32(UDATA_SET_DATABYTEORDER, byteOrder(value)))
  const comment = declarationComment(set)
  if (comment !== undefined) {
    parts.push(userdata(UDATA_SET_KEY_TYPEOF, typeofAll(key)))
    if (value) parts.push(userdata(UDATA_SET_DATA_TYPEOF, typeofAll(value)))
    parts.push(userdataText(UDATA_SET_COMMENT, comment))
  }
  return Buffer.concat(parts)
}

/** Of a set without a name: byte order, and what a raw key looks at. */
export const anonymousUserdata = ({ hostKey, hostValue, value, rawKey }: AnonymousSet): Buffer => {
  const order = (host: boolean): number => (host ? BYTEORDER_HOST : BYTEORDER_BIG)
  const parts = [userdataU32(UDATA_SET_KEYBYTEORDER, order(hostKey))]
  if (value) parts.push(userdataU32(UDATA_SET_DATABYTEORDER, order(hostValue)))
  if (rawKey) {
    // no protocol, no field; then nft's number of the base, bits
    const fields = [0, 0, rawKey.base + 1, rawKey.offset * 8, rawKey.length * 8]
    const data = Buffer.concat(fields.map((field, i) => userdataU32(i, field)))
    const typeOf = Buffer.concat([userdataU32(0, EXPR_PAYLOAD), userdata(1, data)])
    parts.push(userdata(UDATA_SET_KEY_TYPEOF, typeOf))
  }
  return Buffer.concat(parts)
}

/** Types out of a comment of ours; undefined if it is none. */
export const commentTypes = (bytes: Buffer): Pick<SetDeclaration, 'key' | 'value'> | undefined => {
  const comment = readUserdata(bytes).get(UDATA_SET_COMMENT)
  if (comment === undefined) return undefined
  const text = comment.toString('utf8', 0, comment.length - 1)
  const [key, value, ...rest] = text.split(' : ').map(half => half.split(' . '))
  if (key === undefined || rest.length > 0 || ![...key, ...(value ?? [])].every(isNftType)) return undefined
  return { key: key as NftType[], ...(value ? { value: value as NftType[] } : {}) }
}

// nft has six bits per field in a number of 32
const fieldsMax = 5

/** Throws INVALID for a declaration the kernel cannot have. */
export const checkDeclaration = ({ name, key, value, interval }: SetDeclaration): void => {
  const wrong = (why: string): WeftError => new WeftError('INVALID', `declare nft set ${name}: ${why}`)
  if (key.length === 0 || key.includes('verdict')) throw wrong(`"${key.join(' . ')}" is no key`)
  if (value && (value.length === 0 || (value.length > 1 && value.includes('verdict')))) {
    throw wrong(`"${value.join(' . ')}" is no value`)
  }
  if (key.length > fieldsMax || (value && value.length > fieldsMax)) throw wrong(`more than ${fieldsMax} fields`)
  if (lengthOf(key) > 64 || (value && lengthOf(value) > 64)) throw wrong('more than 64 bytes')
  if (interval && key.some(type => typeRow(type).host)) throw wrong('no intervals of values in host byte order')
}

/** Attributes of NEWSET behind TABLE. */
export const writeDeclaration = (w: Writer, set: SetDeclaration, id: number): void => {
  const { key, value } = set
  const concat = set.interval === true && key.length > 1
  w.attrString(NFTA_SET.NAME, set.name)
  w.attrBe32(
    NFTA_SET.FLAGS,
    (value ? NFT_SET.MAP : 0) | (set.interval ? NFT_SET.INTERVAL : 0) | (concat ? NFT_SET.CONCAT : 0),
  )
  w.attrBe32(NFTA_SET.KEY_TYPE, idOf(key))
  w.attrBe32(NFTA_SET.KEY_LEN, lengthOf(key))
  if (value?.[0] === 'verdict') {
    w.attrBe32(NFTA_SET.DATA_TYPE, NFT_DATA_VERDICT)
  } else if (value) {
    w.attrBe32(NFTA_SET.DATA_TYPE, idOf(value))
    w.attrBe32(NFTA_SET.DATA_LEN, lengthOf(value))
  }
  w.attrBe32(NFTA_SET.ID, id)
  if (concat) {
    w.nest(NFTA_SET.DESC, () =>
      w.nest(NFTA_SET_DESC.CONCAT, () => {
        for (const type of key) {
          w.nest(NFTA_LIST.ELEM, () => w.attrBe32(NFTA_SET_FIELD.LEN, typeRow(type).length))
        }
      }),
    )
  }
  w.attrBytes(NFTA_SET.USERDATA, setUserdata(set))
}

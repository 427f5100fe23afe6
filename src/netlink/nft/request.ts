// SPDX-License-Identifier: Apache-2.0
// Messages of nf_tables: number and header. Attribute names by message, to say which one the kernel means.
import { type NameTable, nameTable } from '../explain.ts'
import type { Writer } from '../message.ts'
import {
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG,
  NFTA_CHAIN,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_HOOK,
  NFTA_LIST,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_ELEM,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
} from './uapi.ts'

/** u8 family, u8 version, be16 resource */
export const nfgenmsgLength = 4

export const messageType = (message: number): number => (NFNL_SUBSYS_NFTABLES << 8) | message

export const writeHeader = (w: Writer, family: number, resource = 0): void => {
  w.u8(family)
  w.u8(0)
  w.be16(resource)
}

const named = (
  group: string,
  constants: Readonly<Record<string, number>>,
  inside: Readonly<Record<string, NameTable>> = {},
): NameTable => {
  const name = (member: string): string => `${group}_${member}`
  const long = Object.fromEntries(Object.entries(constants).map(([member, value]) => [name(member), value]))
  const nested = Object.fromEntries(Object.entries(inside).map(([member, table]) => [name(member), table]))
  return nameTable(long, nested)
}

const list = (inside: NameTable): NameTable => named('NFTA_LIST', NFTA_LIST, { ELEM: inside })
const data = named('NFTA_DATA', NFTA_DATA)
const tables: readonly (readonly [readonly number[], NameTable])[] = [
  [[NFT_MSG.NEWTABLE, NFT_MSG.DELTABLE], named('NFTA_TABLE', NFTA_TABLE)],
  [[NFT_MSG.NEWCHAIN, NFT_MSG.DELCHAIN], named('NFTA_CHAIN', NFTA_CHAIN, { HOOK: named('NFTA_HOOK', NFTA_HOOK) })],
  [
    [NFT_MSG.NEWRULE, NFT_MSG.DELRULE],
    named('NFTA_RULE', NFTA_RULE, { EXPRESSIONS: list(named('NFTA_EXPR', NFTA_EXPR)) }),
  ],
  [[NFT_MSG.NEWSET, NFT_MSG.DELSET], named('NFTA_SET', NFTA_SET)],
  [
    [NFT_MSG.NEWSETELEM, NFT_MSG.DELSETELEM],
    named('NFTA_SET_ELEM_LIST', NFTA_SET_ELEM_LIST, {
      ELEMENTS: list(named('NFTA_SET_ELEM', NFTA_SET_ELEM, { KEY: data, DATA: data, KEY_END: data })),
    }),
  ],
]

/** "4.1.2" as the socket says it when it has no names, into names. */
export const namePath = (message: number, path: string): string => {
  let table: NameTable | undefined = tables.find(([messages]) => messages.includes(message))?.[1]
  if (path === '') return ''
  return path
    .split('.')
    .map(part => {
      const entry: NameTable[number] | undefined = table?.[Number(part)]
      table = typeof entry === 'object' ? entry[1] : undefined
      return entry === undefined ? part : typeof entry === 'string' ? entry : entry[0]
    })
    .join('.')
}

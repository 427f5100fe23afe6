// SPDX-License-Identifier: Apache-2.0
// Conntrack timeouts as objects of a table: `nft add ct timeout`. A rule gives one to a new connection by its name.
import { type Attribute, attributes, type Message, type Writer } from '../message.ts'
import { IPPROTO } from '../uapi.ts'
import { messageType, nfgenmsgLength } from './request.ts'
import { familyOfNumber, type NftFamily } from './types.ts'
import { CTA_TIMEOUT_TCP, CTA_TIMEOUT_UDP, NFT_MSG, NFT_OBJECT, NFTA_CT_TIMEOUT, NFTA_OBJ } from './uapi.ts'

export interface TimeoutDeclaration {
  readonly name: string
  readonly protocol: 'tcp' | 'udp'
  /** TCP: established; UDP: in any state. All else is the kernel's. */
  readonly seconds: number
  /** TCP: one side has closed, s; the kernel's CLOSE_WAIT, whichever side it was. */
  readonly halfClosed?: number
}

export interface ListedTimeout extends TimeoutDeclaration {
  readonly family: NftFamily
  readonly table: string
}

const ipv4 = 2 // NFPROTO_IPV4; conntrack looks at the protocol above it only

export const writeTimeout = (w: Writer, table: string, timeout: TimeoutDeclaration): void => {
  const { name, protocol, seconds, halfClosed } = timeout
  w.attrString(NFTA_OBJ.TABLE, table)
  w.attrString(NFTA_OBJ.NAME, name)
  w.attrBe32(NFTA_OBJ.TYPE, NFT_OBJECT.CT_TIMEOUT)
  w.nest(NFTA_OBJ.DATA, () => {
    w.attrBe16(NFTA_CT_TIMEOUT.L3PROTO, ipv4)
    w.attrU8(NFTA_CT_TIMEOUT.L4PROTO, IPPROTO[protocol === 'tcp' ? 'TCP' : 'UDP'])
    w.nest(NFTA_CT_TIMEOUT.DATA, () => {
      if (protocol === 'udp') for (const state of Object.values(CTA_TIMEOUT_UDP)) w.attrBe32(state, seconds)
      else {
        w.attrBe32(CTA_TIMEOUT_TCP.ESTABLISHED, seconds)
        if (halfClosed !== undefined) w.attrBe32(CTA_TIMEOUT_TCP.CLOSE_WAIT, halfClosed)
      }
    })
  })
}

/** undefined: another object. */
export const decodeTimeout = (message: Message): ListedTimeout | undefined => {
  const family = message.type === messageType(NFT_MSG.NEWOBJ) ? familyOfNumber(message.u8()) : undefined
  if (family === undefined) return undefined
  let table: string | undefined
  let name: string | undefined
  let type = 0
  let data: Attribute | undefined
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type === NFTA_OBJ.TABLE) table = attr.text()
    else if (attr.type === NFTA_OBJ.NAME) name = attr.text()
    else if (attr.type === NFTA_OBJ.TYPE) type = attr.be32()
    else if (attr.type === NFTA_OBJ.DATA) data = attr
  }
  if (type !== NFT_OBJECT.CT_TIMEOUT || table === undefined || name === undefined || !data) return undefined
  let number = 0
  let states: Attribute | undefined
  for (const attr of data.nested()) {
    if (attr.type === NFTA_CT_TIMEOUT.L4PROTO) number = attr.u8()
    else if (attr.type === NFTA_CT_TIMEOUT.DATA) states = attr
  }
  const protocol = number === IPPROTO.TCP ? 'tcp' : number === IPPROTO.UDP ? 'udp' : undefined
  if (!protocol || !states) return undefined
  const by = new Map<number, number>()
  for (const attr of states.nested()) by.set(attr.type, attr.be32())
  const seconds = by.get(protocol === 'tcp' ? CTA_TIMEOUT_TCP.ESTABLISHED : CTA_TIMEOUT_UDP.REPLIED)
  const halfClosed = protocol === 'tcp' ? by.get(CTA_TIMEOUT_TCP.CLOSE_WAIT) : undefined
  if (seconds === undefined) return undefined
  return { family, table, name, protocol, seconds, ...(halfClosed === undefined ? {} : { halfClosed }) }
}

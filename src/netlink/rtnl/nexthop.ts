// SPDX-License-Identifier: Apache-2.0
// Nexthop objects (`ip nexthop`): a leg is one gateway, a group is a list of legs. FDB entries point to groups, so
// that a host's new address is one replace of its leg.
import type { AttributeNames } from '../explain.ts'
import { attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, ipFamily } from '../text.ts'
import { AF_UNSPEC, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../uapi.ts'
import { NHA, RTM } from './uapi.ts'

export interface NexthopMember {
  readonly id: number
  /** 1 to 256; default 1. */
  readonly weight?: number
}

export interface NewNexthop {
  readonly id: number
  /** A leg has a gateway or a device ... */
  readonly gateway?: string
  readonly oif?: number
  readonly blackhole?: boolean
  /** ... a group has members. */
  readonly group?: readonly NexthopMember[]
  /** For FDB entries: a gateway without a device. */
  readonly fdb?: boolean
  /** Whose it is; 44 is ours. */
  readonly protocol?: number
}

export interface Nexthop {
  readonly id: number
  readonly gateway: string | undefined
  readonly oif: number | undefined
  readonly blackhole: boolean
  readonly group: readonly Required<NexthopMember>[] | undefined
  readonly fdb: boolean
  readonly protocol: number
  readonly flags: number
}

const nexthopNames: AttributeNames = {
  header: 8,
  table: Object.fromEntries(Object.entries(NHA).map(([name, type]) => [type, `NHA_${name}`])),
}

const encodeHeader = (w: Writer, family: number, protocol: number): void => {
  w.u8(family)
  w.u8(0)
  w.u8(protocol)
  w.u8(0)
  w.u32(0)
}

const encode = (w: Writer, n: NewNexthop): void => {
  encodeHeader(w, n.gateway === undefined ? AF_UNSPEC : ipFamily(n.gateway), n.protocol ?? 0)
  w.attrU32(NHA.ID, n.id)
  if (n.group !== undefined) {
    w.attrHeader(NHA.GROUP, n.group.length * 8)
    for (const member of n.group) {
      w.u32(member.id)
      w.u8((member.weight ?? 1) - 1)
      w.u8(0)
      w.u16(0)
    }
  }
  if (n.gateway !== undefined) w.attrIp(NHA.GATEWAY, n.gateway)
  if (n.oif !== undefined) w.attrU32(NHA.OIF, n.oif)
  if (n.blackhole) w.attrFlag(NHA.BLACKHOLE)
  if (n.fdb) w.attrFlag(NHA.FDB)
}

const text = (n: NewNexthop): string => {
  if (n.group !== undefined) return `nexthop ${n.id} group ${n.group.map(member => member.id).join('/')}`
  return `nexthop ${n.id}${n.gateway === undefined ? '' : ` via ${n.gateway}`}`
}

/** `ip nexthop add id ID via IP fdb` or `group ID/ID fdb`; EEXIST. */
export const addNexthop = (n: NewNexthop): Request => ({
  op: `add ${text(n)}`,
  type: RTM.NEWNEXTHOP,
  flags: NLM_F_CREATE | NLM_F_EXCL,
  names: nexthopNames,
  encode: w => encode(w, n),
})

/** `ip nexthop replace id ID ...`; a leg stays a leg, a group a group. */
export const replaceNexthop = (n: NewNexthop): Request => ({
  op: `replace ${text(n)}`,
  type: RTM.NEWNEXTHOP,
  flags: NLM_F_CREATE | NLM_F_REPLACE,
  names: nexthopNames,
  encode: w => encode(w, n),
})

/** `ip nexthop delete id ID`; ENOENT. FDB entries and groups that refer to it lose it. */
export const removeNexthop = (id: number): Request => ({
  op: `remove nexthop ${id}`,
  type: RTM.DELNEXTHOP,
  flags: 0,
  names: nexthopNames,
  encode(w) {
    encodeHeader(w, AF_UNSPEC, 0)
    w.attrU32(NHA.ID, id)
  },
})

/** `ip nexthop show [fdb] [groups]`. */
export const listNexthops = (filter: { readonly fdb?: boolean; readonly groups?: boolean } = {}): Request => ({
  op: 'list nexthops',
  type: RTM.GETNEXTHOP,
  flags: 0,
  names: nexthopNames,
  encode(w) {
    encodeHeader(w, AF_UNSPEC, 0)
    if (filter.groups) w.attrFlag(NHA.GROUPS)
    if (filter.fdb) w.attrFlag(NHA.FDB)
  },
})

export const decodeNexthop = (message: Message): Nexthop | undefined => {
  if (message.type !== RTM.NEWNEXTHOP && message.type !== RTM.DELNEXTHOP) return undefined
  let id: number | undefined
  let gateway: string | undefined
  let oif: number | undefined
  let group: Required<NexthopMember>[] | undefined
  let blackhole = false
  let fdb = false
  for (const attr of attributes(message, 8)) {
    if (attr.type === NHA.ID) id = attr.u32()
    else if (attr.type === NHA.GATEWAY) gateway = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === NHA.OIF) oif = attr.u32()
    else if (attr.type === NHA.BLACKHOLE) blackhole = true
    else if (attr.type === NHA.FDB) fdb = true
    else if (attr.type === NHA.GROUP) {
      group = []
      for (let at = 0; at + 8 <= attr.length; at += 8) group.push({ id: attr.u32(at), weight: attr.u8(at + 4) + 1 })
    }
  }
  if (id === undefined) return undefined
  return { id, gateway, oif, blackhole, group, fdb, protocol: message.u8(2), flags: message.u32(4) }
}

/** Is this event the end of the nexthop? */
export const isRemovedNexthop = (message: Message): boolean => message.type === RTM.DELNEXTHOP

// SPDX-License-Identifier: Apache-2.0
// Neighbour entries: IP -> MAC on a device (`ip neighbour`). The same messages as the FDB, in fdb.ts.
import type { AttributeNames } from '../explain.ts'
import { attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, formatMac, ipFamily } from '../text.ts'
import { AF_INET, AF_INET6, AF_UNSPEC, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../uapi.ts'
import { NDA, NTF, NUD, RTM } from './uapi.ts'

export interface NeighbourKey {
  readonly ifindex: number
  readonly ip: string
  /** A proxy entry: we answer for this address; it has no MAC. */
  readonly proxy?: boolean
}

export interface NewNeighbour extends NeighbourKey {
  /** Required unless proxy. */
  readonly mac?: string
  /** NUD; default PERMANENT. */
  readonly state?: number
  readonly extLearned?: boolean
  readonly router?: boolean
  /** Whose entry it is; 44 is ours. */
  readonly protocol?: number
}

export interface Neighbour {
  readonly ifindex: number
  readonly family: number
  readonly ip: string
  readonly mac: string | undefined
  readonly state: number
  readonly flags: number
  readonly proxy: boolean
  readonly protocol: number
}

export const neighNames: AttributeNames = {
  header: 12,
  table: Object.fromEntries(Object.entries(NDA).map(([name, type]) => [type, `NDA_${name}`])),
}

export const encodeNdmsg = (w: Writer, family: number, ifindex: number, state: number, flags: number): void => {
  w.u8(family)
  w.u8(0)
  w.u16(0)
  w.i32(ifindex)
  w.u16(state)
  w.u8(flags)
  w.u8(0)
}

const encode = (w: Writer, n: NewNeighbour): void => {
  const flags = (n.proxy ? NTF.PROXY : 0) | (n.extLearned ? NTF.EXT_LEARNED : 0) | (n.router ? NTF.ROUTER : 0)
  encodeNdmsg(w, ipFamily(n.ip), n.ifindex, n.state ?? NUD.PERMANENT, flags)
  w.attrIp(NDA.DST, n.ip)
  if (n.mac !== undefined) w.attrMac(NDA.LLADDR, n.mac)
  if (n.protocol !== undefined) w.attrU8(NDA.PROTOCOL, n.protocol)
}

const text = (n: NewNeighbour): string =>
  `neighbour ${n.proxy ? 'proxy ' : ''}${n.ip}${n.mac === undefined ? '' : ` at ${n.mac}`} on ${n.ifindex}`

const write = (verb: string, flags: number, n: NewNeighbour): Request => ({
  op: `${verb} ${text(n)}`,
  type: RTM.NEWNEIGH,
  flags,
  names: neighNames,
  encode: w => encode(w, n),
})

/** `ip neighbour add IP lladdr MAC dev DEV nud permanent`; EEXIST. */
export const addNeighbour = (n: NewNeighbour): Request => write('add', NLM_F_CREATE | NLM_F_EXCL, n)

/** `ip neighbour replace IP lladdr MAC dev DEV nud permanent`. */
export const replaceNeighbour = (n: NewNeighbour): Request => write('replace', NLM_F_CREATE | NLM_F_REPLACE, n)

/** `ip neighbour delete IP dev DEV`; ENOENT if absent. */
export const removeNeighbour = (key: NeighbourKey): Request => ({
  op: `remove ${text(key)}`,
  type: RTM.DELNEIGH,
  flags: 0,
  names: neighNames,
  encode(w) {
    encodeNdmsg(w, ipFamily(key.ip), key.ifindex, 0, key.proxy ? NTF.PROXY : 0)
    w.attrIp(NDA.DST, key.ip)
  },
})

export interface NeighbourFilter {
  readonly family?: number
  readonly ifindex?: number
  /** Proxy entries instead of the others. */
  readonly proxy?: boolean
}

/** `ip neighbour show [proxy] [dev DEV] nud all`. */
export const listNeighbours = (filter: NeighbourFilter = {}): Request => ({
  op: 'list neighbours',
  type: RTM.GETNEIGH,
  flags: 0,
  names: neighNames,
  encode(w) {
    encodeNdmsg(w, filter.family ?? AF_UNSPEC, 0, 0, filter.proxy ? NTF.PROXY : 0)
    if (filter.ifindex !== undefined) w.attrU32(NDA.IFINDEX, filter.ifindex)
  },
})

export const decodeNeighbour = (message: Message): Neighbour | undefined => {
  if (message.type !== RTM.NEWNEIGH && message.type !== RTM.DELNEIGH) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const flags = message.u8(10)
  let ip: string | undefined
  let mac: string | undefined
  let protocol = 0
  for (const attr of attributes(message, 12)) {
    if (attr.type === NDA.DST) ip = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === NDA.LLADDR) mac = formatMac(attr.buffer, attr.start, attr.end)
    else if (attr.type === NDA.PROTOCOL) protocol = attr.u8()
  }
  if (ip === undefined) return undefined
  const proxy = (flags & NTF.PROXY) !== 0
  return { ifindex: message.i32(4), family, ip, mac, state: message.u16(8), flags, proxy, protocol }
}

/** Is this event the end of the entry (of neigh or FDB)? */
export const isRemovedNeighbour = (message: Message): boolean => message.type === RTM.DELNEIGH

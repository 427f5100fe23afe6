// SPDX-License-Identifier: Apache-2.0
// FDB entries (`bridge fdb`): MAC -> remote host on a vxlan device (table "self"), MAC -> port on a bridge (table
// "master"). A remote MAC needs both, or the bridge floods.
//
// A dump of a large FDB during changes has duplicates and gaps that the kernel does not flag: de-duplicate by
// fdbKey, do not write during one's own dump, and never delete or add again because of one dump alone.
import { attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, formatMac } from '../text.ts'
import { AF_BRIDGE, NLM_F_APPEND, NLM_F_BULK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../uapi.ts'
import { encodeNdmsg, neighNames } from './neigh.ts'
import { NDA, NTF, NUD, RTM } from './uapi.ts'

/** The flood list of a vxlan device: one entry per remote host under this MAC, made with appendFdb. */
export const floodMac = '00:00:00:00:00:00'

export type FdbTable = 'self' | 'master' | 'both'

export interface FdbKey {
  /** The vxlan device, or the bridge port. */
  readonly ifindex: number
  readonly mac: string
  readonly table: FdbTable
  readonly vlan?: number
  /** Remote host; on removal only that one of several. */
  readonly dst?: string
  /** For a device with external VNIs. */
  readonly srcVni?: number
}

export interface NewFdb extends FdbKey {
  /** Nexthop group instead of dst. It is looked up in the namespace where the vxlan device was made. */
  readonly nhid?: number
  readonly vni?: number
  readonly port?: number
  /** ifindex of the underlay device. */
  readonly underlay?: number
  /** NUD; default PERMANENT for the flood list, NOARP in table master, else REACHABLE|NOARP. */
  readonly state?: number
  /** Default true: the entry does not age. Not on the flood list. */
  readonly extLearned?: boolean
  readonly sticky?: boolean
}

export interface Fdb {
  readonly ifindex: number
  readonly mac: string
  readonly table: 'self' | 'master'
  /** ifindex of the bridge, in table master. */
  readonly master: number | undefined
  readonly vlan: number | undefined
  readonly dst: string | undefined
  readonly nhid: number | undefined
  readonly vni: number | undefined
  readonly srcVni: number | undefined
  readonly port: number | undefined
  readonly underlay: number | undefined
  readonly state: number
  readonly flags: number
  readonly extLearned: boolean
}

const tableFlags: Readonly<Record<FdbTable, number>> = {
  self: NTF.SELF,
  master: NTF.MASTER,
  both: NTF.SELF | NTF.MASTER,
}

const defaultState = (e: NewFdb): number => {
  if (e.mac === floodMac) return NUD.PERMANENT
  return e.table === 'master' ? NUD.NOARP : NUD.REACHABLE | NUD.NOARP
}

const encodeKey = (w: Writer, key: FdbKey): void => {
  w.attrMac(NDA.LLADDR, key.mac)
  if (key.dst !== undefined) w.attrIp(NDA.DST, key.dst)
  if (key.vlan !== undefined) w.attrU16(NDA.VLAN, key.vlan)
  if (key.srcVni !== undefined) w.attrU32(NDA.SRC_VNI, key.srcVni)
}

const encode = (w: Writer, e: NewFdb): void => {
  const learned = (e.extLearned ?? e.mac !== floodMac) ? NTF.EXT_LEARNED : 0
  const flags = tableFlags[e.table] | learned | (e.sticky ? NTF.STICKY : 0)
  encodeNdmsg(w, AF_BRIDGE, e.ifindex, e.state ?? defaultState(e), flags)
  encodeKey(w, e)
  if (e.nhid !== undefined) w.attrU32(NDA.NH_ID, e.nhid)
  if (e.vni !== undefined) w.attrU32(NDA.VNI, e.vni)
  if (e.port !== undefined) w.attrBe16(NDA.PORT, e.port)
  if (e.underlay !== undefined) w.attrU32(NDA.IFINDEX, e.underlay)
}

const text = (e: NewFdb): string => {
  const via = e.dst !== undefined ? ` via ${e.dst}` : e.nhid !== undefined ? ` via nexthop ${e.nhid}` : ''
  return `fdb entry ${e.mac}${via} on ${e.ifindex} ${e.table}`
}

// The text is made only if it is asked for: a full table is 100,000 requests.
class FdbWrite implements Request {
  readonly type = RTM.NEWNEIGH
  readonly names = neighNames
  readonly flags: number
  readonly #verb: string
  readonly #entry: NewFdb
  constructor(verb: string, flags: number, entry: NewFdb) {
    this.#verb = verb
    this.flags = flags
    this.#entry = entry
  }
  get op(): string {
    return `${this.#verb} ${text(this.#entry)}`
  }
  encode(w: Writer): void {
    encode(w, this.#entry)
  }
}

/** `bridge fdb add MAC dev DEV dst IP self`; EEXIST. */
export const addFdb = (e: NewFdb): Request => new FdbWrite('add', NLM_F_CREATE | NLM_F_EXCL, e)

/** `bridge fdb replace MAC dev DEV dst IP self`: the MAC has this destination and no other. */
export const replaceFdb = (e: NewFdb): Request => new FdbWrite('replace', NLM_F_CREATE | NLM_F_REPLACE, e)

/** `bridge fdb append MAC dev DEV dst IP self`: one more destination; EEXIST if that one is there. */
export const appendFdb = (e: NewFdb): Request => new FdbWrite('append', NLM_F_CREATE | NLM_F_APPEND, e)

/** `bridge fdb delete MAC dev DEV [dst IP] self|master`; ENOENT if absent. */
export const removeFdb = (key: FdbKey): Request => ({
  op: `remove ${text(key)}`,
  type: RTM.DELNEIGH,
  flags: 0,
  names: neighNames,
  encode(w) {
    encodeNdmsg(w, AF_BRIDGE, key.ifindex, 0, tableFlags[key.table])
    encodeKey(w, key)
  },
})

export interface FdbFlush {
  readonly ifindex: number
  readonly table: 'self' | 'master'
  readonly dst?: string
  readonly vni?: number
  readonly nhid?: number
  readonly vlan?: number
}

/** `bridge fdb flush dev DEV self|master [nhid ID] ...`; on vxlan since 6.7, EINVAL before. */
export const flushFdb = (f: FdbFlush): Request => ({
  op: `flush fdb of ${f.ifindex} ${f.table}`,
  type: RTM.DELNEIGH,
  flags: NLM_F_BULK,
  names: neighNames,
  encode(w) {
    encodeNdmsg(w, AF_BRIDGE, f.ifindex, 0, tableFlags[f.table])
    if (f.dst !== undefined) w.attrIp(NDA.DST, f.dst)
    if (f.vni !== undefined) w.attrU32(NDA.VNI, f.vni)
    if (f.nhid !== undefined) w.attrU32(NDA.NH_ID, f.nhid)
    if (f.vlan !== undefined) w.attrU16(NDA.VLAN, f.vlan)
  },
})

/** `bridge fdb show [dev DEV] [br BRIDGE]`: of one device (its own table and its bridge's), of one bridge, or all. */
export const listFdb = (filter: { readonly ifindex?: number; readonly master?: number } = {}): Request => ({
  op: `list fdb${filter.ifindex === undefined ? '' : ` of ${filter.ifindex}`}`,
  type: RTM.GETNEIGH,
  flags: 0,
  names: neighNames,
  encode(w) {
    encodeNdmsg(w, AF_BRIDGE, filter.ifindex ?? 0, 0, 0)
    if (filter.master !== undefined) w.attrU32(NDA.MASTER, filter.master)
  },
})

export const decodeFdb = (message: Message): Fdb | undefined => {
  if (message.type !== RTM.NEWNEIGH && message.type !== RTM.DELNEIGH) return undefined
  if (message.u8(0) !== AF_BRIDGE) return undefined
  const flags = message.u8(10)
  let mac: string | undefined
  let master: number | undefined
  let vlan: number | undefined
  let dst: string | undefined
  let nhid: number | undefined
  let vni: number | undefined
  let srcVni: number | undefined
  let port: number | undefined
  let underlay: number | undefined
  for (const attr of attributes(message, 12)) {
    switch (attr.type) {
      case NDA.LLADDR:
        mac = formatMac(attr.buffer, attr.start, attr.end)
        break
      case NDA.DST:
        dst = formatIp(attr.buffer, attr.start, attr.end)
        break
      case NDA.MASTER:
        master = attr.u32()
        break
      case NDA.VLAN:
        vlan = attr.u16()
        break
      case NDA.NH_ID:
        nhid = attr.u32()
        break
      case NDA.VNI:
        vni = attr.u32()
        break
      case NDA.SRC_VNI:
        srcVni = attr.u32()
        break
      case NDA.PORT:
        port = attr.be16()
        break
      case NDA.IFINDEX:
        underlay = attr.u32()
        break
    }
  }
  if (mac === undefined) return undefined
  const table = (flags & NTF.SELF) !== 0 ? 'self' : 'master'
  const extLearned = (flags & NTF.EXT_LEARNED) !== 0
  const ifindex = message.i32(4)
  const state = message.u16(8)
  return { ifindex, mac, table, master, vlan, dst, nhid, vni, srcVni, port, underlay, state, flags, extLearned }
}

/** What makes an entry the same one: duplicates of a dump collapse under it. */
export const fdbKey = (e: Fdb | NewFdb): string =>
  `${e.ifindex} ${e.table} ${e.mac} ${e.vlan ?? ''} ${e.dst ?? ''} ${e.srcVni ?? ''} ${e.nhid ?? ''}`

// SPDX-License-Identifier: Apache-2.0
// Connections that the kernel tracks (`conntrack`): find those that match, remove one. Layout of
// linux/netfilter/nfnetlink_conntrack.h; over a socket of NETLINK_NETFILTER, in the namespace whose table it is.
//
// To cut what goes to a backend that is gone, and only that: findConntrack with what the backend answers from
// (reply.source), then one removeConntrack per entry found, in a batch, where ENOENT is success. A request to delete
// without a tuple empties the whole table; none can be made here.
import { type AttributeNames, nameTable } from '../explain.ts'
import { invalid, type Writer, within } from '../message.ts'
import type { Netlink, Request } from '../socket.ts'
import { formatIp, ipFamily, ipLength, writeIp } from '../text.ts'
import { AF_INET, AF_INET6, AF_UNSPEC, IPPROTO } from '../uapi.ts'
import { decodeConntrack, nfgenmsgLength } from './decode.ts'
import {
  type Conntrack,
  type ConntrackFilter,
  type ConntrackKey,
  type Tuple,
  type TupleFilter,
  tupleText,
} from './types.ts'
import { CTA, CTA_FILTER, CTA_IP, CTA_PROTO, CTA_TUPLE, IPCTNL_MSG_CT, NFNL_SUBSYS_CTNETLINK } from './uapi.ts'

const prefixed = (prefix: string, group: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(group).map(([name, value]) => [`${prefix}_${name}`, value]))

const tupleNames = nameTable(prefixed('CTA_TUPLE', CTA_TUPLE), {
  CTA_TUPLE_IP: nameTable(prefixed('CTA_IP', CTA_IP)),
  CTA_TUPLE_PROTO: nameTable(prefixed('CTA_PROTO', CTA_PROTO)),
})
const conntrackNames: AttributeNames = {
  header: nfgenmsgLength,
  table: nameTable(prefixed('CTA', CTA), {
    CTA_TUPLE_ORIG: tupleNames,
    CTA_TUPLE_REPLY: tupleNames,
    CTA_FILTER: nameTable(prefixed('CTA_FILTER', CTA_FILTER)),
  }),
}

const messageType = (message: number): number => (NFNL_SUBSYS_CTNETLINK << 8) | message

const encodeHeader = (w: Writer, family: number): void => {
  w.u8(family)
  w.u8(0)
  w.be16(0)
}

const u16 = (what: string, value: number): number => within(what, value, 0, 0xffff)

const encodeTuple = (w: Writer, type: number, tuple: Partial<Tuple>): void => {
  const { source, destination, protocol, icmp } = tuple
  w.nest(type, () => {
    w.nest(CTA_TUPLE.IP, () => {
      const address = (v4: number, v6: number, text: string): void =>
        w.attrIp(ipFamily(text) === AF_INET ? v4 : v6, text)
      if (source !== undefined) address(CTA_IP.V4_SRC, CTA_IP.V6_SRC, source)
      if (destination !== undefined) address(CTA_IP.V4_DST, CTA_IP.V6_DST, destination)
    })
    if (protocol !== undefined)
      w.nest(CTA_TUPLE.PROTO, () => {
        w.attrU8(CTA_PROTO.NUM, within('protocol', protocol, 0, 255))
        if (tuple.sourcePort !== undefined) w.attrBe16(CTA_PROTO.SRC_PORT, u16('port', tuple.sourcePort))
        if (tuple.destinationPort !== undefined) w.attrBe16(CTA_PROTO.DST_PORT, u16('port', tuple.destinationPort))
        if (icmp !== undefined) {
          const shift = protocol === IPPROTO.ICMPV6 ? CTA_PROTO.ICMPV6_ID - CTA_PROTO.ICMP_ID : 0
          w.attrBe16(CTA_PROTO.ICMP_ID + shift, u16('ICMP id', icmp.id))
          w.attrU8(CTA_PROTO.ICMP_TYPE + shift, icmp.type)
          w.attrU8(CTA_PROTO.ICMP_CODE + shift, icmp.code)
        }
      })
    if (tuple.zone !== undefined) w.attrBe16(CTA_TUPLE.ZONE, u16('zone', tuple.zone))
  })
}

/**
 * `conntrack -D -p tcp -s SRC -d DST --sport PORT --dport PORT [-w ZONE]` for one entry; ENOENT if it is gone, or if
 * another with another id is there instead; EINVAL if a port is missing that the protocol has.
 */
export const removeConntrack = ({ original, zone, id }: ConntrackKey): Request => ({
  get op() {
    return `remove conntrack entry ${tupleText(original)}${zone ? ` in zone ${zone}` : ''}`
  },
  type: messageType(IPCTNL_MSG_CT.DELETE),
  flags: 0,
  names: conntrackNames,
  encode(w) {
    if (zone && original.zone !== undefined) throw invalid('a zone of both directions and one of the original')
    encodeHeader(w, ipFamily(original.source))
    encodeTuple(w, CTA.TUPLE_ORIG, original)
    if (zone) w.attrBe16(CTA.ZONE, u16('zone', zone))
    if (id !== undefined) w.attrBe32(CTA.ID, id)
  },
})

const addressOf = (filter: ConntrackFilter): string | undefined =>
  filter.original?.source ?? filter.original?.destination ?? filter.reply?.source ?? filter.reply?.destination

// Bits of CTA_FILTER_ORIG_FLAGS, in host order. They stand in no header for programs, only in the kernel's
// net/netfilter/nf_conntrack_netlink.c: one for each of enum ctattr_filter_flags of nf_internals.h.
const filterFlag = { source: 1, destination: 2, protocol: 8, sourcePort: 0x10, destinationPort: 0x20 } as const

type Wanted = { readonly [name in keyof typeof filterFlag]?: Tuple[name] | undefined }

/**
 * What the kernel compares as we mean it. Not IPv6 addresses: it takes them for those that are not wanted (6.1 to 6.18,
 * ctnetlink_filter_match_tuple lets pass what differs). Not ports without a protocol that has them.
 */
const kernelPart = (family: number, tuple: TupleFilter = {}): TupleFilter => {
  const { source, destination, protocol, sourcePort, destinationPort } = tuple
  const ported = protocol === IPPROTO.TCP || protocol === IPPROTO.UDP
  return {
    ...(family === AF_INET && source !== undefined && { source }),
    ...(family === AF_INET && destination !== undefined && { destination }),
    ...(protocol !== undefined && { protocol }),
    ...(ported && sourcePort !== undefined && { sourcePort }),
    ...(ported && destinationPort !== undefined && { destinationPort }),
  }
}

const flagsOf = (tuple: TupleFilter): number => {
  let flags = 0
  for (const [name, flag] of Object.entries(filterFlag))
    if (tuple[name as keyof typeof filterFlag] !== undefined) flags |= flag
  return flags
}

/** The kernel's part of a filter, for dump; the whole is findConntrack's. */
const listConntrack = (filter: ConntrackFilter): Request => ({
  op: 'list conntrack entries',
  type: messageType(IPCTNL_MSG_CT.GET),
  flags: 0,
  names: conntrackNames,
  encode(w) {
    const address = addressOf(filter)
    const family = filter.family ?? (address === undefined ? AF_UNSPEC : ipFamily(address))
    encodeHeader(w, family)
    if (filter.mark !== undefined) {
      const mask = (filter.mark.mask ?? 0xffff_ffff) >>> 0
      w.attrBe32(CTA.MARK, (filter.mark.value & mask) >>> 0)
      w.attrBe32(CTA.MARK_MASK, mask)
    }
    if (family !== AF_INET && family !== AF_INET6) return // tuples of any family it does not compare
    const original = kernelPart(family, filter.original)
    const reply = kernelPart(family, filter.reply)
    const flags = [flagsOf(original), flagsOf(reply)] as const
    if (flags[0] !== 0) encodeTuple(w, CTA.TUPLE_ORIG, original)
    if (flags[1] !== 0) encodeTuple(w, CTA.TUPLE_REPLY, reply)
    if (flags[0] !== 0 || flags[1] !== 0)
      w.nest(CTA.FILTER, () => {
        w.attrU32(CTA_FILTER.ORIG_FLAGS, flags[0])
        w.attrU32(CTA_FILTER.REPLY_FLAGS, flags[1])
      })
  },
})

const canonical = (address: string | undefined): string | undefined => {
  if (address === undefined) return undefined
  const bytes = new Uint8Array(ipLength(address))
  writeIp(address, bytes, 0)
  return formatIp(bytes, 0, bytes.length)
}

const tupleMatcher = (filter: TupleFilter = {}): ((tuple: Tuple) => boolean) => {
  const wanted: Wanted = {
    ...filter,
    source: canonical(filter.source),
    destination: canonical(filter.destination),
  }
  const names = Object.keys(filterFlag) as (keyof typeof filterFlag)[]
  const asked = names.filter(name => wanted[name] !== undefined)
  return tuple => asked.every(name => wanted[name] === tuple[name])
}

/** The whole filter: kernels differ in how much of it they know, and what they do not know they let pass. */
const matcher = ({ family, mark, zone, destinationNat, original, reply }: ConntrackFilter) => {
  const originalMatches = tupleMatcher(original)
  const replyMatches = tupleMatcher(reply)
  return (entry: Conntrack): boolean => {
    if (family !== undefined && family !== entry.family) return false
    if (mark !== undefined && ((entry.mark ^ mark.value) & (mark.mask ?? 0xffff_ffff)) !== 0) return false
    if (zone !== undefined && zone !== (entry.original.zone ?? entry.zone)) return false
    if (destinationNat !== undefined && destinationNat !== entry.destinationNat) return false
    return originalMatches(entry.original) && replyMatches(entry.reply)
  }
}

/**
 * `conntrack -L`, those that match. While connections come and go an entry may be there twice, and one that comes
 * during the call may be missing: look again after what makes new ones was stopped. Rejects with NetlinkError; EINVAL
 * also where the kernel has no nf_conntrack_netlink (it loads the module by itself if it can).
 */
export const findConntrack = async (netlink: Netlink, filter: ConntrackFilter = {}): Promise<Conntrack[]> => {
  const matches = matcher(filter)
  return await netlink.dump(listConntrack(filter), message => {
    const entry = decodeConntrack(message)
    return entry && matches(entry) ? entry : undefined
  })
}

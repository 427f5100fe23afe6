// SPDX-License-Identifier: Apache-2.0
// Entries as the kernel sends them, in dumps and in notifications. One without tuples, or with an address of another
// size than its family's, throws KERNEL.
import { type Attribute, attributes, type Message, malformed } from '../message.ts'
import { formatIp } from '../text.ts'
import { AF_INET, AF_INET6 } from '../uapi.ts'
import type { Conntrack, Icmp, Tuple } from './types.ts'
import {
  CTA,
  CTA_IP,
  CTA_PROTO,
  CTA_PROTOINFO,
  CTA_PROTOINFO_TCP,
  CTA_TUPLE,
  IPCTNL_MSG_CT,
  IPS,
  NFNL_SUBSYS_CTNETLINK,
  TCP_CONNTRACK,
} from './uapi.ts'

/** u8 family, u8 version, be16 resource */
export const nfgenmsgLength = 4

const tcpStates = new Map(Object.entries(TCP_CONNTRACK).map(([name, state]) => [state as number, name]))

type Proto = Pick<Tuple, 'protocol' | 'sourcePort' | 'destinationPort' | 'icmp'>

const decodeProto = (container: Attribute): Proto => {
  let protocol: number | undefined
  let sourcePort: number | undefined
  let destinationPort: number | undefined
  const icmp: { -readonly [field in keyof Icmp]?: number } = {}
  for (const attr of container.nested()) {
    switch (attr.type) {
      case CTA_PROTO.NUM:
        protocol = attr.u8()
        break
      case CTA_PROTO.SRC_PORT:
        sourcePort = attr.be16()
        break
      case CTA_PROTO.DST_PORT:
        destinationPort = attr.be16()
        break
      case CTA_PROTO.ICMP_ID:
      case CTA_PROTO.ICMPV6_ID:
        icmp.id = attr.be16()
        break
      case CTA_PROTO.ICMP_TYPE:
      case CTA_PROTO.ICMPV6_TYPE:
        icmp.type = attr.u8()
        break
      case CTA_PROTO.ICMP_CODE:
      case CTA_PROTO.ICMPV6_CODE:
        icmp.code = attr.u8()
        break
    }
  }
  if (protocol === undefined) throw malformed('conntrack tuple without a protocol')
  const { id, type, code } = icmp
  const whole = id === undefined || type === undefined || code === undefined ? undefined : { id, type, code }
  return { protocol, sourcePort, destinationPort, icmp: whole }
}

const decodeTuple = (container: Attribute, family: number): Tuple => {
  const size = family === AF_INET ? 4 : 16
  const decodeIp = (attr: Attribute): string | undefined =>
    attr.length === size ? formatIp(attr.buffer, attr.start, attr.end) : undefined
  let source: string | undefined
  let destination: string | undefined
  let proto: Proto | undefined
  let zone: number | undefined
  for (const attr of container.nested()) {
    if (attr.type === CTA_TUPLE.PROTO) proto = decodeProto(attr)
    else if (attr.type === CTA_TUPLE.ZONE) zone = attr.be16()
    else if (attr.type === CTA_TUPLE.IP) {
      for (const ip of attr.nested()) {
        if (ip.type === CTA_IP.V4_SRC || ip.type === CTA_IP.V6_SRC) source = decodeIp(ip)
        else if (ip.type === CTA_IP.V4_DST || ip.type === CTA_IP.V6_DST) destination = decodeIp(ip)
      }
    }
  }
  if (source === undefined || destination === undefined || proto === undefined)
    throw malformed(`conntrack tuple of family ${family} without both addresses and a protocol`)
  return { source, destination, ...proto, zone }
}

const decodeTcpState = (container: Attribute): string | undefined => {
  for (const proto of container.nested()) {
    if (proto.type !== CTA_PROTOINFO.TCP) continue
    for (const attr of proto.nested()) {
      if (attr.type === CTA_PROTOINFO_TCP.STATE) return tcpStates.get(attr.u8()) ?? `state ${attr.u8()}`
    }
  }
  return undefined
}

/** Entries of a dump, new and changed ones of a notification, and those that ended; undefined for other messages. */
export const decodeConntrack = (message: Message): Conntrack | undefined => {
  const kind = message.type - (NFNL_SUBSYS_CTNETLINK << 8)
  if (kind !== IPCTNL_MSG_CT.NEW && kind !== IPCTNL_MSG_CT.DELETE) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  let original: Tuple | undefined
  let reply: Tuple | undefined
  let zone = 0
  let id: number | undefined
  let mark = 0
  let status = 0
  let timeoutSeconds: number | undefined
  let tcpState: string | undefined
  for (const attr of attributes(message, nfgenmsgLength)) {
    switch (attr.type) {
      case CTA.TUPLE_ORIG:
        original = decodeTuple(attr, family)
        break
      case CTA.TUPLE_REPLY:
        reply = decodeTuple(attr, family)
        break
      case CTA.ZONE:
        zone = attr.be16()
        break
      case CTA.ID:
        id = attr.be32()
        break
      case CTA.MARK:
        mark = attr.be32()
        break
      case CTA.STATUS:
        status = attr.be32()
        break
      case CTA.TIMEOUT:
        timeoutSeconds = attr.be32()
        break
      case CTA.PROTOINFO:
        tcpState = decodeTcpState(attr)
        break
    }
  }
  if (original === undefined || reply === undefined || id === undefined)
    throw malformed('conntrack entry without both tuples and an id')
  return {
    family,
    original,
    reply,
    zone,
    id,
    mark,
    timeoutSeconds,
    status,
    seenReply: (status & IPS.SEEN_REPLY) !== 0,
    assured: (status & IPS.ASSURED) !== 0,
    sourceNat: (status & IPS.SRC_NAT) !== 0,
    destinationNat: (status & IPS.DST_NAT) !== 0,
    tcpState,
  }
}

/** Is this notification the end of the entry? */
export const isRemovedConntrack = (message: Message): boolean =>
  message.type === ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT.DELETE)

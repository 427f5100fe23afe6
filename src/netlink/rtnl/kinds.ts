// SPDX-License-Identifier: Apache-2.0
// The options of the link kinds we make: bridge and vxlan (IFLA_INFO_DATA).
import type { Attribute, Writer } from '../message.ts'
import { formatIp, ipLength } from '../text.ts'
import { IFLA_BR, IFLA_VXLAN } from './uapi.ts'

export interface BridgeOptions {
  /** Hundredths of a second, as the kernel counts them. */
  readonly ageingTime?: number
  readonly forwardDelay?: number
  readonly stp?: boolean
  readonly vlanFiltering?: boolean
  /** 0: none. */
  readonly vlanDefaultPvid?: number
  readonly multicastSnooping?: boolean
  readonly nfCallIptables?: boolean
  readonly nfCallIp6tables?: boolean
  /** Bits of the 01:80:c2:00:00:0X addresses that are forwarded. */
  readonly groupForwardMask?: number
}

/** What the kernel lets change on a living vxlan device. */
export interface VxlanChange {
  readonly local?: string
  /** Default destination or multicast group. */
  readonly group?: string
  /** ifindex of the underlay device. */
  readonly link?: number
  readonly learning?: boolean
  readonly ttl?: number
  readonly tos?: number
  readonly ageing?: number
  readonly limit?: number
}

export interface VxlanOptions extends VxlanChange {
  /** Leave out with `external`. */
  readonly vni?: number
  /** UDP port; always sent, the kernel's default is not 4789. */
  readonly port: number
  /** Default false here, true in the kernel. */
  readonly learning?: boolean
  readonly gbp?: boolean
  readonly proxy?: boolean
  readonly l2miss?: boolean
  readonly l3miss?: boolean
  readonly udpChecksum?: boolean
  readonly udpZeroChecksum6Tx?: boolean
  readonly udpZeroChecksum6Rx?: boolean
  /** 0 unset, 1 set, 2 inherit. */
  readonly df?: number
  /** UDP source ports, from and to. */
  readonly portRange?: readonly [low: number, high: number]
  /** COLLECT_METADATA: the VNI comes with each packet. */
  readonly external?: boolean
  /** Only with `external`. */
  readonly vniFilter?: boolean
}

export interface VxlanState {
  readonly vni: number
  readonly port: number
  readonly local: string | undefined
  readonly group: string | undefined
  readonly link: number | undefined
  readonly learning: boolean
  readonly gbp: boolean
  readonly ttl: number
  readonly tos: number
  readonly proxy: boolean
  readonly l2miss: boolean
  readonly l3miss: boolean
  readonly udpChecksum: boolean
  readonly udpZeroChecksum6Tx: boolean
  readonly udpZeroChecksum6Rx: boolean
  readonly df: number
  readonly ageing: number
  readonly limit: number
  readonly portRange: readonly [low: number, high: number]
  readonly external: boolean
  readonly vniFilter: boolean
}

const names = (group: string, members: Readonly<Record<string, number>>): Readonly<Record<number, string>> =>
  Object.fromEntries(Object.entries(members).map(([name, type]) => [type, `${group}_${name}`]))
export const bridgeNames = names('IFLA_BR', IFLA_BR)
export const vxlanNames = names('IFLA_VXLAN', IFLA_VXLAN)

const attrBool = (w: Writer, type: number, value: boolean | undefined): void => {
  if (value !== undefined) w.attrU8(type, value ? 1 : 0)
}

export const encodeBridge = (w: Writer, o: BridgeOptions): void => {
  if (o.forwardDelay !== undefined) w.attrU32(IFLA_BR.FORWARD_DELAY, o.forwardDelay)
  if (o.ageingTime !== undefined) w.attrU32(IFLA_BR.AGEING_TIME, o.ageingTime)
  if (o.stp !== undefined) w.attrU32(IFLA_BR.STP_STATE, o.stp ? 1 : 0)
  attrBool(w, IFLA_BR.VLAN_FILTERING, o.vlanFiltering)
  if (o.groupForwardMask !== undefined) w.attrU16(IFLA_BR.GROUP_FWD_MASK, o.groupForwardMask)
  attrBool(w, IFLA_BR.MCAST_SNOOPING, o.multicastSnooping)
  attrBool(w, IFLA_BR.NF_CALL_IPTABLES, o.nfCallIptables)
  attrBool(w, IFLA_BR.NF_CALL_IP6TABLES, o.nfCallIp6tables)
  if (o.vlanDefaultPvid !== undefined) w.attrU16(IFLA_BR.VLAN_DEFAULT_PVID, o.vlanDefaultPvid)
}

export const decodeBridge = (data: Attribute): Required<BridgeOptions> => {
  const o: { -readonly [K in keyof BridgeOptions]-?: NonNullable<BridgeOptions[K]> } = {
    ...{ ageingTime: 0, forwardDelay: 0, stp: false, vlanFiltering: false, vlanDefaultPvid: 0 },
    ...{ multicastSnooping: false, nfCallIptables: false, nfCallIp6tables: false, groupForwardMask: 0 },
  }
  for (const attr of data.nested()) {
    switch (attr.type) {
      case IFLA_BR.FORWARD_DELAY:
        o.forwardDelay = attr.u32()
        break
      case IFLA_BR.AGEING_TIME:
        o.ageingTime = attr.u32()
        break
      case IFLA_BR.STP_STATE:
        o.stp = attr.u32() !== 0
        break
      case IFLA_BR.VLAN_FILTERING:
        o.vlanFiltering = attr.u8() !== 0
        break
      case IFLA_BR.GROUP_FWD_MASK:
        o.groupForwardMask = attr.u16()
        break
      case IFLA_BR.MCAST_SNOOPING:
        o.multicastSnooping = attr.u8() !== 0
        break
      case IFLA_BR.NF_CALL_IPTABLES:
        o.nfCallIptables = attr.u8() !== 0
        break
      case IFLA_BR.NF_CALL_IP6TABLES:
        o.nfCallIp6tables = attr.u8() !== 0
        break
      case IFLA_BR.VLAN_DEFAULT_PVID:
        o.vlanDefaultPvid = attr.u16()
        break
    }
  }
  return o
}

export const encodeVxlanChange = (w: Writer, o: VxlanChange): void => {
  if (o.group !== undefined) w.attrIp(ipLength(o.group) === 4 ? IFLA_VXLAN.GROUP : IFLA_VXLAN.GROUP6, o.group)
  if (o.link !== undefined) w.attrU32(IFLA_VXLAN.LINK, o.link)
  if (o.local !== undefined) w.attrIp(ipLength(o.local) === 4 ? IFLA_VXLAN.LOCAL : IFLA_VXLAN.LOCAL6, o.local)
  if (o.ttl !== undefined) w.attrU8(IFLA_VXLAN.TTL, o.ttl)
  if (o.tos !== undefined) w.attrU8(IFLA_VXLAN.TOS, o.tos)
  attrBool(w, IFLA_VXLAN.LEARNING, o.learning)
  if (o.ageing !== undefined) w.attrU32(IFLA_VXLAN.AGEING, o.ageing)
  if (o.limit !== undefined) w.attrU32(IFLA_VXLAN.LIMIT, o.limit)
}

export const encodeVxlan = (w: Writer, o: VxlanOptions): void => {
  if (o.vni !== undefined) w.attrU32(IFLA_VXLAN.ID, o.vni)
  encodeVxlanChange(w, { ...o, learning: o.learning ?? false })
  if (o.portRange !== undefined) {
    w.attrHeader(IFLA_VXLAN.PORT_RANGE, 4)
    w.be16(o.portRange[0])
    w.be16(o.portRange[1])
  }
  attrBool(w, IFLA_VXLAN.PROXY, o.proxy)
  attrBool(w, IFLA_VXLAN.L2MISS, o.l2miss)
  attrBool(w, IFLA_VXLAN.L3MISS, o.l3miss)
  w.attrBe16(IFLA_VXLAN.PORT, o.port)
  attrBool(w, IFLA_VXLAN.UDP_CSUM, o.udpChecksum)
  attrBool(w, IFLA_VXLAN.UDP_ZERO_CSUM6_TX, o.udpZeroChecksum6Tx)
  attrBool(w, IFLA_VXLAN.UDP_ZERO_CSUM6_RX, o.udpZeroChecksum6Rx)
  if (o.gbp) w.attrFlag(IFLA_VXLAN.GBP)
  if (o.df !== undefined) w.attrU8(IFLA_VXLAN.DF, o.df)
  attrBool(w, IFLA_VXLAN.COLLECT_METADATA, o.external)
  attrBool(w, IFLA_VXLAN.VNIFILTER, o.vniFilter)
}

const booleans = new Map<
  number,
  | 'learning'
  | 'proxy'
  | 'l2miss'
  | 'l3miss'
  | 'udpChecksum'
  | 'udpZeroChecksum6Tx'
  | 'udpZeroChecksum6Rx'
  | 'external'
  | 'vniFilter'
>([
  [IFLA_VXLAN.LEARNING, 'learning'],
  [IFLA_VXLAN.PROXY, 'proxy'],
  [IFLA_VXLAN.L2MISS, 'l2miss'],
  [IFLA_VXLAN.L3MISS, 'l3miss'],
  [IFLA_VXLAN.UDP_CSUM, 'udpChecksum'],
  [IFLA_VXLAN.UDP_ZERO_CSUM6_TX, 'udpZeroChecksum6Tx'],
  [IFLA_VXLAN.UDP_ZERO_CSUM6_RX, 'udpZeroChecksum6Rx'],
  [IFLA_VXLAN.COLLECT_METADATA, 'external'],
  [IFLA_VXLAN.VNIFILTER, 'vniFilter'],
])

export const decodeVxlan = (data: Attribute): VxlanState => {
  const o: { -readonly [K in keyof VxlanState]: VxlanState[K] } = {
    ...{ vni: 0, port: 0, local: undefined, group: undefined, link: undefined, learning: false, gbp: false },
    ...{ ttl: 0, tos: 0, proxy: false, l2miss: false, l3miss: false, udpChecksum: false, udpZeroChecksum6Tx: false },
    ...{ udpZeroChecksum6Rx: false, df: 0, ageing: 0, limit: 0, portRange: [0, 0], external: false, vniFilter: false },
  }
  for (const attr of data.nested()) {
    const flag = booleans.get(attr.type)
    if (flag !== undefined) o[flag] = attr.u8() !== 0
    switch (attr.type) {
      case IFLA_VXLAN.ID:
        o.vni = attr.u32()
        break
      case IFLA_VXLAN.PORT:
        o.port = attr.be16()
        break
      case IFLA_VXLAN.LOCAL:
      case IFLA_VXLAN.LOCAL6:
        o.local = formatIp(attr.buffer, attr.start, attr.end)
        break
      case IFLA_VXLAN.GROUP:
      case IFLA_VXLAN.GROUP6:
        o.group = formatIp(attr.buffer, attr.start, attr.end)
        break
      case IFLA_VXLAN.LINK:
        o.link = attr.u32() === 0 ? undefined : attr.u32()
        break
      case IFLA_VXLAN.GBP:
        o.gbp = true
        break
      case IFLA_VXLAN.TTL:
        o.ttl = attr.u8()
        break
      case IFLA_VXLAN.TOS:
        o.tos = attr.u8()
        break
      case IFLA_VXLAN.DF:
        o.df = attr.u8()
        break
      case IFLA_VXLAN.AGEING:
        o.ageing = attr.u32()
        break
      case IFLA_VXLAN.LIMIT:
        o.limit = attr.u32()
        break
      case IFLA_VXLAN.PORT_RANGE:
        o.portRange = [attr.be16(0), attr.be16(2)]
        break
    }
  }
  return o
}

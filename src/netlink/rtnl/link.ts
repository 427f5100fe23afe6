// SPDX-License-Identifier: Apache-2.0
// Links: bridges, vxlan devices, veth pairs and ports. Link kinds are in kinds.ts, bridge ports in port.ts.
// A message is one `ip link` command; the equivalent stands at each function.
import { type AttributeNames, nameTable } from '../explain.ts'
import { type Attribute, attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatMac } from '../text.ts'
import { AF_INET6, AF_UNSPEC, NLM_F_CREATE, NLM_F_EXCL } from '../uapi.ts'
import {
  type BridgeOptions,
  bridgeNames,
  decodeBridge,
  decodeVxlan,
  encodeBridge,
  encodeVxlan,
  encodeVxlanChange,
  type VxlanChange,
  type VxlanOptions,
  type VxlanState,
  vxlanNames,
} from './kinds.ts'
import { type BridgePort, decodePort, encodePort, portNames } from './port.ts'
import { IFF, IFLA, IFLA_INET6, IFLA_INFO, IFLA_VRF, IN6_ADDR_GEN_MODE, RTEXT_FILTER, RTM, VETH_INFO } from './uapi.ts'

export const ifNameSize = 16 // with the NUL

/** How a request names a device: by index, or by name where no look-up was made. */
export type LinkRef = { readonly index: number } | { readonly name: string }

export type AddrGenMode = 'eui64' | 'none' | 'stable-privacy' | 'random'
const addrGenModes: Readonly<Record<AddrGenMode, number>> = {
  eui64: IN6_ADDR_GEN_MODE.EUI64,
  none: IN6_ADDR_GEN_MODE.NONE,
  'stable-privacy': IN6_ADDR_GEN_MODE.STABLE_PRIVACY,
  random: IN6_ADDR_GEN_MODE.RANDOM,
}

/** What can be set on any link, at creation and later. */
export interface LinkSettings {
  readonly up?: boolean
  /** Whether it asks its neighbours for addresses and answers them. */
  readonly arp?: boolean
  readonly mtu?: number
  readonly mac?: string
  /** ifindex of the bridge; 0 releases the port. */
  readonly master?: number
  readonly txQueueLength?: number
  readonly group?: number
  /** Receive and transmit queues; only at creation. */
  readonly queues?: number
  /** Descriptor of the target namespace (netns.ts: openNetnsFd), open until the request is done. */
  readonly netnsFd?: number
}

export interface LinkChange extends LinkSettings {
  /** A new name; the device must be down on older kernels. */
  readonly name?: string
  /** Ignored by the kernel at creation. */
  readonly alias?: string
  /** How the kernel makes the IPv6 link-local address. EAFNOSUPPORT at creation, and below an MTU of 1280. */
  readonly addrGenMode?: AddrGenMode
}

/** The far end of a veth pair. It cannot be brought up in the same request. */
export interface VethPeer extends Omit<LinkSettings, 'up' | 'arp' | 'master'> {
  readonly name: string
  readonly index?: number
}

export type LinkKind =
  | ({ readonly kind: 'bridge' } & BridgeOptions)
  | ({ readonly kind: 'vxlan' } & VxlanOptions)
  | { readonly kind: 'veth'; readonly peer: VethPeer }
  | { readonly kind: 'vrf'; readonly table: number }
  /** Kinds without options of interest: "wireguard", "dummy", "ifb". */
  | { readonly kind: 'plain'; readonly name: string }

export type LinkKindChange = ({ readonly kind: 'bridge' } & BridgeOptions) | ({ readonly kind: 'vxlan' } & VxlanChange)

export interface NewLink extends LinkSettings {
  readonly name: string
  /** Choose the ifindex; EEXIST if it is taken. Left out: the kernel chooses. */
  readonly index?: number
  readonly type: LinkKind
}

export interface Link {
  readonly index: number
  readonly name: string
  readonly flags: number
  readonly up: boolean
  readonly arp: boolean
  /** Operational and with a carrier, whose loss the kernel tells first and by up to a second (net/core/link_watch.c). */
  readonly running: boolean
  /** `ip link set DEV protodown on`: it has no carrier, whatever else is set. */
  readonly protoDown: boolean
  readonly mtu: number
  readonly mac: string
  readonly txQueueLength: number
  readonly group: number
  /** IF_OPER_*: 2 down, 3 lower layer down, 6 up, 0 unknown. */
  readonly operState: number
  readonly master: number | undefined
  /** veth: ifindex of the peer, in the namespace `linkNetnsId` if given, else in the same. */
  readonly link: number | undefined
  readonly linkNetnsId: number | undefined
  readonly alias: string | undefined
  readonly addrGenMode: AddrGenMode | undefined
  /** "bridge", "vxlan", "veth", ...; undefined for physical devices and lo. */
  readonly kind: string | undefined
  readonly bridge: Required<BridgeOptions> | undefined
  readonly vxlan: VxlanState | undefined
  readonly vrfTable: number | undefined
  /** "bridge" for a bridge port. */
  readonly slaveKind: string | undefined
  readonly port: BridgePort | undefined
}

const linkInfo = nameTable(
  Object.fromEntries(Object.entries(IFLA_INFO).map(([name, value]) => [`IFLA_INFO_${name}`, value])),
  { IFLA_INFO_DATA: { ...bridgeNames } },
)
const linkInfoVxlan = { ...linkInfo, [IFLA_INFO.DATA]: ['IFLA_INFO_DATA', vxlanNames] as const }
const tableOf = (info: typeof linkInfo) =>
  nameTable(Object.fromEntries(Object.entries(IFLA).map(([name, value]) => [`IFLA_${name}`, value])), {
    IFLA_LINKINFO: info,
    IFLA_PROTINFO: portNames,
  })
export const linkNames: AttributeNames = { header: 16, table: tableOf(linkInfo) }
const linkNamesVxlan: AttributeNames = { header: 16, table: tableOf(linkInfoVxlan) }

export const encodeIfinfo = (w: Writer, family: number, index: number, flags = 0, change = 0): void => {
  w.u8(family)
  w.u8(0)
  w.u16(0)
  w.i32(index)
  w.u32(flags)
  w.u32(change)
}

const encodeFlags = (w: Writer, index: number, { up, arp }: LinkSettings): void => {
  const flags = (up ? IFF.UP : 0) | (arp === false ? IFF.NOARP : 0)
  const change = (up === undefined ? 0 : IFF.UP) | (arp === undefined ? 0 : IFF.NOARP)
  encodeIfinfo(w, AF_UNSPEC, index, flags, change)
}

const encodeSettings = (w: Writer, s: LinkSettings): void => {
  if (s.mac !== undefined) w.attrMac(IFLA.ADDRESS, s.mac)
  if (s.mtu !== undefined) w.attrU32(IFLA.MTU, s.mtu)
  if (s.master !== undefined) w.attrU32(IFLA.MASTER, s.master)
  if (s.txQueueLength !== undefined) w.attrU32(IFLA.TXQLEN, s.txQueueLength)
  if (s.group !== undefined) w.attrU32(IFLA.GROUP, s.group)
  if (s.queues !== undefined) {
    w.attrU32(IFLA.NUM_TX_QUEUES, s.queues)
    w.attrU32(IFLA.NUM_RX_QUEUES, s.queues)
  }
  if (s.netnsFd !== undefined) w.attrU32(IFLA.NET_NS_FD, s.netnsFd)
}

const encodeKindData = (w: Writer, type: LinkKind): void => {
  if (type.kind === 'bridge') encodeBridge(w, type)
  else if (type.kind === 'vxlan') encodeVxlan(w, type)
  else if (type.kind === 'vrf') w.attrU32(IFLA_VRF.TABLE, type.table)
  else if (type.kind === 'veth') {
    w.nest(VETH_INFO.PEER, () => {
      encodeIfinfo(w, AF_UNSPEC, type.peer.index ?? 0)
      w.attrString(IFLA.IFNAME, type.peer.name, ifNameSize)
      encodeSettings(w, type.peer)
    })
  }
}

const refText = (ref: LinkRef): string => ('name' in ref ? `"${ref.name}"` : `${ref.index}`)
const refIndex = (ref: LinkRef): number => ('index' in ref ? ref.index : 0)
const encodeRefName = (w: Writer, ref: LinkRef): void => {
  if ('name' in ref) w.attrString(IFLA.IFNAME, ref.name, ifNameSize)
}

/** `ip link add NAME type KIND ...`; EEXIST if name or index is taken. */
export const addLink = (link: NewLink): Request => {
  const kindName = link.type.kind === 'plain' ? link.type.name : link.type.kind
  return {
    op: `add ${kindName} "${link.name}"`,
    type: RTM.NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    names: link.type.kind === 'vxlan' ? linkNamesVxlan : linkNames,
    encode(w) {
      encodeFlags(w, link.index ?? 0, link)
      w.attrString(IFLA.IFNAME, link.name, ifNameSize)
      encodeSettings(w, link)
      w.nest(IFLA.LINKINFO, () => {
        w.attrString(IFLA_INFO.KIND, kindName)
        w.nest(IFLA_INFO.DATA, () => encodeKindData(w, link.type))
      })
    },
  }
}

/** `ip link set DEV up|mtu|address|master|netns|name|...`; ENODEV if there is none. Moving: give netnsFd alone. */
export const setLink = (ref: LinkRef, change: LinkChange): Request => ({
  op: `set link ${refText(ref)}`,
  type: RTM.NEWLINK,
  flags: 0,
  names: linkNames,
  encode(w) {
    encodeFlags(w, refIndex(ref), change)
    // With an index, IFNAME is the new name; without, it is how the device is found.
    if ('name' in ref) {
      encodeRefName(w, ref)
      if (change.name !== undefined) throw new RangeError('a link can only be renamed by its index')
    } else if (change.name !== undefined) {
      w.attrString(IFLA.IFNAME, change.name, ifNameSize)
    }
    encodeSettings(w, change)
    if (change.alias !== undefined) w.attrString(IFLA.IFALIAS, change.alias, 256)
    if (change.addrGenMode !== undefined) {
      const mode = addrGenModes[change.addrGenMode]
      w.nest(IFLA.AF_SPEC, () => w.nest(AF_INET6, () => w.attrU8(IFLA_INET6.ADDR_GEN_MODE, mode)))
    }
  },
})

/** `ip link set DEV type bridge ...` or `type vxlan ...`. */
export const setLinkKind = (ref: LinkRef, change: LinkKindChange): Request => ({
  op: `set ${change.kind} ${refText(ref)}`,
  type: RTM.NEWLINK,
  flags: 0,
  names: change.kind === 'vxlan' ? linkNamesVxlan : linkNames,
  encode(w) {
    encodeIfinfo(w, AF_UNSPEC, refIndex(ref))
    encodeRefName(w, ref)
    w.nest(IFLA.LINKINFO, () => {
      w.attrString(IFLA_INFO.KIND, change.kind)
      w.nest(IFLA_INFO.DATA, () => (change.kind === 'bridge' ? encodeBridge(w, change) : encodeVxlanChange(w, change)))
    })
  },
})

/** `bridge link set dev PORT ...`. The kernel ignores what it does not know: read back what matters. */
export const setBridgePort = (index: number, port: Partial<BridgePort>): Request => ({
  op: `set bridge port ${index}`,
  type: RTM.SETLINK,
  flags: 0,
  names: linkNames,
  encode: w => encodePort(w, index, port),
})

/** `ip link delete DEV`; for a veth both ends go. */
export const removeLink = (ref: LinkRef): Request => ({
  op: `remove link ${refText(ref)}`,
  type: RTM.DELLINK,
  flags: 0,
  names: linkNames,
  encode(w) {
    encodeIfinfo(w, AF_UNSPEC, refIndex(ref))
    encodeRefName(w, ref)
  },
})

/** `ip link show DEV`, for Netlink.run: one reply. ENODEV if there is none. */
export const getLink = (ref: LinkRef): Request => ({
  op: `get link ${refText(ref)}`,
  type: RTM.GETLINK,
  flags: 0,
  names: linkNames,
  encode(w) {
    encodeIfinfo(w, AF_UNSPEC, refIndex(ref))
    encodeRefName(w, ref)
    w.attrU32(IFLA.EXT_MASK, RTEXT_FILTER.SKIP_STATS)
  },
})

export interface LinkFilter {
  readonly master?: number
  readonly kind?: string
}

/** `ip link show [master DEV] [type KIND]`, for Netlink.dump with decodeLink. */
export const listLinks = (filter: LinkFilter = {}): Request => ({
  op: 'list links',
  type: RTM.GETLINK,
  flags: 0,
  names: linkNames,
  encode(w) {
    const { kind } = filter
    encodeIfinfo(w, AF_UNSPEC, 0)
    w.attrU32(IFLA.EXT_MASK, RTEXT_FILTER.SKIP_STATS)
    if (filter.master !== undefined) w.attrU32(IFLA.MASTER, filter.master)
    if (kind !== undefined) w.nest(IFLA.LINKINFO, () => w.attrString(IFLA_INFO.KIND, kind))
  },
})

const decodeAddrGenMode = (afSpec: Attribute): AddrGenMode | undefined => {
  for (const family of afSpec.nested()) {
    if (family.type !== AF_INET6) continue
    for (const attr of family.nested()) {
      if (attr.type !== IFLA_INET6.ADDR_GEN_MODE) continue
      const value = attr.u8()
      for (const [name, number] of Object.entries(addrGenModes)) if (number === value) return name as AddrGenMode
    }
  }
  return undefined
}

/** undefined: not a link. A removal event (isRemovedLink) decodes too. */
export const decodeLink = (message: Message): Link | undefined => {
  if (message.type !== RTM.NEWLINK && message.type !== RTM.DELLINK) return undefined
  if (message.u8(0) !== AF_UNSPEC) return undefined // bridge port and IPv6 events about the same device
  const flags = message.u32(8)
  const carries = IFF.RUNNING | IFF.LOWER_UP
  const link: { -readonly [K in keyof Link]: Link[K] } = {
    index: message.i32(4),
    flags,
    up: (flags & IFF.UP) !== 0,
    arp: (flags & IFF.NOARP) === 0,
    running: (flags & carries) === carries,
    protoDown: false,
    ...{ name: '', mac: '', mtu: 0, txQueueLength: 0, group: 0, operState: 0 },
    ...{ master: undefined, link: undefined, linkNetnsId: undefined, alias: undefined, addrGenMode: undefined },
    ...{ kind: undefined, bridge: undefined, vxlan: undefined, vrfTable: undefined },
    ...{ slaveKind: undefined, port: undefined },
  }
  for (const attr of attributes(message, 16)) {
    switch (attr.type) {
      case IFLA.IFNAME:
        link.name = attr.text()
        break
      case IFLA.ADDRESS:
        link.mac = formatMac(attr.buffer, attr.start, attr.end)
        break
      case IFLA.MTU:
        link.mtu = attr.u32()
        break
      case IFLA.TXQLEN:
        link.txQueueLength = attr.u32()
        break
      case IFLA.GROUP:
        link.group = attr.u32()
        break
      case IFLA.OPERSTATE:
        link.operState = attr.u8()
        break
      case IFLA.PROTO_DOWN:
        link.protoDown = attr.u8() !== 0
        break
      case IFLA.MASTER:
        link.master = attr.u32()
        break
      case IFLA.LINK:
        link.link = attr.u32()
        break
      case IFLA.LINK_NETNSID:
        link.linkNetnsId = attr.i32()
        break
      case IFLA.IFALIAS:
        link.alias = attr.text()
        break
      case IFLA.AF_SPEC:
        link.addrGenMode = decodeAddrGenMode(attr)
        break
      case IFLA.LINKINFO:
        decodeLinkInfo(attr, link)
        break
    }
  }
  return link
}

const decodeLinkInfo = (info: Attribute, link: { -readonly [K in keyof Link]: Link[K] }): void => {
  for (const attr of info.nested()) {
    if (attr.type === IFLA_INFO.KIND) link.kind = attr.text()
    else if (attr.type === IFLA_INFO.SLAVE_KIND) link.slaveKind = attr.text()
    else if (attr.type === IFLA_INFO.SLAVE_DATA && link.slaveKind === 'bridge') link.port = decodePort(attr)
    else if (attr.type === IFLA_INFO.DATA) {
      if (link.kind === 'bridge') link.bridge = decodeBridge(attr)
      else if (link.kind === 'vxlan') link.vxlan = decodeVxlan(attr)
      else if (link.kind === 'vrf') {
        for (const data of attr.nested()) if (data.type === IFLA_VRF.TABLE) link.vrfTable = data.u32()
      }
    }
  }
}

/** Is this event the end of the link? */
export const isRemovedLink = (message: Message): boolean => message.type === RTM.DELLINK && message.u8(0) === AF_UNSPEC

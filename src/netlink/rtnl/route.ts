// SPDX-License-Identifier: Apache-2.0
// Routes: `ip route`.
import { type AttributeNames, nameTable } from '../explain.ts'
import { type Attribute, attributes, Bytes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, ipFamily, parsePrefix } from '../text.ts'
import { AF_INET, AF_INET6, AF_UNSPEC, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../uapi.ts'
import { RT_SCOPE, RT_TABLE, RTA, RTAX, RTM, RTN, RTNH_F, RTPROT } from './uapi.ts'

const routeTypes = {
  unicast: RTN.UNICAST,
  local: RTN.LOCAL,
  broadcast: RTN.BROADCAST,
  anycast: RTN.ANYCAST,
  multicast: RTN.MULTICAST,
  blackhole: RTN.BLACKHOLE,
  unreachable: RTN.UNREACHABLE,
  prohibit: RTN.PROHIBIT,
  throw: RTN.THROW,
} as const
export type RouteType = keyof typeof routeTypes
const typeNames = new Map<number, RouteType>(Object.entries(routeTypes).map(([name, n]) => [n, name as RouteType]))

export interface RouteHop {
  readonly gateway?: string
  readonly oif?: number
  /** 1 to 256; default 1. */
  readonly weight?: number
  readonly onlink?: boolean
}

export interface RouteKey {
  /** "10.1.0.0/16", "0.0.0.0/0", "::/0"; host bits must be zero. */
  readonly dst: string
  /** Default 254, main. */
  readonly table?: number
  readonly metric?: number
  readonly type?: RouteType
  readonly gateway?: string
  readonly oif?: number
}

export interface NewRoute extends RouteKey {
  /** The gateway is reachable although no route says so. */
  readonly onlink?: boolean
  readonly hops?: readonly RouteHop[]
  readonly nhid?: number
  /** RT_SCOPE; default as `ip route` chooses it. */
  readonly scope?: number
  /** Whose it is; 44 is ours. Default RTPROT_STATIC. */
  readonly protocol?: number
  readonly prefSrc?: string
  readonly mtu?: number
}

export interface Route {
  readonly family: number
  readonly dst: string
  readonly table: number
  readonly metric: number
  readonly type: RouteType | undefined
  readonly gateway: string | undefined
  readonly oif: number | undefined
  readonly onlink: boolean
  readonly hops: readonly RouteHop[] | undefined
  readonly nhid: number | undefined
  readonly scope: number
  readonly protocol: number
  readonly prefSrc: string | undefined
  readonly mtu: number | undefined
  readonly flags: number
}

const names: AttributeNames = {
  header: 12,
  table: nameTable(Object.fromEntries(Object.entries(RTA).map(([name, type]) => [`RTA_${name}`, type])), {
    RTA_METRICS: { [RTAX.MTU]: 'RTAX_MTU' },
  }),
}

interface Header {
  readonly family: number
  readonly length: number
  readonly table: number
  readonly protocol: number
  readonly scope: number
  readonly type: number
  readonly flags: number
}

const encodeHeader = (w: Writer, h: Header): void => {
  w.u8(h.family)
  w.u8(h.length)
  w.u8(0)
  w.u8(0)
  w.u8(h.table > 255 ? RT_TABLE.UNSPEC : h.table)
  w.u8(h.protocol)
  w.u8(h.scope)
  w.u8(h.type)
  w.u32(h.flags)
}

// As `ip route`: a route to a local address is of scope host, a directly connected one of scope link.
const defaultScope = (r: NewRoute, family: number): number => {
  if (family === AF_INET6) return RT_SCOPE.UNIVERSE
  if (r.type === 'local') return RT_SCOPE.HOST
  const direct = r.gateway === undefined && r.hops === undefined && r.nhid === undefined
  return direct && (r.type ?? 'unicast') === 'unicast' ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE
}

const encodeHop = (w: Writer, hop: RouteHop): void => {
  const at = w.length
  w.u16(0)
  w.u8(hop.onlink ? RTNH_F.ONLINK : 0)
  w.u8((hop.weight ?? 1) - 1)
  w.i32(hop.oif ?? 0)
  if (hop.gateway !== undefined) w.attrIp(RTA.GATEWAY, hop.gateway)
  w.patchU16(at, w.length - at)
}

const encode = (w: Writer, r: NewRoute): void => {
  const { address, length } = parsePrefix(r.dst)
  const family = ipFamily(address)
  const table = r.table ?? RT_TABLE.MAIN
  const scope = r.scope ?? defaultScope(r, family)
  const flags = r.onlink ? RTNH_F.ONLINK : 0
  const type = routeTypes[r.type ?? 'unicast']
  encodeHeader(w, { family, length, table, protocol: r.protocol ?? RTPROT.STATIC, scope, type, flags })
  if (length > 0) w.attrIp(RTA.DST, address)
  w.attrU32(RTA.TABLE, table)
  if (r.metric !== undefined) w.attrU32(RTA.PRIORITY, r.metric)
  if (r.gateway !== undefined) w.attrIp(RTA.GATEWAY, r.gateway)
  if (r.oif !== undefined) w.attrU32(RTA.OIF, r.oif)
  if (r.prefSrc !== undefined) w.attrIp(RTA.PREFSRC, r.prefSrc)
  if (r.nhid !== undefined) w.attrU32(RTA.NH_ID, r.nhid)
  const { mtu, hops } = r
  if (mtu !== undefined) w.nest(RTA.METRICS, () => w.attrU32(RTAX.MTU, mtu))
  if (hops !== undefined) {
    w.nest(RTA.MULTIPATH, () => {
      for (const hop of hops) encodeHop(w, hop)
    })
  }
}

const text = (r: RouteKey): string => {
  const via = r.gateway === undefined ? '' : ` via ${r.gateway}`
  const dev = r.oif === undefined ? '' : ` on ${r.oif}`
  return `route ${r.dst}${via}${dev} table ${r.table ?? RT_TABLE.MAIN}`
}

const write = (verb: string, flags: number, r: NewRoute): Request => ({
  op: `${verb} ${text(r)}`,
  type: RTM.NEWROUTE,
  flags,
  names,
  encode: w => encode(w, r),
})

/** `ip route add`; EEXIST for the same destination, table and metric. */
export const addRoute = (r: NewRoute): Request => write('add', NLM_F_CREATE | NLM_F_EXCL, r)

/** `ip route replace`: the first route of the same destination, table and metric becomes this one. */
export const replaceRoute = (r: NewRoute): Request => write('replace', NLM_F_CREATE | NLM_F_REPLACE, r)

/** `ip route append`. */
export const appendRoute = (r: NewRoute): Request => write('append', NLM_F_CREATE | NLM_F_APPEND, r)

/** `ip route delete`: the first that agrees with everything given; ESRCH if none does. */
export const removeRoute = (r: RouteKey): Request => ({
  op: `remove ${text(r)}`,
  type: RTM.DELROUTE,
  flags: 0,
  names,
  encode(w) {
    const { address, length } = parsePrefix(r.dst)
    const table = r.table ?? RT_TABLE.MAIN
    const type = r.type === undefined ? RTN.UNSPEC : routeTypes[r.type]
    encodeHeader(w, { family: ipFamily(address), length, table, protocol: 0, scope: RT_SCOPE.NOWHERE, type, flags: 0 })
    if (length > 0) w.attrIp(RTA.DST, address)
    w.attrU32(RTA.TABLE, table)
    if (r.metric !== undefined) w.attrU32(RTA.PRIORITY, r.metric)
    if (r.gateway !== undefined) w.attrIp(RTA.GATEWAY, r.gateway)
    if (r.oif !== undefined) w.attrU32(RTA.OIF, r.oif)
  },
})

export interface RouteFilter {
  readonly family?: number
  /** With a family, a table that does not exist is ENOENT. */
  readonly table?: number
  readonly protocol?: number
  readonly oif?: number
}

/** `ip route show [table T] [proto P] [dev DEV]`; without a table, of all tables. */
export const listRoutes = (filter: RouteFilter = {}): Request => ({
  op: 'list routes',
  type: RTM.GETROUTE,
  flags: 0,
  names,
  encode(w) {
    const table = filter.table ?? RT_TABLE.UNSPEC
    const protocol = filter.protocol ?? 0
    encodeHeader(w, { family: filter.family ?? AF_UNSPEC, length: 0, table, protocol, scope: 0, type: 0, flags: 0 })
    if (filter.table !== undefined) w.attrU32(RTA.TABLE, filter.table)
    if (filter.oif !== undefined) w.attrU32(RTA.OIF, filter.oif)
  },
})

const decodeHops = (list: Attribute): RouteHop[] => {
  const hops: RouteHop[] = []
  for (let at = 0; at + 8 <= list.length; ) {
    const length = list.u16(at)
    if (length < 8) break
    const hop = new Bytes(list.buffer, list.start + at, Math.min(list.start + at + length, list.end))
    let gateway: string | undefined
    for (const attr of attributes(hop, 8)) {
      if (attr.type === RTA.GATEWAY) gateway = formatIp(attr.buffer, attr.start, attr.end)
    }
    const onlink = (hop.u8(2) & RTNH_F.ONLINK) !== 0
    hops.push({ oif: hop.i32(4), weight: hop.u8(3) + 1, onlink, ...(gateway === undefined ? {} : { gateway }) })
    at += (length + 3) & ~3
  }
  return hops
}

export const decodeRoute = (message: Message): Route | undefined => {
  if (message.type !== RTM.NEWROUTE && message.type !== RTM.DELROUTE) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const flags = message.u32(8)
  let address = family === AF_INET ? '0.0.0.0' : '::'
  let table = message.u8(4)
  let metric = 0
  let gateway: string | undefined
  let oif: number | undefined
  let hops: RouteHop[] | undefined
  let nhid: number | undefined
  let prefSrc: string | undefined
  let mtu: number | undefined
  for (const attr of attributes(message, 12)) {
    if (attr.type === RTA.DST) address = formatIp(attr.buffer, attr.start, attr.end) ?? address
    else if (attr.type === RTA.TABLE) table = attr.u32()
    else if (attr.type === RTA.PRIORITY) metric = attr.u32()
    else if (attr.type === RTA.GATEWAY) gateway = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === RTA.OIF) oif = attr.u32()
    else if (attr.type === RTA.MULTIPATH) hops = decodeHops(attr)
    else if (attr.type === RTA.NH_ID) nhid = attr.u32()
    else if (attr.type === RTA.PREFSRC) prefSrc = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === RTA.METRICS) {
      for (const inner of attr.nested()) if (inner.type === RTAX.MTU) mtu = inner.u32()
    }
  }
  return {
    ...{ family, dst: `${address}/${message.u8(1)}`, table, metric, type: typeNames.get(message.u8(7)) },
    ...{ gateway, oif, onlink: (flags & RTNH_F.ONLINK) !== 0, hops, nhid, scope: message.u8(6) },
    ...{ protocol: message.u8(5), prefSrc, mtu, flags },
  }
}

/** Is this event the end of the route? */
export const isRemovedRoute = (message: Message): boolean => message.type === RTM.DELROUTE

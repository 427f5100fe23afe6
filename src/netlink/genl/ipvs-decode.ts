// SPDX-License-Identifier: Apache-2.0
// What IPVS answers, into records. A message of another command is undefined; one that the kernel would never send
// throws KERNEL. Counters that are missing are 0.
import { type Attribute, attributes, type Bytes, type Message, malformed } from '../message.ts'
import { formatIp } from '../text.ts'
import { AF_INET, AF_INET6 } from '../uapi.ts'
import { genlHeaderLength } from './ctrl.ts'
import {
  type Destination,
  forwardingMethods,
  type Persistence,
  type Statistics,
  type Timeouts,
  type VirtualService,
} from './ipvs-types.ts'
import {
  IP_VS_CONN_F,
  IP_VS_SVC_F,
  IPVS_CMD,
  IPVS_CMD_ATTR,
  IPVS_DEST_ATTR,
  IPVS_STATS_ATTR,
  IPVS_SVC_ATTR,
} from './ipvs-uapi.ts'

/** Attributes by number; asked for one that is not there, it throws. */
class Fields {
  readonly #what: string
  readonly #byType = new Map<number, Attribute>()
  constructor(what: string, within: Bytes, offset = 0) {
    this.#what = what
    for (const attr of attributes(within, offset)) this.#byType.set(attr.type, attr)
  }
  get(type: number): Attribute | undefined {
    return this.#byType.get(type)
  }
  need(type: number): Attribute {
    const attr = this.#byType.get(type)
    if (attr === undefined) throw malformed(`${this.#what} without attribute ${type}`)
    return attr
  }
}

/** Of a message with this command, the container that it is about. */
const container = (message: Message, command: number, type: number, what: string): Fields | undefined => {
  if (message.length < genlHeaderLength || message.u8(0) !== command) return undefined
  return new Fields(what, new Fields(what, message, genlHeaderLength).need(type))
}

const decodeFamily = (attr: Attribute): number => {
  const family = attr.u16()
  if (family !== AF_INET && family !== AF_INET6) throw malformed(`ipvs address family ${family}`)
  return family
}

/** Replies carry 16 bytes for IPv4, too. */
const decodeIp = (attr: Attribute, family: number): string => {
  const size = family === AF_INET ? 4 : 16
  const text = attr.length < size ? undefined : formatIp(attr.buffer, attr.start, attr.start + size)
  if (text === undefined) throw malformed(`address of ${attr.length} bytes in family ${family}`)
  return text
}

const decodeStatistics = (attr: Attribute | undefined): Statistics => {
  const fields = attr && new Fields('ipvs statistics', attr)
  const of = (type: number): bigint => fields?.get(type)?.u64() ?? 0n
  return {
    connections: of(IPVS_STATS_ATTR.CONNS),
    packetsIn: of(IPVS_STATS_ATTR.INPKTS),
    packetsOut: of(IPVS_STATS_ATTR.OUTPKTS),
    bytesIn: of(IPVS_STATS_ATTR.INBYTES),
    bytesOut: of(IPVS_STATS_ATTR.OUTBYTES),
    connectionRate: of(IPVS_STATS_ATTR.CPS),
    packetRateIn: of(IPVS_STATS_ATTR.INPPS),
    packetRateOut: of(IPVS_STATS_ATTR.OUTPPS),
    byteRateIn: of(IPVS_STATS_ATTR.INBPS),
    byteRateOut: of(IPVS_STATS_ATTR.OUTBPS),
  }
}

/** Length of the prefix that an IPv4 mask is; undefined if it has holes. */
const prefixOfMask = (mask: number): number | undefined => {
  const length = Math.clz32(~mask)
  return length === 32 || mask << length === 0 ? length : undefined
}

const decodePersistence = (fields: Fields, family: number): Persistence => {
  const netmask = fields.need(IPVS_SVC_ATTR.NETMASK)
  return {
    timeoutSeconds: fields.need(IPVS_SVC_ATTR.TIMEOUT).u32(),
    prefixLength: family === AF_INET ? prefixOfMask(netmask.be32()) : netmask.u32(),
  }
}

/** Answers of listServices and getService. */
export const decodeService = (message: Message): VirtualService | undefined => {
  const fields = container(message, IPVS_CMD.NEW_SERVICE, IPVS_CMD_ATTR.SERVICE, 'virtual service')
  if (fields === undefined) return undefined
  const family = decodeFamily(fields.need(IPVS_SVC_ATTR.AF))
  const flags = fields.need(IPVS_SVC_ATTR.FLAGS).u32()
  const mark = fields.get(IPVS_SVC_ATTR.FWMARK)?.u32()
  const options = {
    scheduler: fields.need(IPVS_SVC_ATTR.SCHED_NAME).text(),
    persistence: (flags & IP_VS_SVC_F.PERSISTENT) === 0 ? undefined : decodePersistence(fields, family),
    onePacket: (flags & IP_VS_SVC_F.ONEPACKET) !== 0,
    hashFallback: (flags & IP_VS_SVC_F.SCHED1) !== 0,
    hashPort: (flags & IP_VS_SVC_F.SCHED2) !== 0,
    hashed: (flags & IP_VS_SVC_F.HASHED) !== 0,
    flags,
    engine: fields.get(IPVS_SVC_ATTR.PE_NAME)?.text(),
    stats: decodeStatistics(fields.get(IPVS_SVC_ATTR.STATS64)),
  }
  if (mark !== undefined) return { kind: 'mark', mark, family, ...options }
  return {
    kind: 'address',
    protocol: fields.need(IPVS_SVC_ATTR.PROTOCOL).u16(),
    address: decodeIp(fields.need(IPVS_SVC_ATTR.ADDR), family),
    port: fields.need(IPVS_SVC_ATTR.PORT).be16(),
    ...options,
  }
}

const forwardingOf = (method: number): Destination['forwarding'] => {
  for (const [name, value] of Object.entries(forwardingMethods))
    if (value === (method & IP_VS_CONN_F.FWD_MASK)) return name as Destination['forwarding']
  throw malformed(`forwarding method ${method}`)
}

/** Answers of listDestinations. */
export const decodeDestination = (message: Message): Destination | undefined => {
  const fields = container(message, IPVS_CMD.NEW_DEST, IPVS_CMD_ATTR.DEST, 'destination')
  if (fields === undefined) return undefined
  const family = decodeFamily(fields.need(IPVS_DEST_ATTR.ADDR_FAMILY))
  return {
    family,
    address: decodeIp(fields.need(IPVS_DEST_ATTR.ADDR), family),
    port: fields.need(IPVS_DEST_ATTR.PORT).be16(),
    forwarding: forwardingOf(fields.need(IPVS_DEST_ATTR.FWD_METHOD).u32()),
    weight: fields.need(IPVS_DEST_ATTR.WEIGHT).u32(),
    upperThreshold: fields.need(IPVS_DEST_ATTR.U_THRESH).u32(),
    lowerThreshold: fields.need(IPVS_DEST_ATTR.L_THRESH).u32(),
    activeConnections: fields.get(IPVS_DEST_ATTR.ACTIVE_CONNS)?.u32() ?? 0,
    inactiveConnections: fields.get(IPVS_DEST_ATTR.INACT_CONNS)?.u32() ?? 0,
    persistentConnections: fields.get(IPVS_DEST_ATTR.PERSIST_CONNS)?.u32() ?? 0,
    stats: decodeStatistics(fields.get(IPVS_DEST_ATTR.STATS64)),
  }
}

/** Answer of getTimeouts. A protocol that the kernel was built without has 0. */
export const decodeTimeouts = (message: Message): Timeouts | undefined => {
  if (message.length < genlHeaderLength || message.u8(0) !== IPVS_CMD.SET_CONFIG) return undefined
  const fields = new Fields('ipvs timeouts', message, genlHeaderLength)
  const of = (type: number): number => fields.get(type)?.u32() ?? 0
  return {
    tcpSeconds: of(IPVS_CMD_ATTR.TIMEOUT_TCP),
    tcpFinSeconds: of(IPVS_CMD_ATTR.TIMEOUT_TCP_FIN),
    udpSeconds: of(IPVS_CMD_ATTR.TIMEOUT_UDP),
  }
}

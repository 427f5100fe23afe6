// SPDX-License-Identifier: Apache-2.0
// A link as port of a bridge: the flags of `bridge link set dev PORT`.
import type { Attribute, Writer } from '../message.ts'
import { AF_BRIDGE } from '../uapi.ts'
import { IFLA, IFLA_BRPORT, IFLA_BRPORT_NEWER } from './uapi.ts'

export interface BridgePort {
  /** BR_STATE: 0 disabled, 1 listening, 2 learning, 3 forwarding, 4 blocking. */
  readonly state: number
  readonly priority: number
  readonly cost: number
  readonly hairpin: boolean
  readonly guard: boolean
  readonly fastLeave: boolean
  readonly learning: boolean
  readonly unicastFlood: boolean
  readonly multicastFlood: boolean
  readonly broadcastFlood: boolean
  readonly multicastToUnicast: boolean
  readonly proxyArp: boolean
  readonly neighSuppress: boolean
  readonly neighVlanSuppress: boolean
  readonly isolated: boolean
  readonly locked: boolean
  readonly vlanTunnel: boolean
}

type FlagName = Exclude<keyof BridgePort, 'state' | 'priority' | 'cost'>

const flags: Readonly<Record<FlagName, number>> = {
  hairpin: IFLA_BRPORT.MODE,
  guard: IFLA_BRPORT.GUARD,
  fastLeave: IFLA_BRPORT.FAST_LEAVE,
  learning: IFLA_BRPORT.LEARNING,
  unicastFlood: IFLA_BRPORT.UNICAST_FLOOD,
  multicastFlood: IFLA_BRPORT.MCAST_FLOOD,
  broadcastFlood: IFLA_BRPORT.BCAST_FLOOD,
  multicastToUnicast: IFLA_BRPORT.MCAST_TO_UCAST,
  proxyArp: IFLA_BRPORT.PROXYARP,
  neighSuppress: IFLA_BRPORT.NEIGH_SUPPRESS,
  neighVlanSuppress: IFLA_BRPORT_NEWER.NEIGH_VLAN_SUPPRESS,
  isolated: IFLA_BRPORT.ISOLATED,
  locked: IFLA_BRPORT.LOCKED,
  vlanTunnel: IFLA_BRPORT.VLAN_TUNNEL,
}
const flagEntries = Object.entries(flags) as [FlagName, number][]
const flagByType = new Map(flagEntries.map(([name, type]) => [type, name]))

export const portNames: Readonly<Record<number, string>> = Object.fromEntries(
  [...Object.entries(IFLA_BRPORT), ...Object.entries(IFLA_BRPORT_NEWER)].map(([name, type]) => [
    type,
    `IFLA_BRPORT_${name}`,
  ]),
)

/** Body of a SETLINK. */
export const encodePort = (w: Writer, index: number, port: Partial<BridgePort>): void => {
  w.u8(AF_BRIDGE)
  w.u8(0)
  w.u16(0)
  w.i32(index)
  w.u32(0)
  w.u32(0)
  w.nest(IFLA.PROTINFO, () => {
    if (port.state !== undefined) w.attrU8(IFLA_BRPORT.STATE, port.state)
    if (port.priority !== undefined) w.attrU16(IFLA_BRPORT.PRIORITY, port.priority)
    if (port.cost !== undefined) w.attrU32(IFLA_BRPORT.COST, port.cost)
    for (const [name, type] of flagEntries) {
      const value = port[name]
      if (value !== undefined) w.attrU8(type, value ? 1 : 0)
    }
  })
}

export const decodePort = (data: Attribute): BridgePort => {
  const port: { -readonly [K in keyof BridgePort]: BridgePort[K] } = {
    ...{ state: 0, priority: 0, cost: 0 },
    ...{ hairpin: false, guard: false, fastLeave: false, learning: false, unicastFlood: false, multicastFlood: false },
    ...{ broadcastFlood: false, multicastToUnicast: false, proxyArp: false, neighSuppress: false },
    ...{ neighVlanSuppress: false, isolated: false, locked: false, vlanTunnel: false },
  }
  for (const attr of data.nested()) {
    const name = flagByType.get(attr.type)
    if (name !== undefined) port[name] = attr.u8() !== 0
    else if (attr.type === IFLA_BRPORT.STATE) port.state = attr.u8()
    else if (attr.type === IFLA_BRPORT.PRIORITY) port.priority = attr.u16()
    else if (attr.type === IFLA_BRPORT.COST) port.cost = attr.u32()
  }
  return port
}

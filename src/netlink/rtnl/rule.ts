// SPDX-License-Identifier: Apache-2.0
// Routing rules: `ip rule`. The kernel does not refuse a second rule like the first unless asked: addRule asks.
import type { AttributeNames } from '../explain.ts'
import { attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, parsePrefix } from '../text.ts'
import { AF_INET, AF_INET6, AF_UNSPEC, NLM_F_CREATE, NLM_F_EXCL } from '../uapi.ts'
import { FIB_RULE, FR_ACT, FRA, RTM } from './uapi.ts'

const actions = {
  lookup: FR_ACT.TO_TBL,
  blackhole: FR_ACT.BLACKHOLE,
  unreachable: FR_ACT.UNREACHABLE,
  prohibit: FR_ACT.PROHIBIT,
} as const
export type RuleAction = keyof typeof actions

export interface Rule {
  /** AF_INET or AF_INET6. */
  readonly family: number
  readonly priority?: number
  /** Default "lookup", which needs a table. */
  readonly action?: RuleAction
  readonly table?: number
  readonly src?: string
  readonly dst?: string
  readonly iif?: string
  readonly oif?: string
  readonly mark?: number
  /** Bits of the mark that count; default all. */
  readonly mask?: number
  readonly invert?: boolean
  readonly ipProtocol?: number
  readonly sourcePorts?: readonly [from: number, to: number]
  readonly destinationPorts?: readonly [from: number, to: number]
  /** Ignore routes with a prefix this short or shorter. */
  readonly suppressPrefixLength?: number
  /** Whose it is; 44 is ours. */
  readonly protocol?: number
}

const names: AttributeNames = {
  header: 12,
  table: Object.fromEntries(Object.entries(FRA).map(([name, type]) => [type, `FRA_${name}`])),
}

const attrPorts = (w: Writer, type: number, ports: readonly [number, number] | undefined): void => {
  if (ports === undefined) return
  w.attrHeader(type, 4)
  w.u16(ports[0])
  w.u16(ports[1])
}

const encode = (w: Writer, r: Rule): void => {
  const src = r.src === undefined ? undefined : parsePrefix(r.src)
  const dst = r.dst === undefined ? undefined : parsePrefix(r.dst)
  w.u8(r.family)
  w.u8(dst?.length ?? 0)
  w.u8(src?.length ?? 0)
  w.u8(0)
  w.u8(r.table === undefined || r.table > 255 ? 0 : r.table)
  w.u16(0)
  w.u8(actions[r.action ?? 'lookup'])
  w.u32(r.invert ? FIB_RULE.INVERT : 0)
  if (dst !== undefined && dst.length > 0) w.attrIp(FRA.DST, dst.address)
  if (src !== undefined && src.length > 0) w.attrIp(FRA.SRC, src.address)
  if (r.iif !== undefined) w.attrString(FRA.IIFNAME, r.iif, 16)
  if (r.oif !== undefined) w.attrString(FRA.OIFNAME, r.oif, 16)
  if (r.priority !== undefined) w.attrU32(FRA.PRIORITY, r.priority)
  if (r.table !== undefined) w.attrU32(FRA.TABLE, r.table)
  if (r.mark !== undefined) w.attrU32(FRA.FWMARK, r.mark)
  if (r.mask !== undefined) w.attrU32(FRA.FWMASK, r.mask)
  if (r.suppressPrefixLength !== undefined) w.attrU32(FRA.SUPPRESS_PREFIXLEN, r.suppressPrefixLength)
  if (r.protocol !== undefined) w.attrU8(FRA.PROTOCOL, r.protocol)
  if (r.ipProtocol !== undefined) w.attrU8(FRA.IP_PROTO, r.ipProtocol)
  attrPorts(w, FRA.SPORT_RANGE, r.sourcePorts)
  attrPorts(w, FRA.DPORT_RANGE, r.destinationPorts)
}

const text = (r: Rule): string => {
  const to = (r.action ?? 'lookup') === 'lookup' ? `lookup ${r.table}` : r.action
  const parts = [`rule ${r.priority ?? '(any)'}`]
  if (r.src !== undefined) parts.push(`from ${r.src}`)
  if (r.dst !== undefined) parts.push(`to ${r.dst}`)
  if (r.mark !== undefined) parts.push(`fwmark 0x${r.mark.toString(16)}`)
  return `${parts.join(' ')} ${to}`
}

/** `ip [-6] rule add ...`; EEXIST if there is one like it. */
export const addRule = (r: Rule): Request => ({
  op: `add ${text(r)}`,
  type: RTM.NEWRULE,
  flags: NLM_F_CREATE | NLM_F_EXCL,
  names,
  encode: w => encode(w, r),
})

/** `ip [-6] rule delete ...`: the first that agrees with everything given; ENOENT if none does. */
export const removeRule = (r: Rule): Request => ({
  op: `remove ${text(r)}`,
  type: RTM.DELRULE,
  flags: 0,
  names,
  encode: w => encode(w, r),
})

/** `ip [-6] rule show`; of all families if none is given. */
export const listRules = (family: number = AF_UNSPEC): Request => ({
  op: 'list rules',
  type: RTM.GETRULE,
  flags: 0,
  names,
  encode(w) {
    w.u8(family)
    w.zero(11)
  },
})

/** Rules with an action other than ours decode without `action`. */
export const decodeRule = (message: Message): Rule | undefined => {
  if (message.type !== RTM.NEWRULE && message.type !== RTM.DELRULE) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const rule: { -readonly [K in keyof Rule]: Rule[K] } = { family, priority: 0 }
  const number = message.u8(7)
  for (const [name, value] of Object.entries(actions)) if (value === number) rule.action = name as RuleAction
  if (message.u8(4) !== 0) rule.table = message.u8(4)
  if ((message.u32(8) & FIB_RULE.INVERT) !== 0) rule.invert = true
  for (const attr of attributes(message, 12)) {
    switch (attr.type) {
      case FRA.DST:
        rule.dst = `${formatIp(attr.buffer, attr.start, attr.end)}/${message.u8(1)}`
        break
      case FRA.SRC:
        rule.src = `${formatIp(attr.buffer, attr.start, attr.end)}/${message.u8(2)}`
        break
      case FRA.IIFNAME:
        rule.iif = attr.text()
        break
      case FRA.OIFNAME:
        rule.oif = attr.text()
        break
      case FRA.PRIORITY:
        rule.priority = attr.u32()
        break
      case FRA.TABLE:
        if (attr.u32() !== 0) rule.table = attr.u32()
        break
      case FRA.FWMARK:
        rule.mark = attr.u32()
        break
      case FRA.FWMASK:
        rule.mask = attr.u32()
        break
      case FRA.SUPPRESS_PREFIXLEN:
        if (attr.u32() !== 0xffff_ffff) rule.suppressPrefixLength = attr.u32()
        break
      case FRA.PROTOCOL:
        rule.protocol = attr.u8()
        break
      case FRA.IP_PROTO:
        rule.ipProtocol = attr.u8()
        break
      case FRA.SPORT_RANGE:
        rule.sourcePorts = [attr.u16(0), attr.u16(2)]
        break
      case FRA.DPORT_RANGE:
        rule.destinationPorts = [attr.u16(0), attr.u16(2)]
        break
    }
  }
  return rule
}

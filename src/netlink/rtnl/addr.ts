// SPDX-License-Identifier: Apache-2.0
// Addresses on links: `ip address`.
import type { AttributeNames } from '../explain.ts'
import { attributes, type Message, type Writer } from '../message.ts'
import type { Request } from '../socket.ts'
import { formatIp, ipFamily, parsePrefix } from '../text.ts'
import { AF_INET, AF_INET6, AF_UNSPEC, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../uapi.ts'
import { IFA, IFA_F, RTM } from './uapi.ts'

export interface NewAddress {
  readonly ifindex: number
  /** With length: "10.1.0.2/16", "fd77::2/64". */
  readonly prefix: string
  /** RT_SCOPE; 0 global, 253 link, 254 host. */
  readonly scope?: number
  readonly broadcast?: string
  readonly label?: string
  /** IFA_F_NOPREFIXROUTE: the kernel adds no route to the prefix. */
  readonly noPrefixRoute?: boolean
  /** Duplicate address detection of IPv6; default false, or the address is tentative for a second. */
  readonly detectDuplicates?: boolean
  /** Seconds until it goes by itself; left out: for ever. */
  readonly validSeconds?: number
  /** Seconds until it is deprecated; left out: as validSeconds. */
  readonly preferredSeconds?: number
  /** IFA_PROTO: whose it is; kernels before 5.18 forget it. */
  readonly protocol?: number
}

export interface Address {
  readonly ifindex: number
  readonly family: number
  readonly address: string
  readonly prefixLength: number
  readonly scope: number
  /** IFA_F bits. */
  readonly flags: number
  readonly label: string | undefined
  readonly broadcast: string | undefined
  /** undefined: for ever. */
  readonly validSeconds: number | undefined
  readonly preferredSeconds: number | undefined
  /** 0: not said. */
  readonly protocol: number
}

const forever = 0xffff_ffff

export const addressNames: AttributeNames = {
  header: 8,
  table: Object.fromEntries(Object.entries(IFA).map(([name, type]) => [type, `IFA_${name}`])),
}

const encodeHeader = (w: Writer, family: number, length: number, scope: number, ifindex: number): void => {
  w.u8(family)
  w.u8(length)
  w.u8(0)
  w.u8(scope)
  w.u32(ifindex)
}

const encode = (w: Writer, a: NewAddress): void => {
  const { address, length } = parsePrefix(a.prefix)
  const family = ipFamily(address)
  encodeHeader(w, family, length, a.scope ?? 0, a.ifindex)
  w.attrIp(IFA.LOCAL, address)
  w.attrIp(IFA.ADDRESS, address)
  if (a.broadcast !== undefined) w.attrIp(IFA.BROADCAST, a.broadcast)
  if (a.label !== undefined) w.attrString(IFA.LABEL, a.label, 16)
  let flags = a.noPrefixRoute ? IFA_F.NOPREFIXROUTE : 0
  if (family === AF_INET6 && !a.detectDuplicates) flags |= IFA_F.NODAD
  if (flags !== 0) w.attrU32(IFA.FLAGS, flags)
  if (a.protocol !== undefined) w.attrU8(IFA.PROTO, a.protocol)
  if (a.validSeconds !== undefined) {
    w.attrHeader(IFA.CACHEINFO, 16)
    w.u32(a.preferredSeconds ?? a.validSeconds)
    w.u32(a.validSeconds)
    w.u32(0)
    w.u32(0)
  }
}

const text = (a: Pick<NewAddress, 'ifindex' | 'prefix'>): string => `address ${a.prefix} on ${a.ifindex}`

/** `ip address add PREFIX dev DEV`; EEXIST. */
export const addAddress = (a: NewAddress): Request => ({
  op: `add ${text(a)}`,
  type: RTM.NEWADDR,
  flags: NLM_F_CREATE | NLM_F_EXCL,
  names: addressNames,
  encode: w => encode(w, a),
})

/** `ip address replace PREFIX dev DEV`: lifetimes and flags. */
export const replaceAddress = (a: NewAddress): Request => ({
  op: `replace ${text(a)}`,
  type: RTM.NEWADDR,
  flags: NLM_F_CREATE | NLM_F_REPLACE,
  names: addressNames,
  encode: w => encode(w, a),
})

/** `ip address delete PREFIX dev DEV`; EADDRNOTAVAIL if absent. */
export const removeAddress = (a: Pick<NewAddress, 'ifindex' | 'prefix'>): Request => ({
  op: `remove ${text(a)}`,
  type: RTM.DELADDR,
  flags: 0,
  names: addressNames,
  encode(w) {
    const { address, length } = parsePrefix(a.prefix)
    encodeHeader(w, ipFamily(address), length, 0, a.ifindex)
    w.attrIp(IFA.LOCAL, address)
  },
})

/** `ip address show [dev DEV]`. */
export const listAddresses = (filter: { readonly family?: number; readonly ifindex?: number } = {}): Request => ({
  op: 'list addresses',
  type: RTM.GETADDR,
  flags: 0,
  names: addressNames,
  encode: w => encodeHeader(w, filter.family ?? AF_UNSPEC, 0, 0, filter.ifindex ?? 0),
})

export const decodeAddress = (message: Message): Address | undefined => {
  if (message.type !== RTM.NEWADDR && message.type !== RTM.DELADDR) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  let local: string | undefined
  let address: string | undefined
  let label: string | undefined
  let broadcast: string | undefined
  let flags = message.u8(2)
  let validSeconds: number | undefined
  let preferredSeconds: number | undefined
  let protocol = 0
  for (const attr of attributes(message, 8)) {
    if (attr.type === IFA.LOCAL) local = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === IFA.ADDRESS) address = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === IFA.BROADCAST) broadcast = formatIp(attr.buffer, attr.start, attr.end)
    else if (attr.type === IFA.LABEL) label = attr.text()
    else if (attr.type === IFA.FLAGS) flags = attr.u32()
    else if (attr.type === IFA.PROTO) protocol = attr.u8()
    else if (attr.type === IFA.CACHEINFO) {
      preferredSeconds = attr.u32(0) === forever ? undefined : attr.u32(0)
      validSeconds = attr.u32(4) === forever ? undefined : attr.u32(4)
    }
  }
  const text = local ?? address
  if (text === undefined) return undefined
  return {
    ifindex: message.u32(4),
    family,
    address: text,
    prefixLength: message.u8(1),
    scope: message.u8(3),
    flags,
    label,
    broadcast,
    validSeconds,
    preferredSeconds,
    protocol,
  }
}

/** Is this event the end of the address? */
export const isRemovedAddress = (message: Message): boolean => message.type === RTM.DELADDR

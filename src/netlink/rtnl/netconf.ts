// SPDX-License-Identifier: Apache-2.0
// What the kernel says of /proc/sys/net/ipv[46]/conf (linux/netconf.h): which of them changed, for one device or all.
import { attributes, type Message } from '../message.ts'
import { AF_INET, AF_INET6 } from '../uapi.ts'
import { NETCONFA, NETCONFA_IFINDEX, RTM } from './uapi.ts'

export interface Netconf {
  readonly family: 4 | 6
  /** Or of all devices, or of those to come. */
  readonly device: number | 'all' | 'default'
  readonly forwarding: number | undefined
  /** IPv4 only. */
  readonly rpFilter: number | undefined
}

/** undefined for other messages and families. Throws KERNEL when malformed. */
export const decodeNetconf = (message: Message): Netconf | undefined => {
  if (message.type !== RTM.NEWNETCONF) return undefined
  const family = message.u8(0) === AF_INET ? 4 : message.u8(0) === AF_INET6 ? 6 : undefined
  const found = new Map<number, number>()
  for (const attribute of attributes(message, 4)) found.set(attribute.type, attribute.i32())
  const index = found.get(NETCONFA.IFINDEX)
  if (family === undefined || index === undefined) return undefined
  return {
    family,
    device: index === NETCONFA_IFINDEX.ALL ? 'all' : index === NETCONFA_IFINDEX.DEFAULT ? 'default' : index,
    forwarding: found.get(NETCONFA.FORWARDING),
    rpFilter: found.get(NETCONFA.RP_FILTER),
  }
}

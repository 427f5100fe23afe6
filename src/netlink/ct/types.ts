// SPDX-License-Identifier: Apache-2.0
// Entries of the kernel's table of connections, and what identifies or selects them.
import { formatIpPort, formatProtocol } from '../text.ts'

/** One direction of a connection, as its sender sees it. */
export interface Tuple {
  readonly source: string
  readonly destination: string
  /** IPPROTO. */
  readonly protocol: number
  /** Of TCP, UDP, SCTP, DCCP, UDP-Lite, and keys of GRE; undefined for others. */
  readonly sourcePort?: number | undefined
  readonly destinationPort?: number | undefined
  /** Of ICMP and ICMPv6. */
  readonly icmp?: Icmp | undefined
  /** A zone of this direction alone (`ct original zone set`). */
  readonly zone?: number | undefined
}

export interface Icmp {
  readonly id: number
  readonly type: number
  readonly code: number
}

/** What identifies an entry: give a Conntrack, or as much of one. */
export interface ConntrackKey {
  /** As the first packet was, before any translation. */
  readonly original: Tuple
  /** Of both directions, 0 for none; not together with a zone in `original`. */
  readonly zone?: number | undefined
  /** Only this entry, not another that has come in its place. */
  readonly id?: number | undefined
}

export interface Conntrack extends ConntrackKey {
  /** AF_INET or AF_INET6. */
  readonly family: number
  /** As answers come back: after a translation its source is the backend. */
  readonly reply: Tuple
  readonly zone: number
  readonly id: number
  readonly mark: number
  /** Until it goes, if nothing comes; undefined while a flow table carries it. */
  readonly timeoutSeconds: number | undefined
  /** IPS, all bits. */
  readonly status: number
  readonly seenReply: boolean
  readonly assured: boolean
  readonly sourceNat: boolean
  readonly destinationNat: boolean
  /** "ESTABLISHED", ... ; undefined for other protocols. */
  readonly tcpState: string | undefined
}

/** Nothing may be given as undefined: what was meant to narrow would select everything. */
export interface TupleFilter {
  readonly source?: string
  readonly destination?: string
  readonly protocol?: number
  readonly sourcePort?: number
  readonly destinationPort?: number
}

/** Everything given has to be so. */
export interface ConntrackFilter {
  /** AF_INET or AF_INET6; told by an address, if one is given. */
  readonly family?: number
  /** Default mask: all bits. */
  readonly mark?: { readonly value: number; readonly mask?: number }
  /** Of the original direction, alone or together with the reply's. */
  readonly zone?: number
  readonly original?: TupleFilter
  readonly reply?: TupleFilter
  readonly destinationNat?: boolean
}

/** "udp 192.0.2.9:5000 to 10.1.0.2:53". */
export const tupleText = (tuple: Tuple): string => {
  const end = (address: string, port: number | undefined): string =>
    port === undefined ? address : formatIpPort(address, port)
  const zone = tuple.zone === undefined ? '' : ` in zone ${tuple.zone}`
  const ends = `${end(tuple.source, tuple.sourcePort)} to ${end(tuple.destination, tuple.destinationPort)}`
  return `${formatProtocol(tuple.protocol)} ${ends}${zone}`
}

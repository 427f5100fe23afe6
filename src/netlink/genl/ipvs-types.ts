// SPDX-License-Identifier: Apache-2.0
// What IPVS knows: virtual services, the destinations behind each, timeouts, counters. New... is what we ask for, the
// same word without it is what the kernel has.
import { formatIpPort, formatProtocol, ipFamily } from '../text.ts'
import { AF_INET6 } from '../uapi.ts'
import { IP_VS_CONN_F } from './ipvs-uapi.ts'

/** A service at an address: what a client calls. */
export interface AddressServiceKey {
  readonly kind: 'address'
  /** IPPROTO: TCP, UDP or SCTP. */
  readonly protocol: number
  readonly address: string
  readonly port: number
}

/** A service of all packets with that mark, whatever address and port they call. */
export interface MarkServiceKey {
  readonly kind: 'mark'
  /** Not 0. */
  readonly mark: number
  /** AF_INET or AF_INET6: each is a service of its own. */
  readonly family: number
}

export type VirtualServiceKey = AddressServiceKey | MarkServiceKey

export interface Persistence {
  /** How long after its last connection a client keeps its destination; 1 to 4,294,967 (the kernel's ticks are u32). */
  readonly timeoutSeconds: number
  /** Clients of one prefix share a destination: 0 to 32, IPv6 1 to 128; default each address for itself. */
  readonly prefixLength?: number | undefined
}

/** What can be changed of a service. What is left out is off. */
export interface ServiceOptions {
  /** rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos: the module ip_vs_<name>. */
  readonly scheduler: string
  /** `-p`. */
  readonly persistence?: Persistence | undefined
  /** `-o`, UDP only: each packet is a connection, forgotten at once. */
  readonly onePacket?: boolean
  /** `-b sh-fallback` or `mh-fallback`: the hash's choice has weight 0 or too many connections: take another. */
  readonly hashFallback?: boolean
  /** `-b sh-port` or `mh-port`: hash the client's port, too. */
  readonly hashPort?: boolean
}

export type NewVirtualService = VirtualServiceKey & ServiceOptions

/** As the kernel sums them up every two seconds: what happened since is not in them. */
export interface Statistics {
  readonly connections: bigint
  readonly packetsIn: bigint
  readonly packetsOut: bigint
  readonly bytesIn: bigint
  readonly bytesOut: bigint
  /** Rates are per second. */
  readonly connectionRate: bigint
  readonly packetRateIn: bigint
  readonly packetRateOut: bigint
  readonly byteRateIn: bigint
  readonly byteRateOut: bigint
}

export type VirtualService = VirtualServiceKey & {
  readonly scheduler: string
  /** Its prefixLength is undefined for an IPv4 mask with holes. */
  readonly persistence: Persistence | undefined
  readonly onePacket: boolean
  readonly hashFallback: boolean
  readonly hashPort: boolean
  /** The kernel has it in its table: always true. */
  readonly hashed: boolean
  /** IP_VS_SVC_F, all of them. */
  readonly flags: number
  /** Persistence engine (`--pe`); we set none. */
  readonly engine: string | undefined
  readonly stats: Statistics
}

export interface DestinationKey {
  readonly address: string
  /** Only masquerading uses it, yet it is part of the identity; otherwise give the service's, and 0 behind a mark. */
  readonly port: number
}

/** `-m`, `-i`, `-g`. Another family than the service's only by tunnel. */
export type Forwarding = 'masq' | 'tunnel' | 'route'

export interface NewDestination extends DestinationKey {
  readonly forwarding: Forwarding
  /** 0 to 2^31-1. 0: no new connections, those that are there go on. */
  readonly weight: number
  /** No new connections from so many on (`-x`), until they are fewer than lowerThreshold (`-y`); 0, the default: never. */
  readonly upperThreshold?: number
  /** At most upperThreshold; 0: three quarters of it. */
  readonly lowerThreshold?: number
}

export interface Destination extends DestinationKey {
  readonly family: number
  readonly forwarding: Forwarding | 'local' | 'bypass'
  readonly weight: number
  readonly upperThreshold: number
  readonly lowerThreshold: number
  readonly activeConnections: number
  readonly inactiveConnections: number
  readonly persistentConnections: number
  readonly stats: Statistics
}

/** Idle timeouts of connections in this namespace; the kernel's defaults are 900, 120, 300. */
export interface Timeouts {
  readonly tcpSeconds: number
  /** After a FIN. */
  readonly tcpFinSeconds: number
  readonly udpSeconds: number
}

/** AF_INET or AF_INET6. */
export const serviceFamily = (key: VirtualServiceKey): number =>
  key.kind === 'mark' ? key.family : ipFamily(key.address)

/** "tcp 192.0.2.1:80", "fwmark 7", "fwmark 7 of IPv6": identifies a service, if IPv6 is written as decoding does. */
export const serviceText = (key: VirtualServiceKey): string =>
  key.kind === 'mark'
    ? `fwmark ${key.mark}${key.family === AF_INET6 ? ' of IPv6' : ''}`
    : `${formatProtocol(key.protocol)} ${formatIpPort(key.address, key.port)}`

/** "10.1.0.2:80": identifies a destination of one service. */
export const destinationText = (key: DestinationKey): string => formatIpPort(key.address, key.port)

/** The kernel's numbers of them. */
export const forwardingMethods = {
  masq: IP_VS_CONN_F.MASQ,
  local: IP_VS_CONN_F.LOCALNODE,
  tunnel: IP_VS_CONN_F.TUNNEL,
  route: IP_VS_CONN_F.DROUTE,
  bypass: IP_VS_CONN_F.BYPASS,
} as const satisfies Readonly<Record<Destination['forwarding'], number>>

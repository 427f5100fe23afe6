// SPDX-License-Identifier: Apache-2.0
// Whether a switch (N) tracks connections at all, and for how long the namespaces know those that are silent.
import type { KernelObject, NftTimeoutObject, Ns } from '../kernel/objects.ts'
import type { Network } from '../model/network.ts'
import { switchNs, table } from './names.ts'

/**
 * While nobody here needs it, frames pass N as they would a plain bridge. The network wants '0', who is tracked '1' with
 * a higher rank.
 */
export const trackingSwitch = (network: Network, value: '0' | '1'): KernelObject[] =>
  ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'].map(path => ({
    kind: 'sysctl',
    ns: switchNs(network.vni),
    path,
    value,
  }))

/** Conntrack's own default; that of IPVS (900, 300) would end idle connections before. */
export const idleSeconds = { tcp: 432_000, udp: 120 } as const

/** One side has closed and waits for what the other still has to say; the kernel's 60 s are too short for that. */
export const halfClosedSeconds = 3600

/** For all connections of one of our namespaces (M, N). */
export const patience = (ns: Ns): KernelObject => ({
  kind: 'sysctl',
  ns,
  path: 'net/netfilter/nf_conntrack_tcp_timeout_close_wait',
  value: String(halfClosedSeconds),
})

/** For the connections to which a rule gives it: `ct timeout set "NAME"`. */
export const idleTimeout = (ns: Ns, proto: 'tcp' | 'udp', seconds: number): NftTimeoutObject => {
  const half = proto === 'tcp' ? { halfClosed: Math.min(seconds, halfClosedSeconds) } : {}
  return { kind: 'nft-timeout', ns, family: 'inet', table, proto, seconds, ...half }
}

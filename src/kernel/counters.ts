// SPDX-License-Identifier: Apache-2.0
// What the balancer of a namespace has done, by destination, as the kernel counts it.
import { findConntrack } from '../netlink/ct/conntrack.ts'
import { IPPROTO } from '../netlink/uapi.ts'
import { ipvsLoaded, listIpvs, protocolOf } from './ipvs.ts'
import type { BalanceCount } from './kernel.ts'
import type { Ns } from './objects.ts'
import type { Sockets } from './sockets.ts'

/** By IPVS where it has services there, else by the connections that nftables translated. */
export const countBalanced = async (sockets: Sockets, ns: Ns): Promise<BalanceCount[]> => {
  const services = ipvsLoaded() ? await listIpvs(sockets, ns) : []
  if (services.length === 0) return countTranslated(sockets, ns)
  return services.flatMap(({ service, destinations }) => {
    const proto = protocolOf(service.protocol)
    if (!proto) return []
    return destinations.map(
      ({ address, activeConnections, inactiveConnections, stats }): BalanceCount => ({
        proto,
        port: service.port,
        to: address,
        // of UDP IPVS says "inactive" of all
        active: proto === 'udp' ? inactiveConnections : activeConnections,
        all: { connections: stats.connections, bytesIn: stats.bytesIn, bytesOut: stats.bytesOut },
      }),
    )
  })
}

const countTranslated = async (sockets: Sockets, ns: Ns): Promise<BalanceCount[]> => {
  const counts = new Map<string, BalanceCount>()
  for (const { original, reply, tcpState } of await findConntrack(await sockets.netfilter(ns), {
    destinationNat: true,
  })) {
    const proto = protocolOf(original.protocol)
    const port = original.destinationPort
    if (!proto || port === undefined) continue
    if (original.protocol === IPPROTO.TCP && tcpState !== 'ESTABLISHED') continue
    const key = `${proto} ${port} ${reply.source}`
    counts.set(key, { proto, port, to: reply.source, active: (counts.get(key)?.active ?? 0) + 1 })
  }
  return [...counts.values()]
}

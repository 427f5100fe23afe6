// SPDX-License-Identifier: Apache-2.0
// M, the gateway of a network on this node, and its link to the host: the network's gateway address, masquerade for
// the way out, published ports on the way in. Without a way out (--internal) there is no uplink, but M still resolves.

import type { KernelObject } from '../kernel/objects.ts'
import { linkLocalOf, single, withLength } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { accepting, chains } from '../plan/chains.ts'
import type { Host } from '../plan/host.ts'
import { type LinkNetwork, linkNetwork } from '../plan/links.ts'
import { nodeMac } from '../plan/macs.ts'
import { gatewayLink, gatewayNs, hostLink, table, uplink } from '../plan/names.ts'
import { balanced } from '../plan/sets.ts'
import { halfClosedSeconds, patience } from '../plan/tracking.ts'
import { familiesOf, gateways, resolversOf } from './switch-plan.ts'

export const planGateway = (network: Network, node: Node, cluster: Cluster, host: Host): KernelObject[] => {
  const ns = gatewayNs(network.vni)
  const sysctl = (path: string, value: string | number): KernelObject => ({
    kind: 'sysctl',
    ns,
    path,
    value: String(value),
  })
  const address = (dev: string, text: string): KernelObject => ({ kind: 'address', ns, dev, address: text })
  return [
    { kind: 'netns', ns },
    sysctl('net/ipv6/conf/default/accept_dad', 0),
    sysctl('net/ipv6/conf/default/accept_ra', 0),
    sysctl('net/ipv4/ip_forward', network.internal ? 0 : 1),
    sysctl('net/ipv6/conf/all/forwarding', network.internal ? 0 : 1),
    sysctl('net/ipv4/conf/all/rp_filter', 1),
    sysctl('net/ipv4/conf/default/rp_filter', 1), // of both the larger counts, and Debian 13's hosts begin with 2
    // echo sockets (health/echo) for every group, of both families: nobody else opens a socket here
    sysctl('net/ipv4/ping_group_range', '0\t2147483647'),
    ...resolversOf(network, host).map(resolver => address(gatewayLink, single(resolver))),
    ...gateways(network).map(gateway => address(gatewayLink, withLength(gateway.address, gateway.prefix))),
    // by which other nodes ask for it (health/peers); the kernel makes it too, but once
    address(gatewayLink, `${linkLocalOf(nodeMac(node))}/64`),
    // a network made without gateway still needs its prefix here, for the answers of the resolver
    ...network.pools
      .filter(pool => pool.gateway === undefined)
      .map((pool): KernelObject => ({ kind: 'route', ns, to: pool.prefix, dev: gatewayLink })),
    ...(network.internal ? [] : planUplink(network, cluster, host)),
  ]
}

const planUplink = (network: Network, cluster: Cluster, host: Host): KernelObject[] => {
  const ns = gatewayNs(network.vni)
  const slot = host.bound.get(network.id)!.slot
  const link = linkNetwork(slot)
  const outer = hostLink(slot)
  const families = familiesOf(network)
  const at = (where: string, dev: string, text: string): KernelObject => ({
    kind: 'address',
    ns: where,
    dev,
    address: text,
  })
  const hostSysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', ns: '', path, value })
  const chain = chains(ns, 'inet')
  const underlayMtu = host.underlay.mtu
  const ipOf = (prefix: string): string => (prefix.includes(':') ? 'ip6' : 'ip')
  // nobody out there has an address of ours; rp_filter is of IPv4 alone, and loose where a host's defaults say so
  const posing = network.pools.map(({ prefix }) => `iifname "${uplink}" ${ipOf(prefix)} saddr ${prefix} counter drop`)
  return [
    {
      kind: 'veth',
      ns: '',
      name: outer,
      mtu: underlayMtu,
      peer: { ns, name: uplink, mtu: underlayMtu },
    },
    // ip_forward gives them theirs, but somebody may take it from one
    ...[gatewayLink, uplink].flatMap(dev =>
      ['ipv4', 'ipv6'].map(
        (ip): KernelObject => ({ kind: 'sysctl', ns, path: `net/${ip}/conf/${dev}/forwarding`, value: '1' }),
      ),
    ),
    hostSysctl(`net/ipv4/conf/${outer}/forwarding`, '1'),
    hostSysctl(`net/ipv4/conf/${outer}/route_localnet`, '1'),
    hostSysctl(`net/ipv6/conf/${outer}/disable_ipv6`, '0'), // hosts may have it off for new devices
    hostSysctl(`net/ipv6/conf/${outer}/accept_dad`, '0'),
    at('', outer, `${link.host4}/30`),
    at(ns, uplink, `${link.gateway4}/30`),
    at('', outer, `${link.host6}/64`),
    at(ns, uplink, `${link.gateway6}/64`),
    { kind: 'route', ns, to: '0.0.0.0/0', dev: uplink, via: link.host4 },
    { kind: 'route', ns, to: '::/0', dev: uplink, via: link.host6 },
    { kind: 'nft-table', ns, family: 'inet', table },
    patience(ns),
    ...(host.balancer === 'ipvs' ? planIpvs(ns) : planNft(ns, link)),
    chain('input', [...posing, ...(host.balancer === 'ipvs' ? [] : [unserved])], accepting('filter', 'input', 0)),
    chain(
      'forward',
      [
        ...posing,
        `iifname "${uplink}" ct state established,related accept`,
        `iifname "${uplink}" ct status & dnat == dnat accept`,
        `iifname "${uplink}" counter drop`,
        // masqueraded, a container's packet would look like a VTEP's
        `oifname "${uplink}" udp dport ${cluster.vxlanPort} counter drop`,
      ],
      accepting('filter', 'forward', 0),
    ),
    chain(
      'out',
      families.flatMap(family =>
        network.pools
          .filter(pool => pool.prefix.includes(':') === (family === 6))
          .map(
            pool =>
              `oifname "${uplink}" ${family === 4 ? 'ip' : 'ip6'} saddr ${pool.prefix} ct status & dnat == 0 masquerade`,
          ),
      ),
      accepting('nat', 'postrouting', 100),
    ),
    // what the tracker calls invalid is not translated: no container's own address goes out
    chain(
      'leave',
      network.pools.map(({ prefix }) => `oifname "${uplink}" ${ipOf(prefix)} saddr ${prefix} counter drop`),
      accepting('filter', 'postrouting', 110),
    ),
  ]
}

const planNft = (ns: string, { gateway4, gateway6 }: LinkNetwork): KernelObject[] => [
  balanced(ns),
  chains(ns, 'inet')(
    'balance',
    [
      // in the midst of a connection that was forgotten: reset by M itself, instead of led to another backend, which
      // would not know it. Byte 13 of TCP (RFC 9293, 3.1): of fin, syn, rst and ack only syn
      'meta l4proto tcp @th,104,8 & 0x17 != 0x02 accept',
      `ip daddr ${gateway4} meta l4proto . th dport vmap @balanced`,
      `ip6 daddr ${gateway6} meta l4proto . th dport vmap @balanced`,
    ],
    accepting('nat', 'prerouting', -100),
  ),
]

/** While nobody serves a port: refused before it is tracked, or who goes on sending would be led to nobody for ever. */
const unserved = `iifname "${uplink}" meta l4proto udp ct direction original ct status & dnat == 0 reject`

/** How IPVS treats connections: Documentation/networking/ipvs-sysctl.rst. */
const planIpvs = (ns: string): KernelObject[] => {
  const sysctl = (name: string, value: string): KernelObject => ({
    kind: 'sysctl',
    ns,
    path: `net/ipv4/vs/${name}`,
    value,
  })
  return [
    // FIN_WAIT: the container has closed. Where the client has, the kernel gives 60 s (CLOSE_WAIT, ip_vs_proto_tcp.c), and
    // no program can change that; what the container says after them has its way by `out`, under the same address and port
    { kind: 'ipvs-timeout', ns, of: 'tcpFin', seconds: halfClosedSeconds },
    // packets of a connection whose destination is gone go to another at once, not into the void
    sysctl('expire_nodest_conn', '1'),
    sysctl('expire_quiescent_template', '1'),
    // no second tracker: with it the first packet of a client's port that is used again is dropped (1 s)
    sysctl('conntrack', '0'),
    sysctl('conn_reuse_mode', '1'),
    sysctl('sloppy_tcp', '0'),
  ]
}

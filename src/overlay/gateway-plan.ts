// SPDX-License-Identifier: Apache-2.0
// M, the gateway of a network on this node, and its link to the host: the network's gateway address, masquerade for
// the way out, published ports on the way in. Without a way out (--internal) there is no uplink, but M still resolves.

import type { KernelObject } from '../kernel/objects.ts'
import { withLength } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { accepting, chains } from '../plan/chains.ts'
import type { Host } from '../plan/host.ts'
import { linkNetwork } from '../plan/links.ts'
import { gatewayLink, gatewayNs, hostLink, table, uplink } from '../plan/names.ts'
import { balanced } from '../plan/sets.ts'
import { familiesOf, gateways } from './switch-plan.ts'

export const planGateway = (network: Network, _node: Node, cluster: Cluster, host: Host): KernelObject[] => {
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
    address(gatewayLink, `${host.resolver}/32`),
    ...gateways(network).map(gateway => address(gatewayLink, withLength(gateway.address, gateway.prefix))),
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
  return [
    {
      kind: 'veth',
      ns: '',
      name: outer,
      mtu: underlayMtu,
      peer: { ns, name: uplink, mtu: underlayMtu },
    },
    hostSysctl(`net/ipv4/conf/${outer}/forwarding`, '1'),
    hostSysctl(`net/ipv4/conf/${outer}/route_localnet`, '1'),
    hostSysctl(`net/ipv6/conf/${outer}/accept_dad`, '0'),
    at('', outer, `${link.host4}/30`),
    at(ns, uplink, `${link.gateway4}/30`),
    at('', outer, `${link.host6}/64`),
    at(ns, uplink, `${link.gateway6}/64`),
    { kind: 'route', ns, to: '0.0.0.0/0', dev: uplink, via: link.host4 },
    { kind: 'route', ns, to: '::/0', dev: uplink, via: link.host6 },
    { kind: 'nft-table', ns, family: 'inet', table },
    balanced(ns),
    chain(
      'balance',
      [
        `ip daddr ${link.gateway4} meta l4proto . th dport vmap @balanced`,
        `ip6 daddr ${link.gateway6} meta l4proto . th dport vmap @balanced`,
      ],
      accepting('nat', 'prerouting', -100),
    ),
    chain(
      'forward',
      [
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
  ]
}

// SPDX-License-Identifier: Apache-2.0
// N, the switch of a network on this node: bridge, VTEP, the gateway's port, and the tables whose rules never change
// while the network lives. The order of the rules is that of `docs/architecture.md`, The way of a packet.

import type { KernelObject } from '../kernel/objects.ts'
import { type Family, familyOf, formatPrefix, parsePrefix } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import { identity, mark } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { accepting, chains, ingress } from '../plan/chains.ts'
import type { Host } from '../plan/host.ts'
import { nodeMac, switchMac } from '../plan/macs.ts'
import { bridge, gatewayLink, gatewayNs, gatewayPort, portChain, switchNs, table, vtep } from '../plan/names.ts'
import {
  backends,
  choice,
  localMacs,
  macOfZone,
  ownBackends,
  published,
  returning,
  selfCalls,
  tracked,
  vips,
  zoneOf,
} from '../plan/sets.ts'
import { patience } from '../plan/tracking.ts'

export const familiesOf = (network: Network): readonly Family[] => [
  ...new Set(network.pools.map(pool => familyOf(pool.prefix))),
]

/** Who answers DNS in the network: one address of each family that its containers have. */
export const resolversOf = (network: Network, { resolvers }: Pick<Host, 'resolvers'>): readonly string[] =>
  resolvers.filter(address => familiesOf(network).includes(familyOf(address)))

/** Gateway addresses that M holds. Networks without a way out have none, but M still answers DNS. */
export const gateways = (network: Network): readonly { address: string; prefix: string }[] =>
  network.pools.flatMap(pool => (pool.gateway === undefined ? [] : [{ address: pool.gateway, prefix: pool.prefix }]))

export const planSwitch = (network: Network, node: Node, cluster: Cluster, host: Host): KernelObject[] => {
  const ns = switchNs(network.vni)
  const own = nodeMac(node)
  const sysctl = (path: string, value: string | number): KernelObject => ({
    kind: 'sysctl',
    ns,
    path,
    value: String(value),
  })
  const neighbour = (ip: string): KernelObject => ({ kind: 'neighbour', ns, dev: bridge, ip, mac: own })
  return [
    { kind: 'netns', ns },
    sysctl('net/ipv6/conf/default/disable_ipv6', 1),
    sysctl('net/ipv6/conf/default/addr_gen_mode', 1),
    sysctl('net/ipv4/ip_forward', 0),
    sysctl('net/ipv6/conf/all/forwarding', 0),
    sysctl('net/ipv4/conf/all/rp_filter', 0),
    sysctl('net/netfilter/nf_conntrack_tcp_loose', 0),
    patience(ns),
    sysctl('net/bridge/bridge-nf-call-arptables', 0),
    { kind: 'bridge', ns, name: bridge, mac: switchMac(node), mtu: network.mtu },
    {
      kind: 'vxlan',
      ns,
      name: vtep,
      vni: network.vni,
      local: node.vtep,
      port: cluster.vxlanPort,
      mtu: network.mtu,
      master: bridge,
    },
    {
      kind: 'veth',
      ns,
      name: gatewayPort,
      mtu: network.mtu,
      master: bridge,
      peer: { ns: gatewayNs(network.vni), name: gatewayLink, mtu: network.mtu, mac: own },
    },
    sysctl(`net/ipv4/conf/${bridge}/forwarding`, 1),
    sysctl(`net/ipv4/conf/${bridge}/rp_filter`, 0),
    sysctl(`net/ipv6/conf/${bridge}/disable_ipv6`, 0),
    { kind: 'port', ns, dev: vtep, hairpin: false, flood: false, spread: false, suppress: true },
    { kind: 'port', ns, dev: gatewayPort, hairpin: false, flood: false, spread: false, suppress: true },
    ...network.pools.map(
      (pool): KernelObject => ({ kind: 'route', ns, to: formatPrefix(parsePrefix(pool.prefix)), dev: bridge }),
    ),
    { kind: 'fdb-port', ns, dev: gatewayPort, mac: own },
    ...resolversOf(network, host).map(neighbour),
    ...gateways(network).map(gateway => neighbour(gateway.address)),
    ...planFilters(ns, node),
    ...planTracking(ns, node),
  ]
}

/** Table netdev weft: who may say what at which port; the ports of containers add their own chains. */
const planFilters = (ns: string, node: Node): KernelObject[] => {
  const chain = chains(ns, 'netdev')
  const notToSwitch = `ether daddr ${switchMac(node)} drop`
  return [
    { kind: 'nft-table', ns, family: 'netdev', table },
    returning[4](ns),
    returning[6](ns),
    // what IPv6 needs before a node has an address; targets of advertisements were checked before
    chain('discovery', [
      'icmpv6 type nd-neighbor-solicit accept',
      'icmpv6 type nd-neighbor-advert accept',
      'icmpv6 type nd-router-solicit accept',
      'icmpv6 type mld-listener-report accept',
      'icmpv6 type mld2-listener-report accept',
      'drop',
    ]),
    chain(portChain(vtep), [notToSwitch], ingress(vtep, 'accept')),
    chain(
      portChain(gatewayPort),
      [
        notToSwitch,
        `meta mark set ${hex(mark.fromGateway | identity.world)}`,
        'meta mark set ip saddr map @returning4',
        'meta mark set ip6 saddr map @returning6',
      ],
      ingress(gatewayPort, 'accept'),
    ),
  ]
}

/** Table inet weft: connections of tracked endpoints. Reached through br_netfilter, only while somebody is tracked. */
const planTracking = (ns: string, node: Node): KernelObject[] => {
  const chain = chains(ns, 'inet')
  const own = nodeMac(node)
  const kinds = hex(mark.fromPort | mark.fromGateway)
  return [
    { kind: 'nft-table', ns, family: 'inet', table },
    ...[localMacs, tracked, zoneOf, macOfZone, published, backends].map(set => set(ns)),
    ...[vips, choice, ownBackends, selfCalls].flatMap(set => [set[4](ns), set[6](ns)]),
    chain(
      'raw',
      [
        // to and from a virtual address of a service, whoever asks; in zone 0, beside those of the mesh
        'ip daddr @vips4 accept',
        'ip6 daddr @vips6 accept',
        'ip saddr @vips4 accept',
        'ip6 saddr @vips6 accept',
        'ether saddr != @tracked ether daddr != @tracked notrack accept',
        `meta mark & ${kinds} == ${hex(mark.fromPort)} goto from_port`,
        `meta mark & ${kinds} == ${hex(mark.fromGateway)} goto from_gateway`,
        `ether daddr ${own} notrack accept`,
        `meta mark & 0x0000ffff == ${hex(identity.world)} ct original zone set ether saddr map @zone_of`,
      ],
      accepting('filter', 'prerouting', -300),
    ),
    chain('from_port', [`ether daddr != ${own} accept`]),
    chain('from_gateway', [
      `ether daddr @local_macs ct original zone set ${node.number} accept`,
      `meta mark & 0x0000ffff != ${hex(identity.world)} accept`,
      'notrack',
    ]),
    // a frame for a virtual address: to the container that its connection has, or gets now (mesh/vip-plan)
    chain('steer', [
      'ct state untracked accept', // neighbour discovery: the bridge answers it
      'ether daddr set ct mark map @backends accept',
      'meta l4proto tcp ct state established reject with tcp reset', // its container is gone
      'ct mark != 0 drop', // the same, until it is forgotten (mesh/flows): what is tracked cannot be translated anew
      'ip daddr vmap @choice4',
      'ip6 daddr vmap @choice6',
      'ether daddr set ct mark map @backends accept',
      'meta l4proto tcp reject with tcp reset',
      'drop',
    ]),
    chain(
      'home',
      [
        `ether daddr ${own} ct direction reply ether daddr set ct original zone map @mac_of_zone`,
        `ether daddr ${own} ip daddr @vips4 goto steer`,
        `ether daddr ${own} ip6 daddr @vips6 goto steer`,
      ],
      accepting('filter', 'prerouting', -150),
    ),
    chain(
      'translate',
      [
        'dnat ip to ether daddr . ip daddr map @own_backends4',
        'dnat ip6 to ether daddr . ip6 daddr map @own_backends6',
        `meta mark & 0x0000ffff == ${hex(identity.world)} meta l4proto { tcp, udp } dnat to :ether daddr . meta l4proto . th dport map @published`,
      ],
      accepting('nat', 'prerouting', -100),
    ),
    // a container that got its own call sees the gateway. Even without a rule, the presence of the chain lets conntrack
    // make reply tuples unique by the client's port
    chain(
      'unique',
      ['snat ip to ip saddr . ip daddr map @self_calls4', 'snat ip6 to ip6 saddr . ip6 daddr map @self_calls6'],
      accepting('nat', 'postrouting', 100),
    ),
  ]
}

export const hex = (value: number): string => `0x${value.toString(16).padStart(8, '0')}`

// SPDX-License-Identifier: Apache-2.0
// An endpoint as this node's kernel has to know it: a port with its filter if it lives here, two FDB rows if not, and
// neighbour entries in both cases, so that nobody ever has to ask by broadcast.

import type { KernelObject } from '../kernel/objects.ts'
import { familyOf, linkLocalOf } from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import { mark } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { ingress } from '../plan/chains.ts'
import { nodeMac } from '../plan/macs.ts'
import {
  bridge,
  containerEnd,
  containerPort,
  gatewayLink,
  gatewayNs,
  portChain,
  switchNs,
  table,
  vtep,
} from '../plan/names.ts'
import { element, localMacs, published, returning, tracked } from '../plan/sets.ts'
import { trackingSwitch } from '../plan/tracking.ts'
import type { Wanted } from '../plan/unit.ts'
import { groupOf } from './nexthops.ts'
import { hex } from './switch-plan.ts'

export const planEndpoint = (endpoint: Endpoint, network: Network, node: Node, own: Node): readonly Wanted[] => {
  const ns = switchNs(network.vni)
  const local = node.name === own.name
  const { mac, addresses } = endpoint
  const known: KernelObject[] = addresses.flatMap(ip => [
    { kind: 'neighbour', ns, dev: bridge, ip, mac },
    { kind: 'neighbour', ns: gatewayNs(network.vni), dev: gatewayLink, ip, mac },
  ])
  const objects: KernelObject[] = local
    ? [...planPort(endpoint, network, own), ...known]
    : [
        { kind: 'fdb-remote', ns, dev: vtep, mac, nexthop: groupOf(node) },
        { kind: 'fdb-port', ns, dev: vtep, mac },
        ...known,
      ]
  const rank0 = objects.map((object): Wanted => ({ object, rank: 0 }))
  const publishes = local && endpoint.gateway && endpoint.ports.length > 0 && !network.internal
  return publishes ? [...rank0, ...planPublished(endpoint, network)] : rank0
}

const planPort = (endpoint: Endpoint, network: Network, own: Node): KernelObject[] => {
  const ns = switchNs(network.vni)
  const { mac, addresses } = endpoint
  const name = containerPort(endpoint.id)
  return [
    {
      kind: 'veth',
      ns,
      name,
      mtu: network.mtu,
      master: bridge,
      peer: { ns: '', name: containerEnd(endpoint.id), mtu: network.mtu, mac },
      port: true,
    },
    // hairpin: a container that calls its own VIP; local ARP and ND are answered by the containers themselves
    { kind: 'port', ns, dev: name, hairpin: true, flood: false, spread: true, suppress: false },
    { kind: 'fdb-port', ns, dev: name, mac },
    {
      kind: 'nft-chain',
      ns,
      family: 'netdev',
      table,
      chain: portChain(name),
      hook: ingress(name, 'drop'),
      rules: portRules(endpoint, own),
    },
    ...addresses.map(ip => element(returning[familyOf(ip)](ns), [ip], [hex(mark.fromGateway | endpoint.identity)])),
    element(localMacs(ns), [mac]),
  ]
}

/** What a container may send. The chain's policy drops the rest: other ethertypes, VLAN tags, foreign addresses. */
const portRules = ({ mac, addresses, identity }: Endpoint, own: Node): string[] => {
  const linkLocal = linkLocalOf(mac)
  const v4 = addresses.filter(ip => familyOf(ip) === 4)
  const v6 = addresses.filter(ip => familyOf(ip) === 6)
  const gateway = nodeMac(own)
  const accept = `meta mark set ${hex(mark.fromPort | identity)} accept`
  const foreignTarget = [...v6, linkLocal].map(ip => `@th,64,128 != ${ip}`).join(' ')
  return [
    `ether saddr != ${mac} drop`,
    'ether type 8021q drop',
    'ether type 8021ad drop', // the kernel has taken the tag off already: the rules below would not see it
    // gateways and switches of other nodes (02:7e, 02:7f), and our own switch
    `ether daddr & ff:fe:00:00:00:00 == 02:7e:00:00:00:00 ether daddr != ${gateway} drop`,
    ...v4.map(ip => `ip saddr ${ip} ${accept}`),
    'icmpv6 type nd-router-advert drop',
    'icmpv6 type nd-redirect drop',
    `icmpv6 type nd-neighbor-advert ${foreignTarget} drop`,
    // who is about to have that address would take it for taken (RFC 4862, 5.4.3)
    `ip6 saddr :: icmpv6 type nd-neighbor-solicit ${foreignTarget} drop`,
    `ip6 saddr ${linkLocal} goto discovery`,
    'ip6 saddr :: goto discovery',
    ...v6.map(ip => `ip6 saddr ${ip} ${accept}`),
    ...[...v4, ...(v4.length > 0 ? ['0.0.0.0'] : [])].map(ip => `arp saddr ether ${mac} arp saddr ip ${ip} accept`),
  ]
}

/** Published ports as the container's node knows them: N puts the container's port in, and tracks. */
const planPublished = (endpoint: Endpoint, network: Network): readonly Wanted[] => {
  const ns = switchNs(network.vni)
  return [
    ...endpoint.ports.map(
      ({ proto, port, hostPort }): Wanted => ({
        object: element(published(ns), [endpoint.mac, proto, hostPort], [port]),
        rank: 0,
      }),
    ),
    { object: element(tracked(ns), [endpoint.mac]), rank: 0 },
    ...trackingSwitch(network, '1').map((object): Wanted => ({ object, rank: 1 })),
  ]
}

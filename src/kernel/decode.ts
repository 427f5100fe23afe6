// SPDX-License-Identifier: Apache-2.0
// From what the kernel says to our objects; undefined for what is not ours or no object of its own. One place for
// dumps and for notifications, so that both see the same.
import { bits, formatPrefix, parseInterface } from '../model/address.ts'
import type { Address } from '../netlink/rtnl/addr.ts'
import type { Fdb } from '../netlink/rtnl/fdb.ts'
import type { VxlanState } from '../netlink/rtnl/kinds.ts'
import type { Link } from '../netlink/rtnl/link.ts'
import type { Neighbour } from '../netlink/rtnl/neigh.ts'
import type { Nexthop } from '../netlink/rtnl/nexthop.ts'
import type { BridgePort } from '../netlink/rtnl/port.ts'
import type { Route } from '../netlink/rtnl/route.ts'
import { RT_TABLE, RTPROT } from '../netlink/rtnl/uapi.ts'
import { isGateway } from './namespaces.ts'
import type { KernelObject, LinkObject, Ns } from './objects.ts'

/** rtnetlink protocol number of everything of ours that can carry one. */
export const protocol = 44
/** Device group of container ports: their far end is in a sandbox. */
export const portGroup = 0x77
/** plan/names: containerPort. */
export const isContainerPort = (name: string): boolean => /^c.{12}$/.test(name)
const permanent = 0x80
const noArp = 0x40

/** In H only our links count, elsewhere all. */
export const oursByName = (ns: Ns, name: string): boolean => (ns === '' ? /^weft(\d+|dns)$/.test(name) : name !== 'lo')

export type NameOf = (index: number) => string | undefined
/** The other end of a veth, wherever it is: its namespace and link. */
export type PeerOf = (ns: Ns, link: Link) => { ns: Ns; link: Link } | undefined

const flags = ({ up, arp }: Link): { down?: true; mute?: true } => ({
  ...(up ? {} : { down: true }),
  ...(arp ? {} : { mute: true }),
})

const otherwise = (words: string): { otherwise?: string } => (words === '' ? {} : { otherwise: words })
const bridgeWords = ({ bridge }: Link): string =>
  bridge && (bridge.ageingTime !== 0 || bridge.multicastSnooping || bridge.vlanFiltering)
    ? ` ageing_time ${bridge.ageingTime} mcast_snooping ${Number(bridge.multicastSnooping)} vlan_filtering ${Number(bridge.vlanFiltering)}`
    : ''
const vxlanWords = (link: Link, { gbp, ttl, tos, df, ...vxlan }: VxlanState): string =>
  [
    gbp ? '' : ' but without it',
    ttl !== 0 || tos !== 0 || df !== 0 ? ` ttl ${ttl} tos ${tos} df ${df}` : '',
    vxlan.link === undefined ? '' : ` dev ${vxlan.link}`,
    vxlan.group === undefined ? '' : ` group ${vxlan.group}`,
    link.protoDown ? ' protodown on' : '',
  ].join('')
const portWords = ({ guard, isolated, locked, multicastFlood, broadcastFlood }: BridgePort): string =>
  [
    ...[guard ? ' guard on' : '', isolated ? ' isolated on' : '', locked ? ' locked on' : ''],
    multicastFlood === broadcastFlood ? '' : ' only one of mcast_flood and bcast_flood on',
  ].join('')

export const linkObject = (ns: Ns, link: Link, nameOf: NameOf, peerOf: PeerOf): LinkObject | undefined => {
  if (!oursByName(ns, link.name) || isGateway(ns)) return undefined
  const master = link.master === undefined ? undefined : (nameOf(link.master) ?? `index ${link.master}`)
  const base = { ns, name: link.name, mtu: link.mtu, ...(master === undefined ? {} : { master }), ...flags(link) }
  switch (link.kind) {
    case 'bridge':
      return { kind: 'bridge', ...base, mac: link.mac, ...otherwise(bridgeWords(link)) }
    case 'vxlan':
      return (
        link.vxlan && {
          kind: 'vxlan',
          ...base,
          vni: link.vxlan.vni,
          local: link.vxlan.local ?? '',
          port: link.vxlan.port,
          ...(link.vxlan.learning ? { learning: true } : {}),
          ...otherwise(vxlanWords(link, link.vxlan)),
        }
      )
    case 'veth': {
      if (link.group === portGroup) {
        // renamed by somebody: whose it is nobody knows, and taken away it could not be renamed back
        if (!isContainerPort(link.name)) return undefined
        return { kind: 'veth', ...base, peer: { ns: '', name: '', mtu: link.mtu }, port: true }
      }
      const peer = peerOf(ns, link)
      const far = peer
        ? { ns: peer.ns, name: peer.link.name, mtu: peer.link.mtu, mac: peer.link.mac, ...flags(peer.link) }
        : { ns: '?', name: '?', mtu: 0 }
      return { kind: 'veth', ...base, peer: far }
    }
    default:
      return undefined
  }
}

/** Wrong flags become an object that differs from every desired one only where it matters. */
export const portObject = (ns: Ns, link: Link): KernelObject | undefined => {
  const { port } = link
  if (ns === '' || !port) return undefined
  return {
    kind: 'port',
    ns,
    dev: link.name,
    hairpin: port.hairpin,
    flood: port.unicastFlood || port.learning,
    spread: port.multicastFlood && port.broadcastFlood,
    suppress: port.neighSuppress,
    ...otherwise(portWords(port)),
  }
}

export const addressObject = (ns: Ns, address: Address, nameOf: NameOf): KernelObject | undefined => {
  const dev = nameOf(address.ifindex)
  if (dev === undefined || !oursByName(ns, dev)) return undefined
  // the kernel makes one for each device; other nodes ask the gateway's
  if (address.address.startsWith('fe80:') && !(isGateway(ns) && dev === 'gw0')) return undefined
  return { kind: 'address', ns, dev, address: `${address.address}/${address.prefixLength}` }
}

/** A route that the kernel makes with an address and takes away with it: to its prefix, by its device. */
export const isConnected = (route: Route): boolean => route.protocol === RTPROT.KERNEL && route.table === RT_TABLE.MAIN

/** Of addresses and connected routes of one moment: where a device that is up has an address without its route. */
export const withRoute = (
  object: KernelObject | undefined,
  link: Link | undefined,
  routes: readonly Route[],
): KernelObject | undefined => {
  // in a VRF it is in another table
  if (object?.kind !== 'address' || !link?.up || link.master !== undefined) return object
  const { prefix } = parseInterface(object.address)
  if (prefix.length === bits(prefix.family)) return object
  const dst = formatPrefix(prefix)
  return routes.some(route => route.oif === link.index && route.dst === dst && isConnected(route))
    ? object
    : { ...object, unrouted: true }
}

export const routeObject = (ns: Ns, route: Route, nameOf: NameOf): KernelObject | undefined => {
  if (ns === '' || route.protocol !== protocol || route.table !== RT_TABLE.MAIN || route.oif === undefined)
    return undefined
  const dev = nameOf(route.oif) ?? `index ${route.oif}`
  return { kind: 'route', ns, to: route.dst, dev, ...(route.gateway === undefined ? {} : { via: route.gateway }) }
}

export const neighbourObject = (ns: Ns, neighbour: Neighbour, nameOf: NameOf): KernelObject | undefined => {
  const dev = nameOf(neighbour.ifindex)
  if (ns === '' || dev === undefined || neighbour.mac === undefined || (neighbour.state & permanent) === 0)
    return undefined
  if (neighbour.proxy || (dev !== 'br0' && dev !== 'gw0')) return undefined
  return { kind: 'neighbour', ns, dev, ip: neighbour.ip, mac: neighbour.mac }
}

export const fdbObject = (ns: Ns, fdb: Fdb, nameOf: NameOf): KernelObject | undefined => {
  const dev = nameOf(fdb.ifindex)
  if (ns === '' || dev === undefined || fdb.vlan !== undefined) return undefined
  if (fdb.table === 'self') {
    if (fdb.nhid === undefined && fdb.dst === undefined) return undefined
    return { kind: 'fdb-remote', ns, dev, mac: fdb.mac, nexthop: fdb.nhid ?? 0 }
  }
  // permanent rows are the bridge's own: the addresses of its ports
  if ((fdb.state & permanent) !== 0 || (fdb.state & noArp) === 0) return undefined
  return { kind: 'fdb-port', ns, dev, mac: fdb.mac }
}

export const nexthopObject = (ns: Ns, nexthop: Nexthop): KernelObject | undefined => {
  if (ns !== '' || nexthop.protocol !== protocol || !nexthop.fdb) return undefined
  if (nexthop.group) return { kind: 'nexthop', id: nexthop.id, to: { group: nexthop.group[0]?.id ?? 0 } }
  return { kind: 'nexthop', id: nexthop.id, to: { via: nexthop.gateway ?? '' } }
}

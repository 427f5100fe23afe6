// SPDX-License-Identifier: Apache-2.0
// The kernel's own notifications of one namespace, as observations. Idempotent: our own changes come back here too and
// say what we know. Links are kept by index, because every other notification names its device so.
import { attributes, type Message } from '../netlink/message.ts'
import { type Monitor, openMonitor } from '../netlink/monitor.ts'
import { decodeAddress, isRemovedAddress } from '../netlink/rtnl/addr.ts'
import { decodeFdb } from '../netlink/rtnl/fdb.ts'
import { decodeLink, isRemovedLink, type Link } from '../netlink/rtnl/link.ts'
import { decodeNeighbour, isRemovedNeighbour } from '../netlink/rtnl/neigh.ts'
import { decodeNetconf } from '../netlink/rtnl/netconf.ts'
import { decodeNexthop, isRemovedNexthop } from '../netlink/rtnl/nexthop.ts'
import { decodePort } from '../netlink/rtnl/port.ts'
import { decodeRoute, isRemovedRoute } from '../netlink/rtnl/route.ts'
import { IFLA, RTM, RTNLGRP, RTPROT } from '../netlink/rtnl/uapi.ts'
import { AF_BRIDGE, NETLINK_NETFILTER, NETLINK_ROUTE, NLM_F_REPLACE } from '../netlink/uapi.ts'
import {
  addressObject,
  fdbObject,
  isConnected,
  isContainerPort,
  linkObject,
  neighbourObject,
  nexthopObject,
  oursByName,
  type PeerOf,
  portObject,
  routeObject,
} from './decode.ts'
import { guestChainNames } from './guest-chains.ts'
import type { Observation } from './kernel.ts'
import { pathOf } from './namespaces.ts'
import { type KernelObject, keyOf, type LinkObject, type Ns, type ObjectKey } from './objects.ts'
import type { LinkTable } from './sockets.ts'

const rtmProtocol = 5 // struct rtmsg
const nftGroup = 7 // NFNLGRP_NFTABLES
const nftTableAttribute = 1 // NFTA_*_TABLE, NFTA_TABLE_NAME
const nftChainAttribute = 2 // NFTA_RULE_CHAIN, and the like
const rtnlGroups = [
  RTNLGRP.LINK,
  RTNLGRP.NEIGH,
  RTNLGRP.IPV4_IFADDR,
  RTNLGRP.IPV6_IFADDR,
  RTNLGRP.IPV4_ROUTE,
  RTNLGRP.IPV6_ROUTE,
  RTNLGRP.IPV4_NETCONF,
  RTNLGRP.IPV6_NETCONF,
]
// the host's own neighbours are none of our business, and many
const hostGroups = [
  RTNLGRP.LINK,
  RTNLGRP.IPV4_IFADDR,
  RTNLGRP.IPV6_IFADDR,
  RTNLGRP.IPV4_NETCONF,
  RTNLGRP.IPV6_NETCONF,
  RTNLGRP.IPV4_ROUTE,
  RTNLGRP.IPV6_ROUTE,
  RTNLGRP.NEXTHOP,
]

export interface FollowParts {
  readonly ns: Ns
  /** As just listed; kept up to date from here on. */
  readonly links: LinkTable
  readonly peerOf: PeerOf
  onObserved(observations: readonly Observation[]): void
  /** Something of ours may have changed: it has to be looked at. */
  onLost(): void
  /** Notifications of links were lost: what was told of them is no longer known. */
  onOverrun(): void
  /** A device that is not ours, new or by a new name. */
  onDevice(name: string): void
  /** A far end changed: the objects that it belongs to. */
  pairsOf(ns: Ns, link: Link): readonly LinkObject[]
  ownNetfilterPort(port: number): boolean
}

/** Opens the notifications of a namespace. */
export const follow = async (parts: FollowParts, open = openMonitor): Promise<Monitor> => {
  const route = await open({
    protocol: NETLINK_ROUTE,
    netns: pathOf(parts.ns),
    groups: parts.ns === '' ? hostGroups : rtnlGroups,
    onMessages: messages => {
      const observations = messages.flatMap(message => read(parts, message))
      if (observations.length > 0) parts.onObserved(observations)
    },
    onLost: parts.onOverrun,
  })
  const netfilter = await open({
    protocol: NETLINK_NETFILTER,
    netns: pathOf(parts.ns),
    groups: [nftGroup],
    onMessages: messages => {
      if (messages.some(message => !parts.ownNetfilterPort(message.port) && concernsUs(message))) parts.onLost()
    },
    onLost: parts.onLost,
  }).catch(async error => {
    await route.close() // or it would keep its namespace
    throw error
  })
  return {
    async close() {
      await Promise.all([route.close(), netfilter.close()])
    },
  }
}

/** Our table, or a chain where our guest rules can be. */
const concernsUs = (message: Message): boolean => {
  for (const attribute of attributes(message, 4)) {
    if (attribute.type === nftTableAttribute && attribute.text() === 'weft') return true
    if (attribute.type === nftChainAttribute && guestChainNames.includes(text(attribute))) return true
  }
  return false
}

const text = (attribute: { text(): string }): string => {
  try {
    return attribute.text()
  } catch {
    return ''
  }
}

const seen = (object: KernelObject | undefined): Observation[] => (object ? [{ key: keyOf(object), object }] : [])
const gone = (key: ObjectKey): Observation[] => [{ key, object: undefined }]

const read = (parts: FollowParts, message: Message): Observation[] => {
  const { ns, links } = parts
  const nameOf = (index: number): string | undefined => links.byIndex.get(index)?.name
  switch (message.type) {
    case RTM.NEWLINK:
    case RTM.DELLINK:
      return readLink(parts, message)
    case RTM.NEWADDR:
    case RTM.DELADDR: {
      const address = decodeAddress(message)
      const object = address && addressObject(ns, address, nameOf)
      if (!object) return []
      if (!isRemovedAddress(message)) return seen(object)
      // with the last address of a device its routes went without a word
      if (ns !== '') parts.onLost()
      return gone(keyOf(object))
    }
    case RTM.NEWROUTE:
    case RTM.DELROUTE: {
      // the host's own are many: of ours only those that the kernel makes are there
      if (ns === '' && (message.type !== RTM.DELROUTE || message.u8(rtmProtocol) !== RTPROT.KERNEL)) return []
      const route = decodeRoute(message)
      if (route && isRemovedRoute(message) && isConnected(route)) {
        // whose prefix it was, and whether it was to go, one has to look
        const dev = nameOf(route.oif ?? -1)
        if (dev !== undefined && oursByName(ns, dev)) parts.onLost()
        return []
      }
      const object = route && routeObject(ns, route, nameOf)
      // whose route it was that another's takes the place of is not told
      if (!object && ns !== '' && (message.flags & NLM_F_REPLACE) !== 0) parts.onLost()
      if (!object) return []
      return isRemovedRoute(message) ? gone(keyOf(object)) : seen(object)
    }
    case RTM.NEWNEXTHOP:
    case RTM.DELNEXTHOP: {
      const nexthop = decodeNexthop(message)
      if (!nexthop || ns !== '') return []
      const object = isRemovedNexthop(message) ? undefined : nexthopObject(ns, nexthop)
      // another's by the number of ours has taken its place
      return object ? seen(object) : gone(`nexthop ${nexthop.id}`)
    }
    case RTM.NEWNEIGH:
    case RTM.DELNEIGH:
      return readNeighbour(parts, message, nameOf)
    case RTM.NEWNETCONF:
      return readSettings(ns, message, nameOf)
    default:
      return []
  }
}

const readLink = (parts: FollowParts, message: Message): Observation[] => {
  const { ns, links, peerOf } = parts
  const link = decodeLink(message)
  if (!link) return readPort(parts, message)
  const before = links.byIndex.get(link.index)
  if (isRemovedLink(message)) {
    links.byIndex.delete(link.index)
    links.byName.delete(link.name)
    if (!oursByName(ns, link.name)) return []
    // addresses, routes and rows of the device went without a word; a container's port has none but its own
    if (!isContainerPort(link.name)) parts.onLost()
    // the other end is without it now, where it does not go too: taken to another namespace, say
    const pairs = parts.pairsOf(ns, before ?? link)
    return [...gone(`link ${ns} ${link.name}`), ...gone(`port ${ns} ${link.name}`), ...pairs.flatMap(seen)]
  }
  // a notification may leave out what the bridge says of its port
  const whole: Link = { ...link, port: link.port ?? before?.port }
  const renamed = before !== undefined && before.name !== link.name
  if (renamed) links.byName.delete(before.name)
  links.byIndex.set(link.index, whole)
  links.byName.set(link.name, whole)
  const nameOf = (index: number): string | undefined => links.byIndex.get(index)?.name
  if ((!before || renamed) && !oursByName(ns, link.name)) parts.onDevice(link.name)
  // routes went without a word; at a container's port there are none
  if (before?.up && !whole.up && !isContainerPort(whole.name) && oursByName(ns, whole.name)) parts.onLost()
  // what is on it has gone with its name
  if (renamed && oursByName(ns, before.name)) parts.onLost()
  // half of a pair that is just being made: the other half's namespace has not told yet
  const half = whole.kind === 'veth' && !isContainerPort(whole.name) && !peerOf(ns, whole)
  const object = half ? undefined : linkObject(ns, whole, nameOf, peerOf)
  return [...seen(object), ...parts.pairsOf(ns, whole).flatMap(seen), ...(link.port ? seen(portObject(ns, whole)) : [])]
}

/** Of the settings these tell of their changes; the others are looked at with the rest of their namespace. */
const readSettings = (ns: Ns, message: Message, nameOf: (index: number) => string | undefined): Observation[] => {
  const conf = decodeNetconf(message)
  const device = typeof conf?.device === 'number' ? nameOf(conf.device) : conf?.device
  if (!conf || device === undefined) return []
  const setting = (name: string, value: number | undefined): Observation[] => {
    const whole = conf.family === 4 && device === 'all' && name === 'forwarding'
    const path = whole ? 'net/ipv4/ip_forward' : `net/ipv${conf.family}/conf/${device}/${name}`
    return value === undefined ? [] : seen({ kind: 'sysctl', ns, path, value: String(value) })
  }
  return [...setting('forwarding', conf.forwarding), ...setting('rp_filter', conf.rpFilter)]
}

/** What a bridge says of a port comes as a link message of its own family. */
const readPort = ({ ns, links }: FollowParts, message: Message): Observation[] => {
  const link = links.byIndex.get(message.u32(4))
  if (message.type !== RTM.NEWLINK || message.u8(0) !== AF_BRIDGE || !link || ns === '') return []
  for (const attribute of attributes(message, 16)) {
    if (attribute.type !== IFLA.PROTINFO) continue
    const whole: Link = { ...link, port: decodePort(attribute) }
    links.byIndex.set(link.index, whole)
    links.byName.set(link.name, whole)
    return seen(portObject(ns, whole))
  }
  return []
}

const readNeighbour = (
  { ns }: FollowParts,
  message: Message,
  nameOf: (index: number) => string | undefined,
): Observation[] => {
  const removed = isRemovedNeighbour(message)
  const fdb = decodeFdb(message)
  if (fdb) {
    const object = fdbObject(ns, fdb, nameOf)
    // a bridge has one row of an address: another kind of it is in the place of ours
    if (!object && ns !== '' && fdb.table === 'master' && fdb.vlan === undefined) return gone(`fdb ${ns} ${fdb.mac}`)
    if (!object) return []
    return removed ? gone(keyOf(object)) : seen(object)
  }
  const neighbour = decodeNeighbour(message)
  const dev = neighbour && nameOf(neighbour.ifindex)
  if (!neighbour || dev === undefined || ns === '') return []
  const object = removed ? undefined : neighbourObject(ns, neighbour, nameOf)
  return object ? seen(object) : gone(`neighbour ${ns} ${dev} ${neighbour.ip}`)
}

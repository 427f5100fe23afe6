// SPDX-License-Identifier: Apache-2.0
// One namespace, everything of ours in it, as objects. Dumps one after the other: a dump that runs beside writes of
// ours may miss what was not touched (FDB), so the reconciler never observes and applies at once.
import { NetlinkError } from '../netlink/errors.ts'
import { netnsRead } from '../netlink/netns.ts'
import { listObjects } from '../netlink/nft/dump.ts'
import { decodeAddress, listAddresses } from '../netlink/rtnl/addr.ts'
import { decodeFdb, listFdb } from '../netlink/rtnl/fdb.ts'
import type { Link } from '../netlink/rtnl/link.ts'
import { decodeNeighbour, listNeighbours } from '../netlink/rtnl/neigh.ts'
import { decodeNexthop, listNexthops } from '../netlink/rtnl/nexthop.ts'
import { decodeRoute, listRoutes } from '../netlink/rtnl/route.ts'
import { RT_TABLE, RTPROT } from '../netlink/rtnl/uapi.ts'
import {
  addressObject,
  fdbObject,
  linkObject,
  neighbourObject,
  nexthopObject,
  type PeerOf,
  portObject,
  routeObject,
  withRoute,
} from './decode.ts'
import { isGuestChain } from './guest-chains.ts'
import { observeIpvs } from './ipvs.ts'
import { isGateway, isNoNamespace, listNamespaces, pathOf, peersOf } from './namespaces.ts'
import { isOurTable, nftObjects } from './nft.ts'
import type { KernelObject, Ns, SysctlObject } from './objects.ts'
import type { Sockets } from './sockets.ts'

export const observeNamespace = async (
  sockets: Sockets,
  ns: Ns,
  hints: readonly KernelObject[],
): Promise<KernelObject[]> => {
  const links = await sockets.links(ns)
  const peerOf = await peerFinder(sockets, ns, links.byName.values())
  const nameOf = (index: number): string | undefined => links.byIndex.get(index)?.name
  const socket = await sockets.route(ns)
  const found: (KernelObject | undefined)[] = ns === '' ? [] : [{ kind: 'netns', ns }]
  for (const link of links.byName.values()) found.push(linkObject(ns, link, nameOf, peerOf), portObject(ns, link))
  const addresses = await socket.dump(listAddresses(), decodeAddress)
  // after the addresses: what has come meanwhile has its route
  const filter = { table: RT_TABLE.MAIN, ...(ns === '' ? { protocol: RTPROT.KERNEL } : {}) }
  const routes = await socket.dump(listRoutes(filter), decodeRoute)
  for (const address of addresses)
    found.push(withRoute(addressObject(ns, address, nameOf), links.byIndex.get(address.ifindex), routes))
  if (ns === '') {
    for (const nexthop of await socket.dump(listNexthops(), decodeNexthop)) found.push(nexthopObject(ns, nexthop))
  } else {
    for (const route of routes) found.push(routeObject(ns, route, nameOf))
    for (const neighbour of await socket.dump(listNeighbours(), decodeNeighbour))
      found.push(neighbourObject(ns, neighbour, nameOf))
    for (const fdb of await socket.dump(listFdb(), decodeFdb)) found.push(fdbObject(ns, fdb, nameOf))
  }
  found.push(
    ...nftObjects(ns, await listObjects(await sockets.netfilter(ns), { table: isOurTable, chain: isGuestChain })),
  )
  if (isGateway(ns)) found.push(...(await observeIpvs(sockets, ns, hints)))
  for (const hint of hints) if (hint.kind === 'sysctl') found.push(await readSysctl(hint))
  return found.filter(object => object !== undefined)
}

/** The other ends of veths: looked up in our other namespaces, by index and mutual reference. */
export const peerFinder = async (sockets: Sockets, ns: Ns, links: Iterable<Link>): Promise<PeerOf> => {
  const tables: { ns: Ns; byIndex: ReadonlyMap<number, Link> }[] = []
  const wanted = [...links].some(link => link.kind === 'veth' && link.linkNetnsId !== undefined)
  if (wanted)
    for (const other of peersOf(ns, ['', ...(await listNamespaces())])) {
      const table = await sockets.links(other).catch(error => {
        if (!isNoNamespace(error)) throw error
      })
      if (table) tables.push({ ns: other, byIndex: table.byIndex })
    }
  return (_, link) => {
    for (const table of tables) {
      const far = table.byIndex.get(link.link ?? -1)
      if (far?.kind === 'veth' && far.link === link.index) return { ns: table.ns, link: far }
    }
    return undefined
  }
}

export const readSysctl = async ({ ns, path }: SysctlObject): Promise<KernelObject | undefined> => {
  try {
    const text = await netnsRead(pathOf(ns), `/proc/sys/${path}`)
    return { kind: 'sysctl', ns, path, value: text.trim() }
  } catch (error) {
    return ignoreGone(error)
  }
}

const ignoreGone = (error: unknown): undefined => {
  if (error instanceof NetlinkError && error.absent) return undefined
  throw error
}

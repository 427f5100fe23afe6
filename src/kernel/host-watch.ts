// SPDX-License-Identifier: Apache-2.0
// When to read the facts of this host again: its routes, addresses, links or forwarding changed, or its resolv.conf. What weft itself
// does there (floating addresses renewed every few seconds, its own links) is nothing new, nor are the links of
// containers, which have no address here.
import { unwatchFile, watchFile } from 'node:fs'
import type { Clock, Timer } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { Message } from '../netlink/message.ts'
import { openMonitor } from '../netlink/monitor.ts'
import { type Address, decodeAddress, listAddresses } from '../netlink/rtnl/addr.ts'
import { decodeLink, isRemovedLink } from '../netlink/rtnl/link.ts'
import { decodeNetconf } from '../netlink/rtnl/netconf.ts'
import { decodeRoute, listRoutes, type Route } from '../netlink/rtnl/route.ts'
import { RTM, RTNLGRP } from '../netlink/rtnl/uapi.ts'
import { NETLINK_ROUTE } from '../netlink/uapi.ts'
import { isAddressOnLinks, isForeign, isHalf, isOfHost, isRouteOnLinks, resolvConf } from './host-facts.ts'
import { pathOf } from './namespaces.ts'
import type { Ns } from './objects.ts'
import { openSockets } from './sockets.ts'
import { devicesOf } from './underlay.ts'

export interface HostWatch extends Closeable {
  /** Look at once: something else has changed. */
  poke(): void
}

export interface HostWatchParts {
  /** Reads the facts. Never called while it runs; called again after a while when it failed. */
  readonly look: () => Promise<void>
  /** Somebody has switched forwarding of all devices, or we have. Told at once, before the look. */
  readonly forwarding?: (family: 4 | 6, on: boolean) => void
  readonly clock: Clock
  readonly log: Log
  /** For tests; absent: the host. */
  readonly ns?: Ns
  readonly resolvConf?: string
}

const quietMs = 300
const retryMs = 5000
/** A stat of the file behind every link: that of systemd-resolved is changed elsewhere than in /etc. */
const statEveryMs = 2000

/** Looks once at the beginning: what changed before is not told. Throws NetlinkError. */
export const openHostWatch = async (parts: HostWatchParts): Promise<HostWatch> => {
  const { look, clock, log, ns = '', resolvConf: file = resolvConf } = parts
  const names = new Map<number, string>()
  const inUse = new Set<number>() // devices with an address or route that counts: with their link it goes without a word
  const nameOf = (index: number): string | undefined => names.get(index)
  const isAddress = (one: Address): boolean => isOfHost(one, nameOf) || isAddressOnLinks(one, nameOf)
  const isRoute = (one: Route): boolean => isForeign(one, nameOf) || isRouteOnLinks(one, nameOf) || isHalf(one, nameOf)
  let timer: Timer | undefined
  let retry: Timer | undefined
  let looking: Promise<void> | undefined
  let again = false
  let closed = false
  let failure: string | undefined

  const changed = (waitMs = quietMs): void => {
    if (closed) return
    again = looking !== undefined
    if (again) return
    timer ??= clock.after(waitMs, () => {
      timer = undefined
      retry?.cancel()
      looking = run()
    })
  }
  const run = async (): Promise<void> => {
    try {
      await look()
      failure = undefined
    } catch (error) {
      if (failure !== describe(error)) log.warn({ err: describe(error) }, 'host facts not refreshed')
      failure = describe(error)
    }
    looking = undefined
    if (again) changed()
    else if (failure !== undefined && !closed) retry = clock.after(retryMs, () => changed(0))
  }

  const useOf = (route: Route): void => {
    for (const index of devicesOf(route)) inUse.add(index)
  }
  const concerns = (message: Message): boolean => {
    switch (message.type) {
      case RTM.NEWLINK:
      case RTM.DELLINK: {
        const link = decodeLink(message)
        if (!link) return false
        if (!isRemovedLink(message)) names.set(link.index, link.name)
        else names.delete(link.index)
        return isRemovedLink(message) ? inUse.delete(link.index) : inUse.has(link.index)
      }
      case RTM.NEWADDR:
      case RTM.DELADDR: {
        const address = decodeAddress(message)
        if (!address || !isAddress(address)) return false
        inUse.add(address.ifindex)
        return true
      }
      case RTM.NEWROUTE:
      case RTM.DELROUTE: {
        const route = decodeRoute(message)
        if (!route || !isRoute(route)) return false
        useOf(route)
        return true
      }
      case RTM.NEWNETCONF: {
        const conf = decodeNetconf(message)
        if (conf?.device !== 'all' || conf.forwarding === undefined) return false
        parts.forwarding?.(conf.family, conf.forwarding !== 0)
        return true
      }
      default:
        return false
    }
  }
  const learn = async (): Promise<void> => {
    const sockets = openSockets()
    try {
      for (const [index, { name }] of (await sockets.links(ns)).byIndex) names.set(index, name)
      const socket = await sockets.route(ns)
      for (const address of await socket.dump(listAddresses(), decodeAddress))
        if (isAddress(address)) inUse.add(address.ifindex)
      for (const route of await socket.dump(listRoutes(), decodeRoute)) if (isRoute(route)) useOf(route)
    } finally {
      await sockets.close()
    }
    changed()
  }
  const learnAgain = (): void =>
    void learn().catch(error => log.warn({ err: describe(error) }, 'changes of this host not followed'))

  const monitor = await openMonitor({
    protocol: NETLINK_ROUTE,
    netns: pathOf(ns),
    groups: [
      ...[RTNLGRP.LINK, RTNLGRP.IPV4_IFADDR, RTNLGRP.IPV6_IFADDR, RTNLGRP.IPV4_ROUTE, RTNLGRP.IPV6_ROUTE],
      ...[RTNLGRP.IPV4_NETCONF, RTNLGRP.IPV6_NETCONF],
    ],
    onMessages: messages => {
      // every one is to be read: they tell names, and devices in use
      if (messages.filter(concerns).length > 0) changed()
    },
    onLost: learnAgain,
  })
  const onStat = (): void => changed()
  watchFile(file, { interval: statEveryMs, persistent: false }, onStat)
  const close = async (): Promise<void> => {
    closed = true
    unwatchFile(file, onStat)
    timer?.cancel()
    retry?.cancel()
    await monitor.close()
    await looking
  }
  try {
    await learn()
  } catch (error) {
    await close()
    throw error
  }
  return { poke: () => changed(0), close }
}

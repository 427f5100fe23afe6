// SPDX-License-Identifier: Apache-2.0
// Request sockets for one piece of work: opened per namespace and protocol on first use, all closed at its end. None
// is kept between: an open socket keeps its namespace, and every device in it, alive.
import { closeSync } from 'node:fs'
import { NetlinkError } from '../netlink/errors.ts'
import { decodeLink, getLink, type Link, listLinks } from '../netlink/rtnl/link.ts'
import { type Netlink, openNetlink } from '../netlink/socket.ts'
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../netlink/uapi.ts'
import { openNamespace, pathOf } from './namespaces.ts'
import type { Ns } from './objects.ts'

export interface LinkTable {
  readonly byName: Map<string, Link>
  readonly byIndex: Map<number, Link>
}

export interface Sockets {
  route(ns: Ns): Promise<Netlink>
  netfilter(ns: Ns): Promise<Netlink>
  generic(ns: Ns): Promise<Netlink>
  /** All links as they are. */
  links(ns: Ns): Promise<LinkTable>
  /** Number of one link, undefined when there is none; kept until `forget`. */
  index(ns: Ns, name: string): Promise<number | undefined>
  forget(ns: Ns, name?: string): void
  /** Descriptor of the namespace, for moving links into it. */
  fd(ns: Ns): Promise<number>
  close(): Promise<void>
}

export const openSockets = (): Sockets => {
  const sockets = new Map<string, Promise<Netlink>>()
  const indexes = new Map<string, Promise<number | undefined>>()
  const fds = new Map<Ns, Promise<number>>()

  const once = <T>(cache: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> => {
    let made = cache.get(key)
    if (!made) {
      made = make()
      made.catch(() => cache.delete(key))
      cache.set(key, made)
    }
    return made
  }
  const route = (ns: Ns): Promise<Netlink> =>
    once(sockets, `route ${ns}`, () => openNetlink({ protocol: NETLINK_ROUTE, netns: pathOf(ns) }))

  return {
    route,
    netfilter: ns =>
      once(sockets, `netfilter ${ns}`, () =>
        openNetlink({ protocol: NETLINK_NETFILTER, netns: pathOf(ns), sndbuf: 32 << 20, rcvbuf: 8 << 20 }),
      ),
    generic: ns =>
      once(sockets, `generic ${ns}`, () =>
        openNetlink({ protocol: NETLINK_GENERIC, netns: pathOf(ns), sndbuf: 8 << 20, rcvbuf: 8 << 20 }),
      ),
    async links(ns) {
      const links = await (await route(ns)).dump(listLinks(), decodeLink)
      return {
        byName: new Map(links.map(link => [link.name, link])),
        byIndex: new Map(links.map(link => [link.index, link])),
      }
    },
    index: (ns, name) =>
      once(indexes, `${ns} ${name}`, async () => {
        const socket = await route(ns)
        try {
          return (await socket.run(getLink({ name }))).map(decodeLink)[0]?.index
        } catch (error) {
          if (error instanceof NetlinkError && error.errnoName === 'ENODEV') return undefined
          throw error
        }
      }),
    forget(ns, name) {
      if (name !== undefined) indexes.delete(`${ns} ${name}`)
      else for (const key of indexes.keys()) if (key.startsWith(`${ns} `)) indexes.delete(key)
    },
    fd: ns => once(fds, ns, () => openNamespace(ns)),
    async close() {
      for (const fd of await Promise.allSettled(fds.values())) if (fd.status === 'fulfilled') closeSync(fd.value)
      for (const socket of await Promise.allSettled(sockets.values()))
        if (socket.status === 'fulfilled') await socket.value.close()
    },
  }
}

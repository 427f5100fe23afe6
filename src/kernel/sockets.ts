// SPDX-License-Identifier: Apache-2.0
// Request sockets for one piece of work: opened per namespace and protocol on first use, all closed at its end. None
// is kept between: an open socket keeps its namespace, and every device in it, alive.
import { closeSync } from 'node:fs'
import { decodeLink, type Link, listLinks } from '../netlink/rtnl/link.ts'
import { type Netlink, openNetlink } from '../netlink/socket.ts'
import { NETLINK_NETFILTER, NETLINK_ROUTE } from '../netlink/uapi.ts'
import { openNamespace, pathOf } from './namespaces.ts'
import type { Ns } from './objects.ts'

export interface LinkTable {
  readonly byName: Map<string, Link>
  readonly byIndex: Map<number, Link>
}

export interface Sockets {
  route(ns: Ns): Promise<Netlink>
  netfilter(ns: Ns): Promise<Netlink>
  /** Links as they are; kept until `forget`. */
  links(ns: Ns): Promise<LinkTable>
  forget(ns: Ns): void
  /** Descriptor of the namespace, for moving links into it. */
  fd(ns: Ns): Promise<number>
  close(): Promise<void>
}

export const openSockets = (): Sockets => {
  const sockets = new Map<string, Promise<Netlink>>()
  const tables = new Map<Ns, Promise<LinkTable>>()
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
    links: ns =>
      once(tables, ns, async () => {
        const links = await (await route(ns)).dump(listLinks(), decodeLink)
        return {
          byName: new Map(links.map(link => [link.name, link])),
          byIndex: new Map(links.map(link => [link.index, link])),
        }
      }),
    forget: ns => tables.delete(ns),
    fd: ns => once(fds, ns, () => openNamespace(ns)),
    async close() {
      for (const fd of await Promise.allSettled(fds.values())) if (fd.status === 'fulfilled') closeSync(fd.value)
      for (const socket of await Promise.allSettled(sockets.values()))
        if (socket.status === 'fulfilled') await socket.value.close()
    },
  }
}

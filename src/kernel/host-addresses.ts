// SPDX-License-Identifier: Apache-2.0
// Addresses of ours on the host's own devices, each for a few seconds: the kernel takes them away unless they are
// renewed. They carry our protocol number, by which they are known again after a restart.
import { NetlinkError } from '../netlink/errors.ts'
import { decodeAddress, listAddresses, removeAddress, replaceAddress } from '../netlink/rtnl/addr.ts'
import { decodeLink, getLink, type LinkRef } from '../netlink/rtnl/link.ts'
import { type Netlink, openNetlink } from '../netlink/socket.ts'
import { NETLINK_ROUTE } from '../netlink/uapi.ts'
import { oursByName, protocol } from './decode.ts'

export interface HostAddress {
  readonly dev: string
  /** With prefix length. */
  readonly address: string
}

export interface HostAddresses {
  /** Number and MAC of a device; undefined: there is none, or it is down or has no carrier. */
  link(dev: string): Promise<{ readonly index: number; readonly mac: string } | undefined>
  /** Those that a device has without ours; none where `link` gives none. */
  on(dev: string): Promise<readonly string[]>
  /** Ours, on all devices. */
  ours(): Promise<readonly HostAddress[]>
  /**
   * There for so long from now, or longer by what the kernel is late: see lateMs. Never chosen as the source of what the
   * host itself begins (deprecated), no route of its own. Throws NetlinkError.
   */
  put(where: HostAddress, seconds: number): Promise<void>
  /** Success if it is not there. */
  remove(where: HostAddress): Promise<void>
  close(): Promise<void>
}

/** The kernel looks at lifetimes at most once a second, a quarter of one late (net/ipv4/devinet.c, net/ipv6/addrconf.c). */
export const lateMs = 1250

/** `netns`: absent, the process's own. */
export const openHostAddresses = (netns?: string): HostAddresses => {
  let opened: Promise<Netlink> | undefined
  const socket = (): Promise<Netlink> => {
    opened ??= openNetlink({ protocol: NETLINK_ROUTE, ...(netns === undefined ? {} : { netns }) }).catch(error => {
      opened = undefined
      throw error
    })
    return opened
  }
  const any = async (which: LinkRef) => {
    try {
      return (await (await socket()).run(getLink(which))).map(decodeLink)[0]
    } catch (error) {
      if (error instanceof NetlinkError && error.absent) return undefined
      throw error
    }
  }
  const link = async (dev: string) => {
    const found = await any({ name: dev })
    return found?.running ? found : undefined
  }
  const list = async (filter: { ifindex?: number }) => (await socket()).dump(listAddresses(filter), decodeAddress)
  return {
    link,
    async on(dev) {
      const ifindex = (await link(dev))?.index
      if (ifindex === undefined) return []
      return (await list({ ifindex }))
        .filter(one => one.ifindex === ifindex && one.protocol !== protocol)
        .map(one => `${one.address}/${one.prefixLength}`)
    },
    async ours() {
      const found: HostAddress[] = []
      for (const one of await list({})) {
        if (one.protocol !== protocol) continue
        const name = (await any({ index: one.ifindex }))?.name // its device may have gone meanwhile
        if (name !== undefined && !oursByName('', name))
          found.push({ dev: name, address: `${one.address}/${one.prefixLength}` })
      }
      return found
    },
    async put({ dev, address }, seconds) {
      const ifindex = (await link(dev))?.index
      if (ifindex === undefined)
        throw new NetlinkError({
          op: `put address ${address} on ${dev}`,
          errno: 19,
          detail: 'no such device that is up',
        })
      const lifetimes = { validSeconds: seconds, preferredSeconds: 0 }
      await (await socket()).run(
        replaceAddress({ ifindex, prefix: address, noPrefixRoute: true, protocol, ...lifetimes }),
      )
    },
    async remove({ dev, address }) {
      const ifindex = (await any({ name: dev }))?.index
      if (ifindex === undefined) return
      try {
        await (await socket()).run(removeAddress({ ifindex, prefix: address }))
      } catch (error) {
        if (!(error instanceof NetlinkError && error.absent)) throw error
      }
    },
    async close() {
      const one = opened
      opened = undefined
      await (await one?.catch(() => undefined))?.close()
    },
  }
}

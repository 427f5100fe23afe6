// SPDX-License-Identifier: Apache-2.0
// Rules that send a packet to a device hold its index, which is looked up in the namespace of the batch.
import { NetlinkError } from '../errors.ts'
import { decodeLink, listLinks } from '../rtnl/link.ts'
import { type Netlink, openNetlink } from '../socket.ts'
import { NETLINK_ROUTE } from '../uapi.ts'

const ENODEV = 19

/** Rejects with ENODEV for a name that no device has. */
export const deviceIndexes = async (
  netlink: Netlink,
  names: ReadonlySet<string>,
): Promise<ReadonlyMap<string, number>> => {
  if (names.size === 0) return new Map()
  const route = await openNetlink({ protocol: NETLINK_ROUTE, netns: netlink.netns })
  try {
    const links = await route.dump(listLinks(), decodeLink)
    const indexes = new Map(links.map(link => [link.name, link.index]))
    for (const name of names) {
      if (!indexes.has(name)) throw new NetlinkError({ op: `look up device "${name}"`, errno: ENODEV })
    }
    return indexes
  } finally {
    await route.close()
  }
}

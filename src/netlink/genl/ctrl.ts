// SPDX-License-Identifier: Apache-2.0
// Generic netlink: family numbers change at every boot and module load, so they are asked for by name, once per
// socket, and again after ENOENT.
import { attributes, type Message, type Writer } from '../message.ts'
import type { Netlink } from '../socket.ts'

const GENL_ID_CTRL = 16
const CTRL_CMD_GETFAMILY = 3
const CTRL_ATTR_FAMILY_ID = 1
const CTRL_ATTR_FAMILY_NAME = 2
const CTRL_ATTR_VERSION = 3
const CTRL_ATTR_MAXATTR = 5
const CTRL_ATTR_MCAST_GROUPS = 7
const CTRL_ATTR_MCAST_GRP_NAME = 1
const CTRL_ATTR_MCAST_GRP_ID = 2
/** Compared with linux/genetlink.h by the test. */
export const genlConstants = {
  GENL_ID_CTRL,
  CTRL_CMD_GETFAMILY,
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_ATTR_VERSION,
  CTRL_ATTR_MAXATTR,
  CTRL_ATTR_MCAST_GROUPS,
  CTRL_ATTR_MCAST_GRP_NAME,
  CTRL_ATTR_MCAST_GRP_ID,
} as const

export interface GenlFamily {
  /** The message type of its requests. */
  readonly id: number
  readonly version: number
  readonly maxAttribute: number
  /** For openMonitor. */
  readonly groups: ReadonlyMap<string, number>
}

export const genlHeaderLength = 4

/** The family's header: genlmsghdr. */
export const encodeGenl = (w: Writer, command: number, version: number): void => {
  w.u8(command)
  w.u8(version)
  w.u16(0)
}

export const decodeFamily = (message: Message): GenlFamily | undefined => {
  let id: number | undefined
  let version = 0
  let maxAttribute = 0
  const groups = new Map<string, number>()
  for (const attr of attributes(message, genlHeaderLength)) {
    if (attr.type === CTRL_ATTR_FAMILY_ID) id = attr.u16()
    else if (attr.type === CTRL_ATTR_VERSION) version = attr.u32()
    else if (attr.type === CTRL_ATTR_MAXATTR) maxAttribute = attr.u32()
    else if (attr.type === CTRL_ATTR_MCAST_GROUPS) {
      for (const entry of attr.nested()) {
        let name = ''
        let group = 0
        for (const field of entry.nested()) {
          if (field.type === CTRL_ATTR_MCAST_GRP_NAME) name = field.text()
          else if (field.type === CTRL_ATTR_MCAST_GRP_ID) group = field.u32()
        }
        groups.set(name, group)
      }
    }
  }
  return id === undefined ? undefined : { id, version, maxAttribute, groups }
}

/**
 * Family "IPVS", "wireguard", ... over a socket of NETLINK_GENERIC; the kernel loads the module if it can.
 * undefined: this kernel does not have it. Rejects with NetlinkError for anything else.
 */
export const getFamily = async (netlink: Netlink, name: string): Promise<GenlFamily | undefined> => {
  const [error, replies] = await netlink
    .run({
      op: `find netlink family "${name}"`,
      type: GENL_ID_CTRL,
      flags: 0,
      encode(w) {
        encodeGenl(w, CTRL_CMD_GETFAMILY, 2)
        w.attrString(CTRL_ATTR_FAMILY_NAME, name, 16)
      },
    })
    .then(
      found => [undefined, found] as const,
      failure => [failure, []] as const,
    )
  if (error?.errnoName === 'ENOENT') return undefined
  if (error) throw error
  for (const reply of replies) {
    const family = decodeFamily(reply)
    if (family !== undefined) return family
  }
  return undefined
}

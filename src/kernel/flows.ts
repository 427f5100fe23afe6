// SPDX-License-Identifier: Apache-2.0
// Tracked connections of a namespace.
import { findConntrack, removeConntrack } from '../netlink/ct/conntrack.ts'
import type { Netlink } from '../netlink/socket.ts'

/** Of those translated to this address; one that ended meanwhile is no error. Answers how many there were. */
export const forgetFlows = async (netlink: Netlink, address: string): Promise<number> => {
  const found = await findConntrack(netlink, { reply: { source: address }, destinationNat: true })
  for (const outcome of await netlink.batch(found.map(removeConntrack)))
    if (outcome && outcome.errnoName !== 'ENOENT') throw outcome
  return found.length
}

// SPDX-License-Identifier: Apache-2.0
// Tracked connections of a namespace.
import { findConntrack, removeConntrack } from '../netlink/ct/conntrack.ts'
import type { Conntrack } from '../netlink/ct/types.ts'
import type { Netlink } from '../netlink/socket.ts'
import type { FlowsOf } from './kernel.ts'

/** One that ended meanwhile is no error. Answers how many there were. */
export const forgetFlows = async (netlink: Netlink, which: FlowsOf): Promise<number> => {
  const flows: Conntrack[] = []
  // the kernel looks for one address itself
  if ('to' in which)
    for (const source of which.to)
      flows.push(...(await findConntrack(netlink, { reply: { source }, destinationNat: true })))
  else
    for (const flow of await findConntrack(netlink, { destinationNat: true }))
      if (!which.toOthersThan.has(flow.reply.source)) flows.push(flow)
  for (const outcome of await netlink.batch(flows.map(removeConntrack)))
    if (outcome && outcome.errnoName !== 'ENOENT') throw outcome
  return flows.length
}

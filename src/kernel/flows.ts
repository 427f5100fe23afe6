// SPDX-License-Identifier: Apache-2.0
// Tracked connections of a namespace.
import { networkInterfaces } from 'node:os'
import { findConntrack, removeConntrack } from '../netlink/ct/conntrack.ts'
import type { Conntrack } from '../netlink/ct/types.ts'
import type { Netlink } from '../netlink/socket.ts'
import { AF_INET, AF_INET6, IPPROTO } from '../netlink/uapi.ts'
import type { FlowsOf } from './objects.ts'

/** One that ended meanwhile is no error. Answers how many there were. */
export const forgetFlows = async (netlink: Netlink, which: FlowsOf): Promise<number> => {
  const flows: Conntrack[] = []
  // the kernel looks for one address itself
  if ('to' in which) for (const end of which.to) flows.push(...(await find(netlink, end)))
  else if ('led' in which) {
    const local = new Set(Object.values(networkInterfaces()).flatMap(all => all?.map(({ address }) => address) ?? []))
    const [one, ...more] = which.led
    const original = { protocol: IPPROTO.UDP, ...(one && more.length === 0 ? { destinationPort: one.port } : {}) }
    const led = new Map(which.led.map(each => [each.port, each]))
    for (const family of [AF_INET, AF_INET6])
      for (const flow of await findConntrack(netlink, { family, original })) {
        const { at = local, to } = led.get(flow.original.destinationPort ?? 0) ?? {}
        if (to && new Set(at).has(flow.original.destination) && !to.includes(flow.reply.source)) flows.push(flow)
      }
  } else
    for (const flow of await findConntrack(netlink, {}))
      if (endsOf(flow).some(end => !which.toOthersThan.has(end))) flows.push(flow)
  for (const outcome of await netlink.batch(flows.map(removeConntrack)))
    if (outcome && outcome.errnoName !== 'ENOENT') throw outcome
  return flows.length
}

const from = 'from '

/** Led to a backend: translated, or, where its port is the published one, in the zone of the node by which it came. */
const isLed = ({ destinationNat, original }: Conntrack): boolean => destinationNat || (original.zone ?? 0) !== 0
/** Its address, not only its port: that changes, too, where two clients have the same. */
const isMasqueraded = ({ destinationNat, original, reply }: Conntrack): boolean =>
  !destinationNat && reply.destination !== original.source

const find = async (netlink: Netlink, end: string): Promise<Conntrack[]> => {
  if (end.startsWith('0x')) return findConntrack(netlink, { mark: { value: Number(end) } })
  if (end.startsWith(from))
    return (await findConntrack(netlink, { original: { source: end.slice(from.length) } })).filter(isMasqueraded)
  return (await findConntrack(netlink, { reply: { source: end } })).filter(isLed)
}

const endsOf = (flow: Conntrack): string[] => [
  ...(isMasqueraded(flow) ? [`${from}${flow.original.source}`] : []),
  ...(isLed(flow) ? [flow.reply.source] : []),
  ...(flow.mark === 0 ? [] : [`0x${flow.mark.toString(16).padStart(8, '0')}`]),
]

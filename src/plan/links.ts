// SPDX-License-Identifier: Apache-2.0
// The link networks between the host (H) and the gateway of each network (M): one slot of this host each. IPv4 from
// 169.254.0.0/16 less what clouds and node-local resolvers use there, IPv6 from one ULA /48, whose last network is the
// resolver's.

import { contains, overlaps, parseInterface, parsePrefix } from '../model/address.ts'
import type { NetworkId } from '../model/ids.ts'
import { hostLink } from './names.ts'

const avoided = new Set([0, 20, 25, 77, 169, 170, 255]) // third byte; see docs/architecture.md, Numbers
const thirds = Array.from({ length: 256 }, (_, third) => third).filter(third => !avoided.has(third))
const perThird = 64

export const slots = thirds.length * perThird

export interface LinkNetwork {
  /** Plain addresses: the host's end and M's end. */
  readonly host4: string
  readonly gateway4: string
  readonly host6: string
  readonly gateway6: string
}

/** Of all link networks. */
export const linkPrefix6 = 'fd69:7765:6674::/48'
const whole = ['169.254.0.0/16', linkPrefix6].map(text => parsePrefix(text))

export const linkNetwork = (slot: number): LinkNetwork => {
  const base = `169.254.${thirds[Math.floor(slot / perThird)]}`
  const low = (slot % perThird) * 4
  const base6 = `fd69:7765:6674${slot === 0 ? ':' : `:${slot.toString(16)}:`}`
  return { host4: `${base}.${low + 1}`, gateway4: `${base}.${low + 2}`, host6: `${base6}:1`, gateway6: `${base6}:2` }
}

/** What others have on this host from the range of all link networks: an address with its length, or a route. */
export interface OnLinks {
  readonly dev: string
  readonly prefix: string
}

/** Who of them the link network meets. A route of the whole range is in nobody's way: ours are narrower. */
export const linkMeets = (slot: number, others: readonly OnLinks[]): OnLinks | undefined => {
  const { host4, host6 } = linkNetwork(slot)
  const ours = [`${host4}/30`, `${host6}/64`].map(text => parseInterface(text).prefix)
  return others.find(other => {
    const { address, prefix } = parseInterface(other.prefix)
    const narrow = whole.every(({ family, length }) => family !== prefix.family || length < prefix.length)
    if (narrow) return ours.some(one => overlaps(one, prefix))
    return address.value !== prefix.value && ours.some(one => contains(one, address))
  })
}

/** Networks whose link does not work, and why: others came after it was chosen. */
export const linkProblems = (
  bound: ReadonlyMap<NetworkId, { readonly slot: number }>,
  others: readonly OnLinks[],
): Map<NetworkId, string> => {
  const problems = new Map<NetworkId, string>()
  for (const [id, { slot }] of bound) {
    const other = linkMeets(slot, others)
    if (other)
      problems.set(
        id,
        `its link ${hostLink(slot)} with ${linkNetwork(slot).host4}/30 meets ${other.prefix} of ${other.dev}: give ${other.dev} another network, or remove this one and make it again, on another link`,
      )
  }
  return problems
}

// SPDX-License-Identifier: Apache-2.0
// The link networks between the host (H) and the gateway of each network (M): one slot of this host each. IPv4 from
// 169.254.0.0/16 less what clouds and node-local resolvers use there, IPv6 from one ULA /48, whose last network is the
// resolver's.

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

export const linkNetwork = (slot: number): LinkNetwork => {
  const base = `169.254.${thirds[Math.floor(slot / perThird)]}`
  const low = (slot % perThird) * 4
  const base6 = `fd69:7765:6674${slot === 0 ? ':' : `:${slot.toString(16)}:`}`
  return { host4: `${base}.${low + 1}`, gateway4: `${base}.${low + 2}`, host6: `${base6}:1`, gateway6: `${base6}:2` }
}

// SPDX-License-Identifier: Apache-2.0
// How much of an underlay packet is left for a container: outer Ethernet-in-UDP headers of VXLAN (RFC 7348).
import type { Family } from './address.ts'
import type { NodeName } from './ids.ts'
import type { Network } from './network.ts'
import type { Snapshot } from './snapshot.ts'

/** Bytes: inner Ethernet 14 + VXLAN 8 + UDP 8 + IP 20 or 40. */
export const overhead = (underlay: Family): number => (underlay === 4 ? 50 : 70)

export const insideMtu = (underlayMtu: number, family: Family): number => underlayMtu - overhead(family)

/** Bytes: what IPv6 asks of every link (RFC 8200 5), and every network of ours has it inside. */
export const leastInside = 1280

/** Why a node can have no container on a network, with the remedy; undefined: it can, as far as the store tells. */
export const tooSmall = (snapshot: Snapshot, of: NodeName, { id, name, mtu }: Network): string | undefined => {
  const node = snapshot.nodes.get(of)?.record
  const family = snapshot.cluster?.record.underlayFamily
  if (!node || !family) return undefined
  const inside = insideMtu(node.mtu, family)
  if (inside >= mtu) return undefined
  const title = JSON.stringify(name ?? id)
  const anew = inside < leastInside ? '' : `, or make the network anew with -o com.docker.network.driver.mtu=${inside}`
  return `network ${title} has an MTU of ${mtu}, and the underlay device of node ${node.name} with its ${node.mtu} has room for ${inside}: raise that device to ${mtu + overhead(family)}${anew}`
}

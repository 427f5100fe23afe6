// SPDX-License-Identifier: Apache-2.0
// Nexthop ids of the peers: FDB rows point to a node's group, so that a new VTEP of a node is one write.
import type { Node } from '../model/node.ts'

const base = 0x77000000
/** True for ids that weft hands out. */
export const isOurs = (id: number): boolean => id >= base && id < base + 2 * 65536

export const legOf = (node: Node): number => base + node.number * 2
export const groupOf = (node: Node): number => legOf(node) + 1

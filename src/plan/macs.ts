// SPDX-License-Identifier: Apache-2.0
// MAC addresses of a node: what its gateways (M) and its switches (N) have in every network.
import { macOf } from '../model/address.ts'
import type { Node } from '../model/node.ts'

export const nodeMac = (node: Node): string => macOf('02:7e', node.number)
export const switchMac = (node: Node): string => macOf('02:7f', node.number)

// SPDX-License-Identifier: Apache-2.0
// What all nodes must agree on, written once by the first node.
import type { Family } from './address.ts'

export interface Cluster {
  readonly id: string
  /** Where automatic pools are cut from, CIDR, both families. */
  readonly pools: readonly string[]
  readonly underlayFamily: Family
  readonly vxlanPort: number
  /** Host ports nobody may publish. */
  readonly reservedPorts: readonly number[]
  readonly created: string
}

export const defaultPools4 = '10.224.0.0/12'
/** Not 4789: two VXLAN devices on one port need equal flags, and a swarm has 4789 without GBP. */
export const defaultVxlanPort = 8473
/** Length of an automatic pool, by family. */
export const automaticLength = { 4: 20, 6: 64 } as const

// SPDX-License-Identifier: Apache-2.0
// A host that runs weftd, as the cluster knows it.
import type { NodeName } from './ids.ts'

export interface Node {
  readonly name: NodeName
  /** 1..65535, claimed; in MACs, conntrack zones and nexthop ids. */
  readonly number: number
  /** Made with the data directory: a cloned directory or a second agent shows by it. */
  readonly instance: string
  readonly boot: string
  /** Underlay address of its VTEP. */
  readonly vtep: string
  /** MTU of the underlay device, bytes. */
  readonly mtu: number
  /** CIDRs it routes or resolves by, outside weft; automatic pools avoid them. */
  readonly routes: readonly string[]
  /** Addresses that its devices have for good, without weft's: where a floating address can be. */
  readonly addresses?: readonly DeviceAddress[]
  /** CIDRs that its engine cuts Docker's own networks from, where it is told to; automatic pools keep away while they can. */
  readonly dockerPools?: readonly string[]
  readonly version: string
  readonly drained?: boolean
  /** A tombstone: fenced at this time (ISO 8601). Its claims are gone; the name may join again with a new number. */
  readonly fenced?: string
}

export interface DeviceAddress {
  readonly dev: string
  /** With prefix length: 192.0.2.1/24. */
  readonly address: string
}

export interface Presence {
  readonly node: NodeName
  readonly instance: string
  readonly boot: string
  /** Store revision that this node's reconciler has applied. */
  readonly applied: string
}

// SPDX-License-Identifier: Apache-2.0
// A cluster network: the thing in the store that every engine shows as a Docker network of its own.
import type { NetworkId, NodeName } from './ids.ts'

export interface Pool {
  /** CIDR. */
  readonly prefix: string
  /** --ip-range, CIDR inside prefix. */
  readonly range?: string
  /** Plain address; absent on --internal networks made without one. */
  readonly gateway?: string
  /** --aux-address: name → address. */
  readonly aux?: Readonly<Record<string, string>>
}

/** Why a network that was asked to go stays: what a node said, and when (ISO 8601). */
export interface Veto {
  readonly node: NodeName
  readonly at: string
  readonly why: string
}

export type NetworkState =
  | { readonly kind: 'active'; readonly veto?: Veto }
  /** Asked to go at `since` (ISO 8601); every live node acknowledges or vetoes. */
  | {
      readonly kind: 'removing'
      readonly since: string
      readonly by: NodeName
      readonly acks: readonly NodeName[]
      /** What nodes without presence have on it goes too. */
      readonly force?: true
    }

export interface Network {
  readonly id: NetworkId
  /** Absent until the engine's API has shown the name that its user gave. */
  readonly name?: string
  /** Name that weft.network asked for; it becomes the name, with the labels, once the engine's API has shown them. */
  readonly wanted?: string
  readonly vni: number
  readonly pools: readonly Pool[]
  /** Inside MTU in bytes, fixed at creation. */
  readonly mtu: number
  readonly options: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly internal: boolean
  readonly attachable: boolean
  readonly ipv6: boolean
  readonly state: NetworkState
  /** By whose command: Docker's on `node`, or weft's. */
  readonly origin: { readonly by: 'docker' | 'weft'; readonly node: NodeName }
}

/** pools/<cidr>: who holds a prefix. Without CreateNetwork within a minute its node frees it. */
export interface PoolClaim {
  readonly network: NetworkId
  readonly node: NodeName
  /** False between RequestPool and CreateNetwork. */
  readonly settled: boolean
  readonly range?: string
  /** Name that the IPAM option weft.network asked for, of a network that is to be new. */
  readonly wanted?: string
  /** weft chose it: nobody asked for this very prefix. */
  readonly automatic?: true
  /**
   * Docker id of a network of `node` which was made with this pool and then joined to `network`, which has others: the
   * engine goes on asking by this one. Freed when the engine gives it back.
   */
  readonly joined?: string
}

export interface NameClaim {
  readonly network: NetworkId
}
export interface VniClaim {
  readonly network: NetworkId
}

// SPDX-License-Identifier: Apache-2.0
// Chains of our table: how every planner writes them.
import type { NftChainObject, NftFamily, NftHook } from '../kernel/objects.ts'
import { table } from './names.ts'

/** Chains of one family in one namespace; without a hook a chain is only jumped to. */
export const chains =
  (ns: string, family: NftFamily) =>
  (chain: string, rules: readonly string[], hook?: NftHook): NftChainObject => ({
    kind: 'nft-chain',
    ns,
    family,
    table,
    chain,
    rules,
    ...(hook ? { hook } : {}),
  })

/** A base chain that lets pass what no rule decides. */
export const accepting = (type: NftHook['type'], hook: NftHook['hook'], priority: number): NftHook => ({
  type,
  hook,
  priority,
  policy: 'accept',
})

/** What a device of a netdev table lets in. */
export const ingress = (device: string, policy: 'accept' | 'drop'): NftHook => ({
  type: 'filter',
  hook: 'ingress',
  priority: 0,
  policy,
  device,
})

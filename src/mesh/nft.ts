// SPDX-License-Identifier: Apache-2.0
// The balancer of nftables: a chain for each published port, which gives every new connection the next of its backends.
// Established ones stay with theirs in M's conntrack.
import type { KernelObject } from '../kernel/objects.ts'
import type { Family } from '../model/address.ts'
import type { Proto } from '../model/port.ts'
import { chains } from '../plan/chains.ts'
import { balanced, element } from '../plan/sets.ts'

export interface Targets {
  readonly family: Family
  /** Plain addresses, at least one; the port is kept. */
  readonly to: readonly string[]
}

export const balance = (
  ns: string,
  { proto, port }: { readonly proto: Proto; readonly port: number },
  targets: readonly Targets[],
): KernelObject[] => {
  const name = `${proto}_${port}`
  return [chains(ns, 'inet')(name, targets.map(ruleOf)), element(balanced(ns), [proto, port], [`goto ${name}`])]
}

const ruleOf = ({ family, to }: Targets): string => {
  const [ip, match] = family === 4 ? ['ip', 'ipv4'] : ['ip6', 'ipv6']
  const turns = to.map((address, i) => `${i} : ${address}`).join(', ')
  const target = to.length === 1 ? to[0] : `numgen inc mod ${to.length} map { ${turns} }`
  return `meta nfproto ${match} dnat ${ip} to ${target}`
}

// SPDX-License-Identifier: Apache-2.0
// The balancer of nftables: a chain for each published port, which gives every new connection the next of its targets.
// Established ones stay with theirs in M's conntrack, so a target without a share needs no word.
import { timeoutName } from '../kernel/objects.ts'
import { type ServiceOptions, turnSchedulers } from '../model/service-options.ts'
import { chains } from '../plan/chains.ts'
import { balanced, element } from '../plan/sets.ts'
import { idleTimeout } from '../plan/tracking.ts'
import type { BalancedFamily, Engine } from './balancer.ts'
import { nextOf } from './turns.ts'

export const nft: Engine = {
  schedulers: turnSchedulers,
  plan({ ns, proto, port, families, options }) {
    const seconds = proto === 'sctp' ? undefined : { tcp: options?.timeoutTcp, udp: options?.timeoutUdp }[proto]
    const idle = seconds === undefined || proto === 'sctp' ? undefined : idleTimeout(ns, proto, seconds)
    const before = idle ? `ct timeout set "${timeoutName(idle)}" ` : ''
    const rules = families.flatMap(family => ruleOf(family, before, options))
    if (rules.length === 0) return []
    const name = `${proto}_${port}`
    const objects = [chains(ns, 'inet')(name, rules), element(balanced(ns), [proto, port], [`goto ${name}`])]
    return [...(idle ? [idle] : []), ...objects].map(object => ({ object, rank: 0 }))
  },
}

const ruleOf = ({ family, to }: BalancedFamily, before: string, options: ServiceOptions | undefined): string[] => {
  const open = to.filter(({ weight }) => weight > 0).map(({ address, weight }) => ({ value: address, weight }))
  const target = nextOf(family, open, options)
  if (target === undefined) return []
  const [ip, match] = family === 4 ? ['ip', 'ipv4'] : ['ip6', 'ipv6']
  return [`meta nfproto ${match} ${before}dnat ${ip} to ${target}`]
}

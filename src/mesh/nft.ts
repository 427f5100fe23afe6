// SPDX-License-Identifier: Apache-2.0
// The balancer of nftables: a chain for each published port, which gives every new connection the next of its targets.
// Established ones stay with theirs in M's conntrack, so a target without a share needs no word.
import { timeoutName } from '../kernel/objects.ts'
import { defaultScheduler, type ServiceOptions } from '../model/service-options.ts'
import { chains } from '../plan/chains.ts'
import { balanced, element } from '../plan/sets.ts'
import { idleTimeout } from '../plan/tracking.ts'
import type { BalancedFamily, Engine, Target } from './balancer.ts'

/** The same on every host: so a client has the same backend by each of them. */
const seed = 0x77656674
/** More turns than this make a rule that no other is as long as. */
const mostTurns = 1000

export const nft: Engine = {
  schedulers: ['rr', 'wrr', 'sh'],
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
  const { scheduler = defaultScheduler, affinity } = options ?? {}
  const open = to.filter(({ weight }) => weight > 0)
  const turns = scheduler === 'wrr' ? shares(open) : open.map(({ address }) => address)
  if (turns.length === 0) return []
  const [ip, match] = family === 4 ? ['ip', 'ipv4'] : ['ip6', 'ipv6']
  // a client's address keeps its backend as long as the backends are the same
  const choice =
    scheduler === 'sh' || affinity !== undefined
      ? `jhash ${ip} saddr mod ${turns.length} seed ${seed}`
      : `numgen inc mod ${turns.length}`
  const target =
    turns.length === 1 ? turns[0] : `${choice} map { ${turns.map((address, i) => `${i} : ${address}`).join(', ')} }`
  return [`meta nfproto ${match} ${before}dnat ${ip} to ${target}`]
}

/** Each as often as its weight says, in turns that mix them; the weights by their greatest common divisor. */
const shares = (targets: readonly Target[]): string[] => {
  const divisor = targets.reduce((common, { weight }) => gcd(common, weight), 0)
  const total = targets.reduce((sum, { weight }) => sum + weight / divisor, 0)
  const scale = Math.max(divisor, (divisor * total) / mostTurns)
  const left = targets.map(({ address, weight }) => {
    const count = Math.max(1, Math.round(weight / scale))
    return { address, step: 1 / count, next: 0.5 / count, count }
  })
  return left
    .flatMap(({ address, step, next, count }) =>
      Array.from({ length: count }, (_, i) => ({ address, at: next + i * step })),
    )
    .sort((a, b) => a.at - b.at)
    .map(({ address }) => address)
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

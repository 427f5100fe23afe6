// SPDX-License-Identifier: Apache-2.0
// Who gets a new connection where nftables chooses, by a published port or a virtual address: one value of several, as an
// expression of nft(8).
import type { Family } from '../model/address.ts'
import { defaultScheduler, type ServiceOptions } from '../model/service-options.ts'

export interface Turn {
  /** What stands in the expression. */
  readonly value: string
  /** Above 0; its share, where the scheduler knows shares. */
  readonly weight: number
}

/** The same on every host: so a client has the same backend by each of them. */
const seed = 0x77656674
/** More turns than this make a rule that no other is as long as. */
const mostTurns = 1000

/** Undefined: nobody is there. */
export const nextOf = (
  family: Family,
  of: readonly Turn[],
  { scheduler = defaultScheduler, affinity }: Pick<ServiceOptions, 'scheduler' | 'affinity'> = {},
): string | undefined => {
  const turns = scheduler === 'wrr' ? shares(of) : of.map(({ value }) => value)
  if (turns.length <= 1) return turns[0]
  // a client's address keeps its backend as long as the backends are the same
  const choice =
    scheduler === 'sh' || affinity !== undefined
      ? `jhash ${family === 4 ? 'ip' : 'ip6'} saddr mod ${turns.length} seed ${seed}`
      : `numgen inc mod ${turns.length}`
  return `${choice} map { ${turns.map((value, i) => `${i} : ${value}`).join(', ')} }`
}

/** Each as often as its weight says, in turns that mix them; the weights by their greatest common divisor. */
const shares = (turns: readonly Turn[]): string[] => {
  const divisor = turns.reduce((common, { weight }) => gcd(common, weight), 0)
  const total = turns.reduce((sum, { weight }) => sum + weight / divisor, 0)
  const scale = Math.max(divisor, (divisor * total) / mostTurns)
  return turns
    .flatMap(({ value, weight }) => {
      const count = Math.max(1, Math.round(weight / scale))
      return Array.from({ length: count }, (_, i) => ({ value, at: (i + 0.5) / count }))
    })
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value)
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

// SPDX-License-Identifier: Apache-2.0
// The chains of others where our accepts are guests. Docker's for the rules of users, where it is nft's; where FORWARD
// does not go there, as somebody emptied it, our links are sent there from FORWARD. A family for which Docker has none
// (IPv6 before 27, unless asked for) may be dropped by FORWARD all the same: that chain itself then.
import { readFileSync } from 'node:fs'
import type { ListedChain, NftObjects } from '../netlink/nft/dump.ts'

export interface GuestChain {
  readonly family: 'ip' | 'ip6'
  readonly table: string
  readonly chain: string
  /** Our links are sent to this chain of the same table, which has our accepts behind the user's rules. */
  readonly to?: string
}

export const guestChainNames: readonly string[] = ['DOCKER-USER', 'FORWARD']

/** May hold rules of ours: one of iptables of any family. */
export const isGuestChain = ({ family, chain }: ListedChain): boolean =>
  (family === 'ip' || family === 'ip6') && guestChainNames.includes(chain)

/** `rules`: of the chains FORWARD. */
export const guestChainsOf = ({ chains, rules }: Pick<NftObjects, 'chains' | 'rules'>): GuestChain[] =>
  (['ip', 'ip6'] as const).flatMap(family => {
    const all = chains.filter(one => one.family === family)
    const place = ({ table, chain }: ListedChain): GuestChain => ({ family, table, chain })
    const docker = all.filter(({ chain }) => chain === 'DOCKER-USER')
    const forward = all.filter(({ table, chain, hook }) => table === 'filter' && chain === 'FORWARD' && hook)
    if (docker.length === 0) return forward.map(place)
    const goesThere = ({ table }: ListedChain): boolean =>
      rules.some(
        one => one.family === family && one.table === table && one.chain === 'FORWARD' && one.jumpsTo === 'DOCKER-USER',
      )
    const emptied = forward.filter(one => docker.some(({ table }) => table === one.table) && !goesThere(one))
    return [...docker.map(place), ...emptied.map(one => ({ ...place(one), to: 'DOCKER-USER' }))]
  })

/** Families that iptables-legacy filters on this host: tables of another kind, where weft writes nothing. */
export const legacyFilters = (): string[] =>
  Object.entries({ IPv4: 'ip_tables_names', IPv6: 'ip6_tables_names' }).flatMap(([family, file]) => {
    try {
      return readFileSync(`/proc/net/${file}`, 'utf8').split('\n').includes('filter') ? [family] : []
    } catch {
      return [] // the kernel has none
    }
  })

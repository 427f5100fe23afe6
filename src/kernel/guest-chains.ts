// SPDX-License-Identifier: Apache-2.0
// The chains of others where our accepts are guests. Docker's for the rules of users, where it is nft's and FORWARD goes
// there; a family for which Docker has none (IPv6 before 27, unless asked for), or whose FORWARD somebody emptied, may be
// dropped by FORWARD all the same: that chain itself then.
import { readFileSync } from 'node:fs'
import type { ListedChain, ListedRule, NftObjects } from '../netlink/nft/dump.ts'

export interface GuestChain {
  readonly family: 'ip' | 'ip6'
  readonly table: string
  readonly chain: string
}

export const guestChainNames: readonly string[] = ['DOCKER-USER', 'FORWARD']

/** May hold rules of ours: one of iptables of any family. */
export const isGuestChain = ({ family, chain }: ListedChain): boolean =>
  (family === 'ip' || family === 'ip6') && guestChainNames.includes(chain)

/** `rules`: of the chains FORWARD. */
export const guestChainsOf = ({ chains, rules }: Pick<NftObjects, 'chains' | 'rules'>): GuestChain[] =>
  (['ip', 'ip6'] as const).flatMap(family => {
    const all = chains.filter(one => one.family === family)
    const leadsTo =
      (docker: ListedChain) =>
      ({ family, table, chain, jumpsTo }: ListedRule): boolean =>
        family === docker.family && table === docker.table && chain === 'FORWARD' && jumpsTo === docker.chain
    const docker = all.filter(one => one.chain === 'DOCKER-USER' && rules.some(leadsTo(one)))
    const forward = all.filter(({ table, chain, hook }) => table === 'filter' && chain === 'FORWARD' && hook)
    return (docker.length > 0 ? docker : forward).map(({ table, chain }) => ({ family, table, chain }))
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

// SPDX-License-Identifier: Apache-2.0
// Where our accepts are guests: in FORWARD of iptables, where that is nft's, behind what users have to say. With Docker that
// is its jump to DOCKER-USER: its own accepts come after it, too. Where FORWARD does not go there, as somebody emptied it,
// our links are sent there first. Where Docker has no such chain (IPv6 before 27, unless asked for) it is FORWARD's own rules.
import { readFileSync } from 'node:fs'
import type { ListedChain, ListedTable, NftObjects } from '../netlink/nft/dump.ts'

export interface GuestChain {
  readonly family: 'ip' | 'ip6'
  readonly table: string
  readonly chain: string
  /** Our links have to be sent to this chain of the same table. */
  readonly to?: string
}

/** Docker's chain for the rules of users. */
export const userChain = 'DOCKER-USER'
/** Ours were in Docker's once. */
export const guestChainNames: readonly string[] = [userChain, 'FORWARD']

/** May hold rules of ours: one of iptables of any family. */
export const isGuestChain = ({ family, chain }: ListedChain): boolean =>
  (family === 'ip' || family === 'ip6') && guestChainNames.includes(chain)

/** `rules`: of the chains FORWARD. */
export const guestChainsOf = ({ chains, rules }: Pick<NftObjects, 'chains' | 'rules'>): GuestChain[] =>
  chains.flatMap(({ family, table, chain, hook }): GuestChain[] => {
    if ((family !== 'ip' && family !== 'ip6') || table !== 'filter' || chain !== 'FORWARD' || !hook) return []
    const here = (one: ListedTable): boolean => one.family === family && one.table === table
    const has = chains.some(one => here(one) && one.chain === userChain)
    const goes = rules.some(one => here(one) && one.chain === chain && one.bare && one.jumpsTo === userChain)
    return [{ family, table, chain, ...(has && !goes ? { to: userChain } : {}) }]
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

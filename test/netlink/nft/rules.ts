// SPDX-License-Identifier: Apache-2.0
// Tables in the form both our batch and `nft -f` take, so that the two can be compared: the rules of src/overlay and
// of the prototype, and one of everything else the compiler takes.
import { execFileSync } from 'node:child_process'
import type { NftBatch } from '../../../src/netlink/nft/batch.ts'
import type { SetDeclaration } from '../../../src/netlink/nft/set.ts'
import type { TimeoutDeclaration } from '../../../src/netlink/nft/timeout.ts'
import type { NftFamily, NftHook, NftType } from '../../../src/netlink/nft/types.ts'

export interface TableText {
  readonly family: NftFamily
  readonly table: string
  readonly sets: readonly SetDeclaration[]
  readonly timeouts?: readonly TimeoutDeclaration[]
  readonly chains: readonly { readonly chain: string; readonly hook?: NftHook; readonly rules: readonly string[] }[]
}

export const set = (name: string, key: NftType[], value?: NftType[], interval?: true): SetDeclaration => ({
  name,
  key,
  ...(value ? { value } : {}),
  ...(interval ? { interval } : {}),
})

export const fill = (batch: NftBatch, { family, table, sets, timeouts = [], chains }: TableText): void => {
  batch.addTable(family, table)
  for (const one of timeouts) batch.addTimeout(family, table, one)
  for (const one of sets) batch.addSet(family, table, one)
  for (const { chain, hook } of chains) batch.addChain(family, table, chain, hook)
  for (const { chain, rules } of chains) for (const rule of rules) batch.addRule(family, table, chain, rule)
}

// nft has no type for a conntrack zone, only typeof
const examples: Readonly<Record<NftType, string>> = {
  ipv4_addr: 'ip saddr',
  ipv6_addr: 'ip6 saddr',
  ether_addr: 'ether saddr',
  inet_proto: 'meta l4proto',
  inet_service: 'th dport',
  mark: 'meta mark',
  ifname: 'iifname',
  ct_zone: 'ct original zone',
  verdict: 'verdict',
}

const declare = ({ name, key, value, interval }: SetDeclaration): string => {
  const zone = [...key, ...(value ?? [])].includes('ct_zone')
  const words = (types: readonly NftType[]) => types.map(type => (zone ? examples[type] : type)).join(' . ')
  const types = `${words(key)}${value ? ` : ${words(value)}` : ''}`
  const flags = interval ? ' flags interval;' : ''
  return `${value ? 'map' : 'set'} ${name} { ${zone ? 'typeof' : 'type'} ${types};${flags} }`
}

const hookText = ({ type, hook, priority, policy, device }: NftHook): string =>
  `type ${type} hook ${hook}${device ? ` device "${device}"` : ''} priority ${priority}; policy ${policy};`

/** nft 1.0.6 does not take an address where it expects an integer. */
const asNumber = (rule: string): string =>
  rule.replaceAll(/(@\w+,\d+,128 (?:!= )?)([0-9a-f]*:[0-9a-f:]*)/g, (_, head: string, address: string) => {
    const [left = '', right] = address.split('::')
    const groups = (text: string) => (text === '' ? [] : text.split(':'))
    const tail = right === undefined ? [] : groups(right)
    const all = [...groups(left), ...Array(8 - groups(left).length - tail.length).fill('0'), ...tail]
    return `${head}0x${all.map(group => group.padStart(4, '0')).join('')}`
  })

const declareTimeout = ({ name, protocol, seconds, halfClosed }: TimeoutDeclaration): string => {
  const states = protocol === 'udp' ? `unreplied: ${seconds}, replied: ${seconds}` : `established: ${seconds}`
  const half = halfClosed === undefined ? '' : `, close_wait: ${halfClosed}`
  return `ct timeout ${name} { protocol ${protocol}; l3proto ip; policy = { ${states}${half} }\n}`
}

export const nftText = ({ family, table, sets, timeouts = [], chains }: TableText): string =>
  [
    `table ${family} ${table} {`,
    ...sets.map(declare),
    ...timeouts.map(declareTimeout),
    ...chains.map(({ chain, hook }) => `chain ${chain} { ${hook ? hookText(hook) : ''} }`),
    '}',
    ...chains.flatMap(({ chain, rules }) =>
      rules.map(rule => `add rule ${family} ${table} ${chain} ${asNumber(rule)}`),
    ),
    '',
  ].join('\n')

export const nft = (ns: string, args: readonly string[], input = ''): string =>
  execFileSync('ip', ['netns', 'exec', ns, 'nft', ...args], { input, encoding: 'utf8', maxBuffer: 1 << 28 })

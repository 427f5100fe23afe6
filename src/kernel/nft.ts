// SPDX-License-Identifier: Apache-2.0
// nf_tables between our objects and the codec of netlink/nft: which tables are ours, and which foreign chain holds a
// rule of ours as a guest.
import type { NftBatch, RuleOptions } from '../netlink/nft/batch.ts'
import type { ListedRule, ListedTable, NftObjects } from '../netlink/nft/dump.ts'
import { userChain } from './guest-chains.ts'
import type { Operation } from './kernel.ts'
import {
  type GuestPlace,
  guestComment,
  guestTag,
  type KernelObject,
  keyOf,
  type NftChainObject,
  type NftElementObject,
  type NftGuestObject,
  type NftSetObject,
  type Ns,
  type ObjectKey,
  ruleTag,
  timeoutName,
} from './objects.ts'

const ourTable = 'weft'

/** Others may call one of another family so. */
export const isOurTable = ({ family, table }: ListedTable): boolean =>
  table === ourTable && (family === 'inet' || family === 'netdev')

export type NftObject = Extract<KernelObject, { readonly kind: `nft-${string}` }>

export const isNft = (object: KernelObject): object is NftObject => object.kind.startsWith('nft-')

/** Everything of ours; guest rules in whatever chain they are. */
export const nftObjects = (ns: Ns, all: NftObjects): KernelObject[] => {
  const found: KernelObject[] = []
  const sets = new Map<string, NftSetObject>()
  for (const one of all.tables) if (isOurTable(one)) found.push({ kind: 'nft-table', ns, ...one })
  for (const one of all.sets) {
    if (!isOurTable(one)) continue
    const { family, table, name, key, value, interval } = one
    const set: NftSetObject = {
      kind: 'nft-set',
      ns,
      family,
      table,
      set: name,
      key,
      ...(value ? { value } : {}),
      ...(interval ? { interval: true } : {}),
    }
    sets.set(`${family} ${name}`, set)
    found.push(set)
  }
  for (const one of all.chains) {
    if (!isOurTable(one)) continue
    const { family, table, chain, hook } = one
    const rules = all.rules
      .filter(rule => rule.family === family && rule.table === table && rule.chain === chain)
      .map(rule => rule.comment ?? '?')
    found.push({ kind: 'nft-chain', ns, family, table, chain, rules, ...(hook ? { hook } : {}) })
  }
  for (const { family, set, key, value, ...one } of all.elements) {
    const owner = isOurTable({ family, ...one }) ? sets.get(`${family} ${set}`) : undefined
    if (owner) found.push({ kind: 'nft-element', set: owner, key, ...(value ? { value } : {}) })
  }
  for (const { family, table, name, protocol: proto, ...times } of all.timeouts)
    if (isOurTable({ family, table }) && name === timeoutName({ proto, ...times }))
      found.push({ kind: 'nft-timeout', ns, family, table, proto, ...times })
  const guests = new Map<ObjectKey, NftGuestObject>()
  for (const one of all.rules) {
    const { family, table, chain, comment } = one
    const rule = guestTag(comment)
    if (rule === undefined || isOurTable(one)) continue
    const guest: NftGuestObject = { kind: 'nft-guest', ns, family, table, chain, rule, place: placeOf(one, all) }
    const key = keyOf(guest)
    guests.set(key, guests.has(key) ? { ...guest, place: 'several' } : guest)
  }
  return [...found, ...guests.values()]
}

const inSameTable =
  (a: ListedTable) =>
  (b: ListedTable): boolean =>
    a.family === b.family && a.table === b.table
const inSameChain =
  (a: Pick<ListedRule, 'family' | 'table' | 'chain'>) =>
  (b: ListedRule): boolean =>
    inSameTable(a)(b) && a.chain === b.chain

const isGuest = ({ comment }: ListedRule): boolean => guestTag(comment) !== undefined

/** -1: nobody leads there. */
const leadOf = (rules: readonly ListedRule[]): number =>
  rules.findIndex(({ bare, jumpsTo }) => bare && jumpsTo === userChain)

/** What is behind a bare verdict is never asked. */
const endOf = (rules: readonly ListedRule[]): number => {
  const end = rules.findIndex(({ bare, ends }) => bare && ends)
  return end < 0 ? rules.length : end
}

/** Of the head whoever comes later has it: that is no reason to push. */
const placeOf = (guest: ListedRule, { chains, rules: all }: NftObjects): GuestPlace => {
  if (guest.jumpsTo !== undefined) return 'head'
  const rules = all.filter(inSameChain(guest))
  const at = rules.indexOf(guest)
  const lead = leadOf(rules)
  const end = endOf(rules)
  if (lead >= 0) return lead < at ? 'behind' : 'midst'
  // Docker takes its jump away and brings it back with every network that it makes
  const isDockers = chains.some(one => one.chain === userChain && inSameTable(guest)(one))
  const isBehind = at < end && (isDockers || rules.slice(at + 1, end).every(isGuest))
  return isBehind ? 'behind' : 'midst'
}

const placeFor = (object: NftGuestObject, rules: readonly ListedRule[]): RuleOptions => {
  if (object.place === 'head') return { first: true }
  const lead = rules[leadOf(rules)]
  const end = rules[endOf(rules)]
  return lead ? { after: lead.handle } : end ? { before: end.handle } : {}
}

/** Puts one operation into a batch. `rules` are those of the chains that have guests. */
export const writeNft = (batch: NftBatch, operation: Operation, rules: readonly ListedRule[]): void => {
  const object = operation.object as NftObject
  const removing = operation.kind === 'remove'
  switch (object.kind) {
    case 'nft-table':
      if (removing) batch.removeTable(object.family, object.table)
      else batch.addTable(object.family, object.table)
      return
    case 'nft-set':
      if (removing || operation.kind === 'replace') batch.removeSet(object.family, object.table, object.set)
      if (!removing) batch.addSet(object.family, object.table, { name: object.set, ...object })
      return
    case 'nft-chain':
      writeChain(batch, operation, object)
      return
    case 'nft-element': {
      const { family, table, set } = object.set
      const old = operation.kind === 'replace' ? (operation.old as NftElementObject) : undefined
      if (removing) batch.removeElement(family, table, { name: set, ...object.set }, object)
      if (old) batch.removeElement(family, table, { name: set, ...object.set }, old)
      if (!removing) batch.addElement(family, table, { name: set, ...object.set }, object)
      return
    }
    case 'nft-timeout': {
      const { kind: _, ns: __, family, table, proto: protocol, ...times } = object
      if (removing) batch.removeTimeout(family, table, timeoutName(object))
      else batch.addTimeout(family, table, { name: timeoutName(object), protocol, ...times })
      return
    }
    case 'nft-guest': {
      const { family, table, chain, rule } = object
      const there = rules.filter(inSameChain(object))
      const comment = guestComment(object)
      const same = there.filter(one => one.comment === comment)
      if (operation.kind === 'add' && same.length > 0) return
      for (const { handle } of same) batch.removeRule(family, table, chain, handle)
      if (removing) return
      batch.addRule(family, table, chain, rule, { comment, ...placeFor(object, there) })
    }
  }
}

/** Same hook: its rules are replaced in place. Another hook: the chain is made anew, in the same transaction. */
const writeChain = (batch: NftBatch, operation: Operation, object: NftChainObject): void => {
  const { family, table, chain, hook } = object
  const old = operation.kind === 'replace' ? (operation.old as NftChainObject) : undefined
  const sameHook = old !== undefined && JSON.stringify(old.hook) === JSON.stringify(hook)
  if (operation.kind !== 'add') batch.flushChain(family, table, chain)
  if (operation.kind === 'remove' || (old && !sameHook)) batch.removeChain(family, table, chain)
  if (operation.kind === 'remove') return
  if (!sameHook) batch.addChain(family, table, chain, hook)
  for (const rule of object.rules) batch.addRule(family, table, chain, rule, { comment: ruleTag(rule) })
}

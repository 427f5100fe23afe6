// SPDX-License-Identifier: Apache-2.0
// Everything nf_tables holds, in our words: `nft list ruleset` without the expressions of the rules, which we know by
// their comments. Tables of others are read as far as we understand them; bridge and arp are left out.
import { setTimeout as sleep } from 'node:timers/promises'
import { NetlinkError } from '../errors.ts'
import { type Attribute, attributes, type Message } from '../message.ts'
import type { Netlink, Request } from '../socket.ts'
import { decodeElements, readElement, type SetElement, type WireElement } from './element.ts'
import { readHook } from './hook.ts'
import { messageType, nfgenmsgLength, writeHeader } from './request.ts'
import { commentTypes, type SetDeclaration } from './set.ts'
import { decodeTimeout, type ListedTimeout } from './timeout.ts'
import {
  familyNumbers,
  familyOfNumber,
  lengthOf,
  type NftFamily,
  type NftHook,
  type NftType,
  typeOfId,
} from './types.ts'
import {
  NF_ACCEPT,
  NF_DROP,
  NFT_DATA_VERDICT,
  NFT_MSG,
  NFT_OBJECT,
  NFT_RETURN,
  NFT_SET,
  NFT_TABLE_F,
  NFTA_CHAIN,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_GEN,
  NFTA_IMMEDIATE,
  NFTA_LIST,
  NFTA_MATCH,
  NFTA_OBJ,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
  NFTA_TARGET,
} from './uapi.ts'
import { ruleComment } from './userdata.ts'
import { readVerdict, type Verdict } from './verdict.ts'

export interface ListedTable {
  readonly family: NftFamily
  readonly table: string
}

export interface TableState extends ListedTable {
  /** Its chains see no packet. */
  readonly dormant?: true
}

export interface ListedChain extends ListedTable {
  readonly chain: string
  readonly hook?: NftHook
}

export interface ListedRule extends ListedTable {
  readonly chain: string
  readonly handle: bigint
  readonly comment?: string
  /** It asks nothing: what it does it does with every packet. */
  readonly bare?: true
  /** It accepts, drops, rejects or returns. */
  readonly ends?: true
  readonly jumpsTo?: string
}

export interface ListedSet extends ListedTable, SetDeclaration {}

export interface ListedElement extends ListedTable, SetElement {
  readonly set: string
}

export interface NftObjects {
  readonly tables: readonly TableState[]
  readonly chains: readonly ListedChain[]
  /** In the order of the chain. */
  readonly rules: readonly ListedRule[]
  /** Named sets and maps whose types are ours. */
  readonly sets: readonly ListedSet[]
  readonly elements: readonly ListedElement[]
  readonly timeouts: readonly ListedTimeout[]
}

const patience = 4
const attempts = 12
const EINTR = 4
const restAttempts = 10
const restMs = 5

const list = (what: string, message: number, family = 0, encode: Request['encode'] = () => {}): Request => ({
  op: `list nft ${what}`,
  type: messageType(message),
  flags: 0,
  encode(w) {
    writeHeader(w, family)
    encode(w)
  },
})

/** Which rules, sets and elements are listed; tables and chains all are. What others have by the thousand is not read. */
export interface Wanted {
  /** Everything in it. */
  table(table: ListedTable): boolean
  /** Of a table that is not wanted: the rules of this chain. */
  chain?(chain: ListedChain): boolean
}

/**
 * One state of all tables: read again if a transaction came between. Where others write all the time, the last of some
 * readings, of which each dump is one state by itself: what came between is told by the kernel's notifications.
 * Rejects with EINTR if a single dump finds no rest.
 */
export const listObjects = async (netlink: Netlink, wanted: Wanted = { table: () => true }): Promise<NftObjects> => {
  for (let attempt = 1; ; attempt++) {
    const before = await generation(netlink)
    const found = await listOnce(netlink, wanted)
    if (found && (attempt >= patience || before === (await generation(netlink)))) return found
    if (attempt === attempts) {
      throw new NetlinkError({ op: 'list nft objects', errno: EINTR, detail: `changed during ${attempt} dumps` })
    }
    await sleep(attempt * restMs * Math.random()) // out of step with whoever writes in a loop
  }
}

/** Number of the last transaction. */
const generation = async (netlink: Netlink): Promise<number | undefined> => {
  const replies = await netlink.run(list('generation', NFT_MSG.GETGEN))
  for (const reply of replies) {
    if (reply.type !== messageType(NFT_MSG.NEWGEN)) continue
    for (const attr of attributes(reply, nfgenmsgLength)) if (attr.type === NFTA_GEN.ID) return attr.be32()
  }
  return undefined
}

/** undefined: something changed or went away meanwhile. */
const listOnce = async (netlink: Netlink, wanted: Wanted): Promise<NftObjects | undefined> => {
  try {
    const tables = await netlink.dump(list('tables', NFT_MSG.GETTABLE), decodeTable)
    const chains = await netlink.dump(list('chains', NFT_MSG.GETCHAIN), decodeChain)
    const rules: ListedRule[] = []
    const listRules = async ({ family, table }: ListedTable, chain?: string): Promise<void> => {
      const request = list(`rules of ${family} ${table} ${chain ?? ''}`, NFT_MSG.GETRULE, familyNumbers[family], w => {
        w.attrString(NFTA_RULE.TABLE, table)
        if (chain !== undefined) w.attrString(NFTA_RULE.CHAIN, chain)
      })
      for (const rule of await netlink.dump(request, decodeRule)) rules.push(rule)
    }
    for (const one of tables) if (wanted.table(one)) await listRules(one)
    for (const one of chains) if (!wanted.table(one) && wanted.chain?.(one)) await listRules(one, one.chain)
    const timeouts: ListedTimeout[] = []
    const sets: ListedSet[] = []
    const elements: ListedElement[] = []
    for (const table of tables.filter(one => wanted.table(one))) {
      const family = familyNumbers[table.family]
      const request = list(`sets of ${table.family} ${table.table}`, NFT_MSG.GETSET, family, w =>
        w.attrString(NFTA_SET.TABLE, table.table),
      )
      const objects = list(`objects of ${table.family} ${table.table}`, NFT_MSG.GETOBJ, family, w => {
        w.attrString(NFTA_OBJ.TABLE, table.table)
        w.attrBe32(NFTA_OBJ.TYPE, NFT_OBJECT.CT_TIMEOUT)
      })
      timeouts.push(...(await netlink.dump(objects, decodeTimeout)))
      for (const set of await netlink.dump(request, decodeSet)) {
        sets.push(set)
        for (const element of await listElements(netlink, set)) {
          elements.push({ family: set.family, table: set.table, set: set.name, ...element })
        }
      }
    }
    return { tables, chains, rules, sets, elements, timeouts }
  } catch (error) {
    if (error instanceof NetlinkError && (error.absent || error.errno === EINTR)) return undefined
    throw error
  }
}

const listElements = async (netlink: Netlink, set: ListedSet): Promise<SetElement[]> => {
  const what = `elements of ${set.family} ${set.table} ${set.name}`
  const request = list(what, NFT_MSG.GETSETELEM, familyNumbers[set.family], w => {
    w.attrString(NFTA_SET_ELEM_LIST.TABLE, set.table)
    w.attrString(NFTA_SET_ELEM_LIST.SET, set.name)
  })
  for (let attempt = 1; ; attempt++) {
    const messages = await netlink.dump(request, decodeElementList)
    const elements = decodeElements(set, messages.flat())
    // While the hash table of a big set grows, which the kernel does in the background after the elements came, a dump
    // counts its way through a table in motion: some elements twice, as many not at all, and nobody says so.
    const distinct = new Set(elements.map(({ key }) => key.join(' ')))
    if (distinct.size === elements.length) return elements
    if (attempt === restAttempts) {
      throw new NetlinkError({ op: request.op, errno: EINTR, detail: `the set moved during ${attempt} dumps` })
    }
    await sleep(attempt * restMs)
  }
}

const headOf = (message: Message, type: number): NftFamily | undefined =>
  message.type === messageType(type) ? familyOfNumber(message.u8()) : undefined

export const decodeTable = (message: Message): TableState | undefined => {
  const family = headOf(message, NFT_MSG.NEWTABLE)
  if (family === undefined) return undefined
  let table: string | undefined
  let flags = 0
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type === NFTA_TABLE.NAME) table = attr.text()
    else if (attr.type === NFTA_TABLE.FLAGS) flags = attr.be32()
  }
  return table === undefined ? undefined : { family, table, ...(flags & NFT_TABLE_F.DORMANT ? { dormant: true } : {}) }
}

export const decodeChain = (message: Message): ListedChain | undefined => {
  const family = headOf(message, NFT_MSG.NEWCHAIN)
  if (family === undefined) return undefined
  let table: string | undefined
  let chain: string | undefined
  let hook: Attribute | undefined
  let policy: number | undefined
  let type: string | undefined
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type === NFTA_CHAIN.TABLE) table = attr.text()
    else if (attr.type === NFTA_CHAIN.NAME) chain = attr.text()
    else if (attr.type === NFTA_CHAIN.HOOK) hook = attr
    else if (attr.type === NFTA_CHAIN.POLICY) policy = attr.be32()
    else if (attr.type === NFTA_CHAIN.TYPE) type = attr.text()
  }
  if (table === undefined || chain === undefined) return undefined
  const known = hook && readHook(family, hook, policy, type)
  return { family, table, chain, ...(known ? { hook: known } : {}) }
}

export const decodeRule = (message: Message): ListedRule | undefined => {
  const family = headOf(message, NFT_MSG.NEWRULE)
  if (family === undefined) return undefined
  let table: string | undefined
  let chain: string | undefined
  let handle: bigint | undefined
  let comment: string | undefined
  let expressions: Attribute | undefined
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type === NFTA_RULE.TABLE) table = attr.text()
    else if (attr.type === NFTA_RULE.CHAIN) chain = attr.text()
    else if (attr.type === NFTA_RULE.HANDLE) handle = attr.be64()
    else if (attr.type === NFTA_RULE.USERDATA) comment = ruleComment(attr.copy())
    else if (attr.type === NFTA_RULE.EXPRESSIONS) expressions = attr
  }
  if (table === undefined || chain === undefined || handle === undefined) return undefined
  if (expressions) comment ??= matchedComment(expressions)
  const { verdict, asks } = expressions ? effectOf(expressions) : { asks: true }
  return {
    ...{ family, table, chain, handle },
    ...(comment === undefined ? {} : { comment }),
    ...(asks ? {} : { bare: true }),
    ...(verdict === 'reject' || endings.has(verdict?.code) ? { ends: true } : {}),
    ...(verdict === 'reject' || verdict?.chain === undefined ? {} : { jumpsTo: verdict.chain }),
  }
}

interface Expression {
  readonly name: string
  readonly data?: Attribute
}

function* readExpressions(list: Attribute): Generator<Expression> {
  for (const one of list.nested()) {
    let name = ''
    let data: Attribute | undefined
    for (const attr of one.nested())
      if (attr.type === NFTA_EXPR.NAME) name = attr.text()
      else if (attr.type === NFTA_EXPR.DATA) data = attr
    yield { name, ...(data ? { data } : {}) }
  }
}

/** Of `-m comment`: iptables-restore writes every comment so, ours too. */
const matchedComment = (expressions: Attribute): string | undefined => {
  for (const expression of readExpressions(expressions)) {
    const comment = commentOf(expression)
    if (comment !== undefined) return comment
  }
  return undefined
}

const commentOf = ({ name, data }: Expression): string | undefined => {
  if (name !== 'match' || !data) return undefined
  let match = ''
  let info: Attribute | undefined
  for (const attr of data.nested())
    if (attr.type === NFTA_MATCH.NAME) match = attr.text()
    else if (attr.type === NFTA_MATCH.INFO) info = attr
  return match === 'comment' ? info?.text() : undefined
}

const endings: ReadonlySet<number | undefined> = new Set([NF_ACCEPT, NF_DROP, NFT_RETURN])

/** nft's, or the target of iptables. */
const isReject = ({ name, data }: Expression): boolean => {
  if (name !== 'target' || !data) return name === 'reject'
  for (const attr of data.nested()) if (attr.type === NFTA_TARGET.NAME) return attr.text() === 'REJECT'
  return false
}

/** What a rule does, and whether it asks anything before: it may count, and have a comment of iptables. */
const effectOf = (expressions: Attribute): { verdict?: Verdict | 'reject'; asks: boolean } => {
  let verdict: Verdict | 'reject' | undefined
  let asks = false
  for (const expression of readExpressions(expressions)) {
    const { name, data } = expression
    if (isReject(expression)) verdict = 'reject'
    else if (name === 'immediate' && data) verdict = immediateOf(data) ?? verdict
    else if (name !== 'counter' && commentOf(expression) === undefined) asks = true
  }
  return { asks, ...(verdict ? { verdict } : {}) }
}

const immediateOf = (data: Attribute): Verdict | undefined => {
  for (const attr of data.nested())
    if (attr.type === NFTA_IMMEDIATE.DATA)
      for (const value of attr.nested()) if (value.type === NFTA_DATA.VERDICT) return readVerdict(value)
  return undefined
}

const typesOfId = (id: number): NftType[] | undefined => {
  const types: NftType[] = []
  for (let rest = id; rest !== 0; rest = Math.floor(rest / 64)) {
    const type = typeOfId(rest & 63)
    // an integer of any kind has the number of ct_zone: only our own comment makes it one
    if (type === undefined || type === 'ct_zone') return undefined
    types.unshift(type)
  }
  return types.length === 0 ? undefined : types
}

export const decodeSet = (message: Message): ListedSet | undefined => {
  const family = headOf(message, NFT_MSG.NEWSET)
  if (family === undefined) return undefined
  let table: string | undefined
  let name: string | undefined
  let flags = 0
  const key = { id: 0, length: 0 }
  const data = { id: 0, length: 0 }
  let said: ReturnType<typeof commentTypes>
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type === NFTA_SET.TABLE) table = attr.text()
    else if (attr.type === NFTA_SET.NAME) name = attr.text()
    else if (attr.type === NFTA_SET.FLAGS) flags = attr.be32()
    else if (attr.type === NFTA_SET.KEY_TYPE) key.id = attr.be32()
    else if (attr.type === NFTA_SET.KEY_LEN) key.length = attr.be32()
    else if (attr.type === NFTA_SET.DATA_TYPE) data.id = attr.be32()
    else if (attr.type === NFTA_SET.DATA_LEN) data.length = attr.be32()
    else if (attr.type === NFTA_SET.USERDATA) said = commentTypes(attr.copy())
  }
  const isMap = (flags & NFT_SET.MAP) !== 0
  if (table === undefined || name === undefined || (flags & (NFT_SET.ANONYMOUS | NFT_SET.OBJECT)) !== 0)
    return undefined
  const keyTypes = said?.key ?? typesOfId(key.id)
  const valueTypes = data.id === NFT_DATA_VERDICT ? (['verdict'] as const) : (said?.value ?? typesOfId(data.id))
  if (keyTypes === undefined || lengthOf(keyTypes) !== key.length) return undefined
  if (isMap && (valueTypes === undefined || !sameLength(valueTypes, data.length))) return undefined
  return {
    family,
    table,
    name,
    key: keyTypes,
    ...(isMap ? { value: valueTypes! } : {}),
    ...((flags & NFT_SET.INTERVAL) !== 0 ? { interval: true } : {}),
  }
}

const sameLength = (types: readonly NftType[], length: number): boolean =>
  types[0] === 'verdict' || lengthOf(types) === length

export const decodeElementList = (message: Message): WireElement[] | undefined => {
  if (message.type !== messageType(NFT_MSG.NEWSETELEM)) return undefined
  const found: WireElement[] = []
  for (const attr of attributes(message, nfgenmsgLength)) {
    if (attr.type !== NFTA_SET_ELEM_LIST.ELEMENTS) continue
    for (const one of attr.nested()) {
      const element = one.type === NFTA_LIST.ELEM ? readElement(one) : undefined
      if (element) found.push(element)
    }
  }
  return found
}

// SPDX-License-Identifier: Apache-2.0
// Changes of nf_tables as one transaction: everything or nothing, in the order of the calls. Each call is what `nft`
// would do with the same words; what cannot be encoded throws INVALID at once, and nothing is sent before commit.
import { WeftError } from '../../base/errors.ts'
import { NetlinkError } from '../errors.ts'
import type { Writer } from '../message.ts'
import type { Netlink } from '../socket.ts'
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST } from '../uapi.ts'
import { deviceIndexes } from './device.ts'
import { encodeElement, type SetElement, type WireElement, writeElement } from './element.ts'
import { anonymousName, type EncodeContext, writeExpressions } from './encode.ts'
import type { AnonymousSet } from './expression.ts'
import { writeHook } from './hook.ts'
import { messageType, namePath, nfgenmsgLength, writeHeader } from './request.ts'
import { compileRule } from './rule.ts'
import { anonymousUserdata, checkDeclaration, type SetDeclaration, writeDeclaration } from './set.ts'
import { type TimeoutDeclaration, writeTimeout } from './timeout.ts'
import { familyNumbers, type NftFamily, type NftHook } from './types.ts'
import {
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFT_DATA_VERDICT,
  NFT_MSG,
  NFT_OBJECT,
  NFT_SET,
  NFTA_CHAIN,
  NFTA_OBJ,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_DESC,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
} from './uapi.ts'
import { ruleUserdata } from './userdata.ts'

export interface RuleOptions {
  /** Shown by `nft list`; how we know the rule again. */
  readonly comment?: string
  /** At the head of the chain instead of its end. */
  readonly first?: boolean
  /** Before the rule with this handle instead of at the end; ENOENT. */
  readonly before?: bigint
  /** The same, after it. */
  readonly after?: bigint
}

export interface NftBatch {
  /** `nft add table`: fine if it is there. */
  /** One that is there is woken, if it was dormant. */
  addTable(family: NftFamily, table: string): void
  /** `nft delete table`, with everything in it; ENOENT. */
  removeTable(family: NftFamily, table: string): void
  /** `nft add set`, `add map`; EEXIST if it is there with other types. */
  addSet(family: NftFamily, table: string, set: SetDeclaration): void
  /** `nft delete set`; EBUSY while a rule uses it. */
  removeSet(family: NftFamily, table: string, name: string): void
  /** `nft add ct timeout`; EEXIST. */
  addTimeout(family: NftFamily, table: string, timeout: TimeoutDeclaration): void
  /** EBUSY while a rule names it. */
  removeTimeout(family: NftFamily, table: string, name: string): void
  /** `nft add chain`: fine if it is there with the same hook; another policy is set. */
  addChain(family: NftFamily, table: string, chain: string, hook?: NftHook): void
  flushChain(family: NftFamily, table: string, chain: string): void
  /** `nft delete chain`; EBUSY while it has rules or is jumped to. */
  removeChain(family: NftFamily, table: string, chain: string): void
  /** `nft add rule`, or `insert rule`. The language is that of rule.ts. */
  addRule(family: NftFamily, table: string, chain: string, text: string, options?: RuleOptions): void
  removeRule(family: NftFamily, table: string, chain: string, handle: bigint): void
  /** Fine if it is there; EEXIST if it is there with another value: remove that first, in the same batch. */
  addElement(family: NftFamily, table: string, set: SetDeclaration, element: SetElement): void
  /** ENOENT. The value does not matter. */
  removeElement(family: NftFamily, table: string, set: SetDeclaration, element: SetElement): void
  /** Rejects with the first NetlinkError, whose `op` names the object; then nothing was done. */
  commit(netlink: Netlink, op: string): Promise<void>
}

interface BatchMessage {
  readonly op: string
  readonly message: number
  readonly flags: number
  readonly family: number
  write(w: Writer, context: EncodeContext): void
}

/** A large map is 100,000 calls: no text is made of an element but of the first of each message. */
interface ElementRun {
  readonly message: number
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly wire: WireElement[]
  count: number
}

const elementsPerMessage = 400
const attempts = 3

export const nftBatch = (): NftBatch => new Batch()

class Batch implements NftBatch {
  readonly #messages: BatchMessage[] = []
  readonly #devices = new Set<string>()
  readonly #ids = new Map<AnonymousSet, number>()
  #sets = 0
  /** Elements of the last message, as long as more may join it. */
  #run: ElementRun | undefined

  #add(message: number, flags: number, family: NftFamily, op: string, write: BatchMessage['write']): void {
    this.#run = undefined
    this.#messages.push({ op, message, flags, family: familyNumbers[family], write })
  }

  addTable(family: NftFamily, table: string): void {
    this.#add(NFT_MSG.NEWTABLE, NLM_F_CREATE, family, `add nft table ${family} ${table}`, w => {
      w.attrString(NFTA_TABLE.NAME, table)
      w.attrBe32(NFTA_TABLE.FLAGS, 0)
    })
  }

  removeTable(family: NftFamily, table: string): void {
    this.#add(NFT_MSG.DELTABLE, 0, family, `remove nft table ${family} ${table}`, w =>
      w.attrString(NFTA_TABLE.NAME, table),
    )
  }

  addSet(family: NftFamily, table: string, set: SetDeclaration): void {
    checkDeclaration(set)
    const id = ++this.#sets
    this.#add(NFT_MSG.NEWSET, NLM_F_CREATE, family, `add nft set ${family} ${table} ${set.name}`, w => {
      w.attrString(NFTA_SET.TABLE, table)
      writeDeclaration(w, set, id)
    })
  }

  removeSet(family: NftFamily, table: string, name: string): void {
    this.#add(NFT_MSG.DELSET, 0, family, `remove nft set ${family} ${table} ${name}`, w => {
      w.attrString(NFTA_SET.TABLE, table)
      w.attrString(NFTA_SET.NAME, name)
    })
  }

  addTimeout(family: NftFamily, table: string, timeout: TimeoutDeclaration): void {
    const op = `add nft timeout ${family} ${table} ${timeout.name}`
    this.#add(NFT_MSG.NEWOBJ, NLM_F_CREATE | NLM_F_EXCL, family, op, w => writeTimeout(w, table, timeout))
  }

  removeTimeout(family: NftFamily, table: string, name: string): void {
    this.#add(NFT_MSG.DELOBJ, 0, family, `remove nft timeout ${family} ${table} ${name}`, w => {
      w.attrString(NFTA_OBJ.TABLE, table)
      w.attrString(NFTA_OBJ.NAME, name)
      w.attrBe32(NFTA_OBJ.TYPE, NFT_OBJECT.CT_TIMEOUT)
    })
  }

  addChain(family: NftFamily, table: string, chain: string, hook?: NftHook): void {
    this.#add(NFT_MSG.NEWCHAIN, NLM_F_CREATE, family, `add nft chain ${family} ${table} ${chain}`, w => {
      w.attrString(NFTA_CHAIN.TABLE, table)
      w.attrString(NFTA_CHAIN.NAME, chain)
      if (hook) writeHook(w, family, hook)
    })
  }

  flushChain(family: NftFamily, table: string, chain: string): void {
    this.#add(NFT_MSG.DELRULE, 0, family, `flush nft chain ${family} ${table} ${chain}`, w => {
      w.attrString(NFTA_RULE.TABLE, table)
      w.attrString(NFTA_RULE.CHAIN, chain)
    })
  }

  removeChain(family: NftFamily, table: string, chain: string): void {
    this.#add(NFT_MSG.DELCHAIN, 0, family, `remove nft chain ${family} ${table} ${chain}`, w => {
      w.attrString(NFTA_CHAIN.TABLE, table)
      w.attrString(NFTA_CHAIN.NAME, chain)
    })
  }

  addRule(family: NftFamily, table: string, chain: string, text: string, options: RuleOptions = {}): void {
    const op = `add nft rule in ${family} ${table} ${chain}: ${text}`
    const expressions = compileRule(family, text)
    const comment = options.comment === undefined ? undefined : ruleUserdata(options.comment)
    for (const expression of expressions) {
      if (expression.kind === 'device') this.#devices.add(expression.name)
      if (expression.kind === 'lookup' && typeof expression.set !== 'string') {
        this.#addAnonymous(family, table, expression.set, op)
      }
    }
    const { before, after } = options
    const beside = before ?? after
    const flags = NLM_F_CREATE | (options.first || before !== undefined ? 0 : NLM_F_APPEND)
    this.#add(NFT_MSG.NEWRULE, flags, family, op, (w, context) => {
      w.attrString(NFTA_RULE.TABLE, table)
      w.attrString(NFTA_RULE.CHAIN, chain)
      writeExpressions(w, NFTA_RULE.EXPRESSIONS, expressions, context)
      if (beside !== undefined) w.attrBe64(NFTA_RULE.POSITION, beside)
      if (comment) w.attrBytes(NFTA_RULE.USERDATA, comment)
    })
  }

  removeRule(family: NftFamily, table: string, chain: string, handle: bigint): void {
    this.#add(NFT_MSG.DELRULE, 0, family, `remove nft rule ${handle} in ${family} ${table} ${chain}`, w => {
      w.attrString(NFTA_RULE.TABLE, table)
      w.attrString(NFTA_RULE.CHAIN, chain)
      w.attrBe64(NFTA_RULE.HANDLE, handle)
    })
  }

  /** A set that a rule brings along: known in the batch by its id. */
  #addAnonymous(family: NftFamily, table: string, set: AnonymousSet, op: string): void {
    const id = ++this.#sets
    this.#ids.set(set, id)
    const name = anonymousName(set)
    const { value } = set
    this.#add(NFT_MSG.NEWSET, NLM_F_CREATE, family, op, w => {
      w.attrString(NFTA_SET.TABLE, table)
      w.attrString(NFTA_SET.NAME, name)
      const flags = NFT_SET.ANONYMOUS | NFT_SET.CONSTANT
      w.attrBe32(NFTA_SET.FLAGS, flags | (set.interval ? NFT_SET.INTERVAL : 0) | (value ? NFT_SET.MAP : 0))
      w.attrBe32(NFTA_SET.KEY_TYPE, set.keyType)
      w.attrBe32(NFTA_SET.KEY_LEN, set.keyLength)
      if (value === 'verdict') {
        w.attrBe32(NFTA_SET.DATA_TYPE, NFT_DATA_VERDICT)
      } else if (value) {
        w.attrBe32(NFTA_SET.DATA_TYPE, value.type)
        w.attrBe32(NFTA_SET.DATA_LEN, value.length)
      }
      w.attrBe32(NFTA_SET.ID, id)
      w.nest(NFTA_SET.DESC, () => w.attrBe32(NFTA_SET_DESC.SIZE, set.elements.length))
      w.attrBytes(NFTA_SET.USERDATA, anonymousUserdata(set))
    })
    for (let i = 0; i < set.elements.length; i += elementsPerMessage) {
      const part = set.elements.slice(i, i + elementsPerMessage)
      this.#add(NFT_MSG.NEWSETELEM, NLM_F_CREATE, family, op, w => writeElements(w, table, name, part, id))
    }
  }

  addElement(family: NftFamily, table: string, set: SetDeclaration, element: SetElement): void {
    this.#element(NFT_MSG.NEWSETELEM, family, table, set, element)
  }

  removeElement(family: NftFamily, table: string, set: SetDeclaration, element: SetElement): void {
    this.#element(NFT_MSG.DELSETELEM, family, table, set, element)
  }

  #element(message: number, family: NftFamily, table: string, set: SetDeclaration, element: SetElement): void {
    const adding = message === NFT_MSG.NEWSETELEM
    const wire = encodeElement(set, element, adding)
    const last = this.#run
    if (
      last &&
      last.message === message &&
      last.family === family &&
      last.table === table &&
      last.set === set.name &&
      last.wire.length + wire.length <= elementsPerMessage
    ) {
      for (const one of wire) last.wire.push(one)
      last.count++
      return
    }
    const run: ElementRun = { message, family, table, set: set.name, wire, count: 1 }
    const verb = adding ? 'add' : 'remove'
    this.#messages.push({
      message,
      flags: adding ? NLM_F_CREATE : 0,
      family: familyNumbers[family],
      get op() {
        const what = run.count === 1 ? 'nft element' : `one of ${run.count} nft elements`
        const shown = `${element.key.join(' . ')}${adding && element.value ? ` : ${element.value.join(' . ')}` : ''}`
        return `${verb} ${what} ${family} ${table} ${set.name} { ${shown}${run.count === 1 ? '' : ', …'} }`
      },
      write: w => writeElements(w, table, set.name, run.wire),
    })
    this.#run = run
  }

  async commit(netlink: Netlink, op: string): Promise<void> {
    if (this.#messages.length === 0) return
    const devices = await deviceIndexes(netlink, this.#devices)
    const context: EncodeContext = {
      setId: set => this.#ids.get(set)!,
      device: name => devices.get(name)!,
    }
    for (let attempt = 1; ; attempt++) {
      const { errors } = await netlink.atomic(op, w => this.#write(w, context), { header: nfgenmsgLength, table: {} })
      const error = errors[0]
      if (error === undefined) return
      const again = error.errnoName === 'EINTR' || error.errnoName === 'EAGAIN'
      if (!again || attempt === attempts) throw this.#explain(error, op)
    }
  }

  #write(w: Writer, context: EncodeContext): void {
    const edge = (type: number): void => {
      w.begin(type, NLM_F_REQUEST)
      writeHeader(w, 0, NFNL_SUBSYS_NFTABLES)
      w.end()
    }
    edge(NFNL_MSG_BATCH_BEGIN)
    for (const { op, message, flags, family, write } of this.#messages) {
      w.begin(messageType(message), NLM_F_REQUEST | flags)
      writeHeader(w, family)
      try {
        write(w, context)
      } catch (cause) {
        throw new WeftError('INVALID', `${op}: ${(cause as Error).message}`, { cause })
      }
      w.end()
    }
    edge(NFNL_MSG_BATCH_END)
  }

  /** The kernel counts from BATCH_BEGIN. */
  #explain(error: NetlinkError, op: string): NetlinkError {
    const { errno, detail, index } = error
    const culprit = this.#messages[index - 1]
    if (culprit === undefined) return new NetlinkError({ op, errno, detail, index })
    const attribute = namePath(culprit.message, error.attribute)
    return new NetlinkError({ op: culprit.op, errno, detail, attribute, index: index - 1 })
  }
}

const writeElements = (w: Writer, table: string, set: string, elements: readonly WireElement[], id?: number): void => {
  w.attrString(NFTA_SET_ELEM_LIST.TABLE, table)
  w.attrString(NFTA_SET_ELEM_LIST.SET, set)
  if (id !== undefined) w.attrBe32(NFTA_SET_ELEM_LIST.SET_ID, id)
  const list = w.beginNest(NFTA_SET_ELEM_LIST.ELEMENTS)
  for (const element of elements) writeElement(w, element)
  w.endNest(list)
}

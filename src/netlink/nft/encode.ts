// SPDX-License-Identifier: Apache-2.0
// Expressions into attributes: each is { NFTA_EXPR_NAME, NFTA_EXPR_DATA } in a list element. Numbers in attributes
// are in network order, data in the order of the packet or of the host, as the compiler left it.
import { WeftError } from '../../base/errors.ts'
import type { Writer } from '../message.ts'
import type { AnonymousSet, Expression } from './expression.ts'
import { little } from './types.ts'
import {
  NFT_LIMIT_F_INV,
  NFT_LOOKUP_F_INV,
  NFTA_BITWISE,
  NFTA_CMP,
  NFTA_COUNTER,
  NFTA_CT,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_FIB,
  NFTA_FWD,
  NFTA_HASH,
  NFTA_IMMEDIATE,
  NFTA_LIMIT,
  NFTA_LIST,
  NFTA_LOG,
  NFTA_LOOKUP,
  NFTA_MASQ,
  NFTA_META,
  NFTA_NAT,
  NFTA_NG,
  NFTA_OBJREF,
  NFTA_PAYLOAD,
  NFTA_RANGE,
  NFTA_REDIR,
  NFTA_REJECT,
  NFTA_TPROXY,
} from './uapi.ts'
import { writeVerdict } from './verdict.ts'

/** What only the batch knows. */
export interface EncodeContext {
  /** Id of an anonymous set that stands in the batch already. */
  setId(set: AnonymousSet): number
  /** ifindex of a device. */
  device(name: string): number
}

/** Name the kernel gives a set that has none; %d becomes a number. */
export const anonymousName = (set: AnonymousSet): string => (set.value === undefined ? '__set%d' : '__map%d')

const names: Readonly<Record<Expression['kind'], string>> = {
  payload: 'payload',
  'payload-write': 'payload',
  meta: 'meta',
  'meta-set': 'meta',
  ct: 'ct',
  'ct-set': 'ct',
  fib: 'fib',
  numgen: 'numgen',
  jhash: 'hash',
  objref: 'objref',
  cmp: 'cmp',
  range: 'range',
  bitwise: 'bitwise',
  lookup: 'lookup',
  immediate: 'immediate',
  device: 'immediate',
  verdict: 'immediate',
  counter: 'counter',
  notrack: 'notrack',
  limit: 'limit',
  log: 'log',
  reject: 'reject',
  nat: 'nat',
  masquerade: 'masq',
  redirect: 'redir',
  fwd: 'fwd',
  tproxy: 'tproxy',
}

const writeData = (w: Writer, type: number, data: Uint8Array): void => {
  const at = w.beginNest(type)
  w.attrBytes(NFTA_DATA.VALUE, data)
  w.endNest(at)
}

const writeOptional = (w: Writer, type: number, value: number | undefined): void => {
  if (value !== undefined) w.attrBe32(type, value)
}

const writeLookup = (w: Writer, e: Expression & { kind: 'lookup' }, context: EncodeContext): void => {
  w.attrString(NFTA_LOOKUP.SET, typeof e.set === 'string' ? e.set : anonymousName(e.set))
  w.attrBe32(NFTA_LOOKUP.SREG, e.sreg)
  writeOptional(w, NFTA_LOOKUP.DREG, e.dreg)
  if (typeof e.set !== 'string') w.attrBe32(NFTA_LOOKUP.SET_ID, context.setId(e.set))
  if (e.inverted) w.attrBe32(NFTA_LOOKUP.FLAGS, NFT_LOOKUP_F_INV)
}

const writeLog = (w: Writer, e: Expression & { kind: 'log' }): void => {
  if (e.group !== undefined) w.attrBe16(NFTA_LOG.GROUP, e.group)
  if (e.prefix !== undefined) w.attrString(NFTA_LOG.PREFIX, e.prefix)
  writeOptional(w, NFTA_LOG.SNAPLEN, e.snaplen)
  if (e.threshold !== undefined) w.attrBe16(NFTA_LOG.QTHRESHOLD, e.threshold)
  writeOptional(w, NFTA_LOG.LEVEL, e.level)
}

const writeBody = (w: Writer, e: Expression, context: EncodeContext): void => {
  switch (e.kind) {
    case 'payload':
      w.attrBe32(NFTA_PAYLOAD.DREG, e.dreg)
      w.attrBe32(NFTA_PAYLOAD.BASE, e.base)
      w.attrBe32(NFTA_PAYLOAD.OFFSET, e.offset)
      w.attrBe32(NFTA_PAYLOAD.LEN, e.length)
      return
    case 'payload-write':
      w.attrBe32(NFTA_PAYLOAD.SREG, e.sreg)
      w.attrBe32(NFTA_PAYLOAD.BASE, e.base)
      w.attrBe32(NFTA_PAYLOAD.OFFSET, e.offset)
      w.attrBe32(NFTA_PAYLOAD.LEN, e.length)
      w.attrBe32(NFTA_PAYLOAD.CSUM_TYPE, e.checksumType)
      w.attrBe32(NFTA_PAYLOAD.CSUM_OFFSET, e.checksumOffset)
      if (e.checksumFlags !== 0) w.attrBe32(NFTA_PAYLOAD.CSUM_FLAGS, e.checksumFlags)
      return
    case 'meta':
      w.attrBe32(NFTA_META.DREG, e.dreg)
      w.attrBe32(NFTA_META.KEY, e.key)
      return
    case 'meta-set':
      w.attrBe32(NFTA_META.KEY, e.key)
      w.attrBe32(NFTA_META.SREG, e.sreg)
      return
    case 'ct':
      w.attrBe32(NFTA_CT.DREG, e.dreg)
      w.attrBe32(NFTA_CT.KEY, e.key)
      if (e.direction !== undefined) w.attrU8(NFTA_CT.DIRECTION, e.direction)
      return
    case 'ct-set':
      w.attrBe32(NFTA_CT.KEY, e.key)
      if (e.direction !== undefined) w.attrU8(NFTA_CT.DIRECTION, e.direction)
      w.attrBe32(NFTA_CT.SREG, e.sreg)
      return
    case 'fib':
      w.attrBe32(NFTA_FIB.DREG, e.dreg)
      w.attrBe32(NFTA_FIB.RESULT, e.result)
      w.attrBe32(NFTA_FIB.FLAGS, e.flags)
      return
    case 'numgen':
      w.attrBe32(NFTA_NG.DREG, e.dreg)
      w.attrBe32(NFTA_NG.MODULUS, e.modulus)
      w.attrBe32(NFTA_NG.TYPE, e.type)
      w.attrBe32(NFTA_NG.OFFSET, e.offset)
      return
    case 'objref':
      w.attrBe32(NFTA_OBJREF.IMM_TYPE, e.type)
      w.attrString(NFTA_OBJREF.IMM_NAME, e.name)
      return
    case 'jhash':
      w.attrBe32(NFTA_HASH.SREG, e.sreg)
      w.attrBe32(NFTA_HASH.DREG, e.dreg)
      w.attrBe32(NFTA_HASH.LEN, e.length)
      w.attrBe32(NFTA_HASH.MODULUS, e.modulus)
      w.attrBe32(NFTA_HASH.SEED, e.seed)
      w.attrBe32(NFTA_HASH.OFFSET, e.offset)
      w.attrBe32(NFTA_HASH.TYPE, 0) // NFT_HASH_JENKINS
      return
    case 'cmp':
      w.attrBe32(NFTA_CMP.SREG, e.sreg)
      w.attrBe32(NFTA_CMP.OP, e.op)
      writeData(w, NFTA_CMP.DATA, e.data)
      return
    case 'range':
      w.attrBe32(NFTA_RANGE.SREG, e.sreg)
      w.attrBe32(NFTA_RANGE.OP, e.inverted ? 1 : 0)
      writeData(w, NFTA_RANGE.FROM_DATA, e.low)
      writeData(w, NFTA_RANGE.TO_DATA, e.high)
      return
    case 'bitwise':
      w.attrBe32(NFTA_BITWISE.SREG, e.reg)
      w.attrBe32(NFTA_BITWISE.DREG, e.reg)
      w.attrBe32(NFTA_BITWISE.LEN, e.mask.length)
      writeData(w, NFTA_BITWISE.MASK, e.mask)
      writeData(w, NFTA_BITWISE.XOR, e.xor)
      return
    case 'lookup':
      return writeLookup(w, e, context)
    case 'immediate':
      w.attrBe32(NFTA_IMMEDIATE.DREG, e.dreg)
      writeData(w, NFTA_IMMEDIATE.DATA, e.data)
      return
    case 'device': {
      const index = Buffer.alloc(4)
      if (little) index.writeUInt32LE(context.device(e.name))
      else index.writeUInt32BE(context.device(e.name))
      w.attrBe32(NFTA_IMMEDIATE.DREG, e.dreg)
      writeData(w, NFTA_IMMEDIATE.DATA, index)
      return
    }
    case 'verdict':
      w.attrBe32(NFTA_IMMEDIATE.DREG, 0)
      writeVerdict(w, NFTA_IMMEDIATE.DATA, e.verdict)
      return
    case 'counter':
      w.attrBe64(NFTA_COUNTER.BYTES, 0n)
      w.attrBe64(NFTA_COUNTER.PACKETS, 0n)
      return
    case 'notrack':
      return
    case 'limit':
      w.attrBe64(NFTA_LIMIT.RATE, e.rate)
      w.attrBe64(NFTA_LIMIT.UNIT, e.unit)
      w.attrBe32(NFTA_LIMIT.BURST, e.burst)
      w.attrBe32(NFTA_LIMIT.TYPE, e.bytes ? 1 : 0)
      w.attrBe32(NFTA_LIMIT.FLAGS, e.over ? NFT_LIMIT_F_INV : 0)
      return
    case 'log':
      return writeLog(w, e)
    case 'reject':
      w.attrBe32(NFTA_REJECT.TYPE, e.type)
      w.attrU8(NFTA_REJECT.ICMP_CODE, e.code)
      return
    case 'nat':
      w.attrBe32(NFTA_NAT.TYPE, e.type)
      w.attrBe32(NFTA_NAT.FAMILY, e.family)
      writeOptional(w, NFTA_NAT.REG_ADDR_MIN, e.address)
      writeOptional(w, NFTA_NAT.REG_PROTO_MIN, e.port)
      if (e.flags !== 0) w.attrBe32(NFTA_NAT.FLAGS, e.flags)
      return
    case 'masquerade':
      if (e.flags !== 0) w.attrBe32(NFTA_MASQ.FLAGS, e.flags)
      return
    case 'redirect':
      writeOptional(w, NFTA_REDIR.REG_PROTO_MIN, e.port)
      if (e.flags !== 0) w.attrBe32(NFTA_REDIR.FLAGS, e.flags)
      return
    case 'fwd':
      w.attrBe32(NFTA_FWD.SREG_DEV, e.sreg)
      return
    case 'tproxy':
      w.attrBe32(NFTA_TPROXY.FAMILY, e.family)
      writeOptional(w, NFTA_TPROXY.REG_ADDR, e.address)
      writeOptional(w, NFTA_TPROXY.REG_PORT, e.port)
      return
  }
}

/** Attribute `type`, a list of expressions. Throws INVALID if they do not fit into one. */
export const writeExpressions = (
  w: Writer,
  type: number,
  expressions: readonly Expression[],
  context: EncodeContext,
): void => {
  if (expressions.length > 128)
    throw new WeftError('INVALID', `a rule of ${expressions.length} expressions, at most 128`)
  const list = w.beginNest(type)
  for (const expression of expressions) {
    const one = w.beginNest(NFTA_LIST.ELEM)
    w.attrString(NFTA_EXPR.NAME, names[expression.kind])
    const data = w.beginNest(NFTA_EXPR.DATA)
    writeBody(w, expression, context)
    w.endNest(data)
    w.endNest(one)
  }
  w.endNest(list)
}

// SPDX-License-Identifier: Apache-2.0
// Bytes of netlink messages: a Writer into one growing buffer, and readers that never look outside what they were
// given. Integers are host order; `be` in a name means network order, which the kernel wants where it says so.
import { endianness } from 'node:os'
import { WeftError } from '../base/errors.ts'
import { ipLength, macLength, writeIp, writeMac } from './text.ts'
import { NLA_F_NESTED, NLMSG_HDRLEN } from './uapi.ts'

const little = endianness() === 'LE'
const attributeMax = 65_535
const typeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
const align = (length: number): number => (length + 3) & ~3

/** What the kernel would never send. */
export const malformed = (what: string): WeftError => new WeftError('KERNEL', `decode netlink message: ${what}`)
/** What the kernel would refuse without a word, or what would wrap around on its way into a field. */
export const invalid = (what: string): WeftError => new WeftError('INVALID', `encode netlink message: ${what}`)

/** `value`, if it is a whole number from `min` to `max`: a field would cut off what is too large. Throws INVALID. */
export const within = (what: string, value: number, min: number, max: number): number => {
  if (!Number.isInteger(value) || value < min || value > max) throw invalid(`${what} ${value} is not ${min} to ${max}`)
  return value
}

/**
 * Appends messages and attributes. Fixed header fields: u8, u16, u32, ... Attributes: attrU8(type, value), ...
 * Throws INVALID for an attribute above 65,535 bytes; lengths never wrap around.
 */
export class Writer {
  buffer: Buffer
  length = 0
  #view: DataView
  #messageStart = -1

  constructor(capacity = 4096) {
    this.buffer = Buffer.allocUnsafeSlow(capacity)
    this.#view = new DataView(this.buffer.buffer)
  }

  #grow(need: number): void {
    let capacity = this.buffer.length * 2
    while (capacity < this.length + need) capacity *= 2
    const bigger = Buffer.allocUnsafeSlow(capacity)
    this.buffer.copy(bigger, 0, 0, this.length)
    this.buffer = bigger
    this.#view = new DataView(bigger.buffer)
  }

  /** Reserve space; returns its offset. */
  #take(size: number): number {
    if (this.length + size > this.buffer.length) this.#grow(size)
    const at = this.length
    this.length = at + size
    return at
  }

  u8(value: number): void {
    const at = this.#take(1) // first: it may replace the view
    this.#view.setUint8(at, value)
  }
  u16(value: number): void {
    const at = this.#take(2) // first: it may replace the view
    this.#view.setUint16(at, value, little)
  }
  u32(value: number): void {
    const at = this.#take(4) // first: it may replace the view
    this.#view.setUint32(at, value, little)
  }
  i32(value: number): void {
    const at = this.#take(4) // first: it may replace the view
    this.#view.setInt32(at, value, little)
  }
  u64(value: bigint): void {
    const at = this.#take(8) // first: it may replace the view
    this.#view.setBigUint64(at, value, little)
  }
  be16(value: number): void {
    const at = this.#take(2) // first: it may replace the view
    this.#view.setUint16(at, value)
  }
  be32(value: number): void {
    const at = this.#take(4) // first: it may replace the view
    this.#view.setUint32(at, value)
  }
  be64(value: bigint): void {
    const at = this.#take(8) // first: it may replace the view
    this.#view.setBigUint64(at, value)
  }
  bytes(value: Uint8Array): void {
    const at = this.#take(value.length)
    this.buffer.set(value, at)
  }
  zero(count: number): void {
    const at = this.#take(count)
    this.buffer.fill(0, at, at + count)
  }
  /** Zeros up to the next 4-byte boundary. */
  pad(): void {
    const missing = align(this.length) - this.length
    if (missing > 0) this.zero(missing)
  }

  /** Start a message: nlmsghdr, then the caller writes the family's header and attributes, then end(). */
  begin(type: number, flags: number): void {
    this.#messageStart = this.length
    this.u32(0)
    this.u16(type)
    this.u16(flags)
    this.u32(0) // sequence: the native part's
    this.u32(0)
  }
  end(): void {
    this.pad()
    this.#view.setUint32(this.#messageStart, this.length - this.#messageStart, little)
    this.#messageStart = -1
  }
  /** Take back everything after `length`, such as a message whose encoding failed. */
  truncate(length: number): void {
    this.length = length
  }

  /** Write over what was written: for lengths known only afterwards. */
  patchU16(at: number, value: number): void {
    this.#view.setUint16(at, value, little)
  }

  /** Attribute header; the payload (of exactly `size` bytes) and pad() are the caller's. */
  attrHeader(type: number, size: number): void {
    if (size + 4 > attributeMax) {
      throw invalid(`attribute ${type & typeMask} of ${size} bytes is over ${attributeMax - 4}`)
    }
    this.u16(size + 4)
    this.u16(type)
  }
  attrFlag(type: number): void {
    this.attrHeader(type, 0)
  }
  attrU8(type: number, value: number): void {
    this.attrHeader(type, 1)
    this.u32(0)
    this.#view.setUint8(this.length - 4, value)
  }
  attrU16(type: number, value: number): void {
    this.attrHeader(type, 2)
    this.u16(value)
    this.u16(0)
  }
  attrU32(type: number, value: number): void {
    this.attrHeader(type, 4)
    this.u32(value)
  }
  attrI32(type: number, value: number): void {
    this.attrHeader(type, 4)
    this.i32(value)
  }
  attrU64(type: number, value: bigint): void {
    this.attrHeader(type, 8)
    this.u64(value)
  }
  attrBe16(type: number, value: number): void {
    this.attrHeader(type, 2)
    this.be16(value)
    this.u16(0)
  }
  attrBe32(type: number, value: number): void {
    this.attrHeader(type, 4)
    this.be32(value)
  }
  attrBe64(type: number, value: bigint): void {
    this.attrHeader(type, 8)
    this.be64(value)
  }
  attrBytes(type: number, value: Uint8Array): void {
    this.attrHeader(type, value.length)
    this.bytes(value)
    this.pad()
  }
  /** Text with its NUL; `max` counts the NUL, as IFNAMSIZ does. */
  attrString(type: number, text: string, max = attributeMax - 4): void {
    const size = Buffer.byteLength(text) + 1
    if (size > max) throw invalid(`"${text}" is ${size - 1} bytes, at most ${max - 1} are allowed`)
    if (text.includes('\0')) throw invalid(`"${text}" contains a NUL`)
    this.attrHeader(type, size)
    const at = this.#take(size)
    this.buffer.write(text, at)
    this.buffer[at + size - 1] = 0
    this.pad()
  }
  /** An address of 4 or 16 bytes from its text. */
  attrIp(type: number, text: string): void {
    const size = ipLength(text)
    this.attrHeader(type, size)
    const at = this.#take(size)
    writeIp(text, this.buffer, at)
  }
  attrMac(type: number, text: string): void {
    this.attrHeader(type, macLength)
    const at = this.#take(macLength)
    writeMac(text, this.buffer, at)
    this.u16(0)
  }
  /** Start a container; give the result to endNest. The nested bit is set here. */
  beginNest(type: number): number {
    const at = this.length
    this.u16(0)
    this.u16(type | NLA_F_NESTED)
    return at
  }
  endNest(at: number): void {
    const length = this.length - at
    if (length > attributeMax) {
      throw invalid(`nested attribute ${this.#view.getUint16(at + 2, little) & typeMask} of ${length} bytes`)
    }
    this.#view.setUint16(at, length, little)
  }
  nest(type: number, content: () => void): void {
    const at = this.beginNest(type)
    content()
    this.endNest(at)
  }
}

/** Fixed-position reads within [start, end); throws KERNEL instead of reading outside. */
export class Bytes {
  readonly buffer: Buffer
  readonly start: number
  readonly end: number

  constructor(buffer: Buffer, start: number, end: number) {
    if (start < 0 || end > buffer.length || start > end) throw malformed(`range ${start}..${end} of ${buffer.length}`)
    this.buffer = buffer
    this.start = start
    this.end = end
  }
  get length(): number {
    return this.end - this.start
  }
  #at(offset: number, size: number): number {
    if (offset < 0 || this.start + offset + size > this.end) {
      throw malformed(`needs ${offset + size} bytes, has ${this.length}`)
    }
    return this.start + offset
  }
  u8(offset = 0): number {
    return this.buffer.readUInt8(this.#at(offset, 1))
  }
  u16(offset = 0): number {
    const at = this.#at(offset, 2)
    return little ? this.buffer.readUInt16LE(at) : this.buffer.readUInt16BE(at)
  }
  u32(offset = 0): number {
    const at = this.#at(offset, 4)
    return little ? this.buffer.readUInt32LE(at) : this.buffer.readUInt32BE(at)
  }
  i32(offset = 0): number {
    const at = this.#at(offset, 4)
    return little ? this.buffer.readInt32LE(at) : this.buffer.readInt32BE(at)
  }
  u64(offset = 0): bigint {
    const at = this.#at(offset, 8)
    return little ? this.buffer.readBigUInt64LE(at) : this.buffer.readBigUInt64BE(at)
  }
  be16(offset = 0): number {
    return this.buffer.readUInt16BE(this.#at(offset, 2))
  }
  be32(offset = 0): number {
    return this.buffer.readUInt32BE(this.#at(offset, 4))
  }
  be64(offset = 0): bigint {
    return this.buffer.readBigUInt64BE(this.#at(offset, 8))
  }
  /** Text up to the first NUL or the end. */
  text(): string {
    const nul = this.buffer.indexOf(0, this.start)
    return this.buffer.toString('utf8', this.start, nul === -1 || nul > this.end ? this.end : nul)
  }
  /** A copy: what the caller keeps must not pin a whole dump in memory. */
  copy(): Buffer {
    return Buffer.from(this.buffer.subarray(this.start, this.end))
  }
}

/** One attribute; its payload is itself as Bytes. */
export class Attribute extends Bytes {
  readonly type: number
  constructor(type: number, buffer: Buffer, start: number, end: number) {
    super(buffer, start, end)
    this.type = type
  }
  nested(): Generator<Attribute> {
    return attributes(this, 0)
  }
}

/** Attributes from `offset` of `within` to its end. Throws KERNEL at a length that cannot be. */
export function* attributes(within: Bytes, offset: number): Generator<Attribute> {
  const { buffer, end } = within
  let at = within.start + offset
  if (at > end) throw malformed(`header of ${offset} bytes in ${within.length}`)
  while (end - at >= 4) {
    const length = little ? buffer.readUInt16LE(at) : buffer.readUInt16BE(at)
    const type = (little ? buffer.readUInt16LE(at + 2) : buffer.readUInt16BE(at + 2)) & typeMask
    if (length < 4 || at + length > end) throw malformed(`attribute ${type} of ${length} bytes at ${at}, end ${end}`)
    yield new Attribute(type, buffer, at + 4, at + length)
    at += align(length)
  }
}

/** One message; its Bytes are the payload behind the nlmsghdr. */
export class Message extends Bytes {
  readonly type: number
  readonly flags: number
  /** In a reply: index of the request. In an event: 0 or the sequence of whoever caused it. */
  readonly sequence: number
  /** Port of whoever caused an event. */
  readonly port: number

  constructor(buffer: Buffer, at: number, length: number) {
    super(buffer, at + NLMSG_HDRLEN, at + length)
    const header = new Bytes(buffer, at, at + NLMSG_HDRLEN)
    this.type = header.u16(4)
    this.flags = header.u16(6)
    this.sequence = header.u32(8)
    this.port = header.u32(12)
  }
}

/** Whole messages of a buffer. Throws KERNEL at a length that cannot be. */
export function* messages(buffer: Buffer): Generator<Message> {
  for (let at = 0; at < buffer.length; ) {
    if (buffer.length - at < NLMSG_HDRLEN) throw malformed(`${buffer.length - at} bytes left over`)
    const length = little ? buffer.readUInt32LE(at) : buffer.readUInt32BE(at)
    if (length < NLMSG_HDRLEN || length > buffer.length - at) throw malformed(`message of ${length} bytes at ${at}`)
    yield new Message(buffer, at, length)
    at += align(length)
  }
}

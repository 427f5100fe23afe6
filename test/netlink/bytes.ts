// SPDX-License-Identifier: Apache-2.0
// Bytes written by hand, and what a decoder has to stand: for the tests of the codecs.
import fc from 'fast-check'
import type { Test } from 'tap'
import { type Message, messages, Writer } from '../../src/netlink/message.ts'
import type { Request } from '../../src/netlink/socket.ts'

export const encode = (request: Request): Buffer => {
  const w = new Writer(16)
  w.begin(request.type, request.flags | 1)
  request.encode(w)
  w.end()
  return w.buffer.subarray(0, w.length)
}

/** Hex with comments and spaces, into plain hex. */
export const bytes = (text: string): string => text.replace(/\/\/.*$/gm, '').replace(/\s+/g, '')

export const only = (buffer: Buffer): Message => [...messages(buffer)][0]!

/** One message around a body that was recorded without its nlmsghdr. */
export const message = (type: number, body: string): Buffer => {
  const w = new Writer()
  w.begin(type, 0)
  w.bytes(Buffer.from(bytes(body), 'hex'))
  w.end()
  return w.buffer.subarray(0, w.length)
}

/** Decodes, or refuses in a way we know; anything else fails the test. */
export const tame = (decode: () => unknown): boolean => {
  try {
    decode()
    return true
  } catch (error) {
    if ((error as { code?: string }).code === 'KERNEL') return false
    throw error
  }
}

/** Decodes the message; cut anywhere or damaged anywhere it returns or refuses. */
export const survivesDamage = (t: Test, whole: Buffer, decode: (message: Message) => unknown): void => {
  t.ok(decode(only(whole)))
  for (let length = 0; length < whole.length; length++) {
    const cut = Buffer.from(whole.subarray(0, length))
    if (length > 0)
      t.notOk(
        tame(() => [...messages(cut)].map(decode)),
        `framing cut at ${length}`,
      )
    if (length >= 16) {
      cut.writeUInt32LE(length, 0)
      tame(() => [...messages(cut)].map(decode)) // the message shortened instead: returns or refuses
    }
  }
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 6 }), damage => {
      const copy = Buffer.from(whole)
      for (const [at, value] of damage) copy[at] = value
      tame(() => [...messages(copy)].map(decode))
    }),
    { numRuns: 500 },
  )
}

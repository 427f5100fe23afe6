// SPDX-License-Identifier: Apache-2.0
// ICMPv6 echo (RFC 4443, 4.1 and 4.2) from a gateway of this host to the same network's gateway on another: the way that
// connections of the mesh take, answered over there by the kernel alone. Read and written without an event loop: what
// asks once in 200 ms needs none, and Node's dgram cannot name a device of another namespace.
import { randomBytes } from 'node:crypto'
import { closeSync, readSync, writeSync } from 'node:fs'
import { netnsPingSocket } from '../netlink/netns.ts'
import type { Echo } from './peer-probes.ts'

const echoRequest = 128
const echoReply = 129
/** type 1, code 1, checksum 2, identifier 2, sequence number 2 bytes; the kernel fills in checksum and identifier. */
const headerLength = 8
const sequenceAt = 6
/** The identifier can be guessed by a container; this cannot, and only who was asked knows it. */
const secretLength = 16
/** What is not ours is not read for ever. */
const mostReads = 64

/** `address` as in fe80::1%gw0, of that namespace. Rejects with NetlinkError: no such namespace or device (yet), no address. */
export const openEcho = async (netns: string, address: string): Promise<Echo> => {
  const fd = await netnsPingSocket(netns, address)
  const request = Buffer.concat([Buffer.of(echoRequest), Buffer.alloc(headerLength - 1), randomBytes(secretLength)])
  const reply = Buffer.alloc(request.length + 1) // one more: what is longer is not ours
  let sequence = 0
  let heard = 0
  let closed = false

  /** Sequence number of the next answer; undefined: none is there. */
  const next = (): number | undefined => {
    for (let reads = 0; reads < mostReads; reads++) {
      let length: number
      try {
        length = readSync(fd, reply)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
        continue // somebody reported an error, perhaps a forged one: answers are read after it all the same
      }
      const secret = reply.subarray(headerLength, length)
      if (reply[0] === echoReply && secret.equals(request.subarray(headerLength))) return reply.readUInt16BE(sequenceAt)
    }
    return undefined
  }

  return {
    send() {
      sequence = (sequence % 0xffff) + 1
      request.writeUInt16BE(sequence, sequenceAt)
      writeSync(fd, request)
    },
    answered() {
      const before = heard
      // the newest is the last; where it is there already, nothing follows
      for (let got = next(); got !== undefined; got = next()) {
        heard = got
        if (got === sequence) break
      }
      return heard !== before
    },
    close() {
      if (!closed) closeSync(fd)
      closed = true
    },
  }
}

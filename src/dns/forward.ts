// SPDX-License-Identifier: Apache-2.0
// Questions that are not ours: handed on untouched, byte for byte, to the resolvers of the host. As many at a time as harm
// nobody: each costs a socket for as long as nobody answers, and the sockets of Docker's calls come from the same purse.
import { createSocket } from 'node:dgram'
import { connect } from 'node:net'
import { familyOf } from '../model/address.ts'
import type { Forward } from './resolver.ts'

const upstreamMs = 2000
/** Questions on their way: of one asker, and of all. */
const most = { each: 128, all: 1024 }

/** SERVFAIL, NOTIMP, REFUSED: the next server may know, as for glibc's resolver (res_send.c). */
const isRefusal = (answer: Buffer): boolean => [2, 4, 5].includes(answer[3]! & 15)

/** `port`: another than that of DNS, for tests. */
export const openForward = (servers: () => readonly string[], port = 53): Forward => {
  const waiting = new Map<string, number>() // asker → questions
  let all = 0
  return async (query, { network, address, transport }) => {
    const asker = `${network} ${address}`
    const own = waiting.get(asker) ?? 0
    if (own >= most.each || all >= most.all) return undefined
    waiting.set(asker, own + 1)
    all++
    try {
      let refusal: Buffer | undefined
      for (const server of servers()) {
        const answer = await (transport === 'udp' ? askUdp(query, server, port) : askTcp(query, server, port))
        if (answer && !isRefusal(answer)) return answer
        refusal ??= answer
      }
      return refusal
    } finally {
      all--
      const left = waiting.get(asker)! - 1
      if (left > 0) waiting.set(asker, left)
      else waiting.delete(asker)
    }
  }
}

const askUdp = (query: Buffer, server: string, port: number): Promise<Buffer | undefined> =>
  new Promise(resolve => {
    const socket = createSocket(familyOf(server) === 4 ? 'udp4' : 'udp6')
    const done = (answer?: Buffer): void => {
      clearTimeout(timer)
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => done(), upstreamMs)
    socket.once('error', () => done())
    socket.on('message', message => {
      if (message.length >= 12 && message.readUInt16BE(0) === query.readUInt16BE(0)) done(message)
    })
    socket.connect(port, server, () => socket.send(query)) // connected: answers of others do not reach us
  })

const askTcp = (query: Buffer, server: string, port: number): Promise<Buffer | undefined> =>
  new Promise(resolve => {
    const socket = connect({ host: server, port })
    const chunks: Buffer[] = []
    const done = (answer?: Buffer): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(upstreamMs, () => done())
    socket.once('error', () => done())
    socket.once('end', () => done())
    socket.once('connect', () => socket.write(framed(query)))
    socket.on('data', chunk => {
      chunks.push(chunk)
      const bytes = Buffer.concat(chunks)
      if (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) return
      const message = bytes.subarray(2, 2 + bytes.readUInt16BE(0))
      done(message.length >= 12 ? message : undefined)
    })
  })

/** RFC 1035 4.2.2: two bytes of length before each message. */
export const framed = (message: Buffer): Buffer => {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(message.length)
  return Buffer.concat([length, message])
}

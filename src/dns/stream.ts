// SPDX-License-Identifier: Apache-2.0
// Queries by TCP (RFC 7766). One of a connection at a time: the next is read when the kernel has the answer, so that who
// asks without reading waits for himself, and costs a few packets' worth of memory.
import { createServer, type Server, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'

/** What to send for a query, its length before it. */
export type Answerer = (query: Buffer, from: string) => Promise<Buffer | undefined>

/** Connections of one asker, and of all. */
const most = { each: 32, all: 256 }
/** Without a word from the asker, or until he has taken an answer. */
const silenceMs = 10_000

/** Not listening yet. */
export const openStreams = (answer: Answerer): Server => {
  const open = new Map<string, number>() // asker → connections
  const server = createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => socket.destroy())
    const from = socket.remoteAddress ?? ''
    const others = open.get(from) ?? 0
    if (others >= most.each) return void socket.destroy()
    open.set(from, others + 1)
    socket.setTimeout(silenceMs, () => socket.destroy())
    socket.on('close', () => {
      const left = open.get(from)! - 1
      if (left > 0) open.set(from, left)
      else open.delete(from)
    })
    converse(socket, query => answer(query, from)).then(
      () => socket.end(),
      () => socket.destroy(),
    )
  })
  server.maxConnections = most.all
  return server
}

const converse = async (socket: Socket, answer: (query: Buffer) => ReturnType<Answerer>): Promise<void> => {
  let rest = Buffer.alloc(0)
  for await (const chunk of socket) {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const query = rest.subarray(2, 2 + rest.readUInt16BE(0))
      rest = rest.subarray(2 + query.length)
      const bytes = await answer(query)
      if (bytes) await written(socket, bytes)
      await setImmediate() // thousands of queries fit in a chunk: others come between
    }
  }
}

/** The socket's own time-out begins anew with every byte that is taken. */
const written = (socket: Socket, bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(), silenceMs)
    socket.write(bytes, error => {
      clearTimeout(timer)
      if (error) reject(error)
      else resolve()
    })
  })

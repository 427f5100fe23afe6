// SPDX-License-Identifier: Apache-2.0
// A TCP proxy for tests of lost connections: it can cut, refuse, and swallow (connections stay, bytes do not arrive).
import { connect, createServer, type Socket } from 'node:net'

export interface TcpProxy {
  readonly port: number
  /** Connections taken so far. */
  readonly taken: number
  /** Resets what is open; new connections are taken. */
  cut(): void
  /** Resets what is open and every new connection. */
  refuse(on: boolean): void
  /** Connections stay and are taken, nothing passes; at the end they are cut, because bytes are missing in them. */
  swallow(on: boolean): void
  /** Resets what is open and new from this sender, as told by `senderOf`; undefined: nobody any more. */
  block(sender: string | undefined): void
  /** Called with the size of each chunk on its way from the server. */
  onAnswer(listener: ((bytes: number) => void) | undefined): void
  close(): Promise<void>
}

/**
 * RST, where it can be had. On a socket whose shutdown is pending Node 24 never closes the handle (libuv says EINVAL,
 * TCPWrap::Reset takes it for closing), and the process spins for ever at its exit.
 */
const reset = (socket: Socket): void => {
  if (socket.connecting || socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** `senderOf` reads from what a client writes who it is. */
export const openProxy = async (
  target: number,
  senderOf: (chunk: Buffer) => string | undefined = () => undefined,
): Promise<TcpProxy> => {
  const pairs = new Map<Socket, { readonly far: Socket; sender: string | undefined }>() // by the client's socket
  let taken = 0
  let refusing = false
  let swallowing = false
  let blocked: string | undefined
  let listener: ((bytes: number) => void) | undefined

  const carry = (from: Socket, to: Socket, seen: (chunk: Buffer) => boolean): void => {
    from.on('data', chunk => {
      if (swallowing || !seen(chunk) || to.write(chunk)) return
      from.pause()
      to.once('drain', () => from.resume())
    })
    from.on('error', () => {})
    from.on('close', () => to.destroy())
  }
  const server = createServer(near => {
    if (refusing) {
      reset(near)
      return
    }
    taken++
    const far = connect(target, '127.0.0.1')
    const pair = { far, sender: undefined as string | undefined }
    pairs.set(near, pair)
    near.on('close', () => pairs.delete(near))
    carry(near, far, chunk => {
      pair.sender ??= senderOf(chunk)
      if (blocked === undefined || pair.sender !== blocked) return true
      reset(near)
      return false
    })
    carry(far, near, chunk => {
      listener?.(chunk.length)
      return !near.destroyed
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (!address || typeof address === 'string') throw new Error('no port')
  const cut = (test: (sender: string | undefined) => boolean = () => true): void => {
    for (const [near, { far, sender }] of pairs) {
      if (!test(sender)) continue
      reset(near)
      reset(far)
    }
  }
  return {
    get taken() {
      return taken
    },
    port: address.port,
    cut: () => cut(),
    refuse(on) {
      refusing = on
      if (on) cut()
    },
    swallow(on) {
      swallowing = on
      if (!on) cut()
    },
    block(sender) {
      blocked = sender
      if (sender !== undefined) cut(known => known === sender)
    },
    onAnswer(next) {
      listener = next
    },
    async close() {
      cut()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// One question to a backend, over a socket of the namespace that it is asked from.
import { request } from 'node:http'
import { Socket } from 'node:net'
import { describe } from '../base/errors.ts'
import type { StatusRange } from '../model/service-options.ts'
import { acceptsConnection } from './accepts.ts'

export interface Question {
  /** Plain. */
  readonly address: string
  readonly port: number
  /** Absent: it need only accept the connection. */
  readonly http?: { readonly path: string; readonly status: StatusRange }
  readonly timeoutMs: number
}

/** Why the backend does not answer as it should; undefined: it does. `open` gives the descriptor of a TCP socket. */
export const ask = async (
  open: () => Promise<number>,
  { address, port, http, timeoutMs }: Question,
  signal: AbortSignal,
): Promise<string | undefined> => {
  if (!http)
    return (await acceptsConnection(open, address, port, signal, timeoutMs))
      ? undefined
      : `port ${port} does not accept connections`
  const { path, status } = http
  const socket = new Socket({ fd: await open() })
  // from here on: how long this host takes to open a socket says nothing of the backend
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
  try {
    const code = await new Promise<number>((resolve, reject) => {
      const fail = (error: unknown): void => reject(error as Error)
      if (limit.aborted) return fail(limit.reason) // while it was opened: its event is over
      socket.on('error', fail)
      limit.addEventListener('abort', () => fail(limit.reason), { once: true })
      socket.connect({ host: address, port }, () => {
        // with an agent, even a false one, it would open a connection of its own, from the host
        const asked = request({
          createConnection: () => socket,
          host: address,
          port,
          path,
          headers: { 'user-agent': 'weft-probe', connection: 'close' },
          maxHeaderSize: 16_384,
        })
        asked.on('error', fail)
        asked.once('response', response => {
          response.on('error', () => {}) // nobody reads the body
          resolve(response.statusCode ?? 0)
        })
        asked.end()
      })
    })
    return code >= status.first && code <= status.last
      ? undefined
      : `GET ${path} on port ${port} answers ${code}, wanted ${status.first} to ${status.last}`
  } catch (error) {
    signal.throwIfAborted()
    const why = limit.aborted ? `no answer within ${timeoutMs} ms` : describe(error)
    return `GET ${path} on port ${port}: ${why}`
  } finally {
    socket.destroy()
  }
}

// SPDX-License-Identifier: Apache-2.0
// One knock at a TCP port.
import { Socket } from 'node:net'

const limitMs = 1000

/**
 * Connects and closes again. `open` gives the descriptor of a TCP socket in the right namespace. False: refused, or no
 * answer within a second. Rejects when the signal aborts.
 */
export const acceptsConnection = async (
  open: () => Promise<number>,
  host: string,
  port: number,
  signal: AbortSignal,
): Promise<boolean> => {
  signal.throwIfAborted()
  const socket = new Socket({ fd: await open() })
  try {
    return await new Promise<boolean>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
      socket.setTimeout(limitMs, () => resolve(false))
      socket.once('error', () => resolve(false))
      socket.connect({ host, port }, () => resolve(true))
    })
  } finally {
    socket.destroy()
  }
}

// SPDX-License-Identifier: Apache-2.0
// One knock at a TCP port.
import { Socket } from 'node:net'

/**
 * Connects and closes again. `open` gives the descriptor of a TCP socket in the right namespace. False: refused, or no
 * answer in time. Rejects when the signal aborts.
 */
export const acceptsConnection = async (
  open: () => Promise<number>,
  host: string,
  port: number,
  signal: AbortSignal,
  limitMs = 1000,
): Promise<boolean> => {
  signal.throwIfAborted()
  const socket = new Socket({ fd: await open() })
  let onAbort = (): void => {}
  try {
    signal.throwIfAborted()
    return await new Promise<boolean>((resolve, reject) => {
      onAbort = () => reject(signal.reason as Error)
      signal.addEventListener('abort', onAbort, { once: true })
      socket.setTimeout(limitMs, () => resolve(false))
      socket.once('error', () => resolve(false))
      socket.connect({ host, port }, () => resolve(true))
    })
  } finally {
    signal.removeEventListener('abort', onAbort) // the signal lives as long as weftd
    socket.destroy()
  }
}

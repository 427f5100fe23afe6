// SPDX-License-Identifier: Apache-2.0
// Listens in the gateway of every network on this host, UDP and TCP port 53 of the resolver's address. A listener
// belongs to one life of its namespace: when that was made anew, so is the listener.
import { createSocket, type Socket } from 'node:dgram'
import { closeSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { type Backoff, backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import type { NetworkId } from '../model/ids.ts'
import { framed, type Resolver } from './resolver.ts'

/** Sockets inside namespaces, and which life of a namespace this is. */
export interface NamespaceSockets {
  open(ns: string, type: 'udp' | 'tcp', address: string, port: number): Promise<number>
  /** Throws when there is no such namespace. */
  identity(ns: string): Promise<string>
}

export interface DnsServer extends Closeable {
  /** Listen in exactly these namespaces. Safe to repeat; what cannot be opened yet is tried again. */
  serve(networks: ReadonlyMap<NetworkId, string>): void
  readonly listening: number
  /** Where it cannot listen, for longer than a namespace is in the making, and why. */
  readonly problems: ReadonlyMap<NetworkId, string>
  close(): Promise<void>
}

interface Listener {
  readonly identity: string
  close(): void
}

/** No listener yet in this life of a namespace; without an identity it is not complete. */
interface Trouble {
  readonly identity: string | undefined
  readonly since: number
  readonly retry: Backoff
  /** Not tried before. */
  at: number
  /** What was warned of. */
  reason: string | undefined
}

const lookEveryMs = 3000
/** A namespace that is being made is tried this often for so long; then its port is somebody else's, perhaps for ever. */
const retryMs = 100
const makingMs = 5000
const slowestMs = 30_000

export interface DnsServerParts {
  readonly resolver: Resolver
  readonly sockets: NamespaceSockets
  readonly address: string
  readonly clock: Clock
  readonly log: Log
}

export const openDnsServer = ({ resolver, sockets, address, clock, log }: DnsServerParts): DnsServer => {
  const listeners = new Map<NetworkId, Listener>()
  const troubles = new Map<NetworkId, Trouble>()
  const queue = keyedQueue()
  let wanted: ReadonlyMap<NetworkId, string> = new Map()
  let timer: Timer | undefined
  let closed = false

  const udp = (network: NetworkId, fd: number): Socket => {
    const socket = createSocket('udp4')
    socket.on('error', error => log.warn({ network, err: describe(error) }, 'dns socket'))
    socket.on('message', (query, from) => {
      void resolver.answer(query, { network, address: from.address, transport: 'udp' }).then(answer => {
        if (answer) socket.send(answer, from.port, from.address, () => {})
      })
    })
    socket.bind({ fd })
    return socket
  }

  const tcp = (network: NetworkId, fd: number): Server => {
    const server = createServer(socket => {
      const from = socket.remoteAddress ?? ''
      let rest = Buffer.alloc(0)
      socket.setTimeout(10_000, () => socket.destroy())
      socket.on('error', () => socket.destroy())
      socket.on('data', chunk => {
        rest = Buffer.concat([rest, chunk])
        if (rest.length > 70_000) return void socket.destroy()
        while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
          const query = rest.subarray(2, 2 + rest.readUInt16BE(0))
          rest = rest.subarray(2 + query.length)
          void resolver.answer(query, { network, address: from, transport: 'tcp' }).then(answer => {
            if (answer && !socket.destroyed) socket.write(framed(answer))
          })
        }
      })
    })
    server.maxConnections = 256
    server.on('error', error => log.warn({ network, err: describe(error) }, 'dns socket'))
    server.listen({ fd })
    return server
  }

  const listen = async (network: NetworkId, ns: string, identity: string): Promise<void> => {
    // the stream first: where somebody listens on every address, it is the one that is refused
    const stream = await sockets.open(ns, 'tcp', address, 53)
    const datagram = await sockets.open(ns, 'udp', address, 53).catch(error => {
      closeSync(stream)
      throw error
    })
    const streams = tcp(network, stream)
    const datagrams = udp(network, datagram)
    listeners.set(network, {
      identity,
      close() {
        datagrams.close()
        streams.close()
      },
    })
  }

  const troubleOf = (network: NetworkId, identity: string | undefined, now: number): Trouble => {
    const known = troubles.get(network)
    if (known && known.identity === identity) return known
    const begun = { identity, since: now, retry: backoff(1000, slowestMs), at: now, reason: known?.reason }
    troubles.set(network, begun)
    return begun
  }

  /** Returns the ms until the next look. */
  const look = async (): Promise<number> => {
    for (const [network, listener] of listeners) {
      if (wanted.has(network)) continue
      listener.close()
      listeners.delete(network)
    }
    for (const network of troubles.keys()) if (!wanted.has(network)) troubles.delete(network)
    let wait = lookEveryMs
    for (const [network, ns] of wanted) {
      const identity = await sockets.identity(ns).catch(() => undefined)
      const held = listeners.get(network)
      if (held && held.identity === identity) continue
      held?.close()
      listeners.delete(network)
      const now = clock.monotonic()
      const trouble = troubleOf(network, identity, now)
      const making = now - trouble.since < makingMs
      if (trouble.at <= now) {
        trouble.at = now + (making ? retryMs : identity === undefined ? lookEveryMs : trouble.retry.next())
        try {
          if (identity !== undefined) {
            await listen(network, ns, identity)
            troubles.delete(network)
            continue
          }
        } catch (error) {
          const reason = describe(error)
          if (!making && reason !== trouble.reason) {
            trouble.reason = reason
            log.warn({ network, err: reason }, 'dns cannot listen')
          }
        }
      }
      wait = Math.min(wait, trouble.at - now)
    }
    return wait
  }

  const arm = (): void => {
    timer?.cancel()
    void queue
      .run('look', look)
      .catch(error => {
        log.warn({ err: describe(error) }, 'dns listeners')
        return retryMs
      })
      .then(wait => {
        timer?.cancel()
        if (!closed) timer = clock.after(wait, arm)
      })
  }

  return {
    serve(networks) {
      wanted = networks
      arm()
    },
    get listening() {
      return listeners.size
    },
    get problems() {
      return new Map(
        [...troubles].flatMap(([network, { reason }]) => (reason === undefined ? [] : [[network, reason]])),
      )
    },
    async close() {
      closed = true
      timer?.cancel()
      wanted = new Map()
      await queue.run('look', look)
      timer?.cancel()
    },
  }
}

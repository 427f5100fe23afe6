// SPDX-License-Identifier: Apache-2.0
// Listens in the gateway of every network on this host, UDP and TCP port 53 of the resolver's address of each family, and
// in the host's namespace. A listener belongs to one life of its namespace: when that was made anew, so is the listener.
import { createSocket, type Socket } from 'node:dgram'
import { closeSync } from 'node:fs'
import type { Server } from 'node:net'
import { type Backoff, backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import { familyOf } from '../model/address.ts'
import type { NetworkId } from '../model/ids.ts'
import { framed } from './forward.ts'
import type { Resolver } from './resolver.ts'
import { openStreams } from './stream.ts'

/** Sockets inside namespaces, and which life of a namespace this is. */
export interface NamespaceSockets {
  open(ns: string, type: 'udp' | 'tcp', address: string, port: number): Promise<number>
  /** Throws when there is no such namespace, or it has not that address. */
  identity(ns: string, address: string): Promise<string>
}

/** Where a network is answered. */
export interface Place {
  readonly network: NetworkId
  readonly ns: string
  readonly address: string
  /** Another than that of DNS. */
  readonly port?: number
}

export interface DnsServer extends Closeable {
  /** Listen at exactly these places. Safe to repeat; what cannot be opened yet is tried again. */
  serve(places: readonly Place[]): void
  /** Networks that are answered at all of their places. */
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
  readonly clock: Clock
  readonly log: Log
}

const keyOf = ({ network, address }: Place): string => `${network} ${address}`

export const openDnsServer = ({ resolver, sockets, clock, log }: DnsServerParts): DnsServer => {
  const listeners = new Map<string, Listener>() // by keyOf a place, like the others
  const troubles = new Map<string, Trouble>()
  const queue = keyedQueue()
  let wanted: ReadonlyMap<string, Place> = new Map()
  let timer: Timer | undefined
  let closed = false

  /** Whatever a container asks, or is called, ends at most its own query. */
  const unanswered = ({ network }: Place, error: unknown): undefined =>
    void log.warn({ network, err: describe(error) }, 'dns query not answered')

  const udp = (place: Place, fd: number): Socket => {
    const { network, address } = place
    const socket = createSocket(familyOf(address) === 4 ? 'udp4' : 'udp6')
    socket.on('error', error => log.warn({ network, err: describe(error) }, 'dns socket'))
    socket.on('message', (query, from) => {
      if (from.port === 0) return // a raw socket's: nobody can be answered there
      resolver
        .answer(query, { network, address: from.address, transport: 'udp' })
        .then(bytes => bytes && socket.send(bytes, from.port, from.address, () => {}))
        .catch(error => unanswered(place, error))
    })
    socket.bind({ fd })
    return socket
  }

  const tcp = (place: Place, fd: number): Server => {
    const { network } = place
    const server = openStreams((query, from) =>
      resolver
        .answer(query, { network, address: from, transport: 'tcp' })
        .then(bytes => bytes && framed(bytes))
        .catch(error => unanswered(place, error)),
    )
    server.on('error', error => log.warn({ network, err: describe(error) }, 'dns socket'))
    server.listen({ fd })
    return server
  }

  const listen = async (place: Place, identity: string): Promise<void> => {
    const { ns, address, port = 53 } = place
    // the stream first: where somebody listens on every address, it is the one that is refused
    const stream = await sockets.open(ns, 'tcp', address, port)
    const datagram = await sockets.open(ns, 'udp', address, port).catch(error => {
      closeSync(stream)
      throw error
    })
    const streams = tcp(place, stream)
    const datagrams = udp(place, datagram)
    listeners.set(keyOf(place), {
      identity,
      close() {
        datagrams.close()
        streams.close()
      },
    })
  }

  const troubleOf = (key: string, identity: string | undefined, now: number): Trouble => {
    const known = troubles.get(key)
    if (known && known.identity === identity) return known
    const begun = { identity, since: now, retry: backoff(1000, slowestMs), at: now, reason: known?.reason }
    troubles.set(key, begun)
    return begun
  }

  /** Returns the ms until the next look. */
  const look = async (): Promise<number> => {
    for (const [key, listener] of listeners) {
      if (wanted.has(key)) continue
      listener.close()
      listeners.delete(key)
    }
    for (const key of troubles.keys()) if (!wanted.has(key)) troubles.delete(key)
    let wait = lookEveryMs
    for (const [key, place] of wanted) {
      const identity = await sockets.identity(place.ns, place.address).catch(() => undefined)
      const held = listeners.get(key)
      if (held && held.identity === identity) continue
      held?.close()
      listeners.delete(key)
      const now = clock.monotonic()
      const trouble = troubleOf(key, identity, now)
      const making = now - trouble.since < makingMs
      if (trouble.at <= now) {
        trouble.at = now + (making ? retryMs : identity === undefined ? lookEveryMs : trouble.retry.next())
        try {
          if (identity !== undefined) {
            await listen(place, identity)
            troubles.delete(key)
            continue
          }
        } catch (error) {
          const reason = describe(error)
          if (!making && reason !== trouble.reason) {
            trouble.reason = reason
            log.warn({ network: place.network, err: reason }, 'dns cannot listen')
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
    serve(places) {
      wanted = new Map(places.map(place => [keyOf(place), place]))
      arm()
    },
    get listening() {
      const networks = new Set([...wanted.values()].map(({ network }) => network))
      for (const [key, { network }] of wanted) if (!listeners.has(key)) networks.delete(network)
      return networks.size
    },
    get problems() {
      const reasons = new Map<NetworkId, string>()
      for (const [key, { network }] of wanted) {
        const { reason } = troubles.get(key) ?? {}
        const before = reasons.get(network)
        if (reason !== undefined) reasons.set(network, before === undefined ? reason : `${before}; ${reason}`)
      }
      return reasons
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

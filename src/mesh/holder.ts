// SPDX-License-Identifier: Apache-2.0
// Holds every port that this host answers on, as docker-proxy does, so that no process of the host takes it and is
// robbed of it by the mesh: bound, never listened on. What a process has is not taken from it: the port is not answered
// here until it lets go.
import { backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import { familyOf } from '../model/address.ts'
import type { PortMapping, Proto } from '../model/port.ts'
import { resolverPort } from '../plan/names.ts'

export interface HeldPort {
  readonly proto: Proto
  readonly port: number
  /** -p IP:…; absent: every address of the host. */
  readonly address?: string
}

export interface PortHolder extends Closeable {
  /** Takes the port for a publication that is on its way; answers why it cannot be had. Given up if it never comes. */
  hold(mapping: PortMapping): Promise<string | undefined>
  /** Hold exactly these; what cannot be had is tried again. Resolves when each was tried. */
  want(ports: Iterable<HeldPort>): Promise<void>
  holds(proto: Proto, port: number, address?: string): boolean
  /** 'tcp/8080' → why this host does not answer on it. */
  readonly refused: ReadonlyMap<string, string>
  close(): Promise<void>
}

export interface HolderParts {
  /** Binds without listening; rejects with errnoName. Answers a function that lets go. */
  readonly bind: (port: HeldPort & { readonly address: string }) => Promise<() => void>
  readonly clock: Clock
  readonly log: Log
  /** What is held has changed. */
  readonly changed: (port: HeldPort) => void
}

/** For the publication that was announced; longer than a driver call. */
const promiseMs = 15_000

export const openPortHolder = ({ bind, clock, log, changed }: HolderParts): PortHolder => {
  const held = new Map<string, readonly (() => void)[]>()
  const refused = new Map<string, string>()
  const promised = new Map<string, Timer>()
  let wanted = new Map<string, HeldPort>()
  const queue = keyedQueue()
  const retry = backoff(500, 3000)
  let timer: Timer | undefined
  let closed = false

  /** Both families, or the one of its address; a host without IPv6 has one. */
  const take = async (port: HeldPort): Promise<string | undefined> => {
    const key = keyOf(port)
    if (held.has(key)) return undefined
    const got: (() => void)[] = []
    for (const address of port.address === undefined ? ['0.0.0.0', '::'] : [port.address]) {
      try {
        got.push(await bind({ ...port, address }))
      } catch (error) {
        const name = (error as { errnoName?: string }).errnoName
        if (address === '::' && (name === 'EAFNOSUPPORT' || name === 'EADDRNOTAVAIL')) continue
        for (const release of got) release()
        if (name === 'EADDRINUSE')
          return port.port === resolverPort ? 'weft answers names there' : 'a process of this host has it'
        return name === 'EADDRNOTAVAIL' ? `this host has no address ${address}` : describe(error)
      }
    }
    held.set(key, got)
    return undefined
  }
  const drop = (key: string): void => {
    for (const release of held.get(key) ?? []) release()
    held.delete(key)
  }

  const settle = async (): Promise<void> => {
    timer?.cancel()
    for (const key of [...held.keys()]) if (!wanted.has(key) && !promised.has(key)) drop(key)
    for (const key of [...refused.keys()]) if (!wanted.has(key)) refused.delete(key)
    for (const [key, port] of wanted) {
      const had = held.has(key)
      const why = await take(port)
      if (why === undefined) refused.delete(key)
      else {
        if (refused.get(key) !== why) log.warn({ port: key, why }, 'published port is not answered on this host')
        refused.set(key, why)
      }
      if (had !== held.has(key)) changed(port)
    }
    if (closed) return
    if (refused.size === 0) retry.reset()
    else timer = clock.after(retry.next(), () => void queue.run('ports', settle))
  }

  return {
    hold: mapping =>
      queue.run('ports', async () => {
        const port = heldOf(mapping)
        const key = keyOf(port)
        const why = await take(port)
        if (why !== undefined || wanted.has(key)) return why
        promised.get(key)?.cancel()
        const forget = (): void => {
          promised.delete(key)
          if (!wanted.has(key)) drop(key)
        }
        promised.set(key, clock.after(promiseMs, forget))
        return undefined
      }),
    want: ports =>
      queue.run('ports', () => {
        wanted = new Map([...ports].map(port => [keyOf(port), port]))
        return settle()
      }),
    holds: (proto, port, address) => held.has(keyOf({ proto, port, ...(address === undefined ? {} : { address }) })),
    refused,
    async close() {
      closed = true
      timer?.cancel()
      for (const promise of promised.values()) promise.cancel()
      await queue.idle()
      for (const key of [...held.keys()]) drop(key)
    },
  }
}

const heldOf = ({ proto, hostPort, hostIp }: PortMapping): HeldPort => ({
  proto,
  port: hostPort,
  ...(hostIp === undefined ? {} : { address: hostIp }),
})

const keyOf = ({ proto, port, address }: HeldPort): string =>
  `${proto}/${address === undefined ? port : familyOf(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`}`

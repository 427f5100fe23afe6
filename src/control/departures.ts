// SPDX-License-Identifier: Apache-2.0
// Endpoints that Docker deleted: noted on disk before the answer, gone from this host's plan at once, erased from the
// store as soon as it takes it. After a crash the journal is played again.
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import { isPairs, readState, writeDurably } from '../base/file.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'

type Erase = (network: NetworkId, endpoint: EndpointId, signal: AbortSignal) => Promise<void>

export interface Departures extends Closeable {
  /** On the disk when it resolves. */
  add(network: NetworkId, endpoint: EndpointId): Promise<void>
  /** Many in one write. */
  addAll(departed: readonly (readonly [EndpointId, NetworkId])[]): Promise<void>
  has(endpoint: EndpointId): boolean
  readonly size: number
  /** Erases it now, before others: somebody waits for what it had. Resolves when it is no longer noted. */
  hasten(endpoint: EndpointId, signal: AbortSignal): Promise<void>
  /** Somebody wants what it has: true and noted, if nobody lives with it although Docker never said so. */
  reconsider(endpoint: Endpoint): Promise<boolean>
  /** From now on erases, in order, until closed. `isDeserted` is for `reconsider`. */
  start(erase: Erase, isDeserted?: (endpoint: Endpoint) => boolean): void
  close(): Promise<void>
}

/**
 * A damaged file is started without: the endpoints in it are still in the store, so no address of theirs is given away,
 * and the comparison with the engine finds that no container has them, and departs them again.
 */
export const openDepartures = async (
  path: string,
  clock: Clock,
  log: Log,
  /** Gone from this host's plan from now on. */
  changed: (departed: readonly (readonly [EndpointId, NetworkId])[]) => void,
): Promise<Departures> => {
  const remedy = 'nothing to do, the comparison with the engine finds its endpoints again'
  const known = await readState(path, remedy, isPairs).catch(error => {
    log.error({ err: describe(error) }, 'started without')
    return undefined
  })
  const pending = new Map<EndpointId, NetworkId>(known)
  const queue = keyedQueue()
  const stop = new AbortController()
  let wake = Promise.withResolvers<void>()
  let working: Promise<void> = Promise.resolve()
  const save = (): Promise<void> => queue.run('file', () => writeDurably(path, JSON.stringify([...pending])))

  let erase: Erase | undefined
  let isDeserted = (_: Endpoint): boolean => false
  const erasing = new Map<EndpointId, Promise<void>>()
  const eraseOne = (endpoint: EndpointId, network: NetworkId): Promise<void> => {
    const known = erasing.get(endpoint)
    if (known) return known
    const done = erase!(network, endpoint, AbortSignal.any([stop.signal, AbortSignal.timeout(5000)]))
      .then(() => void pending.delete(endpoint))
      .finally(() => erasing.delete(endpoint))
    erasing.set(endpoint, done)
    return done
  }

  const work = async (): Promise<void> => {
    const retry = backoff(100, 2000)
    while (!stop.signal.aborted) {
      const next = pending.entries().next().value
      if (!next) {
        wake = Promise.withResolvers()
        await wake.promise
        continue
      }
      const [endpoint, network] = next
      try {
        await eraseOne(endpoint, network)
        await save()
        retry.reset()
      } catch (error) {
        if (stop.signal.aborted) return
        log.warn({ endpoint: endpoint.slice(0, 12), err: describe(error) }, 'endpoint not erased yet')
        if (pending.delete(endpoint)) pending.set(endpoint, network) // one that resists keeps no other waiting
        await sleep(clock, retry.next(), stop.signal).catch(() => {})
      }
    }
  }

  const addAll: Departures['addAll'] = async departed => {
    if (departed.length === 0) return
    for (const [endpoint, network] of departed) pending.set(endpoint, network)
    try {
      await save()
    } finally {
      changed(departed) // on a full disk too
      wake.resolve()
    }
  }

  return {
    add: (network, endpoint) => addAll([[endpoint, network]]),
    addAll,
    has: endpoint => pending.has(endpoint),
    get size() {
      return pending.size
    },
    async hasten(endpoint, signal) {
      while (!erase) await sleep(clock, 10, signal)
      const network = pending.get(endpoint)
      if (network === undefined) return
      await eraseOne(endpoint, network)
      await save()
    },
    async reconsider(endpoint) {
      if (!isDeserted(endpoint)) return false
      log.warn({ endpoint: endpoint.id.slice(0, 12) }, 'endpoint of no container is in the way: released')
      await addAll([[endpoint.id, endpoint.network]])
      return true
    },
    start(how, judge = isDeserted) {
      erase = how
      isDeserted = judge
      working = work()
    },
    async close() {
      stop.abort(new Error('closed'))
      wake.resolve()
      await working
      await queue.idle()
    },
  }
}

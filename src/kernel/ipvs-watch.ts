// SPDX-License-Identifier: Apache-2.0
// IPVS tells nobody of changes: its table in a namespace is listed again and again, and compared with what we know of
// it. The time between follows what a listing costs, so that a large table does not take the processor.
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { ipvsLoaded, isIpvs, observeIpvs } from './ipvs.ts'
import type { Observation, OperationResult } from './kernel.ts'
import { isNamespace } from './namespaces.ts'
import { isSetting, type KernelObject, keyOf, type Ns, nsOf, type ObjectKey, sameObject } from './objects.ts'
import { openSockets } from './sockets.ts'

const leastMs = 500
const share = 0.1 // of one processor
const mostMs = 5000

export interface IpvsWatch extends Closeable {
  /** What a namespace was just found to have; from now on it is watched. */
  found(ns: Ns, objects: readonly KernelObject[]): void
  /** Runs a change of ours, at no moment of a listing. */
  change(work: () => Promise<readonly OperationResult[]>): Promise<readonly OperationResult[]>
  close(): Promise<void>
}

interface Table {
  readonly known: Map<ObjectKey, KernelObject>
  /** Not in the last listing: a dump may skip what others' removals pushed aside. */
  readonly missed: Set<ObjectKey>
}

export const openIpvsWatch = (log: Log, tell: (observations: readonly Observation[]) => void): IpvsWatch => {
  const tables = new Map<Ns, Table>()
  let tail: Promise<unknown> = Promise.resolve() // listings and changes, one after the other
  let timer: NodeJS.Timeout | undefined
  let closed = false
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = tail.then(work, work)
    tail = mine.catch(() => {})
    return mine
  }

  const lookAt = async (table: Table, list: () => Promise<readonly KernelObject[]>): Promise<void> => {
    tell(compare(table, await list()))
    if (table.missed.size > 0) tell(compare(table, await list()))
  }
  const look = async (): Promise<void> => {
    const sockets = openSockets()
    try {
      for (const [ns, table] of tables) {
        if (!(await isNamespace(ns))) tables.delete(ns)
        else
          await lookAt(table, () => observeIpvs(sockets, ns, [])).catch(error =>
            log.warn({ ns, err: describe(error) }, 'IPVS not listed'),
          )
      }
    } finally {
      await sockets.close()
    }
  }
  const compare = ({ known, missed }: Table, listed: readonly KernelObject[]): Observation[] => {
    const news: Observation[] = []
    const now = new Map(listed.map(object => [keyOf(object), object]))
    for (const [key, object] of now) {
      missed.delete(key)
      const before = known.get(key)
      if (before && sameObject(before, object)) continue
      known.set(key, object)
      news.push({ key, object })
    }
    for (const key of known.keys()) {
      if (now.has(key)) continue
      if (!missed.delete(key)) missed.add(key)
      else {
        known.delete(key)
        news.push({ key, object: undefined })
      }
    }
    return news
  }
  const schedule = (ms: number): void => {
    if (closed || timer || tables.size === 0) return
    timer = setTimeout(async () => {
      const from = performance.now()
      await inTurn(look).catch(error => log.warn({ err: describe(error) }, 'IPVS not listed'))
      timer = undefined
      schedule(Math.min(mostMs, Math.max(leastMs, (performance.now() - from) / share)))
    }, ms).unref()
  }

  return {
    found(ns, objects) {
      if (!ipvsLoaded()) return
      const known = new Map(objects.filter(isWatched).map(object => [keyOf(object), object]))
      tables.set(ns, { known, missed: new Set() })
      schedule(leastMs)
    },
    change: work =>
      inTurn(async () => {
        const results = await work()
        for (const { operation, error } of results) {
          const { kind, object } = operation
          const table = tables.get(nsOf(object))
          if (error || !table || !isWatched(object)) continue
          if (kind === 'remove') table.known.delete(keyOf(object))
          else table.known.set(keyOf(object), object)
        }
        return results
      }),
    async close() {
      closed = true
      clearTimeout(timer)
      await tail
    },
  }
}

const isWatched = (object: KernelObject): boolean => isIpvs(object) && !isSetting(object)

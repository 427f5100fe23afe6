// SPDX-License-Identifier: Apache-2.0
// A store whose calls are timed and whose errors are counted. It stands behind the guard: what the guard does not
// believe was a call that went well.
import type { Clock } from '../base/clock.ts'
import { codeOf, WeftError } from '../base/errors.ts'
import type { Metrics } from '../base/metrics.ts'
import type { CallOptions, Store } from './store.ts'

/** Owns `inner`. */
export const measuredStore = (inner: Store, metrics: Metrics, clock: Clock): Store => {
  const seconds = metrics.timings('weft_store_request_seconds', 'How long calls of the store took.', ['operation'])
  const errors = metrics.counter(
    'weft_store_errors_total',
    'Calls of the store that failed. CONFLICT: somebody else was first, which is no fault.',
    ['code'],
  )
  for (const code of ['CONFLICT', 'STORE_UNAVAILABLE']) errors.add({ code }, 0)

  const timed = async <T>(operation: string, call: CallOptions | undefined, work: () => Promise<T>): Promise<T> => {
    const from = clock.monotonic()
    try {
      return await work()
    } catch (error) {
      const given = call?.signal?.aborted === true && !(error instanceof WeftError)
      errors.add({ code: given ? 'CANCELLED' : codeOf(error) })
      throw error
    } finally {
      seconds.observe({ operation }, (clock.monotonic() - from) / 1000)
    }
  }

  return {
    identity: call => timed('identity', call, () => inner.identity(call)),
    get: (key, call) => timed('get', call, () => inner.get(key, call)),
    list: (prefix, call) => timed('list', call, () => inner.list(prefix, call)),
    commit: (compares, writes, call) => timed('commit', call, () => inner.commit(compares, writes, call)),
    watch: (prefix, signal) => inner.watch(prefix, signal),
    lease: (ttlMs, call) => timed('lease', call, () => inner.lease(ttlMs, call)),
    close: () => inner.close(),
  }
}

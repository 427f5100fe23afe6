// SPDX-License-Identifier: Apache-2.0
// What all calls of a store have in common: a deadline, the caller's signal, the end of the store, and the limits.
import type { Clock } from '../base/clock.ts'
import { WeftError } from '../base/errors.ts'
import { type CallOptions, type Compare, limits, type Write } from './store.ts'

export const callMs = 5000

export const closedError = (): WeftError => new WeftError('CANCELLED', 'the store is closed')

/**
 * Waits for `work` no longer than the call may take: STORE_UNAVAILABLE at the deadline, the signal's reason when it or
 * `stop` aborts. Work that comes too late is left behind, its failure with it.
 */
export const limited = <T>(
  what: string,
  clock: Clock,
  stop: AbortSignal,
  options: CallOptions | undefined,
  work: () => Promise<T>,
): Promise<T> => {
  const signals = options?.signal ? [stop, options.signal] : [stop]
  for (const signal of signals) if (signal.aborted) return Promise.reject(signal.reason as Error)
  return new Promise((resolve, reject) => {
    const timeoutMs = options?.timeoutMs ?? callMs
    const timer = clock.after(timeoutMs, () =>
      settle(() => reject(new WeftError('STORE_UNAVAILABLE', `${what}: no answer within ${timeoutMs} ms`))),
    )
    const aborts = signals.map(signal => ({ signal, run: () => settle(() => reject(signal.reason as Error)) }))
    const settle = (end: () => void): void => {
      timer.cancel()
      for (const { signal, run } of aborts) signal.removeEventListener('abort', run)
      end()
    }
    for (const { signal, run } of aborts) signal.addEventListener('abort', run, { once: true })
    work().then(
      value => settle(() => resolve(value)),
      error => settle(() => reject(error as Error)),
    )
  })
}

/** Throws INVALID for what one implementation would take and another refuse. */
export const checkCommit = (compares: readonly Compare[], writes: readonly Write[]): void => {
  const invalid = (message: string): WeftError => new WeftError('INVALID', message)
  for (const [name, parts] of [
    ['writes', writes],
    ['compares', compares],
  ] as const)
    if (parts.length > limits.writesPerCommit)
      throw invalid(`a commit has ${parts.length} ${name}, at most ${limits.writesPerCommit} fit`)
  if (compares.some(compare => compare.key === '')) throw invalid('a compare has an empty key')
  const seen = new Set<string>()
  let bytes = 0
  for (const write of writes) {
    if (write.key === '') throw invalid('a write has an empty key')
    if (seen.has(write.key)) throw invalid(`a commit writes ${write.key} twice`)
    seen.add(write.key)
    bytes += Buffer.byteLength(write.key)
    if (write.kind !== 'put') continue
    const size = Buffer.byteLength(write.value)
    if (size > limits.valueBytes)
      throw invalid(`the value of ${write.key} has ${size} bytes, at most ${limits.valueBytes} fit`)
    bytes += size
  }
  if (bytes > limits.commitBytes) throw invalid(`a commit has ${bytes} bytes, at most ${limits.commitBytes} fit`)
}

export const checkLease = (ttlMs: number): void => {
  if (!(ttlMs >= 1000)) throw new WeftError('INVALID', `a lease of ${ttlMs} ms: at least 1000`)
}

// SPDX-License-Identifier: Apache-2.0
// A lease in etcd, renewed by single rounds on a keep-alive stream of our own. The package's lease says `lost` only at
// 2.7 times the TTL; here our monotonic clock decides, counted from when the last good renewal was asked for.
import { type Clock, sleep } from '../base/clock.ts'
import { endStream, type Member, type Members } from './etcd-client.ts'
import type { Lease } from './store.ts'

export interface LeaseParts {
  readonly members: Members
  readonly clock: Clock
  /** The granted lease. */
  readonly id: string
  readonly ttlMs: number
  /** Monotonic time of the request for it. */
  readonly askedAt: number
  /** Between renewals. */
  readonly renewMs: number
  revoke(): Promise<void>
}

export const keepLease = ({ members, clock, id, ttlMs, askedAt, renewMs, revoke }: LeaseParts): Lease => {
  const stop = new AbortController()
  const lost = Promise.withResolvers<void>()
  let expires = askedAt + ttlMs
  let closing: Promise<void> | undefined

  const keep = async (): Promise<void> => {
    for (let wait = renewMs; ; ) {
      await sleep(clock, Math.min(wait, Math.max(0, expires - clock.monotonic())), stop.signal)
      const asked = clock.monotonic()
      if (asked >= expires) return lost.resolve()
      const member = members.current()
      const timeoutMs = Math.min(Math.max(500, Math.min(ttlMs / 4, renewMs)), expires - asked)
      const there = await renew(member, id, clock, timeoutMs, stop.signal).catch(() => undefined)
      if (stop.signal.aborted) return
      if (there === false) return lost.resolve()
      if (there) {
        expires = asked + ttlMs
        wait = renewMs
      } else {
        members.passOver(member)
        wait = ttlMs / 20
      }
    }
  }
  const keeping = keep().catch(() => {}) // only by close

  return {
    id,
    lost: lost.promise,
    get expires() {
      return expires
    },
    close() {
      closing ??= (async () => {
        stop.abort(new Error('closed'))
        await keeping
        await revoke().catch(() => {}) // it ends by itself
      })()
      return closing
    },
    leave() {
      closing ??= (async () => {
        stop.abort(new Error('left'))
        await keeping
      })()
      return closing
    },
  }
}

/** true: renewed; false: the server does not have it any more. Rejects without an answer. */
const renew = async (
  { client }: Member,
  id: string,
  clock: Clock,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> => {
  const stream = await client.leaseClient.leaseKeepAlive()
  const answer = Promise.withResolvers<boolean>()
  const timer = clock.after(timeoutMs, () => answer.reject(new Error('no answer')))
  const onAbort = (): void => answer.reject(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  stream.on('data', ({ TTL }) => answer.resolve(BigInt(TTL) > 0n))
  stream.on('error', answer.reject) // stays: a cancelled stream has a last word
  stream.on('end', () => answer.reject(new Error('the stream ended')))
  stream.write({ ID: id })
  try {
    return await answer.promise
  } finally {
    timer.cancel()
    signal.removeEventListener('abort', onAbort)
    endStream(stream)
  }
}

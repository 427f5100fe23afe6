// SPDX-License-Identifier: Apache-2.0
// One call to etcd against its deadline: what may be repeated is, at the next member; what has no answer and may have
// been done is unknown, and said so.
import {
  ClientClosedError,
  type Etcd3,
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  GRPCAlreadyExistsError,
  GRPCDeadlineExceededError,
  GRPCFailedPreconditionError,
  GRPCInvalidArgumentError,
  GRPCNotFoundError,
  GRPCNotImplementedError,
  GRPCOutOfRangeError,
  GRPCResourceExhastedError,
  GRPCUnauthenticatedError,
} from 'etcd3'
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { describe, type ErrorCode, WeftError } from '../base/errors.ts'
import { callMs, limited } from './call.ts'
import type { Members } from './etcd-client.ts'
import { type TlsFiles, tlsTrouble } from './etcd-tls.ts'
import type { CallOptions } from './store.ts'

export interface CallParts {
  readonly members: Members
  readonly tls: TlsFiles | undefined
  readonly clock: Clock
  /** Aborts when the store is closed. */
  readonly stop: AbortSignal
}

/** For the package: when the connection may forget the call. */
export interface Attempt {
  readonly deadline: number
}

export type Work<T> = (client: Etcd3, attempt: Attempt) => Promise<T>

/**
 * `tries`: the work may be done twice, so it is tried until the deadline, so many times if no member answers. 0: only
 * what never left this host is tried again. Throws
 * STORE_UNAVAILABLE without an answer, the signal's reason, or what the server's refusal means.
 */
export const callEtcd = <T>(
  { members, tls, clock, stop }: CallParts,
  what: string,
  options: CallOptions | undefined,
  tries: number,
  work: Work<T>,
): Promise<T> =>
  limited(what, clock, stop, options, async () => {
    const timeoutMs = options?.timeoutMs ?? callMs
    const end = clock.monotonic() + timeoutMs
    const retry = backoff(50, 500)
    let why: unknown // a member's last word: a try that the deadline cuts off has none
    for (;;) {
      const member = members.current()
      const left = end - clock.monotonic() - 20 // our reason comes before the deadline's silence
      const share = tries > 0 ? Math.max(500, timeoutMs / tries) : left
      try {
        return await work(member.client, { deadline: Date.now() + Math.max(1, Math.min(left, share)) })
      } catch (error) {
        const code = refusal(error, stop)
        if (code) throw new WeftError(code, `etcd refuses ${what}`, { cause: error })
        members.passOver(member)
        if (why === undefined || !(error instanceof GRPCDeadlineExceededError)) why = error
        const wait = retry.next()
        const over = stop.aborted || options?.signal?.aborted || clock.monotonic() + wait >= end - 20
        if (over || !(tries > 0 || neverSent(error))) throw unavailable(what, why, tls, clock.now())
        await sleep(clock, wait, stop)
      }
    }
  })

/** STORE_UNAVAILABLE; its cause is INVALID and names the file where the handshake failed because of one. */
export const unavailable = (what: string, cause: unknown, tls: TlsFiles | undefined, nowMs: number): WeftError => {
  if (cause instanceof WeftError) return cause
  const trouble = tls && tlsTrouble(tls, cause, nowMs)
  const message = `etcd does not answer (${what})${trouble ? `: ${trouble.message}` : ''}`
  return new WeftError('STORE_UNAVAILABLE', message, { cause: trouble ?? cause })
}

/** What an answer of the server that is no result means; undefined: there was no answer. */
const refusal = (error: unknown, stop: AbortSignal): ErrorCode | undefined => {
  if (error instanceof EtcdLeaseInvalidError) return 'NOT_FOUND'
  if (error instanceof GRPCInvalidArgumentError) return 'INVALID'
  if (denials.some(kind => error instanceof kind)) return 'PERMISSION'
  if (error instanceof ClientClosedError && stop.aborted) return 'CANCELLED'
  return answers.some(kind => error instanceof kind) ? 'STORE_UNAVAILABLE' : undefined
}

const denials = [
  EtcdPermissionDeniedError,
  EtcdInvalidAuthTokenError,
  EtcdAuthenticationFailedError,
  GRPCUnauthenticatedError,
]
/** Compacted, out of space, and the like: asking again does not help. */
const answers = [
  GRPCAlreadyExistsError,
  GRPCFailedPreconditionError,
  GRPCNotFoundError,
  GRPCNotImplementedError,
  GRPCOutOfRangeError,
  GRPCResourceExhastedError,
]

/** A call that was never given a connection, in grpc-js' words; or its client made way for one with other certificates. */
export const neverSent = (error: unknown): boolean =>
  error instanceof ClientClosedError ||
  /No connection established|Name resolution failed|Channel closed before call started/.test(describe(error))

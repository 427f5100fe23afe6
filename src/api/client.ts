// SPDX-License-Identifier: Apache-2.0
// The API from outside: one call is one promise; errors come back with their stable code.
import { credentials, type Metadata, type ServiceError } from '@grpc/grpc-js'
import { type ErrorCode, errorTable, WeftError } from '../base/errors.ts'
import { WeftClient } from './gen/weft.ts'

export interface ApiClient {
  readonly raw: WeftClient
  /** call(client => client.listNodes, {}) */
  call<Q, A>(method: (client: WeftClient) => Unary<Q, A>, request: Q): Promise<A>
  close(): void
}

type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, answer: A) => void,
) => unknown

const deadlineMs = 20_000
const unavailable = 14

/** `path` of the unix socket. */
export const openApiClient = (path: string, metadata: Metadata): ApiClient => {
  const raw = new WeftClient(`unix:${path}`, credentials.createInsecure())
  return {
    raw,
    call: (method, request) =>
      new Promise((resolve, reject) => {
        method(raw).call(raw, request, metadata, { deadline: Date.now() + deadlineMs }, (error, answer) =>
          error ? reject(errorOf(error, path)) : resolve(answer),
        )
      }),
    close: () => raw.close(),
  }
}

const errorOf = (error: ServiceError, path: string): Error => {
  const code = error.metadata?.get('weft-code')[0]
  if (typeof code === 'string' && code in errorTable) return new WeftError(code as ErrorCode, error.details)
  if (error.code === unavailable)
    return new WeftError(
      'TIMEOUT',
      `weftd does not answer at ${path}: is it running here? (as root, or --api unix://PATH)`,
    )
  return new WeftError('INTERNAL', error.message)
}

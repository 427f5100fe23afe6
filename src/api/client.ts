// SPDX-License-Identifier: Apache-2.0
// The API from outside: one call is one promise; errors come back with their stable code.
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { credentials, type Metadata, type ServiceError } from '@grpc/grpc-js'
import { type ErrorCode, errorTable, WeftError } from '../base/errors.ts'
import { type ImportStoreResponse, type Record, WeftClient } from './gen/weft.ts'

export interface ApiClient {
  readonly raw: WeftClient
  /** call(client => client.listNodes, {}) */
  call<Q, A>(method: (client: WeftClient) => Unary<Q, A>, request: Q): Promise<A>
  /** All records of the store, one by one. */
  exportStore(): AsyncIterable<Record>
  importStore(records: Iterable<Record>): Promise<ImportStoreResponse>
  close(): void
}

type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, answer: A) => void,
) => unknown

const deadlineMs = 20_000
/** Status numbers of gRPC itself. */
const [deadlineExceeded, unimplemented, unavailable] = [4, 12, 14]

/** `path` of the unix socket. */
export const openApiClient = (path: string, metadata: Metadata, limitMs = deadlineMs): ApiClient => {
  const raw = new WeftClient(`unix:${path}`, credentials.createInsecure())
  return {
    raw,
    call: (method, request) =>
      new Promise((resolve, reject) => {
        method(raw).call(raw, request, metadata, { deadline: Date.now() + limitMs }, (error, answer) =>
          error ? reject(errorOf(error, path)) : resolve(answer),
        )
      }),
    async *exportStore() {
      try {
        yield* raw.exportStore({}, metadata) as AsyncIterable<Record>
      } catch (error) {
        throw errorOf(error as ServiceError, path)
      }
    },
    importStore: records =>
      new Promise((resolve, reject) => {
        const call = raw.importStore(metadata, (error, answer) =>
          error ? reject(errorOf(error, path)) : resolve(answer),
        )
        // an error is told once, by the callback
        pipeline(Readable.from(records), call as unknown as Writable).catch(() => {})
      }),
    close: () => raw.close(),
  }
}

const errorOf = (error: ServiceError, path: string): Error => {
  const code = error.metadata?.get('weft-code')[0]
  if (typeof code === 'string' && code in errorTable) return new WeftError(code as ErrorCode, error.details)
  if (error.code === unavailable && /\bEACCES\b/.test(error.details))
    return new WeftError('PERMISSION', `${path} may not be opened: run it as root`)
  if (error.code === unimplemented)
    return new WeftError('NOT_SUPPORTED', `weftd at ${path} does not know this call: is it of another version?`)
  if (error.code === deadlineExceeded)
    return new WeftError('TIMEOUT', `weftd at ${path} has not answered in time: see weft status, or its log`)
  if (error.code === unavailable)
    return new WeftError(
      'TIMEOUT',
      `weftd does not answer at ${path}: is it running here? (as root, or --api unix://PATH)`,
    )
  return new WeftError('INTERNAL', `weftd at ${path}: ${error.details}`)
}

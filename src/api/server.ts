// SPDX-License-Identifier: Apache-2.0
// The gRPC API over the control verbs, on a unix socket that only root opens.
import { chmod, mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable, type Writable } from 'node:stream'
import {
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerReadableStream,
  type ServerWritableStream,
  type ServiceError,
  type sendUnaryData,
} from '@grpc/grpc-js'
import { codeOf, describe, errorTable, WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { freeFile } from '../base/socket-file.ts'
import type * as wire from './gen/weft.ts'
import { WeftService } from './gen/weft.ts'

export interface Handlers {
  getStatus(request: wire.GetStatusRequest, signal: AbortSignal): Promise<wire.Status>
  getVersion(request: wire.GetVersionRequest, signal: AbortSignal): Promise<wire.Version>
  listNetworks(request: wire.ListNetworksRequest, signal: AbortSignal): Promise<wire.ListNetworksResponse>
  getNetwork(request: wire.GetNetworkRequest, signal: AbortSignal): Promise<wire.Network>
  createNetwork(request: wire.CreateNetworkRequest, signal: AbortSignal): Promise<wire.Network>
  removeNetwork(request: wire.RemoveNetworkRequest, signal: AbortSignal): Promise<wire.RemoveNetworkResponse>
  listEndpoints(request: wire.ListEndpointsRequest, signal: AbortSignal): Promise<wire.ListEndpointsResponse>
  listServices(request: wire.ListServicesRequest, signal: AbortSignal): Promise<wire.ListServicesResponse>
  getService(request: wire.GetServiceRequest, signal: AbortSignal): Promise<wire.Service>
  createService(request: wire.CreateServiceRequest, signal: AbortSignal): Promise<wire.Service>
  removeService(request: wire.RemoveServiceRequest, signal: AbortSignal): Promise<wire.RemoveServiceResponse>
  drainBackend(request: wire.DrainBackendRequest, signal: AbortSignal): Promise<wire.Service>
  listNodes(request: wire.ListNodesRequest, signal: AbortSignal): Promise<wire.ListNodesResponse>
  getNode(request: wire.GetNodeRequest, signal: AbortSignal): Promise<wire.Node>
  drainNode(request: wire.DrainNodeRequest, signal: AbortSignal): Promise<wire.Node>
  removeNode(request: wire.RemoveNodeRequest, signal: AbortSignal): Promise<wire.RemoveNodeResponse>
  acceptStore(request: wire.AcceptStoreRequest, signal: AbortSignal): Promise<wire.AcceptStoreResponse>
  exportStore(): readonly wire.Record[]
  importStore(records: readonly wire.Record[]): Promise<wire.ImportStoreResponse>
}

const limitMs = 15_000

const inTime = (): AbortSignal => {
  const late = new AbortController()
  const error = new WeftError(
    'TIMEOUT',
    `not done after ${limitMs / 1000} s, what was begun may go on: see weft status`,
  )
  setTimeout(() => late.abort(error), limitMs).unref()
  return late.signal
}

export const openApiServer = async (path: string, handlers: Handlers, log: Log): Promise<Closeable> => {
  const server = new Server()
  const refusal = (error: unknown): ServiceError => {
    const code = codeOf(error)
    if (code === 'INTERNAL') log.error({ err: error as Error }, 'defect in an API call')
    const metadata = new Metadata()
    metadata.set('weft-code', code)
    const details = describe(error)
    return Object.assign(new Error(details), { code: errorTable[code].grpc, details, metadata })
  }
  const answer = <A>(work: Promise<A>, callback: sendUnaryData<A>): void => {
    work.then(
      value => callback(null, value),
      error => callback(refusal(error)),
    )
  }
  const unary =
    <Q, A>(work: (request: Q, signal: AbortSignal) => Promise<A>): handleUnaryCall<Q, A> =>
    (call, callback) =>
      answer(work(call.request, inTime()), callback)
  server.addService(WeftService, {
    getStatus: unary(handlers.getStatus),
    getVersion: unary(handlers.getVersion),
    listNetworks: unary(handlers.listNetworks),
    getNetwork: unary(handlers.getNetwork),
    createNetwork: unary(handlers.createNetwork),
    removeNetwork: unary(handlers.removeNetwork),
    listEndpoints: unary(handlers.listEndpoints),
    listServices: unary(handlers.listServices),
    getService: unary(handlers.getService),
    createService: unary(handlers.createService),
    removeService: unary(handlers.removeService),
    drainBackend: unary(handlers.drainBackend),
    listNodes: unary(handlers.listNodes),
    getNode: unary(handlers.getNode),
    drainNode: unary(handlers.drainNode),
    removeNode: unary(handlers.removeNode),
    acceptStore: unary(handlers.acceptStore),
    exportStore(call: ServerWritableStream<wire.ExportStoreRequest, wire.Record>) {
      try {
        // in step with the reader
        Readable.from(handlers.exportStore()).pipe(call as unknown as Writable)
      } catch (error) {
        call.emit('error', refusal(error))
      }
    },
    importStore(
      call: ServerReadableStream<wire.Record, wire.ImportStoreResponse>,
      callback: sendUnaryData<wire.ImportStoreResponse>,
    ) {
      const work = async (): Promise<wire.ImportStoreResponse> => {
        const records: wire.Record[] = []
        for await (const record of call as AsyncIterable<wire.Record>) records.push(record)
        return handlers.importStore(records)
      }
      answer(work(), callback)
    },
  })
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await freeFile(path)
  const umask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), error => (error ? reject(error) : resolve()))
    })
  } finally {
    process.umask(umask)
  }
  await chmod(path, 0o600)
  return {
    close: () =>
      new Promise(resolve => {
        server.tryShutdown(() => resolve())
        setTimeout(() => server.forceShutdown(), 500).unref()
      }),
  }
}

// SPDX-License-Identifier: Apache-2.0
// The gRPC API over the control verbs, on a unix socket that only root opens.
import { chmod, mkdir, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type handleUnaryCall, Metadata, Server, ServerCredentials } from '@grpc/grpc-js'
import { codeOf, describe, errorTable } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
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
  listNodes(request: wire.ListNodesRequest, signal: AbortSignal): Promise<wire.ListNodesResponse>
  getNode(request: wire.GetNodeRequest, signal: AbortSignal): Promise<wire.Node>
  drainNode(request: wire.DrainNodeRequest, signal: AbortSignal): Promise<wire.Node>
  removeNode(request: wire.RemoveNodeRequest, signal: AbortSignal): Promise<wire.RemoveNodeResponse>
  acceptStore(request: wire.AcceptStoreRequest, signal: AbortSignal): Promise<wire.AcceptStoreResponse>
}

const limitMs = 15_000

export const openApiServer = async (path: string, handlers: Handlers, log: Log): Promise<Closeable> => {
  const server = new Server()
  const unary =
    <Q, A>(work: (request: Q, signal: AbortSignal) => Promise<A>): handleUnaryCall<Q, A> =>
    (call, callback) => {
      work(call.request, AbortSignal.timeout(limitMs)).then(
        answer => callback(null, answer),
        error => {
          const code = codeOf(error)
          if (code === 'INTERNAL') log.error({ err: error as Error }, 'defect in an API call')
          const metadata = new Metadata()
          metadata.set('weft-code', code)
          callback({ code: errorTable[code].grpc, details: describe(error), metadata })
        },
      )
    }
  server.addService(WeftService, {
    getStatus: unary(handlers.getStatus),
    getVersion: unary(handlers.getVersion),
    listNetworks: unary(handlers.listNetworks),
    getNetwork: unary(handlers.getNetwork),
    createNetwork: unary(handlers.createNetwork),
    removeNetwork: unary(handlers.removeNetwork),
    listEndpoints: unary(handlers.listEndpoints),
    listNodes: unary(handlers.listNodes),
    getNode: unary(handlers.getNode),
    drainNode: unary(handlers.drainNode),
    removeNode: unary(handlers.removeNode),
    acceptStore: unary(handlers.acceptStore),
  })
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await unlink(path).catch(() => {})
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

// SPDX-License-Identifier: Apache-2.0
// Starts the thread that asks, and says when it has ended.
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { Report } from './peer-probes.ts'
import type { Asker, AskerEvents } from './peers.ts'

const endMs = 2000

export const startPeerThread = ({ report, died }: AskerEvents): Asker => {
  // .ts from the sources, .js from dist
  const file = new URL(`./peer-worker${extname(import.meta.url)}`, import.meta.url)
  // its descriptors come from the native part, which Node's book-keeping does not know
  const worker = new Worker(file, { trackUnmanagedFds: false })
  const ended = Promise.withResolvers<void>()
  let stopping = false
  worker.on('message', (message: Report) => stopping || report(message))
  let cause: unknown
  worker.on('error', error => {
    cause = error
  })
  worker.on('exit', code => {
    ended.resolve()
    if (!stopping) died(cause ?? new Error(`exit code ${code}`))
  })
  return {
    order: order => worker.postMessage(order),
    async close() {
      stopping = true
      worker.postMessage('stop')
      worker.unref()
      const late = setTimeout(() => ended.resolve(), endMs)
      await ended.promise
      clearTimeout(late)
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// The plugin socket: twenty fixed POST routes. Answers always in time, always in JSON, errors in the one form that both
// of Docker's subsystems read: status not 200 with {"Err", "Error"}.
import { chmod, mkdir, unlink } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { codeOf, describe, type ErrorCode, errorTable, WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { Handler } from './network-driver.ts'

/** A call as status shows it. */
export interface CallError {
  readonly at: string
  readonly method: string
  readonly code: ErrorCode
  readonly error: string
}

export interface PluginServer extends Closeable {
  readonly lastErrors: readonly CallError[]
  close(): Promise<void>
}

export interface PluginServerParts {
  readonly path: string
  readonly handlers: Readonly<Record<string, Handler>>
  readonly clock: Clock
  readonly log: Log
}

/** Every handler answers within this, dockerd itself would wait for ever. */
const deadlineMs = 8000
const bodyLimit = 1 << 20
const keptErrors = 20

export const openPluginServer = async ({ path, handlers, clock, log }: PluginServerParts): Promise<PluginServer> => {
  const lastErrors: CallError[] = []
  const stop = new AbortController()
  const pending = new Set<Promise<void>>()

  const call = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const method = (request.url ?? '/').slice(1)
    const from = clock.monotonic()
    let status = 200
    let answer: object
    let body = ''
    try {
      body = await readBody(request)
      answer = await answerOf(method, body)
    } catch (error) {
      const code = codeOf(error)
      status = method in handlers || method === 'Plugin.Activate' ? errorTable[code].http : 404
      const text = describe(error)
      answer = { Err: text, Error: text }
      lastErrors.push({ at: new Date(clock.now()).toISOString(), method, code, error: text })
      if (lastErrors.length > keptErrors) lastErrors.shift()
      if (code === 'INTERNAL') log.error({ method, err: error }, 'defect in a driver call')
    }
    const text = JSON.stringify(answer)
    response.writeHead(status, {
      'Content-Type': 'application/vnd.docker.plugins.v1.2+json',
      'Content-Length': Buffer.byteLength(text),
    })
    response.end(text)
    const ms = Math.round(clock.monotonic() - from)
    const fields = {
      method,
      ...idsOf(body),
      ms,
      ...(status === 200 ? {} : { code: lastErrors.at(-1)?.code, error: lastErrors.at(-1)?.error }),
    }
    if (status === 200) log.info(fields, 'docker call')
    else log.warn(fields, 'docker call')
  }

  const answerOf = async (method: string, body: string): Promise<object> => {
    if (method === 'Plugin.Activate') return { Implements: ['NetworkDriver', 'IpamDriver'] }
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined
    if (!handler) throw new WeftError('NOT_SUPPORTED', `${method} is no method of this driver`)
    const late = new AbortController()
    const timer = clock.after(deadlineMs, () =>
      late.abort(new WeftError('TIMEOUT', `${method} is not done after ${deadlineMs / 1000} s: see weft status`)),
    )
    const signal = AbortSignal.any([late.signal, stop.signal])
    try {
      return await Promise.race([handler(body, signal), rejection(signal)])
    } finally {
      timer.cancel()
    }
  }

  const server = createServer((request, response) => {
    const work = call(request, response).catch(error => {
      log.error({ err: error }, 'plugin socket')
      response.destroy()
    })
    pending.add(work)
    void work.finally(() => pending.delete(work))
  })
  // the engine keeps connections for ever; a close of ours at the wrong moment costs it a 15 s retry
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.headersTimeout = 0
  await listen(server, path)
  return {
    lastErrors,
    async close() {
      server.close()
      await Promise.race([Promise.all(pending), new Promise(resolve => setTimeout(resolve, 2000))])
      stop.abort(new WeftError('CANCELLED', 'weftd is stopping'))
      await Promise.all(pending)
      server.closeAllConnections()
    },
  }
}

const listen = async (server: ReturnType<typeof createServer>, path: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true })
  if (await answers(path))
    throw new WeftError('TAKEN', `${path} is served by another process: is weftd running already?`)
  await unlink(path).catch(() => {})
  const umask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
  } finally {
    process.umask(umask)
  }
  await chmod(path, 0o600)
}

const answers = (path: string): Promise<boolean> =>
  new Promise(resolve => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

/** A moment after the signal: whoever waited inside knows better what has not come. */
const rejection = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const soon = (): void => void setTimeout(() => reject(signal.reason as Error), 20)
    if (signal.aborted) return soon()
    signal.addEventListener('abort', soon, { once: true })
  })

const readBody = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > bodyLimit) throw new WeftError('INVALID', `the request is larger than ${bodyLimit} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Ids for the log line, short. Never more of the body. */
const idsOf = (body: string): object => {
  const id = (name: string): string | undefined => new RegExp(`"${name}":"([^"]{1,80})"`).exec(body)?.[1]
  const network = id('NetworkID')
  const endpoint = id('EndpointID')
  const pool = id('PoolID') ?? id('Pool')
  const address = id('Address')
  return {
    ...(network ? { network: network.slice(0, 12) } : {}),
    ...(endpoint ? { endpoint: endpoint.slice(0, 12) } : {}),
    ...(pool ? { pool } : {}),
    ...(address ? { address } : {}),
  }
}

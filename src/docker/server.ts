// SPDX-License-Identifier: Apache-2.0
// The plugin socket: twenty fixed POST routes. Answers always in time, always in JSON, errors in the one form that both
// of Docker's subsystems read: status not 200 with {"Err", "Error"}.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Clock } from '../base/clock.ts'
import { codeOf, describe, type ErrorCode, errorTable, WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { type Metrics, noMetrics } from '../base/metrics.ts'
import { listenOnFile } from '../base/socket-file.ts'
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
  readonly metrics?: Metrics
}

/** Every handler answers within this, dockerd itself would wait for ever. */
const deadlineMs = 8000
const bodyLimit = 1 << 20
const keptErrors = 20

export const openPluginServer = async ({
  path,
  handlers,
  clock,
  log,
  metrics = noMetrics,
}: PluginServerParts): Promise<PluginServer> => {
  const lastErrors: CallError[] = []
  const stop = new AbortController()
  const pending = new Set<Promise<void>>()

  const known: Readonly<Record<string, Handler>> = {
    ...handlers,
    'Plugin.Activate': async () => ({ Implements: ['NetworkDriver', 'IpamDriver'] }),
  }

  const calls = metrics.counter(
    'weft_docker_calls_total',
    'Calls of the Docker engine to this driver. code: OK, or the code of the error.',
    ['method', 'code'],
  )
  const seconds = metrics.timings('weft_docker_call_seconds', 'How long these calls took.', ['method'])
  for (const method of Object.keys(known)) calls.add({ method, code: 'OK' }, 0)

  const call = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const method = (request.url ?? '/').slice(1, 100)
    const handler = Object.hasOwn(known, method) ? known[method] : undefined
    const from = clock.monotonic()
    let status = 200
    let answer: object
    let body = ''
    const done = (code: 'OK' | ErrorCode): void => {
      const label = handler ? method : 'unknown' // anybody may send anything
      calls.add({ method: label, code })
      seconds.observe({ method: label }, (clock.monotonic() - from) / 1000)
    }
    try {
      answer = await inTime(method, async signal => {
        body = await readBody(request)
        if (!handler) throw new WeftError('NOT_SUPPORTED', `${method} is no method of this driver`)
        if (request.method !== 'POST')
          throw new WeftError('INVALID', `${method} is called with POST, not with ${request.method}`)
        return handler(body, signal)
      })
      done('OK')
    } catch (error) {
      if (request.errored && !request.complete) {
        done('CANCELLED')
        log.warn({ method }, 'docker call broken off')
        return
      }
      const code = codeOf(error)
      done(code)
      status = handler ? errorTable[code].http : 404
      const text = shortened(describe(error))
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
    if (request.complete) response.end(text)
    else {
      // the rest is not read; whoever still writes gets a moment to see the answer
      request.pause()
      response.write(text)
      clock.after(1000, () => request.destroy())
    }
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

  const inTime = async (method: string, work: (signal: AbortSignal) => Promise<object>): Promise<object> => {
    const late = new AbortController()
    const timer = clock.after(deadlineMs, () =>
      late.abort(new WeftError('TIMEOUT', `${method} is not done after ${deadlineMs / 1000} s: see weft status`)),
    )
    const signal = AbortSignal.any([late.signal, stop.signal])
    try {
      return await Promise.race([work(signal), rejection(signal)])
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
  await listenOnFile(server, path)
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

/** A moment after the signal: whoever waited inside knows better what has not come. */
const rejection = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const soon = (): void => void setTimeout(() => reject(signal.reason as Error), 20)
    if (signal.aborted) return soon()
    signal.addEventListener('abort', soon, { once: true })
  })

const readBody = (request: IncomingMessage): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > bodyLimit) {
        request.pause()
        reject(new WeftError('INVALID', `the request is larger than ${bodyLimit} bytes`))
      } else chunks.push(chunk)
    })
    request.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
    request.on('error', reject)
  })

const shortened = (text: string): string => (text.length > 500 ? `${text.slice(0, 499)}…` : text)

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

// SPDX-License-Identifier: Apache-2.0
// --metrics: GET /metrics over plain HTTP. Whoever reaches the address may read it, so it is off unless asked for; few
// connections at a time, each for one request and for seconds, whatever the other end does or leaves undone.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { listenOnFile } from '../base/socket-file.ts'
import { familyOf, parseAddress } from '../model/address.ts'

export type MetricsAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

export interface MetricsServer extends Closeable {
  /** Where it listens; of TCP with the port. */
  readonly address: string
  close(): Promise<void>
}

export interface MetricsServerParts {
  /** Port 0: any. */
  readonly listen: MetricsAddress
  readonly scrape: () => Promise<string>
  readonly contentType: string
  readonly log: Log
  /** How long a request may take to arrive, and its answer to be read, ms. */
  readonly patienceMs?: number
}

const headerBytes = 8192
const connections = 16

/** 'IP:PORT', '[IPv6]:PORT', ':PORT' on the loopback, or 'unix:///PATH'. Throws INVALID naming the flag. */
export const parseMetricsAddress = (text: string): MetricsAddress => {
  const wrong = (why: string, cause?: unknown): WeftError =>
    new WeftError(
      'INVALID',
      `--metrics ${JSON.stringify(text)}: ${why}: give IP:PORT, [IPv6]:PORT, :PORT for the loopback, or unix:///PATH`,
      { cause },
    )
  const file = /^unix:\/\/(.*)$/.exec(text)
  if (file) {
    if (!file[1]!.startsWith('/')) throw wrong('the path begins with a slash')
    return { kind: 'unix', path: file[1]! }
  }
  const match = /^(?:\[(.+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  if (!match) throw wrong('it is no address with a port')
  const [, v6, v4, digits] = match
  const port = Number(digits)
  if (port < 1 || port > 65535) throw wrong('the port is from 1 to 65535')
  const host = v6 ?? (v4 === '' ? '127.0.0.1' : v4!)
  if (familyOf(host) !== (v6 === undefined ? 4 : 6)) throw wrong(`${host} is no IPv6 address`)
  try {
    parseAddress(host)
  } catch (error) {
    throw wrong(`${host} is no IP address`, error)
  }
  return { kind: 'tcp', host, port }
}

const show = (listen: MetricsAddress): string =>
  listen.kind === 'unix' ? `unix://${listen.path}` : `${bracketed(listen.host)}:${listen.port}`
const bracketed = (host: string): string => (familyOf(host) === 6 ? `[${host}]` : host)

/** Throws TAKEN or INVALID, naming the flag, where it cannot listen. */
export const openMetricsServer = async ({
  listen,
  scrape,
  contentType,
  log,
  patienceMs = 5000,
}: MetricsServerParts): Promise<MetricsServer> => {
  const refuse = (response: ServerResponse, status: number, text: string, headers: Record<string, string> = {}): void =>
    void response
      .writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', ...headers, Connection: 'close' })
      .end(`${text}\n`)

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [path] = (request.url ?? '').split('?')
    if (path !== '/metrics') return refuse(response, 404, 'there is /metrics and nothing else')
    if (request.method !== 'GET') return refuse(response, 405, 'GET is the only method', { Allow: 'GET' })
    const text = await scrape()
    response
      .writeHead(200, {
        'Content-Type': contentType,
        'Content-Length': Buffer.byteLength(text),
        Connection: 'close',
      })
      .end(text)
  }

  const server = createServer(
    {
      maxHeaderSize: headerBytes,
      headersTimeout: patienceMs,
      requestTimeout: patienceMs,
      connectionsCheckingInterval: Math.min(1000, patienceMs),
    },
    (request, response) => {
      answer(request, response).catch(error => {
        log.error({ err: error }, 'metrics not made')
        if (response.headersSent) response.destroy()
        else refuse(response, 500, 'the metrics could not be made: see the log of weftd')
      })
    },
  )
  server.maxConnections = connections
  server.on('connection', socket => {
    // counted from its beginning: reading a byte now and then buys no time
    const end = setTimeout(() => socket.destroy(), 4 * patienceMs)
    socket.once('close', () => clearTimeout(end))
  })
  await begin(server, listen)
  const bound = server.address()
  const address = show(
    listen.kind === 'tcp' && bound !== null && typeof bound === 'object' ? { ...listen, port: bound.port } : listen,
  )
  server.on('error', error => log.error({ err: error }, 'metrics'))
  log.info({ address }, 'metrics')
  let closing: Promise<void> | undefined
  return {
    address,
    close() {
      closing ??= new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
      return closing
    },
  }
}

const begin = async (server: ReturnType<typeof createServer>, listen: MetricsAddress): Promise<void> => {
  try {
    if (listen.kind === 'unix') return await listenOnFile(server, listen.path)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host: listen.host, port: listen.port }, () => {
        server.off('error', reject)
        resolve()
      })
    })
  } catch (error) {
    const where = `--metrics ${show(listen)}`
    const { code } = error as { code?: string }
    if (code === 'EADDRINUSE')
      throw new WeftError('TAKEN', `${where}: another process listens there: choose another port`, { cause: error })
    if (code === 'EADDRNOTAVAIL')
      throw new WeftError('INVALID', `${where}: this host has no such address: see ip address`, { cause: error })
    throw new WeftError(error instanceof WeftError ? error.code : 'INVALID', `${where}: cannot listen`, {
      cause: error,
    })
  }
}

// SPDX-License-Identifier: Apache-2.0
// A proxy on the plugin's socket of a host, between its engine and its weftd: records every call, cuts what a test says.
import { mkdir } from 'node:fs/promises'
import { createServer, type IncomingMessage, request } from 'node:http'
import { dirname } from 'node:path'
import type { Lab } from './lab.ts'

export interface Reply {
  readonly status: number
  readonly text: string
}

export interface Call extends Reply {
  readonly method: string
  readonly body: string
}

export interface Proxy {
  /** What was answered, in the order of the answers. */
  readonly calls: Call[]
  /** Asked while weftd has a call, and when it has answered; true: the engine's connection is closed instead. */
  gate: (when: 'inside' | 'after', method: string) => Promise<boolean>
  close(): Promise<void>
}

/** For `lab up`: weftd listens here, the proxy where the engine looks. */
export const behindProxy = ['--weftd-args', '--plugin-socket /run/weft/behind.sock']

/** A host's file as this machine sees it. */
export const fileOf = async (lab: Lab, host: string, path: string): Promise<string> => {
  const { hosts } = JSON.parse(await lab.ok('status', '--output', 'json')) as {
    hosts: { name: string; init: number }[]
  }
  return `/proc/${hosts.find(one => one.name === host)?.init}/root${path}`
}

export const textOf = async (stream: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

/** Keys of the store. Claims of addresses and MACs that rest are no leak: their time comes. */
export const heldKeys = async (lab: Lab): Promise<string[]> => {
  const text = await lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/', '-w', 'json')
  const { kvs } = JSON.parse(text) as { kvs: { key: string; value: string }[] }
  const plain = (base64: string): string => Buffer.from(base64, 'base64').toString()
  return kvs.flatMap(({ key, value }) =>
    /-epoch$/.test(plain(key)) || plain(value).includes('"resting"') ? [] : [plain(key)],
  )
}

/** Links and named namespaces. */
export const kernelOf = (lab: Lab, host: string): Promise<string> =>
  lab.exec(host, 'sh', '-c', "ip -o link | sed 's/^[0-9]*: //; s/[ @:].*//' | sort; ls /run/netns")

/** One request over a connection of its own. */
export const post = (socketPath: string, method: string, body: string | Buffer, verb = 'POST'): Promise<Reply> =>
  new Promise((resolve, reject) => {
    const headers = { 'Content-Length': Buffer.byteLength(body) }
    const sent = request({ socketPath, path: `/${method}`, method: verb, agent: false, headers }, answer => {
      textOf(answer).then(text => resolve({ status: answer.statusCode!, text }), reject)
    })
    sent.on('error', reject)
    sent.end(body)
  })

export const openProxy = async (lab: Lab, host: string): Promise<Proxy> => {
  const path = await fileOf(lab, host, '/run/docker/plugins/weft.sock')
  const behind = await fileOf(lab, host, '/run/weft/behind.sock')
  const self: Proxy = {
    calls: [],
    gate: async () => false,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  const server = createServer((asked, answer) => {
    const method = asked.url!.slice(1)
    const pass = async (): Promise<void> => {
      const body = await textOf(asked)
      const reply = post(behind, method, body)
      reply.catch(() => {})
      if (await self.gate('inside', method)) return void asked.socket.destroy()
      const { status, text } = await reply
      self.calls.push({ method, body, status, text })
      if (await self.gate('after', method)) return void asked.socket.destroy()
      answer.writeHead(status, { 'Content-Length': Buffer.byteLength(text) })
      answer.end(text)
    }
    // weftd is gone: so is the connection
    pass().catch(() => asked.socket.destroy())
  })
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.headersTimeout = 0
  await mkdir(dirname(path), { recursive: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return self
}

// SPDX-License-Identifier: Apache-2.0
// Questions to servers on this machine's loopback, over sockets as weftd opens them.
import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { dialSocket } from '../../src/daemon/sockets.ts'
import { ask, type Question } from '../../src/health/ask.ts'
import { netnsSocket, netnsWrite } from '../../src/netlink/netns.ts'
import { freshNetns } from '../netlink/lab.ts'

const listening = async (t: Test, server: Server | TcpServer, host = '127.0.0.1'): Promise<number> => {
  await new Promise<void>(resolve => server.listen(0, host, resolve))
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}
const http = (t: Test, answer: RequestListener, host?: string) => listening(t, createServer(answer), host)
const put = (more: Partial<Question> & { port: number }, signal = AbortSignal.timeout(10_000)) => {
  const question = { address: '127.0.0.1', timeoutMs: 2000, ...more }
  return ask(() => dialSocket('', question.address), question, signal)
}
const at = (path: string, first = 200, last = 399) => ({ path, status: { first, last } })

t.test('by status', async t => {
  const asked: string[] = []
  let connections = 0
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers['user-agent']}`)
    response.writeHead(request.url === '/ill' ? 503 : 204).end()
  })
  server.on('connection', () => connections++)
  const port = await listening(t, server)
  t.equal(await put({ port, http: at('/healthz?deep=1') }), undefined)
  t.same(asked, ['GET /healthz?deep=1 weft-probe'])
  t.equal(connections, 1, 'over the socket that was given, and no other')
  t.equal(await put({ port, http: at('/ill') }), `GET /ill on port ${port} answers 503, wanted 200 to 399`)
  t.equal(await put({ port, http: at('/ill', 503, 503) }), undefined)
})

t.test('over IPv6', async t => {
  const port = await http(t, (_, response) => response.end('well'), '::1')
  t.equal(await put({ port, address: '::1', http: at('/') }), undefined)
  t.equal(await put({ port, address: '::1' }), undefined)
})

t.test('a body without end, headers without end, no answer, no HTTP, nobody', async t => {
  const endless = await http(t, (_, response) => {
    const more = setInterval(() => response.write('x'.repeat(1000)), 1)
    response.on('close', () => clearInterval(more))
  })
  t.equal(await put({ port: endless, http: at('/') }), undefined)
  const raw = (answer: string): Promise<number> =>
    listening(
      t,
      createTcpServer(socket => {
        socket.on('error', () => {}).resume()
        socket.write(answer)
      }),
    )
  t.match(
    await put({ port: await raw(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`), http: at('/') }),
    /^GET \/ on port/,
  )
  const mute = await raw('')
  t.match(await put({ port: mute, timeoutMs: 200, http: at('/') }), /no answer within 200 ms/)
  t.equal(await put({ port: mute }), undefined, 'but it accepts connections')
  t.match(await put({ port: await raw('220 mail.example ESMTP\r\n'), http: at('/') }), /^GET \/ on port/)
  const server = createTcpServer()
  const gone = await listening(t, server)
  await new Promise(resolve => server.close(resolve))
  t.match(await put({ port: gone, http: at('/') }), /ECONNREFUSED/)
  t.match(await put({ port: gone }), /does not accept connections/)
})

t.test('an abort is passed on', async t => {
  const port = await listening(
    t,
    createTcpServer(socket => socket.on('error', () => {}).resume()),
  )
  const stop = new AbortController()
  const asked = put({ port, http: at('/') }, stop.signal)
  setTimeout(() => stop.abort(new Error('stopping')), 50)
  await t.rejects(asked, /stopping/)
})

t.test('a socket that takes longer to open than the answer may take', async t => {
  const port = await http(t, (_, response) => response.end('well'))
  const mute = await listening(
    t,
    createTcpServer(socket => socket.on('error', () => {}).resume()),
  )
  const slowly = async (): Promise<number> => {
    await wait(1600)
    return dialSocket('', '127.0.0.1')
  }
  const question = { address: '127.0.0.1', timeoutMs: 50, http: at('/') }
  const { signal } = new AbortController()
  t.equal(
    await ask(slowly, { ...question, port, timeoutMs: 1500 }, signal),
    undefined,
    'is not held against the backend',
  )
  t.match(await ask(slowly, { ...question, port: mute }, signal), /no answer within 50 ms/, 'does not wait for ever')
})

t.test('the end while the socket is opened', async t => {
  const port = await http(t, (_, response) => response.end('well'))
  for (const more of [{}, { http: at('/') }]) {
    const stop = new AbortController()
    const opening = async (): Promise<number> => {
      stop.abort(new Error('closed'))
      return dialSocket('', '127.0.0.1')
    }
    await t.rejects(ask(opening, { address: '127.0.0.1', port, timeoutMs: 5000, ...more }, stop.signal), /closed/)
  }
})

t.test('questions leave nothing at the signal, which lives as long as weftd', async t => {
  const port = await http(t, (_, response) => response.end('well'))
  const { signal } = new AbortController()
  for (let i = 0; i < 20; i++) for (const more of [{}, { http: at('/') }]) await put({ port, ...more }, signal)
  t.equal(getEventListeners(signal, 'abort').length, 0)
})

t.test('where closed connections have every port another backend is asked all the same', async t => {
  const { name, path } = await freshNetns(t, 'ask')
  execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  await netnsWrite(path, '/proc/sys/net/ipv4/ip_local_port_range', '40000\t40015')
  await netnsWrite(path, '/proc/sys/net/ipv4/tcp_tw_reuse', '0') // on loopback alone it is on
  for (const port of [8080, 8081]) {
    const server = createTcpServer(socket => socket.on('error', () => {}).resume())
    t.teardown(() => server.close())
    server.listen({ fd: await netnsSocket(path, { type: 'tcp', address: '127.0.0.1', port }) })
  }
  const knock = (port: number) =>
    ask(() => dialSocket(name, '127.0.0.1'), { address: '127.0.0.1', port, timeoutMs: 2000 }, AbortSignal.timeout(9000))
  for (let i = 0; i < 16; i++) t.equal(await knock(8080), undefined)
  const closed = execFileSync('ip', ['netns', 'exec', name, 'cat', '/proc/net/tcp'], { encoding: 'utf8' })
  t.equal(closed.match(/:9C4. \w+:1F90 0[456]/g)?.length, 16, 'each kept by a connection that is over')
  for (let i = 0; i < 4; i++) t.equal(await knock(8081), undefined)
})

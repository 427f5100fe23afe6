// SPDX-License-Identifier: Apache-2.0
// --metrics from outside: what is answered, to whom, and what becomes of who does not keep to it.
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { type MetricsServerParts, openMetricsServer } from '../../src/daemon/metrics-server.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-metrics-'))
t.teardown(() => rmSync(dir, { recursive: true }))

const open = (parts: Partial<MetricsServerParts> = {}) =>
  openMetricsServer({
    ...{ listen: { kind: 'tcp', host: '127.0.0.1', port: 0 }, log: silentLog, contentType: 'text/plain' },
    ...{ scrape: async () => 'up 1\n', ...parts },
  })
const portOf = (address: string): number => Number(/:(\d+)$/.exec(address)![1])

/** Writes this, and gives what came until the other end closed, and after how many ms. */
const raw = (port: number, ...pieces: string[]): Promise<{ text: string; ms: number }> =>
  new Promise(resolve => {
    const from = performance.now()
    const socket = connect(port, '127.0.0.1')
    let text = ''
    let drip: NodeJS.Timeout | undefined
    const next = (): void => {
      const piece = pieces.shift()
      if (piece === undefined) return
      socket.write(piece)
      drip = setTimeout(next, 50)
    }
    socket.on('connect', next)
    socket.on('data', data => {
      text += String(data)
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(drip)
      resolve({ text, ms: performance.now() - from })
    })
  })

t.test('one path, one method', async t => {
  const server = await open()
  t.teardown(() => server.close())
  const ask = async (path: string, method = 'GET') => {
    const answer = await fetch(`http://${server.address}${path}`, { method })
    return [answer.status, await answer.text(), answer.headers.get('content-type'), answer.headers.get('allow')]
  }
  t.same(await ask('/metrics'), [200, 'up 1\n', 'text/plain', null])
  t.same(await ask('/metrics?format=x'), [200, 'up 1\n', 'text/plain', null])
  for (const path of ['/', '/metrics/', '/metricsx', '/%6detrics']) t.equal((await ask(path))[0], 404, path)
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
    t.match(await ask('/metrics', method), [405, /GET/, /text/, 'GET'], method)
  t.equal((await ask('/metrics', 'HEAD'))[0], 405)
})

t.test('a scrape that fails is an answer', async t => {
  const server = await open({
    scrape: async () => {
      throw new Error('secret of the inside')
    },
  })
  t.teardown(() => server.close())
  const answer = await fetch(`http://${server.address}/metrics`)
  t.equal(answer.status, 500)
  t.notMatch(await answer.text(), /secret/)
})

t.test('who does not keep to it is let go', async t => {
  const server = await open({ patienceMs: 400 })
  t.teardown(() => server.close())
  const port = portOf(server.address)
  const huge = await raw(port, `GET /metrics HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(9000)}\r\n\r\n`)
  t.match(huge.text, /^HTTP\/1\.1 431 /, 'a huge header')
  t.match((await raw(port, 'nonsense\r\n\r\n')).text, /^HTTP\/1\.1 400 /)
  const silent = await raw(port)
  t.ok(silent.ms < 30_000, `says nothing: ${Math.round(silent.ms)} ms`)
  const dripping = await raw(
    port,
    'GET /metrics HTTP/1.1\r\nHost: x\r\n',
    ...Array.from({ length: 2000 }, () => 'X: y\r\n'),
  )
  t.ok(dripping.ms < 60_000, `a header that does not end: ${Math.round(dripping.ms)} ms`)
  t.notMatch(dripping.text, / 200 /)
  const endless = await raw(
    port,
    'GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n',
    ...Array.from({ length: 2000 }, () => '1\r\nx\r\n'),
  )
  t.ok(endless.ms < 60_000, `a body that does not end: ${Math.round(endless.ms)} ms`)
  t.match((await raw(port, 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n')).text, /^HTTP\/1\.1 200 .*\r\n\r\nup 1\n$/s)
})

t.test('who reads nothing is let go, and there are few at a time', async t => {
  const server = await open({ patienceMs: 300, scrape: async () => 'x'.repeat(64 << 20) })
  t.teardown(() => server.close())
  const port = portOf(server.address)
  const closed = Array.from(
    { length: 40 },
    () =>
      new Promise<void>(resolve => {
        const socket = connect(port, '127.0.0.1', () => socket.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'))
        socket.pause()
        socket.on('error', () => {})
        // paused, it notices the end only when it writes
        const poke = setInterval(() => socket.write('x'), 100)
        socket.on('close', () => {
          clearInterval(poke)
          resolve()
        })
      }),
  )
  await Promise.all(closed)
  t.pass('all were')
})

t.test('what cannot be had is said with the flag', async t => {
  const first = await open()
  t.teardown(() => first.close())
  const port = portOf(first.address)
  const tcp = (host: string, port: number) => open({ listen: { kind: 'tcp', host, port } })
  await t.rejects(tcp('127.0.0.1', port), {
    code: 'TAKEN',
    message: `--metrics 127.0.0.1:${port}: another process listens there: choose another port`,
  })
  await t.rejects(tcp('192.0.2.77', port), {
    code: 'INVALID',
    message: /--metrics 192\.0\.2\.77:\d+: this host has no/,
  })
  await first.close()
  const second = await tcp('127.0.0.1', port)
  t.equal(second.address, `127.0.0.1:${port}`)
  await second.close()
  await second.close()
  const six = await tcp('::1', 0).catch(error => t.match(error, { code: 'INVALID' }, 'a host without IPv6'))
  if (typeof six === 'object') {
    t.match(six.address, /^\[::1\]:\d+$/)
    await six.close()
  }
})

t.test('a socket file', async t => {
  const path = join(dir, 'sub', 'metrics.sock')
  const listen = { kind: 'unix', path } as const
  const server = await open({ listen })
  t.equal(statSync(path).mode & 0o777, 0o600)
  const text = await new Promise<string>((resolve, reject) => {
    let body = ''
    request({ socketPath: path, path: '/metrics' }, response => {
      response.on('data', chunk => {
        body += String(chunk)
      })
      response.on('end', () => resolve(body))
    })
      .on('error', reject)
      .end()
  })
  t.equal(text, 'up 1\n')
  await t.rejects(open({ listen }), { code: 'TAKEN', message: new RegExp(`--metrics unix://${path}`) })
  await server.close()
  await (await open({ listen })).close()
})

t.test('the flag', async t => {
  const parse = (text: string) => parseConfig(['--metrics', text]).metrics
  t.equal(parseConfig([]).metrics, undefined)
  t.same(parse('10.0.0.5:9473'), { kind: 'tcp', host: '10.0.0.5', port: 9473 })
  t.same(parse('[fd00::5]:9473'), { kind: 'tcp', host: 'fd00::5', port: 9473 })
  t.same(parse(':9473'), { kind: 'tcp', host: '127.0.0.1', port: 9473 }, 'alone: the loopback')
  t.same(parse('unix:///run/m.sock'), { kind: 'unix', path: '/run/m.sock' })
  for (const [text, why] of [
    ['', /no address with a port/],
    ['9473', /no address with a port/],
    ['10.0.0.5', /no address with a port/],
    ['fd00::5:9473', /no address with a port/],
    ['host:9473', /host is no IP address/],
    ['10.0.0.555:9473', /10\.0\.0\.555 is no IP address/],
    ['[10.0.0.5]:9473', /10\.0\.0\.5 is no IPv6 address/],
    ['[fe80::1%eth0]:9473', /no IP address/],
    [':0', /the port is from 1 to 65535/],
    [':65536', /the port is from 1 to 65535/],
    ['http://10.0.0.5:9473', /no address with a port/],
    ['unix://run/m.sock', /begins with a slash/],
  ] as const)
    t.throws(() => parse(text), { code: 'INVALID', message: why }, text)
  t.throws(() => parse('x'), { message: /^--metrics "x": .*: give IP:PORT, \[IPv6\]:PORT/ })
})

// SPDX-License-Identifier: Apache-2.0
// The plugin socket without dockerd: what is counted of its calls, and whom it leaves the file to.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { type Log, silentLog } from '../../src/base/log.ts'
import { openRegistry } from '../../src/daemon/metrics.ts'
import { openPluginServer } from '../../src/docker/server.ts'
import { metricValue, parseExposition } from '../daemon/exposition.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-plugin-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const path = join(dir, 'plugins', 'weft.sock')

const call = (method: string, body = '{}'): Promise<number> =>
  new Promise((resolve, reject) => {
    request({ socketPath: path, path: `/${method}`, method: 'POST' }, response => {
      response.resume()
      response.on('end', () => resolve(response.statusCode!))
    })
      .on('error', reject)
      .end(body)
  })

t.test('calls are counted by method and code, and what is no method as unknown', async t => {
  const metrics = openRegistry(silentLog)
  const handlers = {
    'NetworkDriver.Join': async () => ({}),
    'NetworkDriver.Leave': async () => {
      throw new WeftError('TAKEN', 'by somebody')
    },
  }
  const server = await openPluginServer({ path, handlers, clock: systemClock, log: silentLog, metrics })
  const read = async () => parseExposition(await metrics.scrape())
  t.equal(metricValue(await read(), 'weft_docker_calls_total', { method: 'NetworkDriver.Join', code: 'OK' }), 0)
  t.equal(await call('NetworkDriver.Join'), 200)
  t.equal(await call('NetworkDriver.Join'), 200)
  t.equal(await call('NetworkDriver.Leave'), 500)
  for (const other of ['toString', 'a', 'b']) t.equal(await call(other), 404)
  const got = await read()
  for (const [method, code, count] of [
    ['NetworkDriver.Join', 'OK', 2],
    ['NetworkDriver.Leave', 'OK', 0],
    ['NetworkDriver.Leave', 'TAKEN', 1],
    ['unknown', 'NOT_SUPPORTED', 3],
  ] as const)
    t.equal(metricValue(got, 'weft_docker_calls_total', { method, code }), count, `${method} ${code}`)
  t.equal(metricValue(got, 'weft_docker_calls_total'), 6)
  t.equal(metricValue(got, 'weft_docker_call_seconds_count', { method: 'NetworkDriver.Join' }), 2)
  await server.close()
})

t.test(
  'one log line for each call, with ids, duration and the code of the error; the last errors are kept',
  async t => {
    const lines: (Record<string, unknown> & { level: string })[] = []
    const take = (level: string) => (fields: object) => void lines.push({ level, ...fields })
    const log: Log = { ...silentLog, info: take('info'), warn: take('warn'), error: take('error') }
    const handlers = {
      'NetworkDriver.Join': async () => ({}),
      'IpamDriver.RequestAddress': async () => {
        throw new WeftError('FULL', 'no room')
      },
    }
    const server = await openPluginServer({ path, handlers, clock: systemClock, log })
    const [network, endpoint] = ['a'.repeat(64), 'b'.repeat(64)]
    await call('NetworkDriver.Join', JSON.stringify({ NetworkID: network, EndpointID: endpoint, Secret: 'mine' }))
    for (let i = 0; i < 30; i++) await call('IpamDriver.RequestAddress', '{"PoolID":"10.1.0.0/24","Address":""}')
    await server.close()
    t.equal(lines.length, 31)
    const { ms, ...first } = lines[0]!
    t.same(first, { level: 'info', method: 'NetworkDriver.Join', network: 'a'.repeat(12), endpoint: 'b'.repeat(12) })
    t.type(ms, 'number')
    const failed = { method: 'IpamDriver.RequestAddress', code: 'FULL', error: 'no room' }
    t.match(lines[30], { level: 'warn', pool: '10.1.0.0/24', ms: Number, ...failed })
    t.equal(server.lastErrors.length, 20, 'the last of them')
    t.match(server.lastErrors.at(-1), { at: /^\d{4}-.*Z$/, ...failed })
  },
)

t.test('the file of a dead process is taken, that of a living one is not', async t => {
  const dies = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`
  spawnSync(process.execPath, ['-e', dies])
  t.ok(statSync(path).isSocket(), 'left behind')
  const open = () => openPluginServer({ path, handlers: {}, clock: systemClock, log: silentLog })
  const first = await open()
  t.equal(statSync(path).mode & 0o777, 0o600)
  await t.rejects(open(), { code: 'TAKEN', message: /is weftd running already/ })
  t.equal(await call('Plugin.Activate'), 200, 'the first goes on')
  await first.close()
})

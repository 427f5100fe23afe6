// SPDX-License-Identifier: Apache-2.0
// What an answer of Docker's API means, by a server that answers as dockerd does.
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type CreateNetworkBody, isSilent, keepsQueries, openEngine } from '../../src/docker/engine.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-engine-'))
const path = join(dir, 'docker.sock')
let answer = { status: 200, message: '' }
const server = createServer((_, response) => {
  if (answer.status === 0) return void response.destroy()
  response.writeHead(answer.status).end(JSON.stringify({ message: answer.message }))
})
await new Promise<void>(resolve => server.listen(path, resolve))
server.unref()
t.teardown(() => {
  server.close()
  server.closeAllConnections()
  rmSync(dir, { recursive: true })
})

t.test('only an engine that fails is unavailable; what it refuses is the caller’s', async t => {
  const engine = openEngine(path, text => (text.startsWith('subnet') ? 'TAKEN' : undefined))
  const create = () => engine.createNetwork({} as CreateNetworkBody)
  for (const [status, message, code] of [
    [400, 'invalid subnet', 'INVALID'],
    [403, 'operation is not permitted', 'INVALID'],
    [409, 'network with name x already exists', 'EXISTS'],
    [500, 'no space left on device', 'DOCKER_UNAVAILABLE'],
    [503, 'shutting down', 'DOCKER_UNAVAILABLE'],
  ] as const) {
    answer = { status, message }
    await t.rejects(create(), { code, message: `docker POST /networks/create: ${message}` }, `${status}`)
  }
  answer = { status: 403, message: 'network x has active endpoints' }
  await t.rejects(engine.removeNetwork('x'), { code: 'IN_USE' })
  answer = { status: 404, message: 'network x not found' }
  await engine.removeNetwork('x')
})

t.test('an engine that says that it cannot is not silent', async t => {
  const engine = openEngine(path)
  for (const [status, silent] of [
    [500, false],
    [404, false],
    [0, true],
  ] as const) {
    answer = { status, message: 'no' }
    t.equal(isSilent(await engine.container('x').catch(error => error)), silent, `${status}`)
    t.equal(isSilent(await engine.ping(new AbortController().signal).catch(error => error)), silent, `${status}`)
  }
})

t.test('an error of our own driver comes back as what it was', async t => {
  const engine = openEngine(path, text => (text === 'subnet 10.0.0.0/8 overlaps' ? 'TAKEN' : undefined))
  const create = () => engine.createNetwork({} as CreateNetworkBody)
  for (const status of [400, 404, 500]) {
    answer = { status, message: 'NetworkDriver.CreateNetwork: option weft.foo is unknown' }
    await t.rejects(create(), { code: 'INVALID', message: 'option weft.foo is unknown' })
    answer = { status, message: 'failed: IpamDriver.RequestPool: subnet 10.0.0.0/8 overlaps\n' }
    await t.rejects(create(), { code: 'TAKEN', message: 'subnet 10.0.0.0/8 overlaps' })
  }
})

t.test('which engines keep the queries of containers without a gateway to themselves', async t => {
  for (const version of [
    '20.10.24+dfsg1',
    '23.0.10',
    '24.0.9',
    '25.0.4',
    '26.1.3',
    '26.1.5+dfsg1',
    '27.0.0',
    '28.5.2+dfsg1',
    '29.7.2',
    'dev',
  ])
    t.notOk(keepsQueries(version), version)
  for (const version of ['23.0.11', '23.0.15', '25.0.5', '25.0.13', '26.0.0', '26.0.2', '26.1.2+dfsg1'])
    t.ok(keepsQueries(version), version)
})

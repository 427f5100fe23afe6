// SPDX-License-Identifier: Apache-2.0
import { chmodSync, linkSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Metadata } from '@grpc/grpc-js'
import t from 'tap'
import { openApiClient } from '../../src/api/client.ts'
import { type Handlers, openApiServer } from '../../src/api/server.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-api-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const ask = async (path: string, limitMs?: number): Promise<unknown> => {
  const client = openApiClient(path, new Metadata(), limitMs)
  try {
    return await client.call(one => one.getStatus, {})
  } finally {
    client.close()
  }
}

t.test('nobody there: is it running here?', async t => {
  await t.rejects(ask(join(dir, 'none.sock')), { code: 'TIMEOUT', message: /is it running here\?/ })
})

t.test('a socket that only root opens is a matter of permission', async t => {
  if (process.getuid?.() !== 0) return void t.pass('needs root')
  const path = join(dir, 'closed.sock')
  const server = await openApiServer(path, {} as Handlers, silentLog)
  chmodSync(dir, 0o755)
  process.seteuid!(65534)
  try {
    await t.rejects(ask(path), { code: 'PERMISSION', message: `${path} may not be opened: run it as root` })
  } finally {
    process.seteuid!(0)
  }
  await server.close()
})

t.test('a socket that another serves stays theirs, one of a dead process is taken', async t => {
  const path = join(dir, 'taken.sock')
  const other = createServer(socket => socket.destroy()).listen(path)
  await new Promise(resolve => other.once('listening', resolve))
  await t.rejects(openApiServer(path, {} as Handlers, silentLog), {
    code: 'TAKEN',
    message: `${path} is served by another process: is weftd running already?`,
  })
  const dead = join(dir, 'dead.sock')
  linkSync(path, dead)
  await new Promise(resolve => other.close(resolve))
  await (await openApiServer(dead, {} as Handlers, silentLog)).close()
})

t.test('an export that cannot begin says why', async t => {
  const path = join(dir, 'export.sock')
  const exportStore = () => {
    throw new WeftError('STORE_UNAVAILABLE', 'the store has not been read yet')
  }
  const server = await openApiServer(path, { exportStore } as unknown as Handlers, silentLog)
  const client = openApiClient(path, new Metadata())
  const all = async () => {
    for await (const record of client.exportStore()) t.fail(record.key)
  }
  await t.rejects(all(), {
    code: 'STORE_UNAVAILABLE',
    message: 'the store has not been read yet',
  })
  client.close()
  await server.close()
})

t.test('one who takes the connection and says nothing is told in a sentence', async t => {
  const path = join(dir, 'silent.sock')
  const sockets: Socket[] = []
  const server = createServer(socket => void sockets.push(socket.on('error', () => {})))
  await new Promise<void>(resolve => server.listen(path, resolve))
  await t.rejects(ask(path, 300), { code: 'TIMEOUT', message: /^weftd at .*silent.sock has not answered in time/ })
  server.close()
  for (const socket of sockets) socket.destroy()
})

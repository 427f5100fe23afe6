// SPDX-License-Identifier: Apache-2.0
// What listening on a file takes away: a dead socket, never a living one, nor what is no socket.
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { listenOnFile } from '../../src/base/socket-file.ts'

const dir = t.testdir()
const at = (name: string): string => join(dir, name)
const listen = async (path: string): Promise<void> => {
  const server = createServer()
  t.teardown(() => server.close())
  await listenOnFile(server, path)
}

t.test('a socket for root alone, in a folder made for it', async t => {
  await listen(at('new/x.sock'))
  t.equal(statSync(at('new/x.sock')).mode & 0o777, 0o600)
})

t.test('what a dead process left goes, what a living one serves stays', async t => {
  const path = at('dead.sock')
  spawnSync(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`,
  ])
  t.ok(statSync(path).isSocket(), 'left behind')
  await listen(path)
  await t.rejects(listen(path), { code: 'TAKEN' })
})

t.test('a file is never taken away', async t => {
  const file = at('passwd')
  writeFileSync(file, 'root')
  symlinkSync(file, at('link'))
  for (const path of [file, at('link')]) await t.rejects(listen(path), { code: 'INVALID', message: /not a socket/ })
  t.equal(readFileSync(file, 'utf8'), 'root')
})

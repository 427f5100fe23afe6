// SPDX-License-Identifier: Apache-2.0
// One weftd per data directory. The lock is a unix socket that answers: it falls with the process.
import { unlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'

/** Throws TAKEN when another process holds it. */
export const lockDataDir = async (dir: string): Promise<Closeable> => {
  const path = join(dir, 'lock')
  const held = await new Promise<boolean>(resolve => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
  if (held) throw new WeftError('TAKEN', `--data-dir ${dir} is in use by another weftd: stop that one first`)
  await unlink(path).catch(() => {})
  const server = createServer(socket => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  server.unref()
  return { close: () => new Promise(resolve => server.close(() => resolve())) }
}

// SPDX-License-Identifier: Apache-2.0
// Listening on a file: what a dead process left is taken away, a living one is not pushed aside.
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises'
import { connect, type Server } from 'node:net'
import { dirname } from 'node:path'
import { WeftError } from './errors.ts'

/** Who connects while so many wait to be accepted is refused (EAGAIN): the kernel's own limit, net.core.somaxconn. */
const backlog = 4096

/** For root alone. Throws TAKEN where a process answers already. */
export const listenOnFile = async (server: Server, path: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true })
  await freeFile(path)
  const umask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ path, backlog }, resolve)
    })
  } finally {
    process.umask(umask)
  }
  await chmod(path, 0o600)
}

/** Takes away what a dead process left. Throws TAKEN where a process answers, INVALID where it is no socket. */
export const freeFile = async (path: string): Promise<void> => {
  const there = await lstat(path).catch(() => undefined)
  if (there === undefined) return
  if (!there.isSocket())
    throw new WeftError('INVALID', `${path} is there and is not a socket: give another path, or move that away`)
  if (await answers(path))
    throw new WeftError('TAKEN', `${path} is served by another process: is weftd running already?`)
  await unlink(path).catch(() => {})
}

/** Whether a process serves this socket. */
export const answers = (path: string): Promise<boolean> =>
  new Promise(resolve => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

// SPDX-License-Identifier: Apache-2.0
// A real etcd for a test, on ports and a folder of its own, and a TCP proxy that can cut and refuse.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })

export const startEtcd = async () => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-etcd-'))
  const [port, peer] = [await freePort(), await freePort()]
  const endpoint = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  const etcdctl = (...args: string[]) =>
    promisify(execFile)('etcdctl', ['--endpoints', endpoint, ...args], { env: { ...process.env, ETCDCTL_API: '3' } })
  const self = {
    endpoint,
    port,
    async start() {
      const peerUrl = `http://127.0.0.1:${peer}`
      child = spawn(
        'etcd',
        [
          '--data-dir',
          dir,
          '--listen-client-urls',
          endpoint,
          '--advertise-client-urls',
          endpoint,
          '--listen-peer-urls',
          peerUrl,
        ].concat(['--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `default=${peerUrl}`]),
        { stdio: 'ignore' },
      )
      for (let i = 0; i < 200; i++) {
        if (
          await etcdctl('endpoint', 'health').then(
            () => true,
            () => false,
          )
        )
          return
        await sleep(50)
      }
      throw new Error('etcd does not start')
    },
    async kill() {
      const gone = new Promise(resolve => child?.once('close', resolve))
      child?.kill('SIGKILL')
      await gone
    },
    compact: (revision: bigint) => etcdctl('compact', String(revision)),
    etcdctl,
    async close() {
      await self.kill()
      await rm(dir, { recursive: true, force: true })
    },
  }
  await self.start()
  return self
}

export const openProxy = async (target: number) => {
  const sockets = new Set<Socket>()
  let refusing = false
  const server = createServer(near => {
    if (refusing) return void near.destroy()
    const far = connect(target, '127.0.0.1')
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.pipe(other)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
  })
  const port = await freePort()
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  const cut = (): void => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  return {
    endpoint: `http://127.0.0.1:${port}`,
    cut,
    refuse(on: boolean) {
      refusing = on
      if (on) cut()
    },
    async close() {
      cut()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

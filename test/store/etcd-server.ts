// SPDX-License-Identifier: Apache-2.0
// Real etcd servers for a test, on ports and folders of their own: one, or several that form a cluster, in the clear or
// with client certificates. Every process ends with close, or with this process.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { TlsFiles } from '../../src/store/etcd-tls.ts'
import { openProxy, type TcpProxy } from './proxy.ts'

const run = promisify(execFile)

/** Distinct, because all are held until the last is found. */
const freePorts = async (count: number): Promise<number[]> => {
  const servers = Array.from({ length: count }, () => createServer())
  const ports = await Promise.all(
    servers.map(
      server =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject)
          server.listen(0, '127.0.0.1', () => {
            const address = server.address()
            if (address && typeof address === 'object') resolve(address.port)
          })
        }),
    ),
  )
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

export interface EtcdServer {
  readonly endpoint: string
  readonly port: number
  start(): Promise<void>
  /** kill -9; the data stay. */
  kill(): Promise<void>
  /** Other data at the same address from the next start on. */
  forget(): void
  compact(revision: bigint): Promise<unknown>
  etcdctl(...args: string[]): Promise<{ stdout: string }>
  close(): Promise<void>
}

interface Place {
  readonly name: string
  readonly port: number
  readonly peer: number
  /** What the others dial; the port of a proxy where the member is to be isolated. */
  readonly peerDialled: number
  readonly cluster: string
  readonly tls: TlsFiles | undefined
}

const server = ({ name, port, peer, peerDialled, cluster, tls }: Place): EtcdServer => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-etcd-'))
  const scheme = tls ? 'https' : 'http'
  const endpoint = `${scheme}://127.0.0.1:${port}`
  let generation = 0
  let child: ChildProcess | undefined
  const killNow = (): void => void child?.kill('SIGKILL')
  process.once('exit', killNow)
  const client = tls ? ['--cacert', tls.ca, '--cert', tls.cert, '--key', tls.key] : []
  const etcdctl = (...args: string[]) =>
    run('etcdctl', ['--endpoints', endpoint, ...client, ...args], { env: { ...process.env, ETCDCTL_API: '3' } })
  const self: EtcdServer = {
    endpoint,
    port,
    etcdctl,
    async start() {
      const flags = {
        name,
        'data-dir': join(dir, String(generation)),
        'listen-client-urls': endpoint,
        'advertise-client-urls': endpoint,
        'listen-peer-urls': `http://127.0.0.1:${peer}`,
        'initial-advertise-peer-urls': `http://127.0.0.1:${peerDialled}`,
        'initial-cluster': cluster,
        'initial-cluster-token': `t${generation}`,
        'heartbeat-interval': '50',
        'election-timeout': '500',
        ...(tls ? { 'cert-file': tls.cert, 'key-file': tls.key, 'trusted-ca-file': tls.ca } : {}),
      }
      const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value])
      child = spawn('etcd', [...args, ...(tls ? ['--client-cert-auth'] : [])], { stdio: 'ignore' })
      for (let i = 0; i < 300; i++) {
        const healthy = await etcdctl('--dial-timeout=1s', '--command-timeout=2s', 'endpoint', 'health').then(
          () => true,
          () => false,
        )
        if (healthy) return
        await sleep(30)
      }
      throw new Error('etcd does not start')
    },
    async kill() {
      if (!child || child.exitCode !== null || child.signalCode !== null) return
      const gone = new Promise(resolve => child?.once('close', resolve))
      child.kill('SIGKILL')
      await gone
    },
    forget() {
      generation++
    },
    compact: revision => etcdctl('compact', String(revision)),
    async close() {
      await self.kill()
      process.removeListener('exit', killNow)
      rmSync(dir, { recursive: true, force: true })
    },
  }
  return self
}

export const startEtcd = async (tls?: TlsFiles): Promise<EtcdServer> => {
  const [port, peer] = (await freePorts(2)) as [number, number]
  const one = server({
    name: 'm0',
    port,
    peer,
    peerDialled: peer,
    cluster: `m0=http://127.0.0.1:${peer}`,
    tls,
  })
  await one.start()
  return one
}

export interface EtcdCluster {
  readonly members: readonly EtcdServer[]
  /** The member that leads now. */
  leader(): Promise<number>
  /** From now on this member hears none of the others, nor they it; its clients still reach it. undefined: healed. */
  isolate(member: number | undefined): Promise<void>
  close(): Promise<void>
}

/** Members say who they are in a header (etcd's rafthttp), so that a proxy can tell them apart. */
const senderOf = (chunk: Buffer): string | undefined => /X-Server-From: ([0-9a-f]+)/.exec(chunk.toString('latin1'))?.[1]

/** Three members that talk to each other through proxies. */
export const startCluster = async (tls?: TlsFiles): Promise<EtcdCluster> => {
  const ports = await freePorts(6)
  const towards: TcpProxy[] = []
  for (const peer of ports.slice(3)) towards.push(await openProxy(peer, senderOf))
  const cluster = towards.map((proxy, i) => `m${i}=http://127.0.0.1:${proxy.port}`).join(',')
  const members = towards.map((proxy, i) =>
    server({ name: `m${i}`, port: ports[i]!, peer: ports[3 + i]!, peerDialled: proxy.port, cluster, tls }),
  )
  await Promise.all(members.map(member => member.start()))
  /** `endpoint, id, version, size, leads, …` */
  const status = async (member: EtcdServer): Promise<string[]> =>
    (await member.etcdctl('endpoint', 'status')).stdout.split(', ')
  return {
    members,
    async leader() {
      for (const [i, member] of members.entries()) if ((await status(member).catch(() => []))[4] === 'true') return i
      throw new Error('nobody leads')
    },
    async isolate(member) {
      const id = member === undefined ? undefined : (await status(members[member]!))[1]
      for (const [i, proxy] of towards.entries()) {
        proxy.refuse(i === member)
        proxy.block(i === member ? undefined : id)
      }
    },
    async close() {
      await Promise.all(members.map(member => member.close()))
      await Promise.all(towards.map(proxy => proxy.close()))
    },
  }
}

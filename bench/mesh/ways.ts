// SPDX-License-Identifier: Apache-2.0
// The ways on which an outside client reaches a web server in a container on host 2: which address and port it asks.
// Every way has a container of its own; the server in it is the same program. (One container asked by two hosts would
// have the same client ports from both within a minute: see docs/mesh.md, Limits.)
import { existsSync } from 'node:fs'
import { idle } from '../../test/e2e/lab.ts'
import { bridgeNetwork, type Hosts, weftNetwork } from '../hosts/hosts.ts'

export type Way =
  /** The server on the host itself. */
  | 'raw'
  /** `-p` on Docker's bridge: a DNAT on the container's own host. */
  | 'host'
  | 'swarm from afar'
  | 'swarm'
  | 'weft from afar'
  | 'weft'

export type Ways = Readonly<Partial<Record<Way, string>>>

/** Entry without, and with a backend. */
const afar = '10.9.0.1'
const own = '10.9.0.2'
const ports = { raw: 80, host: 8001, swarm: 8002, swarmAfar: 8003, weft: 8004, weftAfar: 8005 } as const

/** Docker's routing mesh is IPVS and nothing else. */
export const hasIpvs = (): boolean => existsSync('/proc/net/ip_vs')

/** Gives URLs; without IPVS those of the swarm are left out. */
export const openWays = async ({ lab }: Hosts, server: readonly string[]): Promise<Ways> => {
  const serve = async (container: string): Promise<void> => {
    const pid = await lab.docker('h2', 'inspect', '-f', '{{.State.Pid}}', container)
    lab.background('exec', 'h2', 'nsenter', '-t', pid, '-n', ...server)
  }
  lab.background('exec', 'h2', ...server)
  const publish = async (name: string, network: string, port: number): Promise<void> => {
    await lab.docker('h2', 'run', '-d', '--name', name, '--network', network, '-p', `${port}:80`, 'busybox', ...idle)
    await serve(name)
  }
  await publish('host', bridgeNetwork, ports.host)
  await publish('weft', weftNetwork, ports.weft)
  await publish('weft-afar', weftNetwork, ports.weftAfar)
  const url = (host: string, port: number): string => `http://${host}:${port}/`
  const ways = {
    raw: url(own, ports.raw),
    host: url(own, ports.host),
    'weft from afar': url(afar, ports.weftAfar),
    weft: url(own, ports.weft),
  }
  if (!hasIpvs()) return ways
  const serviceOn = async (name: string, port: number): Promise<void> => {
    const where = ['--constraint', 'node.hostname==h2', '--publish', `${port}:80`, '--detach=false']
    await lab.docker(
      'h1',
      'service',
      'create',
      '-q',
      '--name',
      name,
      '--no-resolve-image',
      ...where,
      'busybox',
      ...idle,
    )
    await serve(await lab.docker('h2', 'ps', '-q', '-f', `label=com.docker.swarm.service.name=${name}`))
  }
  await serviceOn('swarm', ports.swarm)
  await serviceOn('swarm-afar', ports.swarmAfar)
  return { ...ways, 'swarm from afar': url(afar, ports.swarmAfar), swarm: url(own, ports.swarm) }
}

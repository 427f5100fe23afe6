// SPDX-License-Identifier: Apache-2.0
// Which container a driver call is about. The calls name none, so what is created is looked at at once: in the list,
// which waits for nobody, then in full, which waits for the container's lock and so for its start. A call is matched by
// its network and its ports. In doubt nobody is meant.
import { type Clock, sleep } from '../base/clock.ts'
import { WeftError } from '../base/errors.ts'
import { serviceKey, serviceOf } from '../model/service.ts'
import type { Engine, ListedContainer } from './engine.ts'
import type { Identity } from './identity.ts'
import type { RequestedPort } from './wire.ts'

export interface Starts {
  /** Created, or stopped. */
  waiting(container: string): Promise<void>
  /** Runs: no call is about it any more. */
  running(container: string): void
  destroyed(container: string): void
  /** Is it known not to run? */
  stopped(container: string): boolean
  /** Everything there is, after the event stream began or broke off. What does not answer is left for the next time. */
  load(containers: readonly ListedContainer[]): Promise<void>
  /**
   * Key of the service of all containers that a call may be about; undefined: none, or of several services. Waits for
   * Docker's events a moment, where none fits.
   */
  service(network: readonly string[], ports: readonly RequestedPort[]): Promise<string | undefined>
}

interface Known {
  /** Names or ids, as the user gave them. */
  readonly networks: readonly string[]
  readonly service: string
  /** Absent until it was looked at in full. */
  readonly ports?: string
  readonly everyPort?: boolean
}

const momentMs = 300
const stepMs = 10
/** Containers that a start holds locked answer when it is over: the others are not to wait for them. */
const atOnce = 8

export const openStarts = (engine: Engine, identity: Identity, clock: Clock): Starts => {
  const known = new Map<string, Known>()

  const listed = async ({ Id, Names, ImageID, Labels, NetworkSettings }: ListedContainer): Promise<void> => {
    const Config = { Hostname: '', Labels }
    const workload = await identity({ Id, Name: Names?.[0] ?? Id, Image: ImageID, Config })
    const networks = Object.entries(NetworkSettings?.Networks ?? {}).flatMap(([name, { NetworkID }]) => [
      name,
      NetworkID,
    ])
    known.set(Id, { networks, service: serviceKey(serviceOf(workload)) })
  }

  const inFull = async (id: string): Promise<void> => {
    const { HostConfig, State } = await engine.container(id)
    const now = known.get(id)
    if (State.Running || !now) return void known.delete(id)
    const ports = Object.entries(HostConfig.PortBindings ?? {}).flatMap(([port, bindings]) =>
      (bindings ?? []).map(({ HostIp, HostPort }) => `${port} ${everywhere(HostIp) ? '' : HostIp} ${HostPort || '0'}`),
    )
    known.set(id, { ...now, ports: canonical(ports), everyPort: HostConfig.PublishAllPorts })
  }

  const look = async (container: ListedContainer): Promise<void> => {
    try {
      await listed(container)
      await inFull(container.Id)
    } catch (error) {
      known.delete(container.Id)
      if (!(error instanceof WeftError && error.code === 'NOT_FOUND')) throw error
    }
  }

  const match = (network: readonly string[], requests: readonly RequestedPort[]): ReadonlySet<string> => {
    const ports = canonical(
      requests.map(
        ({ proto, port, hostPort, end, hostIp }) =>
          `${port}/${proto} ${hostIp ?? ''} ${end > hostPort ? `${hostPort}-${end}` : hostPort}`,
      ),
    )
    const every = requests.every(({ hostPort }) => hostPort === 0)
    return new Set(
      [...known.values()]
        .filter(one => one.networks.some(name => network.includes(name)))
        .filter(one => one.ports === undefined || one.ports === ports || (one.everyPort && every))
        .map(one => one.service),
    )
  }

  return {
    async waiting(id) {
      for (const container of await engine.containers({ id: [id] })) await look(container)
    },
    running: id => void known.delete(id),
    destroyed: id => void known.delete(id),
    stopped: id => known.has(id),
    async load(containers) {
      const stopped = new Map(containers.filter(({ State }) => State !== 'running').map(one => [one.Id, one]))
      for (const id of known.keys()) if (!stopped.has(id)) known.delete(id)
      const rest = stopped.values()
      const some = async (): Promise<void> => {
        for (const container of rest) if (!known.has(container.Id)) await look(container).catch(() => {})
      }
      await Promise.all(Array.from({ length: atOnce }, some))
    },
    async service(network, requests) {
      if (requests.length === 0) return undefined
      for (const end = clock.monotonic() + momentMs; ; ) {
        const services = match(network, requests)
        if (services.size > 0 || clock.monotonic() > end)
          return services.size === 1 ? services.values().next().value : undefined
        await sleep(clock, stepMs)
      }
    },
  }
}

const everywhere = (ip: string): boolean => ip === '' || ip === '0.0.0.0' || ip === '::'
const canonical = (ports: readonly string[]): string => [...ports].sort().join(', ')

// SPDX-License-Identifier: Apache-2.0
// Who holds a network on this host: containers that the engine knows, endpoints that the store knows.
import type { Context } from '../control/context.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Engine } from './engine.ts'

export interface Holders {
  /**
   * Names of containers of a Docker network, running or stopped, by id and by name: one that was never started since it
   * was connected knows the name alone.
   */
  users(docker: string, otherwise?: string): Promise<readonly string[]>
  used(docker: string, otherwise?: string): Promise<boolean>
  /** What the store knows, without the engine. */
  endpoints(network: NetworkId): readonly Endpoint[]
  endpointTitles(network: NetworkId): readonly string[]
  /** Containers here are gone from it, and what the store knows of them goes in a moment. */
  isLeft(network: NetworkId): boolean
}

/** `departed`: gone here, though the store could not be told yet. `nameOf`: a Docker network's. */
export const openHolders = (
  { mirror, node }: Context,
  engine: Engine,
  departed: (endpoint: EndpointId) => boolean,
  nameOf: (docker: string) => string | undefined,
): Holders => {
  const endpoints = (network: NetworkId): Endpoint[] =>
    [...mirror.snapshot.endpoints(network).values()].map(({ record }) => record).filter(record => record.node === node)
  const users = async (docker: string, otherwise?: string): Promise<readonly string[]> => {
    const name = nameOf(docker) ?? otherwise
    const found = await engine.containers({ network: name === undefined ? [docker] : [docker, name] })
    return found.map(({ Id, Names }) => Names?.[0]?.replace(/^\//, '') ?? Id.slice(0, 12))
  }
  return {
    ...{ users, endpoints },
    used: async (docker, otherwise) => (await users(docker, otherwise)).length > 0,
    endpointTitles: network => endpoints(network).map(({ workload, id }) => workload?.name ?? id.slice(0, 12)),
    isLeft: network => endpoints(network).some(({ id }) => departed(id)),
  }
}

/** Why a network stays. */
export const inUse = (node: NodeName, holders: ReadonlySet<string>): string => {
  const more = holders.size > 5 ? ` and ${holders.size - 5} more` : ''
  return `host ${node} has containers on it, running or stopped: ${[...holders].slice(0, 5).join(', ')}${more}`
}

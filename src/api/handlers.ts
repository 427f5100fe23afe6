// SPDX-License-Identifier: Apache-2.0
// What each call of the API does: reads from the mirror, verbs of control, and the one thing that needs Docker's API,
// given as a function.
import { WeftError } from '../base/errors.ts'
import type { Bindings } from '../control/bindings.ts'
import type { Networks } from '../control/networks.ts'
import type { Nodes } from '../control/nodes.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { ReconcilerStatus } from '../reconcile/status.ts'
import { endpointMessage, networkMessage, nodeMessage, reconcilerMessage, serviceMessages, titleOf } from './convert.ts'
import type * as wire from './gen/weft.ts'
import type { Handlers } from './server.ts'

export interface ApiParts {
  readonly node: NodeName
  readonly version: string
  readonly vtep: () => string
  readonly snapshot: Snapshot
  readonly networks: Networks
  readonly nodes: Nodes
  readonly bindings: Bindings
  readonly reconciler: () => ReconcilerStatus
  readonly store: () => {
    available: boolean
    error: string | undefined
    damaged: ReadonlyMap<string, string>
    records: number
  }
  readonly storeVersion: () => Promise<string>
  /** False: it was not in doubt. */
  readonly acceptStore: () => Promise<boolean>
  readonly copyStore: () => readonly wire.Record[]
  readonly restoreStore: (records: readonly wire.Record[]) => Promise<void>
  /** Through Docker's API; every engine of the cluster follows. */
  readonly createNetwork: (request: wire.CreateNetworkRequest, signal: AbortSignal) => Promise<NetworkId>
  readonly removeNetwork: (id: NetworkId, signal: AbortSignal) => Promise<void>
  readonly networkProblems: () => ReadonlyMap<string, string>
  readonly dockerError: () => string | undefined
  readonly lastErrors: () => readonly { at: string; method: string; code: string; error: string }[]
  readonly dnsListening: () => number
  readonly dnsProblems: () => ReadonlyMap<NetworkId, string>
  readonly drain: (network: NetworkId, endpoint: EndpointId, drained: boolean, signal: AbortSignal) => Promise<void>
  /** 'tcp/8080' → why this host does not answer on it. */
  readonly portProblems: () => ReadonlyMap<string, string>
  readonly departures: () => number
}

export const apiHandlers = (parts: ApiParts): Handlers => {
  const { snapshot, networks, nodes, bindings } = parts

  const show = (network: Network): wire.Network =>
    networkMessage(network, snapshot, {
      dockerId: bindings.byNetwork(network.id)?.docker,
      problem: parts.networkProblems().get(network.name ?? ''),
    })
  const nodeNamed = (name: string) => {
    const node = snapshot.nodes.get(name)
    if (!node) throw new WeftError('NOT_FOUND', `there is no node ${JSON.stringify(name)}: see weft node ls`)
    return node.record
  }

  const services = (): readonly wire.Service[] => serviceMessages(snapshot, key => parts.portProblems().get(key))
  const serviceNamed = (name: string, network: string): wire.Service => {
    const found = services().filter(
      service =>
        (titleOf(service) === name || service.name === name) && (network === '' || service.network === network),
    )
    if (found.length > 1)
      throw new WeftError(
        'INVALID',
        `there are several: ${found.map(service => `${titleOf(service)} in ${service.network}`).join(', ')}: give --network, or PROJECT/NAME`,
      )
    if (!found[0])
      throw new WeftError('NOT_FOUND', `no service ${JSON.stringify(name)} publishes a port: see weft service ls`)
    return found[0]
  }

  return {
    async getStatus() {
      const { available, error, damaged, records } = parts.store()
      return {
        node: parts.node,
        version: parts.version,
        vtep: parts.vtep(),
        store: {
          available,
          error: error ?? '',
          revision: String(snapshot.revision),
          records,
          damaged: [...damaged].map(([key, why]) => `${key}: ${why}`),
        },
        reconciler: reconcilerMessage(parts.reconciler()),
        dockerError: parts.dockerError() ?? '',
        lastErrors: parts.lastErrors().map(one => ({ ...one })),
        problems: problemsOf(parts),
        networksHere: bindings.bound.size,
        dnsListening: parts.dnsListening(),
        departures: parts.departures(),
      }
    },
    async getVersion() {
      return { version: parts.version, nodeVersion: process.version, store: await parts.storeVersion() }
    },
    async listNetworks() {
      const all = [...snapshot.networks.values()].map(({ record }) => show(record))
      return { networks: all.sort((a, b) => a.name.localeCompare(b.name)) }
    },
    async getNetwork({ name }) {
      return show(networks.find(name).record)
    },
    async createNetwork(request, signal) {
      const id = await parts.createNetwork(request, signal)
      return show(networks.find(id).record)
    },
    async removeNetwork({ name, force }, signal) {
      const { record } = networks.find(name)
      const holders = new Set([...snapshot.endpoints(record.id).values()].map(endpoint => endpoint.record.node))
      const living = [...holders].filter(holder => !force || nodes.present(holder))
      if (living.length > 0)
        throw new WeftError(
          'IN_USE',
          `network ${name} has containers on ${living.join(', ')}: stop them first${living.every(holder => !nodes.present(holder)) ? ', or --force, as these nodes are silent' : ''}`,
        )
      await parts.removeNetwork(record.id, signal)
      return {}
    },
    async listEndpoints({ network, node }) {
      const ids = network === '' ? [...snapshot.networks.keys()] : [networks.find(network).record.id]
      if (node !== '') nodeNamed(node)
      return {
        endpoints: ids.flatMap(id =>
          [...snapshot.endpoints(id).values()]
            .filter(({ record }) => node === '' || record.node === node)
            .map(({ record }) => endpointMessage(record, snapshot)),
        ),
      }
    },
    async listServices({ network }) {
      const name = network === '' ? '' : (networks.find(network).record.name ?? network)
      return { services: services().filter(service => name === '' || service.network === name) }
    },
    async getService({ name, network }) {
      return serviceNamed(name, network)
    },
    async drainBackend({ service: name, network, container, undo }, signal) {
      const service = serviceNamed(name, network)
      const { record } = networks.find(service.network)
      const meant = [...snapshot.endpoints(record.id).values()].filter(
        endpoint =>
          endpoint.record.workload?.name === container &&
          service.backends.some(backend => backend.container === container && backend.node === endpoint.record.node),
      )
      if (meant.length === 0)
        throw new WeftError(
          'NOT_FOUND',
          `service ${titleOf(service)} has no container ${JSON.stringify(container)}: see weft service show ${titleOf(service)}`,
        )
      for (const endpoint of meant) await parts.drain(record.id, endpoint.record.id, !undo, signal)
      return serviceNamed(name, network)
    },
    async listNodes() {
      return { nodes: [...snapshot.nodes.values()].map(({ record }) => nodeMessage(record, snapshot)) }
    },
    async getNode({ name }) {
      return nodeMessage(nodeNamed(name), snapshot)
    },
    async drainNode({ name, undo }, signal) {
      await nodes.setDrained(name, !undo, signal)
      return { ...nodeMessage(nodeNamed(name), snapshot), state: undo ? 'up' : 'drained' }
    },
    async removeNode({ name }, signal) {
      return nodes.fence(name, signal)
    },
    async acceptStore() {
      return { idle: !(await parts.acceptStore()) }
    },
    exportStore: () => parts.copyStore(),
    async importStore(records) {
      await parts.restoreStore(records)
      return { records: records.length }
    },
  }
}

/** Sentences about what an operator should look at. */
const problemsOf = (parts: ApiParts): string[] => {
  const problems: string[] = []
  const store = parts.store()
  if (!store.available) problems.push(`store: ${store.error ?? 'not reached yet'}`)
  for (const [key, why] of store.damaged)
    problems.push(
      `store: ${why.includes(key) ? why : `${key}: ${why}`}; the version before stays in force, if there was one`,
    )
  const docker = parts.dockerError()
  if (docker !== undefined) problems.push(`docker: ${docker}`)
  for (const [name, why] of parts.networkProblems()) problems.push(`network ${name}: ${why}`)
  for (const [id, why] of parts.dnsProblems())
    problems.push(`dns in ${parts.snapshot.networks.get(id)?.record.name ?? 'the host'}: ${why}`)
  for (const { object, error } of parts.reconciler().failing) problems.push(`kernel: ${object}: ${error}`)
  for (const port of parts.reconciler().lost)
    problems.push(`port ${port} was removed by somebody: restart its container`)
  for (const [port, why] of parts.portProblems()) problems.push(`port ${port} is not answered on this host: ${why}`)
  problems.push(...unpublished(parts.snapshot))
  problems.push(...equalNames(parts.snapshot))
  return problems
}

/** Containers whose port another service had, which came out when they were running already. */
const unpublished = (snapshot: Snapshot): string[] =>
  serviceMessages(snapshot, () => undefined).flatMap(service =>
    service.backends
      .filter(({ state }) => state === 'other')
      .map(
        ({ container, node }) =>
          `container ${container} on ${node} gets no connections by ${service.ports.map(({ proto, hostPort }) => `${hostPort}/${proto}`).join(', ')}: that is service ${titleOf(service)} of network ${service.network}`,
      ),
  )

/** Containers of one network with one name on several hosts: DNS gives all their addresses. */
const equalNames = (snapshot: Snapshot): string[] => {
  const found: string[] = []
  for (const [id, { record }] of snapshot.networks) {
    const holders = new Map<string, Set<string>>()
    for (const { record: endpoint } of snapshot.endpoints(id).values())
      if (endpoint.workload) {
        const nodes = holders.get(endpoint.workload.name) ?? new Set()
        holders.set(endpoint.workload.name, nodes.add(endpoint.node))
      }
    for (const [name, nodes] of holders)
      if (nodes.size > 1)
        found.push(
          `network ${record.name ?? id}: ${nodes.size} containers are named ${name}, on ${[...nodes].sort().join(', ')}`,
        )
  }
  return found
}

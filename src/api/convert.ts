// SPDX-License-Identifier: Apache-2.0
// Records of the cluster into messages of the API.
import { type Endpoint, standing } from '../model/endpoint.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { holding, type PortKey, type PortMapping, parsePortKey } from '../model/port.ts'
import { parseServiceKey, servicesIn } from '../model/service.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { ReconcilerStatus } from '../reconcile/status.ts'
import type * as wire from './gen/weft.ts'

export interface Here {
  readonly dockerId: string | undefined
  readonly problem: string | undefined
}

export const networkMessage = (network: Network, snapshot: Snapshot, here: Here): wire.Network => ({
  id: network.id,
  name: network.name ?? '',
  vni: network.vni,
  pools: network.pools.map(({ prefix, range, gateway, aux }) => ({
    prefix,
    range: range ?? '',
    gateway: gateway ?? '',
    aux: { ...aux },
  })),
  mtu: network.mtu,
  internal: network.internal,
  attachable: network.attachable,
  options: { ...network.options },
  labels: { ...network.labels },
  state: network.state.kind,
  origin: network.origin.by,
  originNode: network.origin.node,
  endpoints: snapshot.endpoints(network.id).size,
  dockerId: here.dockerId ?? '',
  problem: here.problem ?? '',
})

const portMessage = ({ proto, port, hostPort, hostIp, local }: PortMapping): wire.Port => ({
  proto,
  port,
  hostPort,
  hostIp: hostIp ?? '',
  local: local === true,
})

export const endpointMessage = (endpoint: Endpoint, snapshot: Snapshot): wire.Endpoint => ({
  id: endpoint.id,
  network: snapshot.networks.get(endpoint.network)?.record.name ?? endpoint.network,
  node: endpoint.node,
  addresses: [...endpoint.addresses],
  mac: endpoint.mac,
  container: endpoint.workload?.name ?? '',
  containerId: endpoint.workload?.container ?? '',
  service: endpoint.workload?.service ?? '',
  project: endpoint.workload?.project ?? '',
  aliases: [...(endpoint.workload?.aliases ?? [])],
  ports: endpoint.ports.map(portMessage),
  labels: { ...endpoint.workload?.labels },
  identity: endpoint.identity,
})

/** Every service that publishes a port on every host. `problem`: why this host does not answer on it. */
export const serviceMessages = (
  snapshot: Snapshot,
  problem: (port: PortKey) => string | undefined,
): readonly wire.Service[] => {
  const services = new Map<string, wire.Service>()
  for (const [key, { record }] of snapshot.ports) {
    const { cluster } = record
    if (!cluster) continue
    const endpoints = snapshot.endpoints(cluster.network)
    const active = new Set(holding(cluster, servicesIn(snapshot, cluster.network)))
    const title = cluster.service ?? `container ${encodeURIComponent(cluster.holders[0]!.slice(0, 12))}`
    const { name, project } = parseServiceKey(title)
    const network = snapshot.networks.get(cluster.network)?.record.name ?? cluster.network
    const known = services.get(`${cluster.network} ${title}`)
    const service = known ?? { name, project: project ?? '', network, ports: [], backends: [] }
    services.set(`${cluster.network} ${title}`, service)
    const { proto, port } = parsePortKey(key)
    service.ports.push({ proto, hostPort: port, problem: problem(key) ?? '' })
    for (const id of cluster.holders) {
      const endpoint = endpoints.get(id)?.record
      if (!endpoint) continue
      const container = endpoint.workload?.name ?? id.slice(0, 12)
      if (service.backends.some(backend => backend.container === container && backend.node === endpoint.node)) continue
      const away = snapshot.nodes.get(endpoint.node)?.record.fenced !== undefined
      service.backends.push({
        container,
        node: endpoint.node,
        addresses: [...endpoint.addresses],
        ports: endpoint.ports.map(portMessage),
        state: away ? 'away' : active.has(id) ? standing(endpoint) : 'other',
      })
    }
  }
  for (const { ports } of services.values())
    ports.sort((a, b) => a.hostPort - b.hostPort || a.proto.localeCompare(b.proto))
  return [...services.values()].sort(
    (a, b) => a.network.localeCompare(b.network) || titleOf(a).localeCompare(titleOf(b)),
  )
}

export const titleOf = ({ project, name }: Pick<wire.Service, 'project' | 'name'>): string =>
  project === '' ? name : `${project}/${name}`

export const nodeMessage = (node: Node, snapshot: Snapshot): wire.Node => {
  let endpoints = 0
  for (const network of snapshot.networks.keys())
    for (const { record } of snapshot.endpoints(network).values()) if (record.node === node.name) endpoints++
  const presence = snapshot.presence.get(node.name)?.record
  const state =
    node.fenced !== undefined ? 'fenced' : presence === undefined ? 'silent' : node.drained === true ? 'drained' : 'up'
  return {
    name: node.name,
    number: node.number,
    vtep: node.vtep,
    mtu: node.mtu,
    version: node.version,
    state,
    routes: [...node.routes],
    endpoints,
    applied: presence?.applied ?? '',
  }
}

export const reconcilerMessage = (status: ReconcilerStatus): wire.ReconcilerStatus => ({
  passes: status.passes,
  operations: status.operations,
  repairs: { ...status.repairs },
  failing: status.failing.map(one => ({ ...one })),
  lost: [...status.lost],
  wanted: status.wanted,
  observed: status.observed,
  lastPassMs: status.lastPassMs,
  reached: status.reached,
})

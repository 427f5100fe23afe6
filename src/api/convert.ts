// SPDX-License-Identifier: Apache-2.0
// Records of the cluster into messages of the API.
import { type Endpoint, standing } from '../model/endpoint.ts'
import { type Floating, floatingOf } from '../model/floating.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import { holding, type PortKey, type PortMapping, parsePortKey } from '../model/port.ts'
import { parseServiceKey, weightOf } from '../model/service.ts'
import { defaultScheduler, formatTarget, optionsKey, type ServiceOptions } from '../model/service-options.ts'
import { type Snapshot, servicesIn } from '../model/snapshot.ts'
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

export const endpointMessage = (endpoint: Endpoint, snapshot: Snapshot, unpublished: boolean): wire.Endpoint => ({
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
  unpublished,
})

const optionsMessage = (
  options: ServiceOptions | undefined,
  floating: (one: Floating) => wire.FloatingAddress,
): wire.ServiceOptions => {
  const { scheduler = defaultScheduler, affinity = 0, timeoutTcp = 0, timeoutUdp = 0, probe } = options ?? {}
  return {
    ...{ scheduler, affinity, timeoutTcp, timeoutUdp },
    probe: probe ? formatTarget(probe.target) : '',
    probeIntervalMs: probe?.intervalMs ?? 0,
    probeTimeoutMs: probe?.timeoutMs ?? 0,
    probeFailures: probe?.failures ?? 0,
    addresses: (options?.addresses ?? []).map(one => floating(floatingOf(one, options!.network, options!.service))),
  }
}

/**
 * Every service that publishes a port on every host, or has virtual addresses and a container, or of which something was
 * said. `problem`: why this host does not answer on it; `silent`: the node does not answer this one; `unable`: what was asked for and this host cannot do.
 */
export const serviceMessages = (
  snapshot: Snapshot,
  problem: (port: PortKey) => string | undefined,
  silent: (network: NetworkId, node: NodeName) => boolean,
  unable: (options: ServiceOptions | undefined, virtual: boolean) => string[],
  floating: (one: Floating) => wire.FloatingAddress,
): readonly wire.Service[] => {
  const services = new Map<string, wire.Service>()
  const listed = new Map<wire.Service, Set<string>>() // containers that it has already, by node
  const unused = new Set<ServiceOptions>()
  for (const network of snapshot.networks.keys())
    for (const { record } of snapshot.services(network).values()) unused.add(record)
  const serviceOf = (network: NetworkId, service: string): wire.Service => {
    const known = services.get(`${network} ${service}`)
    if (known) return known
    const options = snapshot.services(network).get(optionsKey(service))?.record
    if (options) unused.delete(options)
    const { name, project = '' } = parseServiceKey(service)
    const networkName = snapshot.networks.get(network)?.record.name ?? network
    const vips = [...(snapshot.vips(network).get(service)?.record.addresses ?? [])]
    const about = { name, project, network: networkName, vips, problems: unable(options, vips.length > 0) }
    const made = { ...about, ports: [], backends: [], options: optionsMessage(options, floating) }
    services.set(`${network} ${service}`, made)
    return made
  }
  const addBackend = (service: wire.Service, network: NetworkId, id: EndpointId, isOther: boolean): void => {
    const endpoint = snapshot.endpoints(network).get(id)?.record
    if (!endpoint) return
    const container = endpoint.workload?.name ?? id.slice(0, 12)
    const known = listed.get(service) ?? new Set()
    const title = `${endpoint.node} ${container}`
    if (known.has(title)) return
    listed.set(service, known.add(title))
    const away = snapshot.nodes.get(endpoint.node)?.record.fenced !== undefined
    const stands = standing(endpoint)
    const mute = silent(network, endpoint.node)
    const state = away ? 'away' : isOther ? 'other' : stands === 'active' && mute ? 'silent' : stands
    service.backends.push({
      container,
      node: endpoint.node,
      addresses: [...endpoint.addresses],
      ports: endpoint.ports.map(portMessage),
      state,
      weight: state === 'active' ? weightOf(endpoint) : 0,
      counts: [],
    })
  }
  for (const [key, { record }] of snapshot.ports) {
    const { cluster } = record
    if (!cluster) continue
    const active = new Set(holding(cluster, servicesIn(snapshot, cluster.network)))
    const title = cluster.service ?? `container ${encodeURIComponent(cluster.holders[0]!.slice(0, 12))}`
    const service = serviceOf(cluster.network, title)
    const { proto, port } = parsePortKey(key)
    service.ports.push({ proto, hostPort: port, problem: problem(key) ?? '' })
    for (const id of cluster.holders) addBackend(service, cluster.network, id, !active.has(id))
  }
  for (const network of snapshot.networks.keys())
    for (const key of snapshot.vips(network).keys()) {
      const members = snapshot.members(network, key)
      if (members.size === 0) continue
      const service = serviceOf(network, key)
      for (const id of members) addBackend(service, network, id, false)
    }
  for (const { network, service } of [...unused]) serviceOf(network, service)
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
    addresses: (node.addresses ?? []).map(one => ({ ...one })),
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

/** What went to one address by one port; `all`: since it is a destination. */
export interface Count {
  readonly proto: string
  readonly port: number
  readonly to: string
  readonly active: number
  readonly all?: { readonly connections: bigint; readonly bytesIn: bigint; readonly bytesOut: bigint }
}

/** With what the kernel of this host counts. Backends are told by their addresses. */
export const countedMessage = (service: wire.Service, counts: readonly Count[]): wire.Service => ({
  ...service,
  backends: service.backends.map(backend => ({
    ...backend,
    counts: service.ports.flatMap(({ proto, hostPort }): wire.BackendCount[] => {
      const own = counts.filter(
        one => one.proto === proto && one.port === hostPort && backend.addresses.includes(one.to),
      )
      if (own.length === 0) return []
      const active = own.reduce((sum, one) => sum + one.active, 0)
      const known = own.every(one => one.all !== undefined)
      const sum = (of: 'connections' | 'bytesIn' | 'bytesOut'): number =>
        own.reduce((total, { all }) => total + Number(all?.[of] ?? 0n), 0)
      const all = known
        ? { connections: sum('connections'), bytesIn: sum('bytesIn'), bytesOut: sum('bytesOut') }
        : { connections: undefined, bytesIn: undefined, bytesOut: undefined }
      return [{ proto, hostPort, active, ...all }]
    }),
  })),
})

// SPDX-License-Identifier: Apache-2.0
// Records of the cluster into messages of the API.
import type { Endpoint } from '../model/endpoint.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
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
  ports: endpoint.ports.map(({ proto, port, hostPort, hostIp }) => ({ proto, port, hostPort, hostIp: hostIp ?? '' })),
  labels: { ...endpoint.workload?.labels },
  identity: endpoint.identity,
})

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

// SPDX-License-Identifier: Apache-2.0
// A unit is what is planned by itself: the kernel objects of one thing, from few records. Which units a changed record
// touches is said here; what they become, in plan.

import type { KernelObject } from '../kernel/objects.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import { type PortKey, type Proto, parsePortKey } from '../model/port.ts'
import { sharedService } from '../model/service.ts'
import { optionsKey } from '../model/service-options.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from './host.ts'

export type Unit =
  /** H: the host's own tables. Inputs: cluster, this node, Host. */
  | { readonly kind: 'host' }
  /** H: the way to a peer. Inputs: that node. */
  | { readonly kind: 'node'; readonly node: NodeName }
  /** N and M of a bound network. Inputs: network, this node, Host. */
  | { readonly kind: 'network'; readonly network: NetworkId }
  /** A peer's gateway as seen in a bound network. Inputs: network, that node. */
  | { readonly kind: 'peer'; readonly network: NetworkId; readonly node: NodeName }
  /** Inputs: network, endpoint, its node. */
  | { readonly kind: 'endpoint'; readonly network: NetworkId; readonly endpoint: EndpointId }
  /** A published port on this host. Inputs: its claim, its service's options, the network, the endpoints that hold it and their nodes, Host. */
  | { readonly kind: 'port'; readonly proto: Proto; readonly port: number }
  /** Virtual addresses of a service in a bound network. Inputs: its record and options, the network, its members and their nodes, Host. */
  | { readonly kind: 'vip'; readonly network: NetworkId; readonly service: string }

export type OverlayUnit = Exclude<Unit, { kind: 'port' | 'vip' }>

export type UnitKey = string

export const unitKey = (unit: Unit): UnitKey => {
  switch (unit.kind) {
    case 'host':
      return 'host'
    case 'node':
      return `node ${unit.node}`
    case 'network':
      return `network ${unit.network}`
    case 'peer':
      return `peer ${unit.network} ${unit.node}`
    case 'endpoint':
      return `endpoint ${unit.network} ${unit.endpoint}`
    case 'port':
      return `port ${unit.proto} ${unit.port}`
    case 'vip':
      return `vip ${unit.network} ${unit.service}`
  }
}

/** What a unit wants. Where units disagree about a key the higher rank wins, then the newer record. */
export interface Wanted {
  readonly object: KernelObject
  readonly rank: number
}

export interface Planned {
  readonly wanted: readonly Wanted[]
  /** Revision of the record that the unit is about. */
  readonly revision: bigint
}

export const nothing: Planned = { wanted: [], revision: 0n }

const portUnit = (key: PortKey): Unit => ({ kind: 'port', ...parsePortKey(key) })

/** Every unit that a network's record, binding or removal touches. */
export const unitsOfNetwork = function* (network: NetworkId, snapshot: Snapshot): Generator<Unit> {
  yield { kind: 'network', network }
  for (const node of snapshot.nodes.keys()) yield { kind: 'peer', network, node }
  for (const endpoint of snapshot.endpoints(network).keys()) yield* unitsOfEndpoint(network, endpoint, snapshot)
  for (const service of snapshot.vips(network).keys()) yield { kind: 'vip', network, service }
}

/**
 * Itself, the ports that it publishes (those that it no longer does change their claims in the same transaction), and
 * the virtual addresses that lead to it (a service that it has left is told by the mirror).
 */
export const unitsOfEndpoint = (network: NetworkId, endpoint: EndpointId, snapshot: Snapshot): [Unit, ...Unit[]] => {
  const record = snapshot.endpoints(network).get(endpoint)?.record
  const service = record && sharedService(record)
  return [
    { kind: 'endpoint', network, endpoint },
    ...(record?.ports ?? []).map(({ proto, hostPort }): Unit => ({ kind: 'port', proto, port: hostPort })),
    ...(service !== undefined && snapshot.vips(network).has(service)
      ? [{ kind: 'vip', network, service } as const]
      : []),
  ]
}

export const allUnits = function* (snapshot: Snapshot, host: Host): Generator<Unit> {
  yield { kind: 'host' }
  for (const node of snapshot.nodes.keys()) yield { kind: 'node', node }
  for (const network of host.bound.keys()) yield* unitsOfNetwork(network, snapshot)
  for (const key of snapshot.ports.keys()) yield portUnit(key)
}

/** Units that a changed record touches; 'all' when it touches everything. */
export const unitsOfChange = (key: readonly string[], snapshot: Snapshot, host: Host): Iterable<Unit> | 'all' => {
  const [table, a, b] = key as [string, string, string]
  switch (table) {
    case 'cluster':
      return 'all'
    case 'nodes':
      return a === host.node ? 'all' : unitsOfNode(a, snapshot, host)
    case 'networks':
      return host.bound.has(a) ? unitsOfNetwork(a, snapshot) : []
    case 'endpoints':
      return host.bound.has(a) ? unitsOfEndpoint(a, b, snapshot) : []
    case 'ports':
      return [portUnit(`${a}/${b}`)]
    case 'services':
      return host.bound.has(a) ? unitsOfService(a, b, snapshot) : []
    case 'vips':
    case 'members':
      return host.bound.has(a) ? [{ kind: 'vip', network: a, service: b }] : []
    default:
      return []
  }
}

/** What leads to a service of which something was said. */
const unitsOfService = function* (network: NetworkId, options: string, snapshot: Snapshot): Generator<Unit> {
  for (const [key, { record }] of snapshot.ports) {
    const { cluster } = record
    if (cluster?.network === network && cluster.service !== undefined && optionsKey(cluster.service) === options)
      yield portUnit(key)
  }
  for (const service of snapshot.vips(network).keys())
    if (optionsKey(service) === options) yield { kind: 'vip', network, service }
}

const unitsOfNode = function* (node: NodeName, snapshot: Snapshot, host: Host): Generator<Unit> {
  yield { kind: 'node', node }
  for (const network of host.bound.keys()) {
    yield { kind: 'peer', network, node }
    for (const [endpoint, { record }] of snapshot.endpoints(network))
      if (record.node === node) yield* unitsOfEndpoint(network, endpoint, snapshot)
  }
}

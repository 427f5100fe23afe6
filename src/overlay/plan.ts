// SPDX-License-Identifier: Apache-2.0
// The overlay's planner: one unit in, the kernel objects it wants out. Pure: no clock, no I/O, no memory. A unit whose
// records are missing, fenced or not bound here wants nothing.

import type { KernelObject } from '../kernel/objects.ts'
import { familyOf, linkLocalOf } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import type { Network } from '../model/network.ts'
import type { Node } from '../model/node.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { nodeMac } from '../plan/macs.ts'
import { gatewayLink, gatewayNs, switchNs, vtep } from '../plan/names.ts'
import { element, macOfZone, vteps, zoneOf } from '../plan/sets.ts'
import { trackingSwitch } from '../plan/tracking.ts'
import { nothing, type OverlayUnit, type Planned, type Wanted } from '../plan/unit.ts'
import { planEndpoint } from './endpoint-plan.ts'
import { planGateway } from './gateway-plan.ts'
import { planHost } from './host-plan.ts'
import { groupOf, legOf } from './nexthops.ts'
import { planSwitch } from './switch-plan.ts'

export interface Inputs {
  readonly snapshot: Snapshot
  readonly host: Host
}

export const planOverlay = (unit: OverlayUnit, { snapshot, host }: Inputs): Planned => {
  const cluster = snapshot.cluster?.record
  const self = snapshot.nodes.get(host.node)
  if (!cluster || !self || self.record.fenced !== undefined) return nothing
  const own = self.record
  switch (unit.kind) {
    case 'host':
      return planned(planHost(own, cluster, host), self.revision)
    case 'node': {
      const peer = snapshot.nodes.get(unit.node)
      if (!peer || !alive(peer.record) || unit.node === host.node) return nothing
      return planned(planNode(peer.record), peer.revision)
    }
    case 'network': {
      const network = snapshot.networks.get(unit.network)
      if (!network || !host.bound.has(unit.network)) return nothing
      return {
        wanted: [
          ...planSwitch(network.record, own, cluster, host).map(wanted),
          ...planGateway(network.record, own, cluster, host).map(wanted),
          ...trackingSwitch(network.record, '0').map(wanted),
        ],
        revision: network.revision,
      }
    }
    case 'peer': {
      const network = snapshot.networks.get(unit.network)
      const peer = snapshot.nodes.get(unit.node)
      if (!network || !peer || !alive(peer.record) || !host.bound.has(unit.network)) return nothing
      return planned(planPeer(network.record, peer.record, unit.node === host.node), peer.revision)
    }
    case 'endpoint': {
      const network = snapshot.networks.get(unit.network)
      const endpoint = snapshot.endpoints(unit.network).get(unit.endpoint)
      if (!network || !endpoint || !host.bound.has(unit.network) || host.departed(unit.endpoint)) return nothing
      const node = snapshot.nodes.get(endpoint.record.node)?.record
      if (!node || !alive(node)) return nothing
      return {
        wanted: planEndpoint(endpoint.record, network.record, node, own),
        revision: endpoint.revision,
      }
    }
  }
}

const alive = (node: Node): boolean => node.fenced === undefined
const wanted = (object: KernelObject): Wanted => ({ object, rank: 0 })
const planned = (objects: readonly KernelObject[], revision: bigint): Planned => ({
  wanted: objects.map(wanted),
  revision,
})

const planNode = (peer: Node): KernelObject[] => [
  { kind: 'nexthop', id: legOf(peer), to: { via: peer.vtep } },
  { kind: 'nexthop', id: groupOf(peer), to: { group: legOf(peer) } },
  element(vteps[familyOf(peer.vtep)](''), [peer.vtep]),
]

const planPeer = (network: Network, peer: Node, isSelf: boolean): KernelObject[] => {
  const ns = switchNs(network.vni)
  const mac = nodeMac(peer)
  const zones: KernelObject[] = [
    element(zoneOf(ns), [mac], [peer.number]),
    element(macOfZone(ns), [peer.number], [mac]),
  ]
  if (isSelf) return zones
  return [
    { kind: 'fdb-remote', ns, dev: vtep, mac, nexthop: groupOf(peer) },
    { kind: 'fdb-port', ns, dev: vtep, mac },
    { kind: 'neighbour', ns: gatewayNs(network.vni), dev: gatewayLink, ip: linkLocalOf(mac), mac },
    ...zones,
  ]
}

export type { Cluster }

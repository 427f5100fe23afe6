// SPDX-License-Identifier: Apache-2.0
// A published port on this host: H sends it to the gateway of its network, the balancer there to one of the containers
// that hold it, wherever they run. The container's own port is put in by N of the container's node (overlay).
import type { KernelObject } from '../kernel/objects.ts'
import { type Family, familyOf } from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { Network } from '../model/network.ts'
import { holding, type PortClaim, type PortMapping, type Proto, parsePortKey, portKey } from '../model/port.ts'
import { type Snapshot, serviceOptions, servicesIn } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { linkNetwork } from '../plan/links.ts'
import { gatewayNs } from '../plan/names.ts'
import { element, heldUdp, hostPorts, hostPortsAt } from '../plan/sets.ts'
import { nothing, type Planned } from '../plan/unit.ts'
import { type Backend, backendOf, livingEndpoint, reachable } from './backends.ts'
import type { BalancedFamily, Target } from './balancer.ts'
import { engines } from './engines.ts'
import type { HeldPort } from './holder.ts'

export const planPort = (proto: Proto, port: number, snapshot: Snapshot, host: Host): Planned => {
  const claim = snapshot.ports.get(portKey(proto, port))
  const published = claim && publishedHere(claim.record, proto, port, snapshot, host)
  if (!claim || !published) return nothing
  const { network, backends, addresses } = published
  const service = claim.record.cluster?.service
  const options = service === undefined ? undefined : serviceOptions(snapshot, network.id, service)
  const link = linkNetwork(host.bound.get(network.id)!.slot)
  const at = { 4: link.gateway4, 6: link.gateway6 }
  const families = ([4, 6] as const).flatMap((family): BalancedFamily[] => {
    const to = backends.flatMap(({ endpoint, weight }): Target[] => {
      const mapped = mappingsOf(endpoint, proto, port).some(one => (familyOfMapping(one) ?? family) === family)
      const address = mapped && endpoint.addresses.find(ip => familyOf(ip) === family)
      return address ? [{ address, weight }] : []
    })
    return to.length > 0 ? [{ family, at: at[family], to }] : []
  })
  // without anybody for new connections the port leads nowhere, and is refused
  const open = families.filter(({ to }) => to.some(({ weight }) => weight > 0)).map(({ family }) => family)
  const objects: KernelObject[] = [
    ...(addresses === undefined && proto === 'udp' ? [element(heldUdp(''), [port])] : []),
    ...open.flatMap(family =>
      addresses === undefined
        ? [element(hostPorts[family](''), [proto, port], [at[family]])]
        : addresses
            .filter(address => familyOf(address) === family)
            .map(address => element(hostPortsAt[family](''), [address, proto, port], [at[family]])),
    ),
  ]
  const balanced = engines[host.balancer].plan({ ns: gatewayNs(network.vni), proto, port, families, options })
  return { wanted: [...balanced, ...objects.map(object => ({ object, rank: 0 }))], revision: claim.revision }
}

/** Every port that this host is to answer on. */
export const portsHere = function* (snapshot: Snapshot, host: Pick<Host, 'node' | 'bound'>): Generator<HeldPort> {
  for (const [key, { record }] of snapshot.ports) {
    const { proto, port } = parsePortKey(key)
    const { cluster } = record
    const own = record.local.find(one => one.node === host.node)
    const network = snapshot.networks.get(cluster?.network ?? own?.network ?? '')?.record
    if (!network || network.internal || !host.bound.has(network.id)) continue
    const endpoint = own && snapshot.endpoints(network.id).get(own.endpoint)?.record
    const addresses = cluster || !endpoint ? undefined : addressesOf(endpoint, proto, port)
    if (addresses === undefined) yield { proto, port }
    else for (const address of addresses) yield { proto, port, address }
  }
}

export interface Published {
  readonly network: Network
  /** Of one network, as this host reaches them; at least one. */
  readonly backends: readonly Backend[]
  /** -p IP:…, those that this host has; absent: every address. */
  readonly addresses?: readonly string[]
}

/** Where a port of this host leads to; undefined: nowhere from here. */
export const publishedHere = (
  { cluster, local }: PortClaim,
  proto: Proto,
  port: number,
  snapshot: Snapshot,
  host: Host,
): Published | undefined => {
  const own = local.find(one => one.node === host.node)
  const id = cluster?.network ?? own?.network
  const network = id === undefined ? undefined : snapshot.networks.get(id)?.record
  if (!network || network.internal || !host.bound.has(network.id)) return undefined
  const holders = cluster ? holding(cluster, servicesIn(snapshot, network.id)) : [own!.endpoint]
  const found = holders.flatMap((id): Backend[] => {
    const endpoint = livingEndpoint(network.id, id, snapshot, host)
    if (!endpoint?.gateway) return []
    return [backendOf(endpoint)]
  })
  const backends = reachable(network.id, found, host)
  if (!backends[0]) return undefined
  const asked = cluster ? undefined : addressesOf(backends[0].endpoint, proto, port)
  if (asked === undefined) return host.holds(proto, port) ? { network, backends } : undefined
  const addresses = asked.filter(address => host.holds(proto, port, address))
  return addresses.length > 0 ? { network, backends, addresses } : undefined
}

const mappingsOf = (endpoint: Endpoint, proto: Proto, port: number): readonly PortMapping[] =>
  endpoint.ports.filter(mapping => mapping.proto === proto && mapping.hostPort === port)

/** undefined: every address. */
const addressesOf = (endpoint: Endpoint, proto: Proto, port: number): readonly string[] | undefined => {
  const ips = mappingsOf(endpoint, proto, port).flatMap(({ hostIp }) => hostIp ?? [])
  return ips.length > 0 ? ips : undefined
}

const familyOfMapping = ({ hostIp, family }: PortMapping): Family | undefined =>
  hostIp === undefined ? family : familyOf(hostIp)

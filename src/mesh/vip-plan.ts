// SPDX-License-Identifier: Apache-2.0
// Virtual addresses of a service on this host. Containers find them at their own node's MAC; N there gives every new
// connection one of the backends, remembered by its mark, and sends its frames to the backend's MAC; N of the backend's
// node puts the container's own address in. The rules are N's and never change (overlay/switch-plan): this plans the
// choice, and the elements. No address of the client is changed, M has no part in it.
import type { KernelObject } from '../kernel/objects.ts'
import { type Family, familyOf, parseAddress } from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { ServiceOptions } from '../model/service-options.ts'
import { type Snapshot, serviceOptions } from '../model/snapshot.ts'
import { chains } from '../plan/chains.ts'
import type { Host } from '../plan/host.ts'
import { nodeMac } from '../plan/macs.ts'
import { bridge, switchNs } from '../plan/names.ts'
import { backends, choice, element, ownBackends, selfCalls, tracked, vips } from '../plan/sets.ts'
import { trackingSwitch } from '../plan/tracking.ts'
import { nothing, type Planned, type Wanted } from '../plan/unit.ts'
import { type Backend, backendOf, livingEndpoint, reachable } from './backends.ts'
import { nextOf } from './turns.ts'

export const planVip = (id: NetworkId, service: string, snapshot: Snapshot, host: Host): Planned => {
  const claim = snapshot.vips(id).get(service)
  const network = snapshot.networks.get(id)?.record
  const own = snapshot.nodes.get(host.node)?.record
  if (!claim || !network || !snapshot.cluster || !own || own.fenced !== undefined || !host.bound.has(id)) return nothing
  const known = backendsOf(id, service, snapshot, host)
  if (known.length === 0) return nothing
  const options = serviceOptions(snapshot, id, service)
  const ns = switchNs(network.vni)
  const { addresses } = claim.record
  const name = chainOf(addresses[0]!)
  const objects: KernelObject[] = [
    chains(ns, 'inet')(
      name,
      addresses.flatMap(vip => chooseOf(familyOf(vip), known, options)),
    ),
    ...addresses.flatMap((vip): KernelObject[] => [
      { kind: 'neighbour', ns, dev: bridge, ip: vip, mac: nodeMac(own) },
      element(vips[familyOf(vip)](ns), [vip]),
      element(choice[familyOf(vip)](ns), [vip], [`jump ${name}`]),
    ]),
    // those that get no new connections too: they keep what they have
    ...known.map(({ endpoint }) => element(backends(ns), [markOf(endpoint)], [endpoint.mac])),
    ...known.flatMap(({ endpoint }) => (endpoint.node === own.name ? planOwn(endpoint, addresses, network) : [])),
  ]
  return {
    wanted: [
      ...objects.map((object): Wanted => ({ object, rank: 0 })),
      ...trackingSwitch(network, '1').map((object): Wanted => ({ object, rank: 1 })),
    ],
    revision: claim.revision,
  }
}

/** Marks that connections to the service may have: of those too that get no new ones. */
export const marksOf = (network: NetworkId, service: string, snapshot: Snapshot, host: Host): readonly string[] =>
  snapshot.vips(network).has(service)
    ? backendsOf(network, service, snapshot, host).map(({ endpoint }) => markOf(endpoint))
    : []

/** In the order of their ids. */
const backendsOf = (network: NetworkId, service: string, snapshot: Snapshot, host: Host): readonly Backend[] => {
  const marks = new Set<string>()
  const found = [...snapshot.members(network, service)].sort().flatMap((id): Backend[] => {
    const endpoint = livingEndpoint(network, id, snapshot, host)
    if (!endpoint || marks.has(markOf(endpoint))) return []
    marks.add(markOf(endpoint))
    return [backendOf(endpoint)]
  })
  return reachable(network, found, host)
}

/** What a backend that lives here needs: its own address in the place of the service's, and its answers tracked. */
const planOwn = ({ mac, addresses }: Endpoint, vipsOf: readonly string[], network: Network): KernelObject[] => {
  const ns = switchNs(network.vni)
  return [
    element(tracked(ns), [mac]),
    ...vipsOf.flatMap(vip => {
      const family = familyOf(vip)
      const address = addressOf(addresses, family)
      if (address === undefined) return []
      // without a gateway (--internal) the container that calls itself sees the service
      const client = network.pools.find(({ gateway }) => gateway !== undefined && familyOf(gateway) === family)?.gateway
      return [
        element(ownBackends[family](ns), [mac, vip], [address]),
        element(selfCalls[family](ns), [address, address], [client ?? vip]),
      ]
    }),
  ]
}

/** None while no backend is active: the connection is refused. */
const chooseOf = (
  family: Family,
  known: readonly Backend[],
  options: ServiceOptions | undefined,
): readonly string[] => {
  const active = known.filter(
    ({ endpoint, weight }) => weight > 0 && addressOf(endpoint.addresses, family) !== undefined,
  )
  const next = nextOf(
    family,
    active.map(({ endpoint, weight }) => ({ value: markOf(endpoint), weight })),
    options,
  )
  return next === undefined ? [] : [`meta nfproto ipv${family} ct mark set ${next}`]
}

/**
 * Names a backend in the mark of its connections, whoever else comes or goes: its IPv4 address, which is its own in the
 * network. One with IPv6 alone takes 28 bits of its MAC in 240/4, which is nobody's address; MACs that weft gives differ
 * in them (control/endpoints), of two that users chose alike the second gets no connections.
 */
const markOf = ({ addresses, mac }: Endpoint): string => {
  const v4 = addressOf(addresses, 4)
  const low = Number.parseInt(mac.replaceAll(':', '').slice(-8), 16)
  const value = v4 === undefined ? (low | 0xf0000000) >>> 0 : Number(parseAddress(v4).value)
  return `0x${value.toString(16).padStart(8, '0')}`
}

const addressOf = (addresses: readonly string[], family: Family): string | undefined =>
  addresses.find(ip => familyOf(ip) === family)

/** 'vip_10_80_0_254' */
const chainOf = (vip: string): string => `vip_${vip.replaceAll(/[.:]/g, '_')}`

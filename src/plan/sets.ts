// SPDX-License-Identifier: Apache-2.0
// The nft sets and maps of the data path, declared once: tables hold constant rules, and everything that changes with
// the cluster is an element of one of these.
import type { NftElementObject, NftFamily, NftSetObject, NftType } from '../kernel/objects.ts'
import { table } from './names.ts'

const declare =
  (family: NftFamily, set: string, key: readonly NftType[], value?: readonly NftType[]) =>
  (ns: string): NftSetObject => ({ kind: 'nft-set', ns, family, table, set, key, ...(value ? { value } : {}) })

/** netdev weft, N: address of a local endpoint → mark of a frame that comes back from the gateway with it. */
export const returning = {
  4: declare('netdev', 'returning4', ['ipv4_addr'], ['mark']),
  6: declare('netdev', 'returning6', ['ipv6_addr'], ['mark']),
} as const

/** inet weft, N: MACs of local endpoints. */
export const localMacs = declare('inet', 'local_macs', ['ether_addr'])
/** inet weft, N: MACs of local endpoints whose traffic is tracked; all other frames pass by. */
export const tracked = declare('inet', 'tracked', ['ether_addr'])
/** inet weft, N: entry node of a mesh flow: node MAC → conntrack zone, and back. */
export const zoneOf = declare('inet', 'zone_of', ['ether_addr'], ['ct_zone'])
export const macOfZone = declare('inet', 'mac_of_zone', ['ct_zone'], ['ether_addr'])
/** inet weft, N: backend MAC, protocol, published port → container port. */
export const published = declare('inet', 'published', ['ether_addr', 'inet_proto', 'inet_service'], ['inet_service'])

/** inet weft, N: virtual addresses of services. */
export const vips = { 4: declare('inet', 'vips4', ['ipv4_addr']), 6: declare('inet', 'vips6', ['ipv6_addr']) } as const
/** inet weft, N: virtual address → chain that chooses a backend for a new connection. */
export const choice = {
  4: declare('inet', 'choice4', ['ipv4_addr'], ['verdict']),
  6: declare('inet', 'choice6', ['ipv6_addr'], ['verdict']),
} as const
/** inet weft, N: the backend that a connection has, by its mark → MAC. */
export const backends = declare('inet', 'backends', ['mark'], ['ether_addr'])
/** inet weft, N: MAC of a backend that lives here, virtual address → address of the backend. */
export const ownBackends = {
  4: declare('inet', 'own_backends4', ['ether_addr', 'ipv4_addr'], ['ipv4_addr']),
  6: declare('inet', 'own_backends6', ['ether_addr', 'ipv6_addr'], ['ipv6_addr']),
} as const
/** inet weft, N: a backend that got its own call, from and to → who it takes for the client. */
export const selfCalls = {
  4: declare('inet', 'self_calls4', ['ipv4_addr', 'ipv4_addr'], ['ipv4_addr']),
  6: declare('inet', 'self_calls6', ['ipv6_addr', 'ipv6_addr'], ['ipv6_addr']),
} as const

/** inet weft, M: protocol, published port → chain of the balancer. */
export const balanced = declare('inet', 'balanced', ['inet_proto', 'inet_service'], ['verdict'])

/** inet weft, H: protocol, port → gateway of the network that publishes it; any address, or one of this host's. */
export const hostPorts = {
  4: declare('inet', 'ports4', ['inet_proto', 'inet_service'], ['ipv4_addr']),
  6: declare('inet', 'ports6', ['inet_proto', 'inet_service'], ['ipv6_addr']),
} as const
export const hostPortsAt = {
  4: declare('inet', 'ports_at4', ['ipv4_addr', 'inet_proto', 'inet_service'], ['ipv4_addr']),
  6: declare('inet', 'ports_at6', ['ipv6_addr', 'inet_proto', 'inet_service'], ['ipv6_addr']),
} as const
/** inet weft, H: UDP ports that we hold; what is not led to a gateway is refused, as the kernel does for TCP. */
export const heldUdp = declare('inet', 'held_udp', ['inet_service'])
/** inet weft, H: VXLAN addresses of all nodes. */
export const vteps = {
  4: declare('inet', 'vteps4', ['ipv4_addr']),
  6: declare('inet', 'vteps6', ['ipv6_addr']),
} as const

export const element = (
  set: NftSetObject,
  key: readonly (string | number)[],
  value?: readonly (string | number)[],
): NftElementObject => ({
  kind: 'nft-element',
  set,
  key: key.map(String),
  ...(value ? { value: value.map(String) } : {}),
})

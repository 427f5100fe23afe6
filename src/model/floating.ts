// SPDX-License-Identifier: Apache-2.0
// Floating addresses: which are wanted, and which hosts may have them. Who has one is a claim under a lease; taking and
// leaving it is src/floating.
import { createHash } from 'node:crypto'
import { contains, formatAddress, formatPrefix, parseInterface } from './address.ts'
import { standing } from './endpoint.ts'
import type { NetworkId, NodeName } from './ids.ts'
import type { DeviceAddress, Node } from './node.ts'
import { endpointService, serviceTitle } from './service.ts'
import { optionsKey } from './service-options.ts'
import type { Snapshot } from './snapshot.ts'

/** floating/<address>, leased: this node alone has the address while the record is there. */
export interface FloatingClaim {
  readonly node: NodeName
  readonly instance: string
  readonly boot: string
  readonly network: NetworkId
  /** optionsKey of the service. */
  readonly service: string
  readonly dev: string
  /** ISO 8601. */
  readonly since: string
}

export interface Floating {
  /** Plain, canonical. */
  readonly address: string
  /** The same with its prefix length. */
  readonly cidr: string
  readonly dev: string
  readonly network: NetworkId
  readonly service: string
}

export const floatingOf = ({ address, dev }: DeviceAddress, network: NetworkId, service: string): Floating => {
  const plain = formatAddress(parseInterface(address).address)
  return { address: plain, cidr: address, dev, network, service }
}

/** Every address that is asked for, once: where two services ask for one, the first by network and name has it. */
export const wantedFloating = (snapshot: Snapshot): ReadonlyMap<string, Floating> => {
  const wanted = new Map<string, Floating>()
  for (const network of [...snapshot.networks.keys()].sort())
    for (const [service, { record }] of [...snapshot.services(network)].sort(([a], [b]) => (a < b ? -1 : 1)))
      for (const one of record.addresses ?? []) {
        const floating = floatingOf(one, network, service)
        if (!wanted.has(floating.address)) wanted.set(floating.address, floating)
      }
  return wanted
}

/** Has the device, and an address of the same subnet on it: else nobody would find the way. */
export const reaches = (
  { addresses }: Pick<Node, 'addresses'>,
  { cidr, dev }: Pick<Floating, 'cidr' | 'dev'>,
): boolean => {
  const { prefix } = parseInterface(cidr)
  return (addresses ?? []).some(one => one.dev === dev && contains(prefix, parseInterface(one.address).address))
}

/**
 * Who is to have it, the first first: live hosts that can, those with a container of the service before others; then
 * spread by name. Drained ones only where there is no other. `self` counts as alive.
 */
export const candidates = (snapshot: Snapshot, floating: Floating, self?: NodeName): readonly NodeName[] => {
  const able = [...snapshot.nodes.values()].filter(
    ({ record }) =>
      record.fenced === undefined &&
      (record.name === self || snapshot.presence.has(record.name)) &&
      reaches(record, floating),
  )
  const undrained = able.filter(({ record }) => record.drained !== true)
  const backends = new Set<NodeName>()
  for (const { record } of snapshot.endpoints(floating.network).values()) {
    const service = endpointService(record)
    if (service !== undefined && optionsKey(service) === floating.service && standing(record) === 'active')
      backends.add(record.node)
  }
  const weight = (name: NodeName): string =>
    (backends.has(name) ? '0' : '1') + createHash('sha256').update(`${floating.address} ${name}`).digest('hex')
  return (undrained.length > 0 ? undrained : able)
    .map(({ record }) => ({ name: record.name, weight: weight(record.name) }))
    .sort((a, b) => (a.weight < b.weight ? -1 : 1))
    .map(({ name }) => name)
}

/** Why nobody could have it; undefined: somebody can. */
export const unheldBecause = (snapshot: Snapshot, floating: Floating): string | undefined => {
  if (candidates(snapshot, floating).length > 0) return undefined
  const { prefix } = parseInterface(floating.cidr)
  return `no live host has an address of ${formatPrefix(prefix)} on a device ${floating.dev}`
}

/** 'service web of network app' */
export const serviceText = (snapshot: Snapshot, { network, service }: Pick<Floating, 'network' | 'service'>): string =>
  `service ${serviceTitle(service)} of network ${snapshot.networks.get(network)?.record.name ?? network}`

// SPDX-License-Identifier: Apache-2.0
// Which floating addresses are wanted, and which hosts may have them.
import { createHash } from 'node:crypto'
import { formatPrefix, parseInterface } from './address.ts'
import { standing } from './endpoint.ts'
import { type Floating, floatingOf, reaches } from './floating.ts'
import type { NodeName } from './ids.ts'
import { endpointService, serviceTitle } from './service.ts'
import { optionsKey } from './service-options.ts'
import type { Snapshot } from './snapshot.ts'

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

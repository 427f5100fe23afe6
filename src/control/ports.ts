// SPDX-License-Identifier: Apache-2.0
// Who has a published port: one record for each port of the cluster, changed in the transaction of the endpoint that
// publishes, so that no two that exclude each other both get it.
import { WeftError } from '../base/errors.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import { type ClusterPort, type PortClaim, type PortMapping, type Proto, settled } from '../model/port.ts'
import { endpointService, serviceTitle } from '../model/service.ts'
import { servicesIn } from '../model/snapshot.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import { type Compare, type Entry, limits, type Write } from '../store/store.ts'
import type { Context } from './context.ts'

/** hostPort 0: any; `end` above hostPort: any of the range. */
export interface PortRequest extends PortMapping {
  readonly end: number
}

/** Compares and writes for the transaction of the endpoint. */
export interface PortChange {
  readonly compares: readonly Compare[]
  readonly writes: readonly Write[]
}

export interface PortChoice extends PortChange {
  readonly ports: readonly PortMapping[]
}

/** Is a port of this host free of others' sockets? Answers why not. */
export type HoldPort = (mapping: PortMapping) => Promise<string | undefined>

/** Their claims change with the endpoint's record in one commit, and when it is erased with two addresses and a MAC as well. */
export const mostPorts = limits.writesPerCommit - 4

const refuseMany = (requests: readonly PortRequest[]): void => {
  // one port at several addresses is one claim
  const isOne = ({ hostPort, end }: PortRequest): boolean => hostPort !== 0 && end === hostPort
  const count = new Set(requests.map((one, i) => (isOne(one) ? `${one.proto} ${one.end}` : i))).size
  if (count > mostPorts)
    throw new WeftError(
      'INVALID',
      `a container publishes at most ${mostPorts} ports of the cluster, this one ${count}: give it fewer with -p, or spread them over several containers`,
    )
}

const anyPort = { first: 32768, last: 60999 } as const

/** Chooses and prepares the claims; throws TAKEN naming port and holder. `service`: whose the container surely is. */
export const choosePorts = async (
  context: Context,
  network: Network,
  endpoint: EndpointId,
  service: string | undefined,
  requests: readonly PortRequest[],
  hold: HoldPort,
  signal: AbortSignal,
): Promise<PortChoice> => {
  const wanted = bothFamilies(requests)
  refuseMany(wanted)
  const reserved = new Set(context.mirror.snapshot.cluster?.record.reservedPorts)
  const chosen = new Map<string, { compare: Compare; claim: PortClaim }>()
  const ports: PortMapping[] = []
  for (const { proto, port, hostPort, end, hostIp, family } of wanted) {
    const range = hostPort === 0 ? anyPort : { first: hostPort, last: end }
    const size = range.last - range.first + 1
    const start = hostPort === 0 ? Math.floor(Math.random() * size) : 0
    const local = hostIp !== undefined || network.options['weft.publish'] === 'local'
    const who: Claimant = { network: network.id, endpoint, service, local, joins: size === 1 }
    let refusal = ''
    let found: PortMapping | undefined
    for (let i = 0; i < size && !found; i++) {
      const candidate = range.first + ((start + i) % size)
      const key = keys.port(proto, candidate)
      const mapping: PortMapping = {
        proto,
        port,
        hostPort: candidate,
        ...(hostIp === undefined ? {} : { hostIp }),
        ...(family === undefined ? {} : { family }),
        ...(local ? { local } : {}),
      }
      // one container may have a port at several addresses
      const again = ports.filter(one => one.proto === proto && one.hostPort === candidate)
      if (reserved.has(candidate)) refusal = 'it is reserved in this cluster (ssh, etcd, VXLAN)'
      else if (again.some(one => one.hostIp === hostIp || !one.hostIp || !hostIp || one.port !== port))
        refusal = 'the same container publishes it twice'
      else {
        const known = chosen.get(key) ?? (await read(context, proto, candidate, signal))
        const next = claimed(context, known.claim, who)
        const held = typeof next === 'string' ? undefined : await hold(mapping)
        if (typeof next === 'string') refusal = next
        else if (held !== undefined) refusal = held
        else {
          chosen.set(key, { compare: known.compare, claim: next })
          found = mapping
        }
      }
    }
    if (!found)
      throw new WeftError(
        'TAKEN',
        `host port ${range.first}${size > 1 ? `-${range.last}` : ''}/${proto} is not free: ${refusal}`,
      )
    ports.push(found)
  }
  return {
    ports,
    compares: [...chosen.values()].map(({ compare }) => compare),
    writes: [...chosen].map(([key, { claim }]) => write(key, claim)),
  }
}

/** 0.0.0.0 and :: of one port are every address. */
const bothFamilies = (requests: readonly PortRequest[]): readonly PortRequest[] => {
  const same = (a: PortRequest, b: PortRequest): boolean =>
    a.proto === b.proto && a.port === b.port && a.hostPort === b.hostPort && a.end === b.end
  return requests.flatMap((one, i) => {
    if (one.family === undefined) return [one]
    const other = requests.findIndex(two => two.family === 10 - one.family! && same(one, two))
    if (other < 0) return [one]
    const { family: _, ...both } = one
    return i < other ? [both] : []
  })
}

interface Claimant {
  readonly network: NetworkId
  readonly endpoint: EndpointId
  readonly service: string | undefined
  readonly local: boolean
  /** Asked for this very port: others of its service may have it too. */
  readonly joins: boolean
}

/** The claim with this one in it, or who stands in the way. */
const claimed = (context: Context, claim: PortClaim, who: Claimant): PortClaim | string => {
  const { cluster, local } = claim
  const { network, endpoint, service } = who
  const others = local.filter(one => one.endpoint !== endpoint)
  if (who.local) {
    if (cluster) return `${holderOf(context, cluster.network, cluster.holders[0]!)} has it on every host`
    const here = others.find(one => one.node === context.node)
    if (here) return `${holderOf(context, here.network, here.endpoint)} has it on this host`
    return { local: [...others, { node: context.node, network, endpoint }] }
  }
  const elsewhere = others[0]
  if (elsewhere)
    return `${holderOf(context, elsewhere.network, elsewhere.endpoint)} has it on ${elsewhere.node === context.node ? 'this host' : `host ${elsewhere.node}`}`
  if (!cluster)
    return { cluster: { network, ...(service === undefined ? {} : { service }), holders: [endpoint] }, local }
  if (cluster.holders.includes(endpoint)) return claim
  const differs = cluster.service !== undefined && service !== undefined && cluster.service !== service
  if (cluster.network !== network || differs || !who.joins)
    return `${holderOf(context, cluster.network, cluster.holders[0]!)} has it${ofService(context, cluster)}`
  return { cluster: { ...cluster, holders: [...cluster.holders, endpoint] }, local }
}

/** What an endpoint no longer publishes. */
export const releasePorts = (context: Context, endpoint: Endpoint, signal: AbortSignal): Promise<PortChange> =>
  changeClaims(context, endpoint, signal, claim => without(context, claim, new Set([endpoint.id])))

/** The write that takes these endpoints out of a claim of the store; none if they are not in it. */
export const withoutHolders = (context: Context, entry: Entry, gone: ReadonlySet<EndpointId>): Write[] => {
  const claim = decode('portClaim', entry.key, entry.value)
  const next = without(context, claim, gone)
  return JSON.stringify(next) === JSON.stringify(claim) ? [] : [write(entry.key, next)]
}

const without = (context: Context, { cluster, local }: PortClaim, gone: ReadonlySet<EndpointId>): PortClaim => {
  const holders = cluster?.holders.filter(id => !gone.has(id)) ?? []
  return {
    ...(cluster && holders.length > 0
      ? { cluster: settled({ ...cluster, holders }, servicesIn(context.mirror.snapshot, cluster.network)) }
      : {}),
    local: local.filter(one => !gone.has(one.endpoint)),
  }
}

/** Whose the ports of an endpoint are, now that it is known who it is. */
export const settlePorts = (context: Context, endpoint: Endpoint, signal: AbortSignal): Promise<PortChange> =>
  changeClaims(context, endpoint, signal, claim => {
    const { cluster } = claim
    if (!cluster) return claim
    const others = servicesIn(context.mirror.snapshot, cluster.network)
    return { ...claim, cluster: settled(cluster, id => (id === endpoint.id ? endpointService(endpoint) : others(id))) }
  })

const changeClaims = async (
  context: Context,
  endpoint: Endpoint,
  signal: AbortSignal,
  change: (claim: PortClaim) => PortClaim,
): Promise<PortChange> => {
  const compares: Compare[] = []
  const writes: Write[] = []
  const claims = new Map(endpoint.ports.map(one => [keys.port(one.proto, one.hostPort), one])) // at several addresses: one
  for (const { proto, hostPort } of claims.values()) {
    const { compare, claim } = await read(context, proto, hostPort, signal)
    const next = change(claim)
    if (JSON.stringify(next) === JSON.stringify(claim)) continue
    compares.push(compare)
    writes.push(write(compare.key, next))
  }
  return { compares, writes }
}

const read = async (
  { store }: Context,
  proto: Proto,
  port: number,
  signal: AbortSignal,
): Promise<{ compare: Compare; claim: PortClaim }> => {
  const key = keys.port(proto, port)
  const entry = await store.get(key, { signal })
  return entry
    ? { compare: { key, is: 'at', revision: entry.revision }, claim: decode('portClaim', key, entry.value) }
    : { compare: { key, is: 'absent' }, claim: { local: [] } }
}

const write = (key: string, claim: PortClaim): Write =>
  claim.cluster === undefined && claim.local.length === 0
    ? { kind: 'delete', key }
    : { kind: 'put', key, value: encode('portClaim', claim) }

const holderOf = ({ mirror }: Context, network: NetworkId, id: EndpointId): string => {
  const endpoint = mirror.snapshot.endpoints(network).get(id)?.record
  return `container ${endpoint?.workload?.name ?? id.slice(0, 12)}${endpoint ? ` on host ${endpoint.node}` : ''}`
}
const ofService = (context: Context, { network, service }: ClusterPort): string =>
  service === undefined ? '' : `, as service ${serviceTitle(service)} of network ${networkOf(context, network)}`
const networkOf = ({ mirror }: Context, id: NetworkId): string => mirror.snapshot.networks.get(id)?.record.name ?? id

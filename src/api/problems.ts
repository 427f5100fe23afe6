// SPDX-License-Identifier: Apache-2.0
// What `weft status` complains of: sentences about what an operator should look at.
import { defaultVxlanPort } from '../model/cluster.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId } from '../model/ids.ts'
import { tooSmall } from '../model/mtu.ts'
import { namesOf } from '../model/names.ts'
import { labelProblems } from '../model/service.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { titleOf } from './convert.ts'
import { unheld } from './floating.ts'
import type * as wire from './gen/weft.ts'
import type { ApiParts } from './parts.ts'

export const problemsOf = (parts: ApiParts, services: readonly wire.Service[]): string[] => {
  const problems: string[] = []
  const store = parts.store()
  if (!store.available) problems.push(`store: ${store.error ?? 'not reached yet'}`)
  for (const [key, why] of store.damaged)
    problems.push(
      `store: ${why.includes(key) ? why : `${key}: ${why}`}; the version before stays in force, if there was one`,
    )
  const underlay = parts.underlayProblem()
  if (underlay !== undefined) problems.push(`underlay: ${underlay}`)
  const docker = parts.dockerError()
  if (docker !== undefined) problems.push(`docker: ${docker}`)
  const legacy = parts.legacyFilters()
  if (legacy.length > 0)
    problems.push(
      `iptables-legacy filters ${legacy.join(' and ')} on this host, where weft writes nothing: what its FORWARD drops is dropped for containers too; type update-alternatives --set iptables /usr/sbin/iptables-nft, the same for ip6tables, and restart Docker; tables of before stay until the host restarts`,
    )
  const engine = parts.keepsQueries()
  for (const [id, { record }] of engine === undefined ? [] : parts.snapshot.networks)
    if (
      record.internal &&
      [...parts.snapshot.endpoints(id).values()].some(({ record: { node } }) => node === parts.node)
    )
      problems.push(
        `network ${record.name ?? id} is --internal, and Docker ${engine} asks nobody for names there: containers here know those of other hosts by address only, until Docker is 26.1.3 or later`,
      )
  for (const [name, why] of parts.networkProblems()) problems.push(`network ${name}: ${why}`)
  for (const [id, why] of parts.linkProblems()) {
    const record = parts.snapshot.networks.get(id)?.record
    if (!record?.internal) problems.push(`network ${record?.name ?? id}: ${why}`) // an internal one has none
  }
  problems.push(...vetoed(parts.snapshot), ...narrow(parts))
  for (const [id, why] of parts.dnsProblems())
    problems.push(`dns in ${parts.snapshot.networks.get(id)?.record.name ?? 'the host'}: ${why}`)
  const { brokenOff } = parts.reconciler()
  if (brokenOff)
    problems.push(`kernel: nothing is changed or repaired here since ${brokenOff.since}: ${brokenOff.error}`)
  for (const { object, error } of parts.reconciler().failing) problems.push(`kernel: ${object}: ${error}`)
  for (const port of parts.reconciler().lost)
    problems.push(`port ${port} was removed by somebody: restart its container`)
  for (const [port, why] of parts.portProblems()) problems.push(`port ${port} is not answered on this host: ${why}`)
  for (const [endpoint, why] of parts.probeFailures())
    problems.push(`container ${containerOf(parts.snapshot, endpoint)} fails its probe: ${why}`)
  const vxlanPort = parts.snapshot.cluster?.record.vxlanPort ?? defaultVxlanPort
  for (const { network, node, since } of parts.silences())
    problems.push(
      `node ${node} does not answer in network ${parts.snapshot.networks.get(network)?.record.name ?? network} since ${since}: its containers get no new connections by ports of this host while others can; if it runs, let UDP ${vxlanPort} pass between the hosts`,
    )
  problems.push(...unheld(parts.snapshot, parts.floatingProblems()))
  for (const network of parts.snapshot.networks.keys())
    for (const { record } of parts.snapshot.endpoints(network).values())
      for (const problem of labelProblems(record)) problems.push(`container ${record.workload!.name}: ${problem}`)
  problems.push(...unpublished(services))
  problems.push(...equalNames(parts.snapshot))
  for (const service of services)
    for (const problem of service.problems)
      problems.push(`service ${titleOf(service)} of network ${service.network}: ${problem}`)
  return problems
}

const vetoShownMs = 10 * 60_000

/** Networks that somebody asked to remove a while ago, and that stay. */
const vetoed = ({ networks }: Snapshot): string[] =>
  [...networks.values()].flatMap(({ record: { id, name, state } }) => {
    const veto = state.kind === 'active' ? state.veto : undefined
    if (!veto || Math.abs(Date.now() - Date.parse(veto.at)) > vetoShownMs) return []
    return [`network ${name ?? id} was to be removed and stays (${veto.at}): ${veto.why}`]
  })

/** Networks of this engine on which this node takes no new container. */
const narrow = ({ snapshot, bindings, node }: ApiParts): string[] =>
  [...bindings.bound.keys()].flatMap(id => {
    const network = snapshot.networks.get(id)?.record
    return (network && tooSmall(snapshot, node, network)) ?? []
  })

const containerOf = (snapshot: Snapshot, endpoint: EndpointId): string => {
  for (const network of snapshot.networks.keys()) {
    const known = snapshot.endpoints(network).get(endpoint)?.record
    if (known) return known.workload?.name ?? endpoint.slice(0, 12)
  }
  return endpoint.slice(0, 12)
}

/** Containers whose port another service had, which came out when they were running already. */
const unpublished = (services: readonly wire.Service[]): string[] =>
  services.flatMap(service =>
    service.backends
      .filter(({ state }) => state === 'other')
      .map(
        ({ container, node }) =>
          `container ${container} on ${node} gets no connections by ${service.ports.map(({ proto, hostPort }) => `${hostPort}/${proto}`).join(', ')}: that is service ${titleOf(service)} of network ${service.network}`,
      ),
  )

/** A container whose name others answer to as well, by whatever they are called: DNS gives all their addresses. */
const equalNames = (snapshot: Snapshot): string[] => {
  const found: string[] = []
  for (const [id, { record }] of snapshot.networks) {
    const holders = new Map<string, Endpoint[]>()
    for (const { record: endpoint } of snapshot.endpoints(id).values())
      for (const name of namesOf(endpoint)) {
        const others = holders.get(name)
        if (others) others.push(endpoint)
        else holders.set(name, [endpoint])
      }
    for (const [name, endpoints] of holders)
      if (endpoints.length > 1 && endpoints.some(({ workload }) => workload?.name.toLowerCase() === name))
        found.push(
          `network ${record.name ?? id}: ${endpoints.length} containers answer to the name ${name}: ${endpoints
            .map(({ workload, node }) => `${workload!.name} on ${node}`)
            .sort()
            .join(', ')}`,
        )
  }
  return found
}

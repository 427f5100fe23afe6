// SPDX-License-Identifier: Apache-2.0
// Which names there are: pure functions of the snapshot. A name is answered from the networks of the container that
// asks; `<name>.<network>.weft` and `<node>.weft` from everywhere. Equal names give all addresses.
import { type Family, familyOf } from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'

export const zone = 'weft'

/** Seconds; short, because a restarted container has a new address. */
export const ttl = 2

export type Answer =
  | { readonly kind: 'address'; readonly addresses: readonly string[] }
  | { readonly kind: 'srv'; readonly targets: readonly { port: number; target: string }[] }
  | { readonly kind: 'ptr'; readonly names: readonly string[] }
  /** The name is ours, but has no record of this type. */
  | { readonly kind: 'empty' }
  /** In our zone, and not there. */
  | { readonly kind: 'absent' }

/** Networks whose names an asker sees: all of its container's, or the one it asked through. */
export const networksOf = (snapshot: Snapshot, through: NetworkId, address: string): readonly NetworkId[] => {
  const asker = find(snapshot.endpoints(through).values(), ({ record }) => record.addresses.includes(address))
  const container = asker?.record.workload?.container
  if (!asker || container === undefined) return [through]
  const networks = new Set([through])
  for (const network of snapshot.networks.keys())
    for (const { record } of snapshot.endpoints(network).values())
      if (record.workload?.container === container && record.node === asker.record.node) networks.add(network)
  return [...networks]
}

const find = <T>(values: Iterable<T>, test: (value: T) => boolean): T | undefined => {
  for (const value of values) if (test(value)) return value
  return undefined
}

const lower = (text: string): string => text.toLowerCase()

/** Every name an endpoint answers to inside its network, lower case. */
export const namesOf = ({ workload }: Endpoint): readonly string[] => {
  if (!workload) return []
  const { name, aliases, hostname, service, container } = workload
  const names = [name, ...aliases, container.slice(0, 12)]
  if (hostname !== undefined && hostname !== '') names.push(hostname)
  if (service !== undefined) names.push(service, `tasks.${service}`)
  return [...new Set(names.map(lower))]
}

const inNetworks = (snapshot: Snapshot, networks: readonly NetworkId[], name: string): Endpoint[] =>
  networks.flatMap(network => {
    const found: Endpoint[] = []
    for (const { record } of snapshot.endpoints(network).values())
      if (namesOf(record).includes(name)) found.push(record)
    return found
  })

const addressesOf = (endpoints: readonly Endpoint[], family: Family): string[] =>
  [...new Set(endpoints.flatMap(endpoint => endpoint.addresses))].filter(address => familyOf(address) === family)

/** undefined: not a name of ours, ask somebody else. `name` without the final dot. */
export const lookup = (
  snapshot: Snapshot,
  networks: readonly NetworkId[],
  question: { readonly name: string; readonly type: string },
): Answer | undefined => {
  const name = lower(question.name)
  if (question.type === 'PTR') return reverse(snapshot, networks, name)
  const service = /^_([a-z0-9-]+)\._(tcp|udp)\.(.+)$/.exec(name)
  if (service && question.type === 'SRV') return srv(snapshot, networks, service[1]!, service[2]!, service[3]!)
  const named = resolve(snapshot, networks, name)
  if (!named) return undefined
  if (named === 'absent') return { kind: 'absent' }
  if (question.type !== 'A' && question.type !== 'AAAA') return { kind: 'empty' }
  const family: Family = question.type === 'A' ? 4 : 6
  const addresses =
    'node' in named ? [named.node].filter(vtep => familyOf(vtep) === family) : addressesOf(named.endpoints, family)
  return addresses.length > 0 ? { kind: 'address', addresses } : { kind: 'empty' }
}

const resolve = (
  snapshot: Snapshot,
  networks: readonly NetworkId[],
  name: string,
): { readonly endpoints: readonly Endpoint[] } | { readonly node: string } | 'absent' | undefined => {
  if (!name.endsWith(`.${zone}`)) {
    const endpoints = inNetworks(snapshot, networks, name)
    return endpoints.length > 0 ? { endpoints } : undefined
  }
  const inner = name.slice(0, -zone.length - 1)
  for (const { record } of snapshot.nodes.values())
    if (lower(record.name) === inner && record.fenced === undefined) return { node: record.vtep }
  // network names may hold dots: try every split, the longest network name first
  for (let dot = inner.indexOf('.'); dot >= 0; dot = inner.indexOf('.', dot + 1)) {
    const network = inner.slice(dot + 1)
    const id = find(snapshot.networks.values(), ({ record }) => lower(record.name ?? '') === network)?.record.id
    if (id === undefined) continue
    const endpoints = inNetworks(snapshot, [id], inner.slice(0, dot))
    if (endpoints.length > 0) return { endpoints }
  }
  return 'absent'
}

/** _<published or exposed port>._tcp.<name>: where it is published in the containers. */
const srv = (
  snapshot: Snapshot,
  networks: readonly NetworkId[],
  port: string,
  proto: string,
  name: string,
): Answer | undefined => {
  const named = resolve(snapshot, networks, name)
  if (!named || named === 'absent' || 'node' in named) return named === 'absent' ? { kind: 'absent' } : undefined
  const targets = named.endpoints.flatMap(endpoint =>
    endpoint.ports
      .filter(
        mapping => mapping.proto === proto && (String(mapping.port) === port || String(mapping.hostPort) === port),
      )
      .map(mapping => ({ port: mapping.port, target: fullName(snapshot, endpoint) })),
  )
  return targets.length > 0 ? { kind: 'srv', targets } : { kind: 'empty' }
}

const fullName = (snapshot: Snapshot, endpoint: Endpoint): string => {
  const network = snapshot.networks.get(endpoint.network)?.record.name ?? endpoint.network
  return `${endpoint.workload?.name ?? endpoint.id.slice(0, 12)}.${network}.${zone}`
}

const reverse = (snapshot: Snapshot, networks: readonly NetworkId[], name: string): Answer | undefined => {
  const address = addressOfReverse(name)
  if (address === undefined) return undefined
  for (const network of networks)
    for (const { record } of snapshot.endpoints(network).values())
      if (record.addresses.includes(address) && record.workload)
        return { kind: 'ptr', names: [fullName(snapshot, record)] }
  return undefined
}

/** '7.0.80.10.in-addr.arpa' → '10.80.0.7'; RFC 3596 nibbles for IPv6, canonical. */
export const addressOfReverse = (name: string): string | undefined => {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name)
  if (v4) return `${v4[4]}.${v4[3]}.${v4[2]}.${v4[1]}`
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name)
  if (!v6) return undefined
  const groups = v6[1]!.split('.').slice(0, 32).reverse().join('').match(/.{4}/g)!
  return canonicalV6(groups)
}

const canonicalV6 = (groups: readonly string[]): string => {
  const url = new URL(`http://[${groups.join(':')}]/`) // WHATWG serializes as RFC 5952 does
  return url.hostname.slice(1, -1)
}

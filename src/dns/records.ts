// SPDX-License-Identifier: Apache-2.0
// Which names there are: pure functions of the directory. A name is answered from the networks of the container that
// asks; `<name>.<network>.weft` and `<node>.weft` from everywhere. Equal names give all addresses. A service's name gives
// its virtual addresses: the full one unless it is the name of a container of another service, the bare one where
// nothing else of the network is called so.
import { type Family, familyOf } from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { type Directory, lower, type NamedService } from './directory.ts'

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

/** Whose name it is: of a service, the addresses are its own, and the endpoints its containers. */
interface Named {
  readonly addresses: readonly string[]
  readonly endpoints: readonly Endpoint[]
}

const byEndpoints = (endpoints: readonly Endpoint[]): Named | undefined =>
  endpoints.length === 0
    ? undefined
    : { addresses: [...new Set(endpoints.flatMap(({ addresses }) => addresses))], endpoints }

const byServices = (services: readonly NamedService[]): Named | undefined =>
  services.length === 0
    ? undefined
    : {
        addresses: services.flatMap(({ addresses }) => addresses),
        endpoints: services.flatMap(({ endpoints }) => endpoints),
      }

/** undefined: not a name of ours, ask somebody else. `name` without the final dot. */
export const lookup = (
  directory: Directory,
  networks: readonly NetworkId[],
  question: { readonly name: string; readonly type: string },
): Answer | undefined => {
  const name = lower(question.name)
  if (question.type === 'PTR') return reverse(directory, networks, name)
  const service = /^_([a-z0-9-]+)\._(tcp|udp)\.(.+)$/.exec(name)
  if (service && question.type === 'SRV') return srv(directory, networks, service[1]!, service[2]!, service[3]!)
  const named = resolve(directory, networks, name)
  if (!named) return undefined
  if (named === 'absent') return { kind: 'absent' }
  if (question.type !== 'A' && question.type !== 'AAAA') return { kind: 'empty' }
  const family: Family = question.type === 'A' ? 4 : 6
  const all = 'node' in named ? [named.node] : named.addresses
  const addresses = all.filter(address => familyOf(address) === family)
  return addresses.length > 0 ? { kind: 'address', addresses } : { kind: 'empty' }
}

const resolve = (
  directory: Directory,
  networks: readonly NetworkId[],
  name: string,
): Named | { readonly node: string } | 'absent' | undefined => {
  if (!name.endsWith(`.${zone}`)) {
    return (
      byEndpoints(networks.flatMap(network => directory.named(network, name))) ??
      byServices(networks.flatMap(network => directory.services(network, name))) ??
      byEndpoints(networks.flatMap(network => directory.named(network, tasksOf(name))))
    )
  }
  const inner = name.slice(0, -zone.length - 1)
  const node = directory.nodeNamed(inner)
  if (node !== undefined) return { node }
  // network names may hold dots: try every split, the longest network name first
  for (let dot = inner.indexOf('.'); dot >= 0; dot = inner.indexOf('.', dot + 1)) {
    const id = directory.networkNamed(inner.slice(dot + 1))
    if (id === undefined) continue
    const found = inNetwork(directory, id, inner.slice(0, dot))
    if (found) return found
  }
  return 'absent'
}

/** A full name: of a service, unless a container that is not one of its own is named so. */
const inNetwork = (directory: Directory, network: NetworkId, name: string): Named | undefined => {
  const endpoints = directory.named(network, name)
  const services = directory.services(network, name)
  const members = new Set(services.flatMap(service => service.endpoints.map(({ id }) => id)))
  const foreign = endpoints.some(({ id, workload }) => lower(workload?.name ?? '') === name && !members.has(id))
  const own = foreign ? undefined : byServices(services)
  return own ?? byEndpoints(endpoints) ?? byEndpoints(directory.named(network, tasksOf(name)))
}

/** Without a virtual address (the subnet is full) a service's name is that of its containers. */
const tasksOf = (service: string): string => `tasks.${service}`

/** _<published or exposed port>._tcp.<name>: where it is published in the containers. */
const srv = (
  directory: Directory,
  networks: readonly NetworkId[],
  port: string,
  proto: string,
  name: string,
): Answer | undefined => {
  const named = resolve(directory, networks, name)
  if (!named || named === 'absent' || 'node' in named) return named === 'absent' ? { kind: 'absent' } : undefined
  const targets = named.endpoints.flatMap(endpoint =>
    endpoint.ports
      .filter(
        mapping => mapping.proto === proto && (String(mapping.port) === port || String(mapping.hostPort) === port),
      )
      .map(mapping => ({ port: mapping.port, target: fullName(directory.snapshot, endpoint) })),
  )
  return targets.length > 0 ? { kind: 'srv', targets } : { kind: 'empty' }
}

const fullName = (snapshot: Snapshot, endpoint: Endpoint): string => {
  const network = titleOf(snapshot, endpoint.network)
  return `${endpoint.workload?.name ?? endpoint.id.slice(0, 12)}.${network}.${zone}`
}

const titleOf = (snapshot: Snapshot, network: NetworkId): string =>
  snapshot.networks.get(network)?.record.name ?? network

const reverse = (directory: Directory, networks: readonly NetworkId[], name: string): Answer | undefined => {
  const address = addressOfReverse(name)
  if (address === undefined) return undefined
  const holder = networks.map(network => directory.at(network, address)).find(endpoint => endpoint?.workload)
  if (holder) return { kind: 'ptr', names: [fullName(directory.snapshot, holder)] }
  const service = networks.map(network => directory.serviceAt(network, address)).find(found => found)
  return service && { kind: 'ptr', names: [`${service.name}.${titleOf(directory.snapshot, service.network)}.${zone}`] }
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

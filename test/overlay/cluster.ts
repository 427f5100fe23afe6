// SPDX-License-Identifier: Apache-2.0
// A snapshot made by hand: what planners and the resolver read, without a store.
import type { Cluster } from '../../src/model/cluster.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'
import type { FloatingClaim } from '../../src/model/floating.ts'
import type { Network } from '../../src/model/network.ts'
import type { Node } from '../../src/model/node.ts'
import type { PortClaim } from '../../src/model/port.ts'
import { sharedService, type Vip } from '../../src/model/service.ts'
import type { ServiceOptions } from '../../src/model/service-options.ts'
import type { Snapshot, Versioned } from '../../src/model/snapshot.ts'
import type { Host } from '../../src/plan/host.ts'
import type { ChangedKey, Mirror } from '../../src/store/mirror.ts'

export interface TestCluster extends Snapshot {
  revision: bigint
  putNode(node: Partial<Node> & { name: string }): void
  putNetwork(network: Partial<Network> & { id: string }): void
  putEndpoint(endpoint: Partial<Endpoint> & { id: string; network: string; node: string }): void
  /** 'tcp/8080' */
  putPort(key: string, claim: PortClaim): void
  putService(options: ServiceOptions): void
  dropPort(key: string): void
  putVip(network: string, service: string, ...addresses: string[]): void
  dropVip(network: string, service: string): void
  dropNode(name: string): void
  dropNetwork(id: string): void
  dropEndpoint(network: string, id: string): void
}

export const testCluster = (): TestCluster => {
  const cluster: Cluster = {
    id: 'c',
    pools: ['10.224.0.0/12'],
    underlayFamily: 4,
    vxlanPort: 8473,
    reservedPorts: [22],
    created: '2026-01-01T00:00:00Z',
  }
  const nodes = new Map<string, Versioned<Node>>()
  const networks = new Map<string, Versioned<Network>>()
  const endpoints = new Map<string, Map<string, Versioned<Endpoint>>>()
  const ports = new Map<string, Versioned<PortClaim>>()
  const services = new Map<string, Map<string, Versioned<ServiceOptions>>>()
  const floating = new Map<string, Versioned<FloatingClaim>>()
  const vips = new Map<string, Map<string, Versioned<Vip>>>()
  const self: TestCluster = {
    revision: 1n,
    cluster: { record: cluster, revision: 1n },
    nodes,
    presence: new Map(),
    networks,
    names: new Map(),
    pools: new Map(),
    ports,
    floating,
    services: network => services.get(network) ?? new Map(),
    endpoints: network => endpoints.get(network) ?? new Map(),
    addresses: () => new Map(),
    macs: () => new Map(),
    vips: network => vips.get(network) ?? new Map(),
    members: (network, service) =>
      new Set(
        [...self.endpoints(network)].flatMap(([id, { record }]) => (sharedService(record) === service ? [id] : [])),
      ),
    putNode(node) {
      const number = nodes.get(node.name)?.record.number ?? nodes.size + 1
      const record: Node = {
        number,
        instance: 'i',
        boot: 'b',
        vtep: `192.0.2.${number}`,
        mtu: 1500,
        routes: [],
        version: '0',
        ...node,
      }
      nodes.set(node.name, { record, revision: ++self.revision })
    },
    putNetwork(network) {
      const n = networks.get(network.id)?.record.vni ?? 0x100000 + networks.size
      const octet = n - 0x100000
      const record: Network = {
        name: network.id,
        vni: n,
        pools: [
          { prefix: `10.${80 + octet}.0.0/24`, gateway: `10.${80 + octet}.0.1` },
          { prefix: `fd00:${80 + octet}::/64`, gateway: `fd00:${80 + octet}::1` },
        ],
        mtu: 1450,
        options: {},
        labels: {},
        internal: false,
        attachable: false,
        ipv6: true,
        state: { kind: 'active' },
        origin: { by: 'docker', node: 'a' },
        ...network,
      }
      networks.set(network.id, { record, revision: ++self.revision })
    },
    putEndpoint(endpoint) {
      const table = endpoints.get(endpoint.network) ?? new Map<string, Versioned<Endpoint>>()
      endpoints.set(endpoint.network, table)
      const host = 2 + table.size
      const octet = 80 + (networks.get(endpoint.network)?.record.vni ?? 0x100000) - 0x100000
      const record: Endpoint = {
        boot: 'b',
        addresses: [`10.${octet}.0.${host}`, `fd00:${octet}::${host.toString(16)}`],
        mac: `02:77:0a:${octet.toString(16)}:00:${host.toString(16).padStart(2, '0')}`,
        ports: [],
        gateway: false,
        identity: 4,
        ...endpoint,
      }
      table.set(endpoint.id, { record, revision: ++self.revision })
    },
    putPort: (key, record) => void ports.set(key, { record, revision: ++self.revision }),
    putService(record) {
      const table = services.get(record.network) ?? new Map<string, Versioned<ServiceOptions>>()
      services.set(record.network, table.set(record.service, { record, revision: ++self.revision }))
    },
    putVip(network, service, ...addresses) {
      const table = vips.get(network) ?? new Map<string, Versioned<Vip>>()
      vips.set(network, table.set(service, { record: { addresses }, revision: ++self.revision }))
    },
    dropVip: (network, service) => void vips.get(network)?.delete(service),
    dropPort: key => void ports.delete(key),
    dropNode: name => void nodes.delete(name),
    dropNetwork: id => void networks.delete(id),
    dropEndpoint: (network, id) => void endpoints.get(network)?.delete(id),
  }
  return self
}

/** A mirror of it, always ready; `tell` says which records have changed. */
export const testMirror = (snapshot: Snapshot): { mirror: Mirror; tell(changed: readonly ChangedKey[]): void } => {
  let listener: (changed: readonly ChangedKey[] | 'all') => void = () => {}
  const mirror: Mirror = {
    snapshot,
    status: { available: true, error: undefined, damaged: new Map(), records: 0 },
    ready: async () => {},
    subscribe(to) {
      listener = to
      return () => {}
    },
    onAvailability: () => () => {},
    show: () => {},
    reached: async () => {},
    async close() {},
  }
  return { mirror, tell: changed => listener(changed) }
}

export const testHost = (bound: ReadonlyMap<string, { slot: number }>, more: Partial<Host> = {}): Host => ({
  node: 'a',
  underlay: { dev: 'eth0', mtu: 1500 },
  bound,
  departed: () => false,
  holds: () => true,
  balancer: 'nft',
  silent: () => false,
  dead: () => false,
  closed4: true,
  closed6: true,
  acceptsRa: [],
  resolvers: ['169.254.77.53', 'fd69:7765:6674:ffff::53'],
  guestChains: [],
  dockerBridges: ['docker0'],
  otherBridges: [],
  ...more,
})

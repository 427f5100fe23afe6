// SPDX-License-Identifier: Apache-2.0
// The tables of src/overlay, loaded by us and by nft: `nft list ruleset` is the same, and so are the expressions that
// the kernel holds.
import t from 'tap'
import { type KernelObject, type NftChainObject, type NftSetObject, timeoutName } from '../../../src/kernel/objects.ts'
import type { Endpoint } from '../../../src/model/endpoint.ts'
import type { EndpointId, NetworkId, NodeName } from '../../../src/model/ids.ts'
import type { Network } from '../../../src/model/network.ts'
import type { Node } from '../../../src/model/node.ts'
import type { SetDeclaration } from '../../../src/netlink/nft/set.ts'
import { planEndpoint } from '../../../src/overlay/endpoint-plan.ts'
import { planGateway } from '../../../src/overlay/gateway-plan.ts'
import { planHost } from '../../../src/overlay/host-plan.ts'
import { planSwitch } from '../../../src/overlay/switch-plan.ts'
import type { Host } from '../../../src/plan/host.ts'
import { compare } from './compare.ts'
import type { TableText } from './rules.ts'

const node: Node = {
  name: 'a' as NodeName,
  number: 1,
  instance: 'i',
  boot: 'b',
  vtep: '192.0.2.1',
  mtu: 1500,
  routes: [],
  version: '0',
}
const network: Network = {
  id: 'n1' as NetworkId,
  vni: 7,
  pools: [
    { prefix: '10.224.0.0/20', gateway: '10.224.0.1' },
    { prefix: 'fd77::/64', gateway: 'fd77::1' },
  ],
  mtu: 1450,
  options: {},
  labels: {},
  internal: false,
  attachable: true,
  ipv6: true,
  state: { kind: 'active' },
  origin: { by: 'docker', node: node.name },
}
const endpoint: Endpoint = {
  id: '0123456789abcdef' as EndpointId,
  network: network.id,
  node: node.name,
  boot: 'b',
  addresses: ['10.224.0.5', 'fd77::5'],
  mac: '02:77:0a:e0:00:05',
  ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
  gateway: true,
  identity: 300,
}
const cluster = {
  id: 'c',
  pools: [],
  underlayFamily: 4 as const,
  vxlanPort: 8473,
  reservedPorts: [],
  created: '2026-01-01T00:00:00Z',
}
const host: Host = {
  node: node.name,
  underlay: { dev: 'eth0', mtu: 1500 },
  bound: new Map([[network.id, { slot: 3 }]]),
  departed: () => false,
  holds: () => true,
  balancer: 'nft',
  silent: () => false,
  dead: () => false,
  closed4: true,
  closed6: true,
  acceptsRa: [],
  resolvers: ['169.254.77.53', 'fd69:7765:6674:ffff::53'],
  guestChains: [{ family: 'ip', table: 'filter', chain: 'DOCKER-USER' }],
  dockerBridges: ['docker0'],
  otherBridges: ['virbr0'],
}

/** The nf_tables part of a plan, one text per table. */
const tablesOf = (objects: readonly KernelObject[]): TableText[] =>
  objects
    .filter(object => object.kind === 'nft-table')
    .map(({ family, table }) => {
      const here = <T extends NftSetObject | NftChainObject>(object: T) =>
        object.family === family && object.table === table
      return {
        family,
        table,
        sets: objects
          .filter(object => object.kind === 'nft-set')
          .filter(here)
          .map((object): SetDeclaration => ({ name: object.set, ...object })),
        timeouts: objects
          .filter(object => object.kind === 'nft-timeout')
          .filter(object => object.family === family && object.table === table)
          .map(object => ({ ...object, name: timeoutName(object), protocol: object.proto })),
        chains: objects.filter(object => object.kind === 'nft-chain').filter(here),
      }
    })

const ports = ['vx0', 'gw', 'c0123456789ab']
const endpointObjects = planEndpoint(endpoint, network, node, node).map(({ object }) => object)

t.test('N: switch and endpoint', async t => {
  const tables = tablesOf([
    ...planSwitch(network, node, cluster, host),
    ...endpointObjects.filter(o => !('ns' in o) || o.ns === 'weft-n7'),
  ])
  t.equal(tables.length, 2)
  await compare(t, tables, { links: ports })
})

t.test('M: gateway', async t => {
  await compare(t, tablesOf(planGateway(network, node, cluster, host).filter(o => 'ns' in o && o.ns === 'weft-m7')))
})

t.test('H: host', async t => {
  await compare(t, tablesOf(planHost(node, cluster, host)))
  const closed = { ...node, vtep: 'fd00::1' }
  await compare(t, tablesOf(planHost(closed, cluster, host)))
})

t.test('guest rules in a chain of docker', async t => {
  const rules = planHost(node, cluster, host).flatMap(object => (object.kind === 'nft-guest' ? [object.rule] : []))
  t.equal(rules.length, 2)
  await compare(t, [{ family: 'ip', table: 'filter', sets: [], chains: [{ chain: 'DOCKER-USER', rules }] }])
})

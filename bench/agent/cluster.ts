// SPDX-License-Identifier: Apache-2.0
// Records of a cluster of a chosen size, as weftd writes them: nodes with 50 endpoints each, 20 networks of both
// families, this host in the first 5 of them, with its own endpoints there.
import type { Endpoint } from '../../src/model/endpoint.ts'
import { encode } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'
import type { Write } from '../../src/store/store.ts'
import { underlay } from '../frame/own-host.ts'

export const perNode = 50
const networks = 20
/** Networks of this host. */
export const bound = ['net0', 'net1', 'net2', 'net3', 'net4'] as const
/** This host. */
export const self = 'node0'
const boot = '2f0c5a94-7b50-4a6e-9b43-1d1f6cf53f5e'

const put = (key: string, value: string): Write => ({ kind: 'put', key, value })
const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')

/** Endpoint number n of its network; the claims on what it owns stand beside it. */
export const endpointRecords = (
  network: number,
  n: number,
  node: string,
): { id: string; mac: string; writes: Write[] } => {
  const host = n + 10
  // the first ten characters name the container's end, the first twelve its port
  const id = `${hex(n, 6)}${hex(network, 4)}${'5eed'.repeat(13)}`
  const mac = `02:77:${hex(network, 2)}:${hex(host >> 16, 2)}:${hex((host >> 8) & 255, 2)}:${hex(host & 255, 2)}`
  const addresses = [`10.${128 + network}.${host >> 8}.${host & 255}`, `fd00:${hex(network + 16, 1)}::${hex(host, 1)}`]
  const endpoint: Endpoint = {
    id,
    network: `net${network}`,
    node,
    boot,
    addresses,
    mac,
    ports: [],
    gateway: true,
    identity: 4,
    workload: {
      container: id,
      name: `shop-web-${n}`,
      hostname: id.slice(0, 12),
      aliases: ['web', id.slice(0, 12)],
      labels: { 'com.docker.compose.project': 'shop', 'com.docker.compose.service': 'web' },
      project: 'shop',
      service: 'web',
    },
  }
  const bind = { kind: 'bound', node, endpoint: id } as const
  const claims = addresses.map(address =>
    put(keys.address(endpoint.network, address), encode('addressClaim', { ...bind, boot })),
  )
  const writes = [
    put(keys.endpoint(endpoint.network, id), encode('endpoint', endpoint)),
    put(keys.mac(endpoint.network, mac), encode('macClaim', bind)),
    ...claims,
  ]
  return { id, mac, writes }
}

export interface ClusterRecords {
  readonly writes: readonly Write[]
  /** This host's endpoints: what Docker would attach. */
  readonly local: readonly { readonly network: string; readonly endpoint: string }[]
  /** Numbers of the endpoints that each network has; the next is free. */
  readonly next: readonly number[]
  readonly nodes: number
}

export const clusterRecords = (endpoints: number): ClusterRecords => {
  const nodes = Math.max(2, Math.ceil(endpoints / perNode))
  const writes: Write[] = [
    put(
      keys.cluster,
      encode('cluster', {
        id: 'bench',
        pools: ['10.128.0.0/9', 'fd00::/16'],
        underlayFamily: 4,
        vxlanPort: 8473,
        reservedPorts: [22],
        created: '2026-01-01T00:00:00Z',
      }),
    ),
  ]
  for (let i = 0; i < nodes; i++) {
    const vtep = i === 0 ? underlay : `198.18.${i >> 8}.${i & 255}`
    const facts = { number: i + 1, instance: `i${i}`, boot, vtep, mtu: 1500, routes: [`198.18.0.0/15`], version: '0' }
    writes.push(put(keys.node(`node${i}`), encode('node', { name: `node${i}`, ...facts })))
  }
  for (let i = 0; i < networks; i++) {
    const id = `net${i}`
    const pools = [
      { prefix: `10.${128 + i}.0.0/16`, gateway: `10.${128 + i}.0.1` },
      { prefix: `fd00:${hex(i + 16, 1)}::/64`, gateway: `fd00:${hex(i + 16, 1)}::1` },
    ]
    const flags = { internal: false, attachable: false, ipv6: true, state: { kind: 'active' } } as const
    const words = { options: {}, labels: {}, origin: { by: 'docker', node: self } } as const
    writes.push(
      put(
        keys.network(id),
        encode('network', { id, name: id, vni: 0x100000 + i, pools, mtu: 1450, ...flags, ...words }),
      ),
    )
    for (const { prefix } of pools)
      writes.push(put(keys.pool(prefix), encode('poolClaim', { network: id, node: self, settled: true })))
  }
  const next: number[] = new Array(networks).fill(0)
  const local: { network: string; endpoint: string }[] = []
  for (let i = 0; i < endpoints; i++) {
    const node = Math.floor(i / perNode)
    const network = node === 0 ? i % bound.length : i % networks
    const { id, writes: records } = endpointRecords(network, next[network]!++, `node${node}`)
    writes.push(...records)
    if (node === 0) local.push({ network: `net${network}`, endpoint: id })
  }
  return { writes, local, next, nodes }
}

// SPDX-License-Identifier: Apache-2.0
// Names of the records in the store (`docs/architecture.md`, State). `<network>` is the id, never the name. Parts are
// percent-encoded where users choose them, so that a slash in a name cannot become another key.
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'

const part = (text: string): string => encodeURIComponent(text)
const cidr = (text: string): string => part(text.replace('/', '_'))

export const keys = {
  cluster: 'cluster',
  poolsEpoch: 'pools-epoch',
  nodesEpoch: 'nodes-epoch',
  node: (name: NodeName) => `nodes/${part(name)}`,
  presence: (name: NodeName) => `presence/${part(name)}`,
  nodeNumber: (number: number) => `node-numbers/${number}`,
  network: (id: NetworkId) => `networks/${part(id)}`,
  networkName: (name: string) => `network-names/${part(name)}`,
  vni: (vni: number) => `vnis/${vni}`,
  pool: (prefix: string) => `pools/${cidr(prefix)}`,
  address: (network: NetworkId, address: string) => `addresses/${part(network)}/${part(address)}`,
  mac: (network: NetworkId, mac: string) => `macs/${part(network)}/${part(mac)}`,
  port: (proto: string, port: number) => `ports/${proto}/${port}`,
  floating: (address: string) => `floating/${part(address)}`,
  service: (network: NetworkId, service: string) => `services/${part(network)}/${part(service)}`,
  vip: (network: NetworkId, service: string) => `vips/${part(network)}/${part(service)}`,
  endpoint: (network: NetworkId, endpoint: EndpointId) => `endpoints/${part(network)}/${part(endpoint)}`,
} as const

/** 'addresses/<id>/10.1.0.1' → ['addresses', '<id>', '10.1.0.1'] */
export const splitKey = (key: string): readonly string[] => {
  const parts = key.split('/')
  return key.includes('%') ? parts.map(decodeURIComponent) : parts
}

/** Inverse of the text in `pools/`. */
export const poolOfKey = (text: string): string => text.replace('_', '/')

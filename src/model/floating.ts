// SPDX-License-Identifier: Apache-2.0
// Floating addresses. Who has one is a claim under a lease; taking and leaving it is src/floating.
import { contains, formatAddress, parseInterface } from './address.ts'
import type { NetworkId, NodeName } from './ids.ts'
import type { DeviceAddress, Node } from './node.ts'

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

/** Has the device, and an address of the same subnet on it: else nobody would find the way. */
export const reaches = (
  { addresses }: Pick<Node, 'addresses'>,
  { cidr, dev }: Pick<Floating, 'cidr' | 'dev'>,
): boolean => {
  const { prefix } = parseInterface(cidr)
  return (addresses ?? []).some(one => one.dev === dev && contains(prefix, parseInterface(one.address).address))
}

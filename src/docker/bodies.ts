// SPDX-License-Identifier: Apache-2.0
// What our requests to Docker's API say of a network to be made: of a new one, and of a replica, with everything that
// compose compares with its file and nothing of ours.
import type { Network } from '../model/network.ts'
import type { CreateNetworkBody } from './engine.ts'

export const driverName = 'weft'

export interface NetworkWish {
  readonly name: string
  /** range and gateway may be empty: not given. */
  readonly pools: readonly { prefix: string; range: string; gateway: string; aux: Readonly<Record<string, string>> }[]
  readonly ipv6: boolean
  readonly internal: boolean
  readonly attachable: boolean
  readonly options: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
}

export const wishBody = (wish: NetworkWish): CreateNetworkBody => ({
  Name: wish.name,
  CheckDuplicate: true,
  Driver: driverName,
  Internal: wish.internal,
  Attachable: wish.attachable,
  EnableIPv6: wish.ipv6 || wish.pools.some(pool => pool.prefix.includes(':')),
  IPAM: {
    Driver: driverName,
    Config: wish.pools.map(({ prefix, range, gateway, aux }) => ({
      Subnet: prefix,
      ...(range === '' ? {} : { IPRange: range }),
      ...(gateway === '' ? {} : { Gateway: gateway }),
      ...(Object.keys(aux).length === 0 ? {} : { AuxiliaryAddresses: { ...aux } }),
    })),
  },
  Options: wish.options,
  Labels: wish.labels,
})

/** Given twice, to Docker and to its IPAM: the replica has both, or compose would find it changed. */
export const joins = 'weft.network'

export const bodyOf = (record: Network, name: string): CreateNetworkBody => ({
  Name: name,
  CheckDuplicate: true,
  Driver: driverName,
  Internal: record.internal,
  Attachable: record.attachable,
  ...(record.pools.every(pool => pool.prefix.includes(':')) ? { EnableIPv4: false } : {}),
  EnableIPv6: record.ipv6,
  IPAM: {
    Driver: driverName,
    ...(record.options[joins] === undefined ? {} : { Options: { [joins]: record.options[joins] } }),
    Config: record.pools.map(({ prefix, range, gateway, aux }) => ({
      Subnet: prefix,
      ...(range === undefined ? {} : { IPRange: range }),
      ...(gateway === undefined ? {} : { Gateway: gateway }),
      ...(aux === undefined ? {} : { AuxiliaryAddresses: { ...aux } }),
    })),
  },
  Options: record.options,
  Labels: record.labels,
})

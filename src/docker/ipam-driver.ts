// SPDX-License-Identifier: Apache-2.0
// Docker's IpamDriver contract over the control verbs. PoolID is the prefix itself: it is unique in the cluster, and
// the engine keeps it for ever.

import { WeftError } from '../base/errors.ts'
import type { Addresses } from '../control/addresses.ts'
import { parseNetworkName } from '../control/options.ts'
import type { Pools } from '../control/pools.ts'
import { formatPrefix, parseInterface } from '../model/address.ts'
import type { NetworkId } from '../model/ids.ts'
import { addressSpace, type Handler } from './network-driver.ts'
import { forAMoment } from './patience.ts'
import { decodeRequest, label, requests } from './wire.ts'

export interface IpamDriverParts {
  readonly pools: Pools
  readonly addresses: Addresses
  /**
   * A pool, '' for any, is asked for: for the replica of this network, which we are having made; undefined: by a user's
   * command, perhaps for a network of this name: no replica beside it.
   */
  readonly makeWay: (pool: string, name: string | undefined) => Promise<NetworkId | undefined>
  /** Docker gives this pool back: so is its network if it never got a name. */
  readonly forsake: (pool: string, signal: AbortSignal) => Promise<void>
}

export const ipamDriver = ({
  pools,
  addresses,
  makeWay,
  forsake,
}: IpamDriverParts): Readonly<Record<string, Handler>> => ({
  'IpamDriver.GetCapabilities': async () => ({ RequiresMACAddress: false, RequiresRequestReplay: false }),

  // once in the life of an engine
  'IpamDriver.GetDefaultAddressSpaces': async () => {
    addresses.disown()
    return { LocalDefaultAddressSpace: addressSpace, GlobalDefaultAddressSpace: addressSpace }
  },

  'IpamDriver.RequestPool': async (body, signal) => {
    const request = decodeRequest('RequestPool', requests.requestPool, body)
    for (const name of Object.keys(request.Options))
      if (name.startsWith('weft.') && name !== 'weft.network')
        throw new WeftError('UNKNOWN_OPTION', `ipam option ${name} is unknown, did you mean weft.network?`)
    const wanted = parseNetworkName(request.Options['weft.network'], 'ipam option')
    const replicaOf = await makeWay(request.Pool, wanted)
    const grant = await pools.request(
      {
        family: request.V6 === true || request.Pool.includes(':') ? 6 : 4,
        ...(request.Pool === '' ? {} : { prefix: request.Pool }),
        ...(request.SubPool === '' ? {} : { range: formatPrefix(parseInterface(request.SubPool, 'ip-range').prefix) }),
        ...(wanted === undefined ? {} : { wanted }),
        ...(replicaOf === undefined ? {} : { replicaOf }),
      },
      signal,
    )
    return { PoolID: grant.prefix, Pool: grant.prefix, Data: {} }
  },

  'IpamDriver.ReleasePool': async (body, signal) => {
    const { PoolID } = decodeRequest('ReleasePool', requests.releasePool, body)
    const free = async (): Promise<void> => {
      if (await pools.release(PoolID, signal)) await forsake(PoolID, signal)
    }
    await forAMoment(free())
    return {}
  },

  'IpamDriver.RequestAddress': async (body, signal) => {
    const request = decodeRequest('RequestAddress', requests.requestAddress, body)
    const gateway = request.Options[label.addressType] === label.gateway
    return { Address: await addresses.request(request.PoolID, request.Address, gateway, signal), Data: {} }
  },

  'IpamDriver.ReleaseAddress': async (body, signal) => {
    const request = decodeRequest('ReleaseAddress', requests.releaseAddress, body)
    if (request.Address !== '') await forAMoment(addresses.release(request.PoolID, request.Address, signal))
    return {}
  },
})

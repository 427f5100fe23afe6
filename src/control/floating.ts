// SPDX-License-Identifier: Apache-2.0
// Which floating addresses a service may ask for. What stands in the way is named: another owner, no host that could
// have it, or (asked of the wire, by the caller) a foreign machine that answers for it.
import { WeftError } from '../base/errors.ts'
import {
  bits,
  contains,
  formatAddress,
  type Prefix,
  parseAddress,
  parseInterface,
  parsePrefix,
  sizeOf,
  unusableFor,
} from '../model/address.ts'
import { type Floating, floatingOf } from '../model/floating.ts'
import { serviceText, unheldBecause, wantedFloating } from '../model/floating-hosts.ts'
import type { DeviceAddress } from '../model/node.ts'
import type { ServiceOptions } from '../model/service-options.ts'
import type { Snapshot } from '../model/snapshot.ts'

const most = 16

/** --address as typed, made canonical. `[]`: not named. Throws INVALID. */
export const parseAddresses = (
  texts: readonly string[] | undefined,
  dev: string | undefined,
  before: readonly DeviceAddress[] | undefined,
): readonly DeviceAddress[] | undefined => {
  if (texts === undefined || texts.length === 0) {
    if (dev !== undefined) throw new WeftError('INVALID', `--dev ${dev}: give --address as well`)
    return before
  }
  if (texts.includes('none')) {
    if (texts.length > 1 || dev !== undefined)
      throw new WeftError('INVALID', '--address none stands alone: it takes all addresses away')
    return undefined
  }
  if (dev === undefined)
    throw new WeftError(
      'INVALID',
      `--address ${texts[0]}: give --dev as well, the device of the hosts that it is to be on`,
    )
  if (!/^[^\s/:]{1,15}$/.test(dev) || /^weft/.test(dev) || dev === 'lo')
    throw new WeftError('INVALID', `--dev ${JSON.stringify(dev)}: give a network device of the hosts, such as eth0`)
  if (texts.length > most) throw new WeftError('INVALID', `--address: give at most ${most} for a service`)
  const addresses = texts.map(text => ({ dev, address: parseOne(text) }))
  const twice = addresses.find(({ address }, i) => addresses.findIndex(one => one.address === address) < i)
  if (twice) throw new WeftError('INVALID', `--address ${twice.address} is given twice: give each once`)
  return addresses
}

const parseOne = (text: string): string => {
  const { address, prefix } = parseInterface(text, '--address')
  const why =
    unusableFor({ ...prefix, value: address.value, length: bits(address.family) }) ?? ownOfSubnet(address.value, prefix)
  if (why !== undefined) throw new WeftError('INVALID', `--address ${text} is ${why}: give one that a host may have`)
  return `${formatAddress(address)}/${prefix.length}`
}

/** The addresses of a subnet that no host has. */
const ownOfSubnet = (value: bigint, prefix: Prefix): string | undefined => {
  if (bits(prefix.family) - prefix.length < 2) return undefined
  if (value === prefix.value) return prefix.family === 4 ? 'the address of its subnet' : "the routers' anycast address"
  return prefix.family === 4 && value === prefix.value + sizeOf(prefix) - 1n
    ? "its subnet's broadcast address"
    : undefined
}

/** Those that the service did not ask for before. Throws TAKEN naming the owner, NOT_FOUND when no host could have one. */
export const newFloating = (
  snapshot: Snapshot,
  before: ServiceOptions | undefined,
  after: ServiceOptions,
): readonly Floating[] => {
  const wanted = wantedFloating(snapshot)
  const known = new Set(before?.addresses?.map(({ dev, address }) => `${dev} ${address}`))
  const added = (after.addresses ?? []).filter(({ dev, address }) => !known.has(`${dev} ${address}`))
  return added.map(one => {
    const floating = floatingOf(one, after.network, after.service)
    const holder = wanted.get(floating.address)
    const owner =
      holder && (holder.network !== after.network || holder.service !== after.service)
        ? serviceText(snapshot, holder)
        : ownerOf(snapshot, floating.address)
    if (owner !== undefined)
      throw new WeftError('TAKEN', `--address ${one.address} is of ${owner}: give one that nobody has`)
    const why = unheldBecause(snapshot, floating)
    if (why !== undefined)
      throw new WeftError('NOT_FOUND', `--address ${one.address}: ${why}: see weft node show, or give another --dev`)
    return floating
  })
}

/** Who of the cluster has this address for good. */
const ownerOf = (snapshot: Snapshot, address: string): string | undefined => {
  for (const { record } of snapshot.nodes.values()) {
    if (record.fenced !== undefined) continue
    const own = [record.vtep, ...(record.addresses ?? []).map(one => one.address.replace(/\/.*/, ''))]
    if (own.includes(address)) return `node ${record.name}`
  }
  const parsed = parseAddress(address)
  for (const [prefix, { record }] of snapshot.pools)
    if (contains(parsePrefix(prefix), parsed))
      return `network ${snapshot.networks.get(record.network)?.record.name ?? record.network}, in its subnet ${prefix}`
  const pool = snapshot.cluster?.record.pools.find(one => contains(parsePrefix(one), parsed))
  return pool === undefined ? undefined : `the pools of weft's networks, ${pool}`
}

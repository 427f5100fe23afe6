// SPDX-License-Identifier: Apache-2.0
// By which device and address the hosts reach each other: as an operator says, else as the default route tells.
import { WeftError } from '../base/errors.ts'
import type { Address } from '../netlink/rtnl/addr.ts'
import type { Link } from '../netlink/rtnl/link.ts'
import type { Route } from '../netlink/rtnl/route.ts'
import { IFA_F, IFF } from '../netlink/rtnl/uapi.ts'
import { AF_INET } from '../netlink/uapi.ts'
import type { NameOf } from './decode.ts'

export interface Underlay {
  readonly dev: string
  readonly mtu: number
  /** The VTEP. */
  readonly address: string
  /** What has become of it since it was chosen, and the remedy. */
  readonly problem?: string
}

export interface UnderlayChoice {
  /** --vtep; absent: the device's `last` if it still has it, else its first lasting address. */
  readonly vtep?: string
  readonly last?: string
  /** --underlay-dev; absent: the device that has the vtep, or that the default route uses. */
  readonly dev?: string
  /** It stays while we run: an address that is away for a moment moves nobody's traffic. */
  readonly chosen?: Underlay
}

export interface HostLinks {
  readonly byName: ReadonlyMap<string, Link>
  readonly byIndex: ReadonlyMap<number, Link>
  /** Of the host itself, of global scope. */
  readonly addresses: readonly Address[]
  /** Of table main. */
  readonly routes: readonly Route[]
}

/** Throws NOT_REACHED where device, route or address may still come (a host that boots), else INVALID. */
export const chooseUnderlay = (choice: UnderlayChoice, host: HostLinks): Underlay => {
  const { byName, byIndex, addresses, routes } = host
  if (choice.chosen) return asItIs(choice.chosen, host)
  const index =
    choice.dev !== undefined
      ? byName.get(choice.dev)?.index
      : choice.vtep !== undefined
        ? addresses.find(address => address.address === choice.vtep)?.ifindex
        : defaultDevice(routes, index => byIndex.get(index)?.name)
  const link = index === undefined ? undefined : byIndex.get(index)
  if (!link) throw new WeftError('NOT_REACHED', noUnderlay(choice))
  if (link.flags & IFF.LOOPBACK)
    throw new WeftError(
      'INVALID',
      `${choice.dev === undefined ? `--vtep ${choice.vtep}` : `--underlay-dev ${choice.dev}`}: ${link.name} leads to no other host: give an address of the device that does`,
    )
  const own = addresses.filter(address => address.ifindex === link.index)
  const vtep = choice.vtep ?? lastingOf(own, choice.last)
  if (vtep === undefined || !own.some(address => address.address === vtep)) {
    const has = `device ${link.name} has ${own.map(address => address.address).join(', ') || 'no address'}`
    const what = vtep === undefined ? `${has}, none that lasts: give it one, or --vtep` : `--vtep ${vtep}: ${has}`
    throw new WeftError('NOT_REACHED', what)
  }
  return { dev: link.name, mtu: link.mtu, address: vtep }
}

const asItIs = ({ dev, mtu, address }: Underlay, { byName, addresses }: HostLinks): Underlay => {
  const link = byName.get(dev)
  const isThere = addresses.some(one => one.address === address && one.ifindex === link?.index)
  const problem = `device ${dev} has no longer ${address}, by which other hosts reach this one: give it back, or restart weftd`
  return { dev, mtu: link?.mtu ?? mtu, address, ...(isThere ? {} : { problem }) }
}

/** Of all hops. */
export const devicesOf = ({ oif, hops }: Route): number[] =>
  [oif, ...(hops ?? []).map(hop => hop.oif)].filter(index => index !== undefined)

const defaultDevice = (routes: readonly Route[], nameOf: NameOf): number | undefined => {
  const route = routes.find(({ dst }) => dst === '0.0.0.0/0' || dst === '::/0')
  const [first, ...others] = new Set(route ? devicesOf(route) : [])
  if (first === undefined || others.length === 0) return first
  const names = [first, ...others].map(index => nameOf(index) ?? `index ${index}`).join(' and ')
  throw new WeftError('INVALID', `the default route leads by ${names}: choose with --underlay-dev or --vtep`)
}

/** Of several the oldest, so that no newer one takes its place: the kernel lists IPv6 addresses from the newest on. */
const lastingOf = (own: readonly Address[], last: string | undefined): string | undefined => {
  const without = (flags: number): Address[] => own.filter(address => (address.flags & flags) === 0)
  const passing = IFA_F.TEMPORARY | IFA_F.DEPRECATED | IFA_F.DADFAILED
  const settled = without(passing | IFA_F.TENTATIVE)
  const lasting = settled.length > 0 ? settled : without(passing)
  const found =
    lasting.find(({ address }) => address === last) ??
    lasting.find(({ family }) => family === AF_INET) ??
    lasting.at(-1)
  return found?.address
}

const noUnderlay = ({ dev, vtep }: UnderlayChoice): string =>
  dev !== undefined
    ? `--underlay-dev ${dev}: there is no such device`
    : vtep !== undefined
      ? `--vtep ${vtep}: no device of this host has that address`
      : 'no default route to tell the underlay by: give --underlay-dev or --vtep'

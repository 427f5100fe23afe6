// SPDX-License-Identifier: Apache-2.0
// What this host has outside weft: its underlay device, the prefixes it routes, whether it forwards, where Docker lets
// others put their accepts. Read only.
import { readFile } from 'node:fs/promises'
import { NotSupportedError } from '../base/errors.ts'
import { single } from '../model/address.ts'
import { netnsInode, netnsRead } from '../netlink/netns.ts'
import { listObjects } from '../netlink/nft/dump.ts'
import { type Address, decodeAddress, listAddresses } from '../netlink/rtnl/addr.ts'
import { decodeRoute, listRoutes, type Route } from '../netlink/rtnl/route.ts'
import { IFA_F, RT_SCOPE, RTPROT } from '../netlink/rtnl/uapi.ts'
import { AF_INET, AF_INET6 } from '../netlink/uapi.ts'
import { type NameOf, oursByName, protocol } from './decode.ts'
import { type GuestChain, guestChainsOf, isGuestChain } from './guest-chains.ts'
import { forwards6 } from './host-settings.ts'
import { openSockets, type Sockets } from './sockets.ts'
import { chooseUnderlay, devicesOf, type Underlay, type UnderlayChoice } from './underlay.ts'

export interface HostFacts {
  readonly underlay: Underlay
  /** CIDRs of other routes and resolvers, without defaults, loopback and link-local. */
  readonly routes: readonly string[]
  /** A default of IPv4 in parts by a device alone, as VPNs write it: 0.0.0.0/1. Docker makes no network beside it. */
  readonly halves: readonly string[]
  /** Addresses and routes from the range of our link networks (plan/links). */
  readonly onLinks: readonly { readonly dev: string; readonly prefix: string }[]
  /** What its devices have for good: without weft's, Docker's and temporary ones. */
  readonly addresses: readonly { readonly dev: string; readonly address: string }[]
  /** Name servers of /etc/resolv.conf, plain addresses. */
  readonly resolvers: readonly string[]
  readonly forwards4: boolean
  /** Devices with a route or an address from router advertisements. */
  readonly advertised: readonly string[]
  /** Of `listening`, those that still do. */
  readonly acceptsRa: readonly string[]
  /** Where our accepts are guests: mostly Docker's DOCKER-USER. */
  readonly guestChains: readonly GuestChain[]
  /** Docker's, by the names that it gives, and `bridges`. */
  readonly dockerBridges: readonly string[]
  /** Neither Docker's nor ours; one that Docker uses is Docker's here, even if it is the way out. */
  readonly otherBridges: readonly string[]
}

export interface HostChoice extends UnderlayChoice {
  /** Devices that are to go on with router advertisements. */
  readonly listening?: readonly string[]
  /** Docker's of other names than it gives: may be one that the host had before, and is its way out. */
  readonly bridges?: readonly string[]
}

export const resolvConf = '/etc/resolv.conf'
/** Those that systemd-resolved asks, where resolv.conf names its stub alone (systemd-resolved.service(8)). */
const stub = '127.0.0.53'
const behindStub = '/run/systemd/resolve/resolv.conf'

const mainTable = 254
const ofLinks = /^(169\.254\.|fd69:7765:6674:)/
const docker = /^(docker0|br-[0-9a-f]{12})$/

export const readHostFacts = async (choice: HostChoice): Promise<HostFacts> => {
  const sockets = openSockets()
  try {
    const socket = await sockets.route('')
    const { byName, byIndex } = await sockets.links('')
    const addresses = await socket.dump(listAddresses(), decodeAddress)
    const allRoutes = await socket.dump(listRoutes(), decodeRoute)
    const nameOf: NameOf = index => byIndex.get(index)?.name
    const global = addresses.filter(address => isOfHost(address, nameOf))
    const routes = allRoutes.filter(route => route.table === mainTable)
    const underlay = chooseUnderlay(choice, { byName, byIndex, addresses: global, routes })
    const uplinks = new Set([underlay.dev, ...allRoutes.filter(isBehindRouter).flatMap(devicesOf).map(nameOf)])
    const isUsed = (name: string): boolean => docker.test(name) || choice.bridges?.includes(name) === true
    const isDockers = (name: string): boolean => docker.test(name) || (isUsed(name) && !uplinks.has(name))
    const inTheWay = allRoutes.filter(route => isForeign(route, nameOf)).map(({ dst }) => dst)
    const servers = await resolvers(resolvConf)
    const behind = servers.includes(stub) ? await resolvers(behindStub) : []
    const on = (index: number, prefix: string) => ({ dev: nameOf(index) ?? `index ${index}`, prefix })
    return {
      underlay,
      onLinks: [
        ...addresses
          .filter(one => isAddressOnLinks(one, nameOf))
          .map(one => on(one.ifindex, `${one.address}/${one.prefixLength}`)),
        ...allRoutes.filter(one => isRouteOnLinks(one, nameOf)).map(one => on(devicesOf(one)[0]!, one.dst)),
      ],
      addresses: global.flatMap(({ ifindex, family, flags, address, prefixLength }) => {
        const dev = byIndex.get(ifindex)?.name
        const lasting = dev !== undefined && !isDockers(dev) && !(family === AF_INET6 && flags & IFA_F.TEMPORARY)
        return lasting ? [{ dev, address: `${address}/${prefixLength}` }] : []
      }),
      routes: [...new Set([...inTheWay, ...[...servers, ...behind].filter(isRouted).map(single)])].sort(),
      halves: routes.filter(route => isHalf(route, nameOf)).map(({ dst }) => dst),
      resolvers: servers,
      forwards4: (await sysctl('net/ipv4/ip_forward')) === '1',
      advertised: [
        ...new Set([...allRoutes.filter(isAdvertised).flatMap(devicesOf), ...global.flatMap(leasedOn)]),
      ].flatMap(index => nameOf(index) ?? []),
      acceptsRa: await acceptingRa(choice.listening ?? []),
      guestChains: await readGuestChains(sockets),
      dockerBridges: [...byName.keys()].filter(isDockers).sort(),
      otherBridges: [...byName.values()]
        .flatMap(({ kind, name }) => (kind === 'bridge' && !isUsed(name) && !oursByName('', name) ? name : []))
        .sort(),
    }
  } finally {
    await sockets.close()
  }
}

const isBehindRouter = ({ gateway, hops }: Route): boolean => gateway !== undefined || hops !== undefined
const isAdvertised = ({ protocol }: Route): boolean => protocol === RTPROT.RA
const leasedOn = ({ family, flags, ifindex }: Address): number[] =>
  family === AF_INET6 && (flags & IFA_F.PERMANENT) === 0 ? [ifindex] : []

/** Of these devices, those that listen to router advertisements now. */
export const acceptingRa = async (devices: readonly string[]): Promise<string[]> => {
  const accepting: string[] = []
  for (const name of devices)
    if (['1', '2'].includes(await sysctl(`net/ipv6/conf/${name}/accept_ra`))) accepting.push(name)
  return accepting
}

/** An address that the host has without weft, on its link or farther. */
export const isOfHost = ({ scope, protocol: whose, ifindex }: Address, nameOf: NameOf): boolean =>
  scope === 0 && whose !== protocol && !oursByName('', nameOf(ifindex) ?? '')

/**
 * A route that no network of ours may be beside: neither weft's own nor a default, loopback or link-local one. Those of
 * less than 8 bits are a default in parts, as VPNs write it (0.0.0.0/1 and 128.0.0.0/1, fc00::/7).
 */
export const isForeign = (route: Route, nameOf: NameOf): boolean =>
  isRouteOfHost(route, nameOf) && !/\/[0-7]$/.test(route.dst) && !/^(fe80|ff|127\.|169\.254\.)/.test(route.dst)

/** A part of a default by a device: too short to be avoided, but Docker takes no automatic subnet beside it. */
export const isHalf = (route: Route, nameOf: NameOf): boolean =>
  route.family === AF_INET &&
  route.scope === RT_SCOPE.LINK &&
  /\/[1-7]$/.test(route.dst) &&
  isRouteOfHost(route, nameOf)

/** Of whichever table: VPNs have theirs. The host's own addresses are routes of other types. */
const isRouteOfHost = (route: Route, nameOf: NameOf): boolean => {
  const [index] = devicesOf(route)
  return route.type === 'unicast' && index !== undefined && !oursByName('', nameOf(index) ?? '')
}

/** What others have where our link networks are from (plan/links), of whatever scope. */
export const isAddressOnLinks = (address: Address, nameOf: NameOf): boolean =>
  ofLinks.test(address.address) && isOfHost({ ...address, scope: 0 }, nameOf)
export const isRouteOnLinks = (route: Route, nameOf: NameOf): boolean =>
  ofLinks.test(route.dst) && isRouteOfHost(route, nameOf)

const readGuestChains = async (sockets: Sockets): Promise<readonly GuestChain[]> =>
  guestChainsOf(await listObjects(await sockets.netfilter(''), { table: () => false, chain: isGuestChain }))

const sysctl = async (path: string): Promise<string> => {
  try {
    return (await netnsRead(undefined, `/proc/sys/${path}`)).trim()
  } catch {
    return ''
  }
}

/** Others are on this host (systemd-resolved) or on its link (those of clouds), and in nobody's way. */
const isRouted = (address: string): boolean => !/^(127\.|::1$|169\.254\.|fe80:)/.test(address)

const resolvers = async (file: string): Promise<string[]> => {
  const text = await readFile(file, 'utf8').catch(() => '')
  // what follows is a comment (resolv.conf(5), and its readers); a link-local address has its zone (RFC 4007 11)
  return [...text.matchAll(/^[ \t]*nameserver[ \t]+([0-9a-fA-F.:]+(?:%[^\s/]+)?)(?!\S)/gm)].map(match => match[1]!)
}

/** Changes with every boot of the host, and with every new life of a host that is a namespace. */
export const bootId = async (): Promise<string> => {
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  return `${boot}:${await netnsInode()}`
}

/** What no weft network can do without; throws NotSupportedError naming feature and remedy. */
export const probeKernel = async (): Promise<void> => {
  if ((await sysctl(forwards6)) === '')
    throw new NotSupportedError(
      'IPv6',
      'boot without ipv6.disable=1 on the kernel command line: the links of networks of IPv4 alone have it too',
    )
  if ((await sysctl('net/bridge/bridge-nf-call-iptables')) === '')
    throw new NotSupportedError(
      'br_netfilter',
      'load the module: modprobe br_netfilter, and list it in /etc/modules-load.d',
    )
}

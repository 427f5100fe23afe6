// SPDX-License-Identifier: Apache-2.0
// Operations into netlink: consecutive ones of a namespace and protocol travel together, nf_tables ones as a single
// transaction. Every write is a replace where the kernel has one, so that a repeated or half-done pass converges.
import { NotSupportedError, WeftError } from '../base/errors.ts'
import { formatAddress, formatPrefix, parseInterface } from '../model/address.ts'
import { NetlinkError } from '../netlink/errors.ts'
import { netnsWrite } from '../netlink/netns.ts'
import { nftBatch } from '../netlink/nft/batch.ts'
import { listObjects } from '../netlink/nft/dump.ts'
import { removeAddress, replaceAddress } from '../netlink/rtnl/addr.ts'
import { removeFdb, replaceFdb } from '../netlink/rtnl/fdb.ts'
import {
  addLink,
  decodeLink,
  listLinks,
  removeLink,
  setBridgePort,
  setLink,
  setLinkKind,
} from '../netlink/rtnl/link.ts'
import { removeNeighbour, replaceNeighbour } from '../netlink/rtnl/neigh.ts'
import { removeNexthop, replaceNexthop } from '../netlink/rtnl/nexthop.ts'
import { removeRoute, replaceRoute } from '../netlink/rtnl/route.ts'
import { RTPROT } from '../netlink/rtnl/uapi.ts'
import { openNetlink, type Request } from '../netlink/socket.ts'
import { NETLINK_ROUTE } from '../netlink/uapi.ts'
import { portGroup, protocol } from './decode.ts'
import { isGuestChain } from './guest-chains.ts'
import { applyIpvs, isIpvs } from './ipvs.ts'
import type { Operation, OperationResult } from './kernel.ts'
import { createNamespace, isNoNamespace, pathOf, removeNamespace } from './namespaces.ts'
import { isNft, writeNft } from './nft.ts'
import { type AddressObject, type KernelObject, type LinkObject, type Ns, nsOf, type VethObject } from './objects.ts'
import type { Sockets } from './sockets.ts'

const noArp = 0x40

/** `onPort` hears the port of each netfilter socket that writes, before it does: its events are our own. */
export const applyOperations = async (
  sockets: Sockets,
  operations: readonly Operation[],
  onPort: (port: number) => void,
): Promise<OperationResult[]> => {
  const results: OperationResult[] = []
  for (let i = 0; i < operations.length; ) {
    const first = operations[i]!
    const way = wayOf(first, onPort)
    let end = i + 1
    if (way.batched) while (end < operations.length && wayOf(operations[end]!, onPort).name === way.name) end++
    const group = operations.slice(i, end)
    results.push(...(await way.run(sockets, group)))
    i = end
  }
  return results
}

interface Way {
  readonly name: string
  readonly batched: boolean
  run(sockets: Sockets, group: readonly Operation[]): Promise<readonly OperationResult[]>
}

const wayOf = ({ object }: Operation, onPort: (port: number) => void): Way => {
  const ns = nsOf(object)
  if (isNft(object))
    return { name: `nft ${ns}`, batched: true, run: (sockets, group) => applyNft(sockets, ns, group, onPort) }
  if (isIpvs(object))
    return { name: `ipvs ${ns}`, batched: true, run: (sockets, group) => applyIpvs(sockets, ns, group) }
  if (
    object.kind === 'netns' ||
    object.kind === 'sysctl' ||
    object.kind === 'bridge' ||
    object.kind === 'vxlan' ||
    object.kind === 'veth'
  )
    return { name: object.kind, batched: false, run: applyOne }
  return { name: `route ${ns}`, batched: true, run: (sockets, group) => applyRoute(sockets, ns, group) }
}

const applyOne = async (sockets: Sockets, group: readonly Operation[]): Promise<OperationResult[]> => {
  const operation = group[0]!
  try {
    await single(sockets, operation)
    return [{ operation }]
  } catch (error) {
    return [{ operation, error: error as Error }]
  }
}

const single = async (sockets: Sockets, operation: Operation): Promise<void> => {
  const { kind, object } = operation
  switch (object.kind) {
    case 'netns':
      sockets.forget(object.ns)
      if (kind !== 'remove') return createNamespace(object.ns)
      await removeTunnels(object.ns)
      return removeNamespace(object.ns)
    case 'sysctl':
      return kind === 'remove' ? undefined : netnsWrite(pathOf(object.ns), `/proc/sys/${object.path}`, object.value)
    default:
      return applyLink(sockets, operation, object as LinkObject)
  }
}

/** The kernel takes a namespace down behind our back, and a tunnel in it has H's port and VNI for as long. */
const removeTunnels = async (ns: Ns): Promise<void> => {
  try {
    const socket = await openNetlink({ protocol: NETLINK_ROUTE, netns: pathOf(ns) })
    try {
      // a kernel that does not know the kind yet lists all
      for (const { name, kind } of await socket.dump(listLinks({ kind: 'vxlan' }), decodeLink))
        if (kind === 'vxlan') await socket.run(removeLink({ name })).catch(ignoreAbsent)
    } finally {
      await socket.close()
    }
  } catch (error) {
    if (!isNoNamespace(error)) throw error
  }
}

const applyLink = async (sockets: Sockets, operation: Operation, object: LinkObject): Promise<void> => {
  const { ns, name } = object
  const socket = await sockets.route(ns)
  try {
    const inPlace = operation.kind === 'replace' && changed(sockets, object, operation.old as LinkObject)
    if (inPlace && (await inPlace.catch(explain(object)))) return
    if (operation.kind !== 'add') await socket.run(removeLink({ name })).catch(ignoreAbsent)
    sockets.forget(ns, name)
    if (operation.kind !== 'remove') await create(sockets, object).catch(explain(object))
  } finally {
    sockets.forget(ns, name)
    if (object.kind === 'veth') sockets.forget(object.peer.ns, object.peer.name)
  }
}

/** The kernel's number says little to who starts a container. */
const explain =
  ({ kind, ns }: LinkObject) =>
  (error: unknown): never => {
    const name = error instanceof NetlinkError ? error.errnoName : undefined
    if (name === 'EOPNOTSUPP')
      throw new NotSupportedError(kind, `load the module: modprobe ${kind}, and list it in /etc/modules-load.d`, {
        cause: error,
      })
    if (name === 'EXFULL')
      throw new WeftError(
        'FULL',
        `the bridge in ${ns} has 1,023 ports and no more fit: start containers of this network on other hosts`,
        { cause: error },
      )
    throw error
  }

/** What can be changed in place is; false: the link has to be made anew. */
const changed = async (sockets: Sockets, object: LinkObject, old: LinkObject): Promise<boolean> => {
  if (object.kind !== old.kind) return false
  if (
    object.kind === 'vxlan' &&
    old.kind === 'vxlan' &&
    // after `learning on` and off again Linux 6.18 receives nothing more
    (object.vni !== old.vni || object.port !== old.port || object.local !== old.local || old.learning || old.otherwise)
  )
    return false
  if (object.kind === 'veth' && old.kind === 'veth' && !object.port) {
    const { ns, name } = object.peer
    if (ns !== old.peer.ns || name !== old.peer.name) return false
    const peer = { mtu: object.peer.mtu, up: true, arp: true, ...newMac(object.peer, old.peer) }
    await (await sockets.route(ns)).run(setLink({ name }, peer))
  }
  const master = object.master === undefined ? 0 : await indexOf(sockets, object.ns, object.master)
  const group = groupOf(object)
  await (await sockets.route(object.ns)).run(
    setLink({ name: object.name }, { mtu: object.mtu, master, up: true, arp: true, ...group, ...newMac(object, old) }),
  )
  if (old.kind === 'bridge' && old.otherwise !== undefined) {
    // a kernel that can only be without VLANs refuses to be told so
    const vlans = old.otherwise.includes('vlan_filtering 1') ? { vlanFiltering: false } : {}
    await (await sockets.route(object.ns)).run(setLinkKind({ name: object.name }, { ...bridgeOptions, ...vlans }))
  }
  return true
}

/** A device forgets its neighbours with every address that it is given, its own too. */
const newMac = ({ mac }: { mac?: string }, old: { mac?: string }): { mac?: string } =>
  mac === undefined || mac === old.mac ? {} : { mac }

const groupOf = (object: LinkObject): { group?: number } =>
  object.kind === 'veth' && object.port ? { group: portGroup } : {}

const bridgeOptions = { kind: 'bridge', ageingTime: 0, multicastSnooping: false } as const

const create = async (sockets: Sockets, object: LinkObject): Promise<void> => {
  const { ns, name, mtu } = object
  const socket = await sockets.route(ns)
  const master = object.master === undefined ? {} : { master: await indexOf(sockets, ns, object.master) }
  switch (object.kind) {
    case 'bridge':
      await socket.run(
        addLink({
          name,
          mtu,
          up: true,
          mac: object.mac!,
          type: bridgeOptions,
        }),
      )
      return
    case 'vxlan': {
      // made by H, so that its UDP socket lives there, and born in the switch's namespace
      const { vni, port, local } = object
      const host = await sockets.route('')
      const netnsFd = await sockets.fd(ns)
      await host.run(
        addLink({ name, mtu, netnsFd, type: { kind: 'vxlan', vni, port, local, learning: false, gbp: true } }),
      )
      await socket.run(setLink({ name }, { mtu, up: true, ...master }))
      return
    }
    case 'veth': {
      const { peer } = object
      const far = {
        name: peer.name,
        mtu: peer.mtu,
        ...(peer.mac === undefined ? {} : { mac: peer.mac }),
        ...(peer.ns === ns ? {} : { netnsFd: await sockets.fd(peer.ns) }),
      }
      const add = () => socket.run(addLink({ name, mtu, ...groupOf(object), type: { kind: 'veth', peer: far } }))
      await add().catch(async error => {
        if (object.port || !(error instanceof NetlinkError && error.errnoName === 'EEXIST')) throw error
        // somebody renamed this end, or moved it: its far end in our namespace has stayed, and takes it away
        await (await sockets.route(peer.ns)).run(removeLink({ name: peer.name })).catch(ignoreAbsent)
        await add()
      })
      const ready = async (): Promise<void> => {
        await socket.run(setLink({ name }, { up: true, ...master }))
        if (!object.port) await bringUp(sockets, peer)
      }
      await ready().catch(async error => {
        await socket.run(removeLink({ name })).catch(ignoreAbsent) // half made it is of use to nobody
        throw error
      })
    }
  }
}

const bringUp = async (sockets: Sockets, { ns, name }: VethObject['peer']): Promise<void> => {
  await (await sockets.route(ns)).run(setLink({ name }, { up: true }))
}

const indexOf = async (sockets: Sockets, ns: Ns, name: string): Promise<number> => {
  const index = await sockets.index(ns, name)
  if (index === undefined)
    throw new NetlinkError({ op: `look up link "${name}" in ${ns === '' ? 'H' : ns}`, errno: 19 })
  return index
}

const ignoreAbsent = (error: unknown): void => {
  if (!(error instanceof NetlinkError && error.absent)) throw error
}

const applyRoute = async (sockets: Sockets, ns: Ns, group: readonly Operation[]): Promise<OperationResult[]> => {
  try {
    const devs = new Set(group.flatMap(({ object }) => devOf(object) ?? []))
    const indexes = new Map(await Promise.all([...devs].map(async dev => [dev, await sockets.index(ns, dev)] as const)))
    const prepared = group.map(operation => {
      const dev = devOf(operation.object)
      const index = dev === undefined ? 0 : indexes.get(dev)
      return { operation, requests: index === undefined ? [] : requestsOf(operation, index) }
    })
    const ready = prepared.flatMap(({ operation, requests }) => requests.map(request => ({ operation, request })))
    const outcomes = await (await sockets.route(ns)).batch(ready.map(({ request }) => request))
    const errors = new Map(ready.map((one, i) => [one.operation, outcomes[i]])) // of several the last one's
    return prepared.map(({ operation, requests }): OperationResult => {
      const error = errors.get(operation)
      if (operation.kind === 'remove') return error && !error.absent ? { operation, error } : { operation }
      if (requests.length === 0)
        return { operation, error: new NetlinkError({ op: `look up link "${devOf(operation.object)}"`, errno: 19 }) }
      return error ? { operation, error } : { operation }
    })
  } catch (error) {
    // a namespace that is gone took its objects with it
    const gone = error instanceof NetlinkError && error.absent
    return group.map(operation =>
      gone && operation.kind === 'remove' ? { operation } : { operation, error: error as Error },
    )
  }
}

const devOf = (object: KernelObject): string | undefined => ('dev' in object ? object.dev : undefined)

const requestsOf = (operation: Operation, ifindex: number): Request[] => {
  const request = requestOf(operation, ifindex)
  if (operation.kind !== 'replace') return [request]
  if (operation.object.kind === 'address') return routeAgain(operation.object, ifindex, request)
  if (!otherKind(operation.object, operation.old)) return [request]
  return [requestOf({ kind: 'remove', object: operation.old }, ifindex), request]
}

/** The address is there without its route. It stays, as other routes hang on it. */
const routeAgain = ({ address: text }: AddressObject, ifindex: number, request: Request): Request[] => {
  const { address, prefix } = parseInterface(text)
  const route = { dst: formatPrefix(prefix), oif: ifindex }
  // IPv6 restores it with the address, unless another's is in its place
  if (prefix.family === 6) return [removeRoute(route), request]
  return [replaceRoute({ ...route, protocol: RTPROT.KERNEL, prefSrc: formatAddress(address) })]
}

/** A row to an address and one to a nexthop do not replace each other. */
const otherKind = (object: KernelObject, old: KernelObject): boolean =>
  object.kind === 'fdb-remote' && old.kind === 'fdb-remote' && (object.nexthop === 0) !== (old.nexthop === 0)

const requestOf = ({ kind, object }: Operation, ifindex: number): Request => {
  const removing = kind === 'remove'
  switch (object.kind) {
    case 'port':
      return setBridgePort(ifindex, {
        learning: false,
        hairpin: object.hairpin,
        unicastFlood: object.flood,
        multicastFlood: object.spread,
        broadcastFlood: object.spread,
        neighSuppress: object.suppress,
        guard: false,
        isolated: false,
        locked: false,
      })
    case 'address':
      return removing
        ? removeAddress({ ifindex, prefix: object.address })
        : replaceAddress({ ifindex, prefix: object.address })
    case 'route': {
      const route = { dst: object.to, oif: ifindex, ...(object.via === undefined ? {} : { gateway: object.via }) }
      return removing ? removeRoute(route) : replaceRoute({ ...route, protocol })
    }
    case 'neighbour':
      return removing
        ? removeNeighbour({ ifindex, ip: object.ip })
        : replaceNeighbour({ ifindex, ip: object.ip, mac: object.mac, state: 0x80 })
    case 'fdb-port':
      return removing
        ? removeFdb({ ifindex, mac: object.mac, table: 'master' })
        : replaceFdb({ ifindex, mac: object.mac, table: 'master', state: noArp, extLearned: false })
    case 'fdb-remote':
      return removing
        ? removeFdb({ ifindex, mac: object.mac, table: 'self' })
        : replaceFdb({ ifindex, mac: object.mac, table: 'self', nhid: object.nexthop })
    case 'nexthop': {
      if (removing) return removeNexthop(object.id)
      const to = 'via' in object.to ? { gateway: object.to.via } : { group: [{ id: object.to.group }] }
      return replaceNexthop({ id: object.id, fdb: true, protocol, ...to })
    }
    default:
      throw new TypeError(`${object.kind} is not an rtnetlink object`)
  }
}

const applyNft = async (
  sockets: Sockets,
  ns: Ns,
  group: readonly Operation[],
  onPort: (port: number) => void,
): Promise<OperationResult[]> => {
  try {
    const socket = await sockets.netfilter(ns)
    onPort(socket.port)
    const rules = group.some(({ object }) => object.kind === 'nft-guest')
      ? (await listObjects(socket, { table: () => false, chain: isGuestChain })).rules
      : []
    const batch = nftBatch()
    for (const operation of group) writeNft(batch, operation, rules)
    await batch.commit(socket, `change ${group.length} nf_tables objects in ${ns === '' ? 'H' : ns}`)
    return group.map(operation => ({ operation }))
  } catch (error) {
    if (error instanceof NetlinkError && error.absent && group.every(operation => operation.kind === 'remove')) {
      if (group.length === 1) return [{ operation: group[0]! }]
    }
    if (group.length === 1) return [{ operation: group[0]!, error: error as Error }]
    // one wrong object fails all of a transaction: halve it until the culprit stands alone
    const half = Math.ceil(group.length / 2)
    return [
      ...(await applyNft(sockets, ns, group.slice(0, half), onPort)),
      ...(await applyNft(sockets, ns, group.slice(half), onPort)),
    ]
  }
}

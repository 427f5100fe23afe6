// SPDX-License-Identifier: Apache-2.0
// IPVS between our objects and the codec of netlink/genl. A gateway namespace is ours alone, so every service in it is
// too. IPVS tells nobody of changes: /proc/net/ip_vs is compared instead (ipvs-watch).
import { existsSync } from 'node:fs'
import { NetlinkError } from '../netlink/errors.ts'
import type { GenlFamily } from '../netlink/genl/ctrl.ts'
import {
  addDestination,
  addService,
  findIpvs,
  getTimeouts,
  listDestinations,
  listServices,
  removeDestination,
  removeService,
  setDestination,
  setService,
  setTimeouts,
} from '../netlink/genl/ipvs.ts'
import { decodeDestination, decodeService, decodeTimeouts } from '../netlink/genl/ipvs-decode.ts'
import type {
  AddressServiceKey,
  Destination,
  NewDestination,
  NewVirtualService,
  VirtualService,
} from '../netlink/genl/ipvs-types.ts'
import type { Request } from '../netlink/socket.ts'
import { IPPROTO } from '../netlink/uapi.ts'
import type { Operation, OperationResult } from './kernel.ts'
import type { IpvsDestinationObject, IpvsObject, IpvsServiceObject, KernelObject, Ns } from './objects.ts'
import { openSockets, type Sockets } from './sockets.ts'

export const isIpvs = (object: KernelObject): object is IpvsObject => object.kind.startsWith('ipvs-')

/** Has this kernel IPVS, loaded or built in? Never loads it. */
export const ipvsLoaded = (): boolean => existsSync('/proc/net/ip_vs')

/** Loads the module if need be; rejects with NotSupportedError where the kernel has none. */
export const probeIpvs = async (): Promise<void> => {
  const sockets = openSockets()
  try {
    await findIpvs(await sockets.generic(''))
  } finally {
    await sockets.close()
  }
}

const protocols = { tcp: IPPROTO.TCP, udp: IPPROTO.UDP, sctp: IPPROTO.SCTP } as const

export const protocolOf = (number: number): keyof typeof protocols | undefined =>
  (['tcp', 'udp', 'sctp'] as const).find(name => protocols[name] === number)

/** Services of a port at an address; a namespace of ours has no others. */
export type AddressService = Extract<VirtualService, { kind: 'address' }>

/** What IPVS has in one namespace; fully known services and destinations only. */
export const listIpvs = async (
  sockets: Sockets,
  ns: Ns,
): Promise<readonly { readonly service: AddressService; readonly destinations: readonly Destination[] }[]> => {
  const socket = await sockets.generic(ns)
  const family = await findIpvs(socket)
  const services = await socket.dump(listServices(family), decodeService)
  const found = []
  for (const service of services)
    if (service.kind === 'address')
      found.push({ service, destinations: await socket.dump(listDestinations(family, service), decodeDestination) })
  return found
}

/** Services and destinations; timeouts, which every namespace has, only where the hints ask for them. */
export const observeIpvs = async (
  sockets: Sockets,
  ns: Ns,
  hints: readonly KernelObject[],
): Promise<KernelObject[]> => {
  if (!ipvsLoaded()) return []
  const objects: KernelObject[] = []
  if (hints.some(hint => hint.kind === 'ipvs-timeout')) {
    const socket = await sockets.generic(ns)
    for (const answer of await socket.run(getTimeouts(await findIpvs(socket)))) {
      const timeouts = decodeTimeouts(answer)
      if (timeouts) {
        for (const what of ['tcp', 'tcpFin', 'udp'] as const)
          objects.push({ kind: 'ipvs-timeout', ns, of: what, seconds: timeouts[`${what}Seconds`] })
      }
    }
  }
  for (const { service, destinations } of await listIpvs(sockets, ns)) {
    const own = serviceObject(ns, service)
    if (own) objects.push(own, ...destinations.map(destination => destinationObject(ns, own, destination)))
  }
  return objects
}

const serviceObject = (ns: Ns, service: AddressService): IpvsServiceObject | undefined => {
  const { address, port, scheduler, persistence, onePacket, hashFallback, hashPort } = service
  const proto = protocolOf(service.protocol)
  if (!proto) return undefined
  const flags = [
    ...(hashFallback ? [`${scheduler}-fallback`] : []),
    ...(hashPort ? [`${scheduler}-port`] : []),
    ...(onePacket ? ['ops'] : []),
  ]
  return {
    kind: 'ipvs-service',
    ns,
    proto,
    address,
    port,
    scheduler: `${scheduler}${flags.length > 0 ? ` -b ${flags.join(',')}` : ''}`,
    ...(persistence ? { affinity: persistence.timeoutSeconds } : {}),
  }
}

const destinationObject = (ns: Ns, service: IpvsServiceObject, d: Destination): IpvsDestinationObject => {
  const otherwise = [
    ...(d.forwarding === 'masq' ? [] : [` forwarding ${d.forwarding}`]),
    ...(d.port === service.port ? [] : [` port ${d.port}`]),
    ...(d.upperThreshold > 0 ? [` -x ${d.upperThreshold}`] : []),
  ].join('')
  const { proto, address, port } = service
  return {
    kind: 'ipvs-destination',
    ns,
    service: { proto, address, port },
    to: d.address,
    weight: d.weight,
    ...(otherwise === '' ? {} : { otherwise }),
  }
}

/** One batch; what turns out to be there already, or no more, is set or made instead. */
export const applyIpvs = async (
  sockets: Sockets,
  ns: Ns,
  group: readonly Operation[],
): Promise<readonly OperationResult[]> => {
  try {
    const socket = await sockets.generic(ns)
    const family = await findIpvs(socket)
    const send = async (operations: readonly Operation[], again: boolean): Promise<OperationResult[]> => {
      const outcomes = await socket.batch(operations.map(operation => requestOf(family, operation, again)))
      return operations.map((operation, i) => ({ operation, ...(outcomes[i] ? { error: outcomes[i] } : {}) }))
    }
    const first = await send(group, false)
    const otherWay = first.flatMap(({ operation, error }) => (wasOtherwise(operation, error) ? [operation] : []))
    const second = otherWay.length === 0 ? [] : await send(otherWay, true)
    const better = new Map(second.map(result => [result.operation, result]))
    return first.map(result => {
      if (result.operation.kind === 'remove' && isOneOf(result.error, 'ENOENT', 'ESRCH'))
        return { operation: result.operation }
      return better.get(result.operation) ?? result
    })
  } catch (error) {
    const gone = error instanceof NetlinkError && error.absent
    return group.map(operation =>
      gone && operation.kind === 'remove' ? { operation } : { operation, error: error as Error },
    )
  }
}

const isOneOf = (error: Error | undefined, ...names: readonly string[]): boolean =>
  error instanceof NetlinkError && names.includes(error.errnoName)

/** It was there already, or was not there. ENOENT of a service is about its scheduler: the kernel has no such module. */
const wasOtherwise = ({ kind, object }: Operation, error: Error | undefined): boolean => {
  if (kind === 'add') return isOneOf(error, 'EEXIST')
  return kind === 'replace' && isOneOf(error, 'ESRCH', ...(object.kind === 'ipvs-destination' ? ['ENOENT'] : []))
}

/** `again`: the object was there when it should not have been, or the other way round. */
const requestOf = (family: GenlFamily, { kind, object }: Operation, again: boolean): Request => {
  const adding = (kind === 'add') !== again
  switch (object.kind) {
    case 'ipvs-service': {
      if (kind === 'remove') return removeService(family, serviceKey(object))
      return adding ? addService(family, newService(object)) : setService(family, newService(object))
    }
    case 'ipvs-destination': {
      const key = serviceKey(object.service)
      const destination = newDestination(object)
      if (kind === 'remove') return removeDestination(family, key, destination)
      return adding ? addDestination(family, key, destination) : setDestination(family, key, destination)
    }
    case 'ipvs-timeout':
      return setTimeouts(family, { [`${object.of}Seconds`]: object.seconds })
    default:
      throw new TypeError(`${object.kind} is not an IPVS object`)
  }
}

const serviceKey = ({ proto, address, port }: IpvsDestinationObject['service']): AddressServiceKey => ({
  kind: 'address',
  protocol: protocols[proto],
  address,
  port,
})

const newService = (object: IpvsServiceObject): NewVirtualService => {
  const [scheduler = '', flags = ''] = object.scheduler.split(' -b ')
  return {
    ...serviceKey(object),
    scheduler,
    hashFallback: flags.includes('-fallback'),
    hashPort: flags.includes('-port'),
    ...(object.affinity === undefined ? {} : { persistence: { timeoutSeconds: object.affinity } }),
  }
}

const newDestination = ({ service, to, weight }: IpvsDestinationObject): NewDestination => ({
  address: to,
  port: service.port,
  forwarding: 'masq',
  weight,
})

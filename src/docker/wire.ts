// SPDX-License-Identifier: Apache-2.0
// Docker's words: the JSON of libnetwork's remote driver and IPAM contracts, decoded and checked at the edge.
// Maps and lists may be null, empty or absent for "nothing", differing per call and engine version.
import { z } from 'zod'
import { WeftError } from '../base/errors.ts'
import type { PortMapping } from '../model/endpoint.ts'

const nullish = <T extends z.ZodType>(schema: T, empty: z.output<T>) =>
  schema.nullish().transform(value => value ?? empty)
const text = z
  .string()
  .nullish()
  .transform(value => value ?? '')
const options = nullish(z.record(z.string(), z.unknown()), {})
const strings = nullish(z.record(z.string(), z.string()), {})
const id = z.string().min(1)

const ipamData = z.object({
  AddressSpace: text,
  Pool: text,
  Gateway: text,
  AuxAddresses: strings,
})
const ipamList = z
  .array(ipamData)
  .nullish()
  .transform(value => value ?? [])

const endpointKey = z.object({ NetworkID: id, EndpointID: id })

export const requests = {
  createNetwork: z.object({ NetworkID: id, Options: options, IPv4Data: ipamList, IPv6Data: ipamList }),
  deleteNetwork: z.object({ NetworkID: id }),
  createEndpoint: endpointKey.extend({
    Interface: z
      .object({ Address: text, AddressIPv6: text, MacAddress: text })
      .nullish()
      .transform(value => value ?? { Address: '', AddressIPv6: '', MacAddress: '' }),
    Options: options,
  }),
  endpoint: endpointKey,
  join: endpointKey.extend({ SandboxKey: text, Options: options }),
  external: endpointKey.extend({ Options: options }),
  discover: z.object({ DiscoveryType: z.number() }),
  requestPool: z.object({ AddressSpace: text, Pool: text, SubPool: text, Options: strings, V6: z.boolean().nullish() }),
  releasePool: z.object({ PoolID: id }),
  requestAddress: z.object({ PoolID: id, Address: text, Options: strings }),
  releaseAddress: z.object({ PoolID: id, Address: text }),
} as const

export type CreateNetwork = z.output<typeof requests.createNetwork>
export type CreateEndpoint = z.output<typeof requests.createEndpoint>
export type IpamData = z.output<typeof ipamData>

export const label = {
  generic: 'com.docker.network.generic',
  internal: 'com.docker.network.internal',
  enableIpv6: 'com.docker.network.enable_ipv6',
  portMap: 'com.docker.network.portmap',
  addressType: 'RequestAddressType',
  gateway: 'com.docker.network.gateway',
} as const

/** Throws INVALID naming the field. */
export const decodeRequest = <T extends z.ZodType>(method: string, schema: T, body: string): z.output<T> => {
  // an engine's retry can arrive with the body already consumed: never take nothing for "{}"
  if (body.trim() === '') throw new WeftError('INVALID', `${method}: the request has no body`)
  let json: unknown
  try {
    json = JSON.parse(body)
  } catch (error) {
    throw new WeftError('INVALID', `${method}: the request is not JSON`, { cause: error })
  }
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  throw new WeftError('INVALID', `${method}: field ${issue.path.join('.') || '(body)'}: ${issue.message}`)
}

const portEntry = z.object({
  Proto: z.number().int(),
  Port: z.number().int(),
  HostIP: text,
  HostPort: z.number().int().nullish(),
  HostPortEnd: z.number().int().nullish(),
})

const protocols: Readonly<Record<number, PortMapping['proto']>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' }

/** Host port 0: still to be chosen. `end` above hostPort: any of the range. */
export interface RequestedPort extends PortMapping {
  readonly end: number
}

export const decodePorts = (options: Readonly<Record<string, unknown>>): readonly RequestedPort[] => {
  const result = z.array(portEntry).nullish().safeParse(options[label.portMap])
  if (!result.success) throw new WeftError('INVALID', `option ${label.portMap}: ${result.error.issues[0]!.message}`)
  return (result.data ?? []).flatMap((entry): RequestedPort[] => {
    const proto = protocols[entry.Proto]
    if (!proto)
      throw new WeftError('INVALID', `publishing protocol number ${entry.Proto} is not possible: tcp and udp are`)
    if (proto === 'sctp') throw new WeftError('INVALID', 'publishing sctp is not possible: tcp and udp are')
    const any = entry.HostIP === '' || entry.HostIP === '0.0.0.0' || entry.HostIP === '::'
    const hostPort = entry.HostPort ?? 0
    return [
      {
        proto,
        port: entry.Port,
        hostPort,
        end: Math.max(hostPort, entry.HostPortEnd ?? 0),
        ...(any ? {} : { hostIp: entry.HostIP }),
      },
    ]
  })
}

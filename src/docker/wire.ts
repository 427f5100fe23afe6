// SPDX-License-Identifier: Apache-2.0
// Docker's words: the JSON of libnetwork's remote driver and IPAM contracts, decoded and checked at the edge.
// Maps and lists may be null, empty or absent for "nothing", differing per call and engine version.
import { z } from 'zod'
import { WeftError } from '../base/errors.ts'
import { parseAddress, parseInterface, parseMac } from '../model/address.ts'
import type { PortMapping } from '../model/port.ts'

export const label = {
  generic: 'com.docker.network.generic',
  internal: 'com.docker.network.internal',
  enableIpv6: 'com.docker.network.enable_ipv6',
  portMap: 'com.docker.network.portmap',
  addressType: 'RequestAddressType',
  gateway: 'com.docker.network.gateway',
} as const

const nullish = <T extends z.ZodType>(schema: T, empty: z.output<T>) =>
  schema.nullish().transform(value => value ?? empty)
const reads = (parse: () => unknown): boolean => {
  try {
    parse()
    return true
  } catch {
    return false
  }
}
/** Longer than any path, address or name that an engine sends. */
const longest = 4096
const text = z
  .string()
  .max(longest)
  .nullish()
  .transform(value => value ?? '')
const address = text.refine(value => value === '' || reads(() => parseAddress(value)), 'is no IP address')
const mac = text.refine(
  value => value === '' || reads(() => parseMac(value)),
  'is not six hexadecimal bytes with colons',
)
const noCidr = 'is no address with a prefix length, such as 10.1.0.0/16'
const cidr = text.refine(value => value === '' || reads(() => parseInterface(value)), noCidr)
const given = z.string().refine(value => reads(() => parseInterface(value)), noCidr)
const options = nullish(z.record(z.string(), z.unknown()), {})
const strings = nullish(z.record(z.string(), z.string()), {})
const id = z.string().regex(/^[0-9A-Za-z]{1,128}$/, 'is no id: 1 to 128 letters and digits')

const ipamData = z.object({
  AddressSpace: text,
  Pool: cidr,
  Gateway: cidr,
  AuxAddresses: nullish(z.record(z.string(), given), {}),
})
const ipamList = z
  .array(ipamData)
  .nullish()
  .transform(value => value ?? [])

const endpointKey = z.object({ NetworkID: id, EndpointID: id })

export const requests = {
  createNetwork: z.object({
    NetworkID: id,
    Options: nullish(
      z.looseObject({
        [label.generic]: z.record(z.string(), z.string()).nullish(),
        [label.internal]: z.boolean().nullish(),
        [label.enableIpv6]: z.boolean().nullish(),
      }),
      {},
    ),
    IPv4Data: ipamList,
    IPv6Data: ipamList,
  }),
  deleteNetwork: z.object({ NetworkID: id }),
  createEndpoint: endpointKey.extend({
    Interface: z
      .object({ Address: cidr, AddressIPv6: cidr, MacAddress: mac })
      .nullish()
      .transform(value => value ?? { Address: '', AddressIPv6: '', MacAddress: '' }),
    Options: options,
  }),
  endpoint: endpointKey,
  join: endpointKey.extend({ SandboxKey: text, Options: options }),
  external: endpointKey.extend({ Options: options }),
  discover: z.object({ DiscoveryType: z.number() }),
  requestPool: z.object({ AddressSpace: text, Pool: cidr, SubPool: cidr, Options: strings, V6: z.boolean().nullish() }),
  releasePool: z.object({ PoolID: given }),
  requestAddress: z.object({ PoolID: given, Address: address, Options: strings }),
  releaseAddress: z.object({ PoolID: given, Address: address }),
} as const

export type CreateNetwork = z.output<typeof requests.createNetwork>
export type CreateEndpoint = z.output<typeof requests.createEndpoint>
export type IpamData = z.output<typeof ipamData>

/** Throws INVALID naming the field. */
export const decodeRequest = <T extends z.ZodType>(method: string, schema: T, body: string): z.output<T> => {
  // an engine's retry can arrive with the body already consumed: never take nothing for "{}"
  if (body.trim() === '')
    throw new WeftError(
      'INVALID',
      `${method}: the request has no body, as when weftd is restarted inside a call: repeat the command`,
    )
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

const port = z.number().int().min(0).max(65535)
const portEntry = z.object({
  Proto: z.number().int(),
  Port: port,
  HostIP: address,
  HostPort: port.nullish(),
  HostPortEnd: port.nullish(),
})

const protocols: Readonly<Record<number, PortMapping['proto']>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' }

/** Host port 0: still to be chosen. `end` above hostPort: any of the range. */
export interface RequestedPort extends PortMapping {
  readonly end: number
}

/** 0.0.0.0 and :: are every address of their family, nothing is every address. */
const where = (ip: string): Pick<PortMapping, 'hostIp' | 'family'> => {
  if (ip === '') return {}
  return ip === '0.0.0.0' ? { family: 4 } : ip === '::' ? { family: 6 } : { hostIp: ip }
}

export const decodePorts = (options: Readonly<Record<string, unknown>>): readonly RequestedPort[] => {
  const result = z.array(portEntry).nullish().safeParse(options[label.portMap])
  if (!result.success) {
    const { path, message } = result.error.issues[0]!
    throw new WeftError('INVALID', `field ${['Options', label.portMap, ...path].join('.')}: ${message}`)
  }
  return (result.data ?? []).flatMap((entry): RequestedPort[] => {
    const proto = protocols[entry.Proto]
    if (!proto)
      throw new WeftError('INVALID', `publishing protocol number ${entry.Proto} is not possible: tcp and udp are`)
    if (proto === 'sctp') throw new WeftError('INVALID', 'publishing sctp is not possible: tcp and udp are')
    if (entry.HostIP === '::1')
      throw new WeftError('INVALID', `publishing on ::1 is not possible, Linux does not route it: use 127.0.0.1`)
    const hostPort = entry.HostPort ?? 0
    return [
      {
        proto,
        port: entry.Port,
        hostPort,
        end: Math.max(hostPort, entry.HostPortEnd ?? 0),
        ...where(entry.HostIP),
      },
    ]
  })
}

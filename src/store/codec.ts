// SPDX-License-Identifier: Apache-2.0
// Records as text: JSON with a format version, checked field by field when read, because a store is somebody else's
// machine. Unknown fields are dropped (a newer weft may write them); a wrong type is an error naming key and field.
import { z } from 'zod'
import { describe, WeftError } from '../base/errors.ts'
import { checkAddress, parseInterface, parseMac, parsePrefix } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import type { AddressClaim, Endpoint, MacClaim, NodeNumberClaim } from '../model/endpoint.ts'
import type { FloatingClaim } from '../model/floating.ts'
import type { NameClaim, Network, PoolClaim, VniClaim } from '../model/network.ts'
import type { Node, Presence } from '../model/node.ts'
import type { PortClaim } from '../model/port.ts'
import { checkServiceKey, type Vip } from '../model/service.ts'
import { type ServiceOptions, schedulers } from '../model/service-options.ts'
import { poolOfKey, splitKey } from './keys.ts'

/** Optional fields are absent, never undefined (exactOptionalPropertyTypes). */
type Exact<T> = z.ZodType<T, unknown>

/** A string that `parse` takes. Its error says what is wrong. */
const text = (parse: (value: string) => unknown): z.ZodType<string, unknown> =>
  z.string().check(({ value, issues }) => {
    try {
      parse(value)
    } catch (error) {
      issues.push({ code: 'custom', message: describe(error), input: value })
    }
  })
const address = text(checkAddress)
const prefix = text(value => parsePrefix(value))
/** With host bits. */
const cidr = text(value => parseInterface(value))
const mac = text(value => parseMac(value))

/** As it is: a schema for records leaves out a key `__proto__`. */
const strings = z.custom<Readonly<Record<string, string>>>(
  value =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every(one => typeof one === 'string'),
  'no object of strings',
)
const resting = z.object({ kind: z.literal('resting'), until: z.number() })

const pool = z.object({
  prefix,
  range: cidr.exactOptional(),
  gateway: address.exactOptional(),
  aux: strings.exactOptional(),
})

const workload = z.object({
  container: z.string(),
  name: z.string(),
  hostname: z.string().exactOptional(),
  aliases: z.array(z.string()),
  labels: strings,
  project: z.string().exactOptional(),
  service: z.string().exactOptional(),
})

const portNumber = z.number().int().min(1).max(65535)

const portMapping = z.object({
  proto: z.enum(['tcp', 'udp', 'sctp']),
  port: portNumber,
  hostPort: portNumber,
  hostIp: address.exactOptional(),
  family: z.union([z.literal(4), z.literal(6)]).exactOptional(),
  local: z.literal(true).exactOptional(),
})

/** Seconds, milliseconds or a count. */
const positive = z.number().int().min(1)
const status = z.number().int().min(100).max(599)
const probe = z.object({
  target: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('tcp'), port: portNumber.exactOptional() }),
    z.object({
      kind: z.literal('http'),
      port: portNumber,
      path: z.string().regex(/^\/[!-~]*$/, 'no path of visible ASCII'),
      status: z.object({ first: status, last: status }),
    }),
  ]),
  intervalMs: positive,
  timeoutMs: positive,
  failures: positive,
})

const deviceAddress = z.object({ dev: z.string(), address: cidr })

export const schemas = {
  cluster: z.object({
    id: z.string(),
    pools: z.array(prefix),
    underlayFamily: z.union([z.literal(4), z.literal(6)]),
    vxlanPort: portNumber,
    reservedPorts: z.array(portNumber),
    created: z.string(),
  }) satisfies Exact<Cluster>,
  node: z.object({
    name: z.string(),
    number: z.number().int().min(1).max(65535),
    instance: z.string(),
    boot: z.string(),
    vtep: address,
    mtu: z.number().int(),
    routes: z.array(cidr),
    addresses: z.array(deviceAddress).exactOptional(),
    dockerPools: z.array(cidr).exactOptional(),
    version: z.string(),
    drained: z.boolean().exactOptional(),
    fenced: z.string().exactOptional(),
  }) satisfies Exact<Node>,
  presence: z.object({
    node: z.string(),
    instance: z.string(),
    boot: z.string(),
    applied: z.string(),
  }) satisfies Exact<Presence>,
  network: z.object({
    id: z.string(),
    name: z.string().exactOptional(),
    wanted: z.string().exactOptional(),
    vni: z.number().int().min(1).max(0xfffffe),
    pools: z.array(pool).min(1),
    mtu: z.number().int().min(576).max(65535),
    options: strings,
    labels: strings,
    internal: z.boolean(),
    attachable: z.boolean(),
    ipv6: z.boolean(),
    state: z.discriminatedUnion('kind', [
      z.object({
        kind: z.literal('active'),
        veto: z.object({ node: z.string(), at: z.string(), why: z.string() }).exactOptional(),
      }),
      z.object({
        ...{ kind: z.literal('removing'), since: z.string(), by: z.string(), acks: z.array(z.string()) },
        force: z.literal(true).exactOptional(),
      }),
    ]),
    origin: z.object({ by: z.enum(['docker', 'weft']), node: z.string() }),
  }) satisfies Exact<Network>,
  poolClaim: z.object({
    network: z.string(),
    node: z.string(),
    settled: z.boolean(),
    range: cidr.exactOptional(),
    wanted: z.string().exactOptional(),
    automatic: z.literal(true).exactOptional(),
    joined: z.string().exactOptional(),
  }) satisfies Exact<PoolClaim>,
  nameClaim: z.object({ network: z.string() }) satisfies Exact<NameClaim>,
  vniClaim: z.object({ network: z.string() }) satisfies Exact<VniClaim>,
  endpoint: z.object({
    id: z.string(),
    network: z.string(),
    node: z.string(),
    boot: z.string(),
    addresses: z.array(address).min(1),
    mac,
    ports: z.array(portMapping),
    gateway: z.boolean(),
    workload: workload.exactOptional(),
    identity: z.number().int().min(0).max(65535),
    service: z.string().exactOptional(),
    withheld: z.enum(['starting', 'unhealthy', 'paused', 'stopping']).exactOptional(),
    unready: z.literal(true).exactOptional(),
    failing: z.literal(true).exactOptional(),
    drained: z.literal(true).exactOptional(),
  }) satisfies Exact<Endpoint>,
  addressClaim: z.discriminatedUnion('kind', [
    z.object({
      ...{ kind: z.literal('spare'), node: z.string(), boot: z.string(), since: z.number() },
      asked: z.string().exactOptional(),
    }),
    z.object({ kind: z.literal('reserved'), node: z.string(), boot: z.string(), since: z.number() }),
    z.object({ kind: z.literal('bound'), node: z.string(), boot: z.string(), endpoint: z.string() }),
    z.object({ kind: z.literal('vip'), service: text(checkServiceKey) }),
    resting,
  ]) satisfies Exact<AddressClaim>,
  macClaim: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('bound'), node: z.string(), endpoint: z.string() }),
    resting,
  ]) satisfies Exact<MacClaim>,
  nodeNumber: z.object({ node: z.string(), instance: z.string() }) satisfies Exact<NodeNumberClaim>,
  portClaim: z.object({
    cluster: z
      .object({ network: z.string(), service: z.string().exactOptional(), holders: z.array(z.string()) })
      .exactOptional(),
    local: z.array(z.object({ node: z.string(), network: z.string(), endpoint: z.string() })),
  }) satisfies Exact<PortClaim>,
  service: z.object({
    network: z.string(),
    service: z.string(),
    scheduler: z.enum(schedulers).exactOptional(),
    affinity: positive.exactOptional(),
    timeoutTcp: positive.exactOptional(),
    timeoutUdp: positive.exactOptional(),
    probe: probe.exactOptional(),
    addresses: z.array(deviceAddress).exactOptional(),
  }) satisfies Exact<ServiceOptions>,
  floating: z.object({
    node: z.string(),
    instance: z.string(),
    boot: z.string(),
    network: z.string(),
    service: z.string(),
    dev: z.string(),
    since: z.string(),
  }) satisfies Exact<FloatingClaim>,
  vip: z.object({ addresses: z.array(address).min(1) }) satisfies Exact<Vip>,
} as const

export type RecordKind = keyof typeof schemas

export interface Records {
  cluster: Cluster
  node: Node
  presence: Presence
  network: Network
  poolClaim: PoolClaim
  nameClaim: NameClaim
  vniClaim: VniClaim
  endpoint: Endpoint
  addressClaim: AddressClaim
  macClaim: MacClaim
  nodeNumber: NodeNumberClaim
  portClaim: PortClaim
  service: ServiceOptions
  floating: FloatingClaim
  vip: Vip
}

const formatVersion = 1

/** By the first part of a key; `pools-epoch` and `nodes-epoch` are no records, only marks. */
export const recordKinds: Readonly<Record<string, RecordKind>> = {
  cluster: 'cluster',
  nodes: 'node',
  'node-numbers': 'nodeNumber',
  presence: 'presence',
  networks: 'network',
  'network-names': 'nameClaim',
  vnis: 'vniClaim',
  pools: 'poolClaim',
  endpoints: 'endpoint',
  addresses: 'addressClaim',
  macs: 'macClaim',
  ports: 'portClaim',
  services: 'service',
  floating: 'floating',
  vips: 'vip',
}

/** What the parts of a key are, after the first. */
const any = (): void => {}
const keyParts: Readonly<Record<RecordKind, readonly ((part: string) => unknown)[]>> = {
  cluster: [],
  node: [any],
  nodeNumber: [any],
  presence: [any],
  network: [any],
  nameClaim: [any],
  vniClaim: [any],
  poolClaim: [part => parsePrefix(poolOfKey(part))],
  endpoint: [any, any],
  addressClaim: [any, checkAddress],
  macClaim: [any, part => parseMac(part)],
  portClaim: [any, any],
  service: [any, any],
  floating: [checkAddress],
  vip: [any, checkServiceKey],
}

const checkKey = (kind: RecordKind, key: string, known: readonly string[] | undefined): void => {
  try {
    const parts = known ?? splitKey(key)
    const checks = keyParts[kind]
    if (parts.length !== checks.length + 1) throw new Error(`it has ${parts.length} parts`)
    for (let i = 0; i < checks.length; i++) checks[i]!(parts[i + 1]!)
  } catch (error) {
    throw new WeftError('INVALID', `store key ${key} is not ours`, { cause: error })
  }
}

export const encode = <K extends RecordKind>(_kind: K, record: Records[K]): string =>
  JSON.stringify({ v: formatVersion, ...(record as object) })

/** `parts` of the key, where they are known. Throws INVALID naming key and field. */
export const decode = <K extends RecordKind>(
  kind: K,
  key: string,
  text: string,
  parts?: readonly string[],
): Records[K] => {
  checkKey(kind, key, parts)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new WeftError('INVALID', `store key ${key}: not JSON`, { cause: error })
  }
  const version = (json as { v?: unknown } | null)?.v
  if (version !== formatVersion)
    throw new WeftError(
      'INVALID',
      `store key ${key}: format version ${JSON.stringify(version)}, this weft reads ${formatVersion}`,
    )
  const result = schemas[kind].safeParse(json)
  if (result.success) return result.data as Records[K]
  const issue = result.error.issues[0]!
  throw new WeftError('INVALID', `store key ${key}: field ${issue.path.join('.') || '(record)'}: ${issue.message}`)
}

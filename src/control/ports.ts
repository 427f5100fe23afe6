// SPDX-License-Identifier: Apache-2.0
// Host ports: claimed in the transaction that publishes them, so that no two containers get one. Until the mesh every
// claim is of this host only: ports/<proto>/<port>@<node>.
import { WeftError } from '../base/errors.ts'
import type { PortMapping } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Write } from '../store/store.ts'
import type { Context } from './context.ts'

/** hostPort 0: any; `end` above hostPort: any of the range. */
export interface PortRequest extends PortMapping {
  readonly end: number
}

export interface PortChoice {
  readonly ports: readonly PortMapping[]
  readonly compares: readonly Compare[]
  readonly writes: readonly Write[]
}

const anyPort = { first: 32768, last: 60999 } as const

/** Chooses and prepares the claims; throws TAKEN naming port and holder. */
export const choosePorts = async (
  { store, mirror, node }: Context,
  network: NetworkId,
  endpoint: EndpointId,
  requests: readonly PortRequest[],
  signal: AbortSignal,
): Promise<PortChoice> => {
  const reserved = new Set(mirror.snapshot.cluster?.record.reservedPorts)
  const chosen = new Map<string, Compare>()
  const ports: PortMapping[] = []
  const value = encode('portClaim', { network, holders: [endpoint] })

  /** Who stands in the way of this key, or the compare that lets us have it. */
  const ask = async (key: string): Promise<Compare | { holder: EndpointId }> => {
    const entry = await store.get(key, { signal })
    if (!entry) return { key, is: 'absent' }
    const holder = decode('portClaim', key, entry.value).holders[0]!
    return holder === endpoint ? { key, is: 'at', revision: entry.revision } : { holder }
  }

  for (const { proto, port, hostPort, end, hostIp } of requests) {
    const range = hostPort === 0 ? anyPort : { first: hostPort, last: end }
    const size = range.last - range.first + 1
    const start = hostPort === 0 ? Math.floor(Math.random() * size) : 0
    let refusal = ''
    let found: number | undefined
    for (let i = 0; i < size && found === undefined; i++) {
      const candidate = range.first + ((start + i) % size)
      const key = keys.port(proto, candidate, node)
      if (reserved.has(candidate)) {
        refusal = 'it is reserved in this cluster (ssh, etcd, VXLAN)'
        continue
      }
      if (chosen.has(key)) {
        refusal = 'the same container publishes it twice'
        continue
      }
      const answer = await ask(key)
      if ('holder' in answer) {
        refusal = `container ${mirror.snapshot.endpoints(network).get(answer.holder)?.record.workload?.name ?? answer.holder.slice(0, 12)} has it on this host`
        continue
      }
      chosen.set(key, answer)
      found = candidate
    }
    if (found === undefined)
      throw new WeftError(
        'TAKEN',
        `host port ${range.first}${size > 1 ? `-${range.last}` : ''}/${proto} is not free: ${refusal}`,
      )
    ports.push({ proto, port, hostPort: found, ...(hostIp === undefined ? {} : { hostIp }) })
  }
  return {
    ports,
    compares: [...chosen.values()],
    writes: [...chosen.keys()].map((key): Write => ({ kind: 'put', key, value })),
  }
}

/** Deletes of the claims that an endpoint holds. */
export const portWrites = ({ node }: Context, ports: readonly PortMapping[]): readonly Write[] =>
  ports.map(({ proto, hostPort }): Write => ({ kind: 'delete', key: keys.port(proto, hostPort, node) }))

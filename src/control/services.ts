// SPDX-License-Identifier: Apache-2.0
// What an operator says of a service: one record for each, changed by compare-and-swap, gone with its network.
import { WeftError } from '../base/errors.ts'
import type { Floating } from '../model/floating.ts'
import type { NetworkId } from '../model/ids.ts'
import { optionsKeyOf, type ServiceOptions } from '../model/service-options.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'
import { newFloating } from './floating.ts'
import { changedBy, checkServiceName, type ServiceRequest } from './service-options.ts'

export interface Services {
  /** Makes the record, or changes in it what the request names. `name`: as `weft service ls` prints it. */
  create(network: NetworkId, name: string, request: ServiceRequest, signal: AbortSignal): Promise<ServiceOptions>
  /** The containers stay a service. NOT_FOUND: nothing was said of it. Takes one that cannot be read as well. */
  remove(network: NetworkId, name: string, signal: AbortSignal): Promise<void>
}

/** Asks the wire who has an address, where this host is on that wire: a MAC address, undefined if nobody answers. */
export type AskWire = (floating: Floating, signal: AbortSignal) => Promise<string | undefined>

export const openServices = (context: Context, askWire: AskWire): Services => {
  const { store, mirror } = context
  return {
    async create(network, name, request, signal) {
      checkServiceName(name)
      const service = optionsKeyOf(name)
      const key = keys.service(network, service)
      return attempt(context, signal, async () => {
        const entry = await store.get(key, { signal })
        const known = entry && decode('service', key, entry.value)
        const record = changedBy(known ?? { network, service }, request)
        if (known && JSON.stringify(record) === JSON.stringify(known)) return record
        for (const floating of newFloating(mirror.snapshot, known, record)) {
          const mac = mirror.snapshot.floating.has(floating.address) ? undefined : await askWire(floating, signal)
          if (mac !== undefined)
            throw new WeftError(
              'TAKEN',
              `--address ${floating.cidr} is not free: ${mac} answers for it on ${floating.dev}: give one that nobody has`,
            )
        }
        if (!(await store.get(keys.network(network), { signal })))
          throw new WeftError('NOT_FOUND', `network ${network} is gone: see weft network ls`)
        const revision = await store.commit(
          [
            entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' },
            // its removal takes these records after it
            { key: keys.network(network), is: 'present' },
          ],
          [{ kind: 'put', key, value: encode('service', record) }],
          { signal },
        )
        await mirror.reached(revision, signal)
        return record
      })
    },
    async remove(network, name, signal) {
      checkServiceName(name)
      const key = keys.service(network, optionsKeyOf(name))
      return attempt(context, signal, async () => {
        const entry = await store.get(key, { signal })
        if (!entry)
          throw new WeftError(
            'NOT_FOUND',
            `nothing was said of service ${JSON.stringify(name)} there: see weft service ls`,
          )
        const revision = await store.commit([{ key, is: 'at', revision: entry.revision }], [{ kind: 'delete', key }], {
          signal,
        })
        await mirror.reached(revision, signal)
      })
    },
  }
}

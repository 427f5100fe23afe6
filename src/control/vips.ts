// SPDX-License-Identifier: Apache-2.0
// Virtual addresses of services: claimed by the node that first knows an endpoint of the service, freed by whoever finds
// that it has had none for a while. Record and addresses change in one transaction, so that hosts that race give one.
import { WeftError } from '../base/errors.ts'
import { lastFree } from '../ipam/allocate.ts'
import { familyOf } from '../model/address.ts'
import { type Endpoint, isFree, restFrom } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network, Pool } from '../model/network.ts'
import { endpointService, vipService } from '../model/service.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'

/** A service without an endpoint keeps its addresses this long: `compose down && up`, an image that is pulled. */
export const vipHoldMs = 10 * 60_000

/**
 * Claims the addresses of the endpoint's service, if it is to have some and has none. `returning`: it was not known
 * before; then the record is written anew, so that nobody who has found the service empty can free it.
 */
export const claimVip = async (
  context: Context,
  endpoint: Endpoint,
  returning: boolean,
  signal: AbortSignal,
): Promise<void> => {
  const { store, mirror } = context
  const { network: id } = endpoint
  const service = vipService(endpoint)
  if (service === undefined) return
  const alone = (): boolean => [...mirror.snapshot.members(id, service)].every(member => member === endpoint.id)
  if (mirror.snapshot.vips(id).has(service) && !(returning && alone())) return
  await attempt(context, signal, async () => {
    const key = keys.vip(id, service)
    const network = mirror.snapshot.networks.get(id)?.record
    if (!network || network.state.kind === 'removing') return
    const entry = await store.get(key, { signal })
    const choice = entry ? [] : await Promise.all(poolsOf(network).map(pool => choose(context, network, pool, signal)))
    const addresses = choice.map(({ address }) => address)
    const bound = encode('addressClaim', { kind: 'vip', service })
    const revision = await store.commit(
      [
        entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' },
        { key: keys.network(id), is: 'present' },
        ...choice.map(({ compare }) => compare),
      ],
      [
        { kind: 'put', key, value: entry?.value ?? encode('vip', { addresses }) },
        ...choice.map(({ compare }): Write => ({ kind: 'put', key: compare.key, value: bound })),
      ],
      { signal },
    )
    await mirror.reached(revision, signal)
  })
}

/** One pool of each family, IPv4 first. */
const poolsOf = ({ pools }: Network): readonly Pool[] =>
  ([4, 6] as const).flatMap(family => pools.find(({ prefix }) => familyOf(prefix) === family) ?? [])

const choose = async (
  { store, mirror, clock }: Context,
  network: Network,
  pool: Pool,
  signal: AbortSignal,
): Promise<{ address: string; compare: Compare }> => {
  const claims = mirror.snapshot.addresses(network.id)
  const lostTo = new Set<string>() // taken, and the mirror does not show it yet
  for (;;) {
    const address = lastFree(pool, text => lostTo.has(text) || !isFree(claims.get(text)?.record, clock.now()))
    if (address === undefined)
      throw new WeftError(
        'FULL',
        `subnet ${pool.range ?? pool.prefix} is full: it has no virtual address for a service`,
      )
    const key = keys.address(network.id, address)
    const entry = await store.get(key, { signal })
    if (!entry) return { address, compare: { key, is: 'absent' } }
    if (isFree(decode('addressClaim', key, entry.value), clock.now()))
      return { address, compare: { key, is: 'at', revision: entry.revision } }
    lostTo.add(address)
  }
}

/**
 * Frees the addresses of a service that has no endpoint; true: done. The store itself is asked, and the record must not
 * have changed since: an endpoint that has come back keeps it. Freed addresses rest.
 */
export const freeVip = async (
  { store, clock }: Context,
  network: NetworkId,
  service: string,
  signal: AbortSignal,
): Promise<boolean> => {
  const entry = await store.get(keys.vip(network, service), { signal })
  if (!entry) return false
  const { entries } = await store.list(`endpoints/${network}/`, { signal })
  if (entries.some(one => endpointService(decode('endpoint', one.key, one.value)) === service)) return false
  const { addresses } = decode('vip', entry.key, entry.value)
  const held = await Promise.all(addresses.map(address => store.get(keys.address(network, address), { signal })))
  const own = held.flatMap(one => {
    const claim = one && decode('addressClaim', one.key, one.value)
    return claim?.kind === 'vip' && claim.service === service ? [one!] : []
  })
  const resting = encode('addressClaim', restFrom(clock.now()))
  await store.commit(
    [entry, ...own].map(({ key, revision }): Compare => ({ key, is: 'at', revision })),
    [{ kind: 'delete', key: entry.key }, ...own.map(({ key }): Write => ({ kind: 'put', key, value: resting }))],
    { signal },
  )
  return true
}

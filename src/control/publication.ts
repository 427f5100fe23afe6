// SPDX-License-Identifier: Apache-2.0
// An endpoint that began while the store was away comes into the store: record, addresses and MAC in one transaction,
// out of the node's own spare claims. Safe to repeat, also when an earlier try was done and not answered.
import { ConflictError, WeftError } from '../base/errors.ts'
import type { AddressClaim, Endpoint, MacClaim } from '../model/endpoint.ts'
import type { EndpointId } from '../model/ids.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Entry, Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'
import type { Reserve } from './reserve.ts'

/**
 * Nothing happens to an endpoint that the reserve does not have. STORE_UNAVAILABLE while the store, or this node's place
 * in it, is not there; CONFLICT while an endpoint of this host that had the address is not erased; TAKEN or NOT_FOUND
 * when it can never be: this node was fenced, and others have its addresses now, or the network is gone. Nothing is
 * written into a store that is not believed.
 */
export const publishEndpoint = async (
  context: Context,
  reserve: Reserve,
  endpoint: EndpointId,
  signal: AbortSignal,
): Promise<void> => {
  await reserve.exclusively(endpoint, async record => {
    await attempt(context, signal, () => publish(context, record, signal))
    await reserve.published(endpoint)
  })
}

const publish = async (context: Context, record: Endpoint, signal: AbortSignal): Promise<void> => {
  const { store, mirror, node } = context
  const { id, network, addresses, mac } = record
  const { cluster, nodes, networks } = mirror.snapshot
  const self = nodes.get(node)
  if (!mirror.status.available || !cluster || !self || self.record.fenced !== undefined)
    throw new WeftError(
      'STORE_UNAVAILABLE',
      `endpoint ${id.slice(0, 12)} is not published: ${mirror.status.error ?? `node ${node} has not joined again`}`,
    )
  if (!networks.has(network))
    throw new WeftError('NOT_FOUND', `the network of endpoint ${id.slice(0, 12)} was removed meanwhile`)
  const get = (key: string): Promise<Entry | undefined> => store.get(key, { signal })
  const claims = addresses.map(address => keys.address(network, address))
  const [known, macEntry, ...held] = await Promise.all(
    [keys.endpoint(network, id), keys.mac(network, mac), ...claims].map(get),
  )
  const macClaim = macEntry && decode('macClaim', macEntry.key, macEntry.value)
  /** Published, perhaps without an answer, and gone since: its erasing is under way. */
  const refuseLeaving = (claim: AddressClaim | MacClaim | undefined): void => {
    if (claim?.kind === 'bound' && claim.node === node && claim.endpoint !== id)
      throw new ConflictError(
        `endpoint ${claim.endpoint.slice(0, 12)} of this host is not erased yet, ${id.slice(0, 12)} has its address`,
      )
  }
  refuseLeaving(macClaim)
  for (const [i, entry] of held.entries()) {
    const claim = entry && decode('addressClaim', entry.key, entry.value)
    refuseLeaving(claim)
    const own =
      claim === undefined ||
      claim.kind === 'resting' ||
      (claim.kind === 'spare' && claim.node === node) ||
      (claim.kind === 'bound' && claim.endpoint === id)
    if (!own)
      throw new WeftError(
        'TAKEN',
        `address ${addresses[i]} of endpoint ${id.slice(0, 12)} was given to ${'node' in claim ? `host ${claim.node}` : 'a service'} meanwhile`,
      )
  }
  if (macClaim?.kind === 'bound' && macClaim.endpoint !== id)
    throw new WeftError('TAKEN', `mac address ${mac} of endpoint ${id.slice(0, 12)} is in use on host ${macClaim.node}`)
  const bound = encode('addressClaim', { kind: 'bound', node, boot: record.boot, endpoint: id })
  const puts: readonly (readonly [string, Entry | undefined, string])[] = [
    [keys.endpoint(network, id), known, encode('endpoint', record)],
    [keys.mac(network, mac), macEntry, encode('macClaim', { kind: 'bound', node, endpoint: id })],
    ...claims.map((key, i) => [key, held[i], bound] as const),
  ]
  const revision = await store.commit(
    [
      // the very store that was believed last
      { key: keys.cluster, is: 'at', revision: cluster.revision },
      { key: keys.node(node), is: 'at', revision: self.revision },
      { key: keys.network(network), is: 'present' },
      ...puts.map(
        ([key, entry]): Compare => (entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' }),
      ),
    ],
    puts.map(([key, , value]): Write => ({ kind: 'put', key, value })),
    { signal },
  )
  await mirror.reached(revision, signal)
}

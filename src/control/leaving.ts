// SPDX-License-Identifier: Apache-2.0
// What a container of this host had, and is bound to an endpoint that has left: `docker restart` asks for its --ip and
// its --mac-address before the endpoint is erased, and after a boot so does every container that starts by itself.
import { sleep } from '../base/clock.ts'
import { ConflictError, WeftError } from '../base/errors.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Context } from './context.ts'
import type { Departures } from './departures.ts'

/** Of an address or a MAC. */
export interface BoundClaim {
  readonly node: NodeName
  readonly endpoint: EndpointId
}

/** It ended with the boot that it was made in. */
export const isPast = ({ mirror, node, boot }: Context, network: NetworkId, claim: BoundClaim): boolean => {
  const known = mirror.snapshot.endpoints(network).get(claim.endpoint)?.record
  return claim.node === node && known !== undefined && known.boot !== boot
}

/**
 * Has the endpoint erased now if it has left, or nobody lives with it, and throws CONFLICT: look again. Of a past boot it
 * has left once this node has joined. Nothing happens if it is here, or another host's.
 */
export const untilErased = async (
  context: Context,
  departures: Pick<Departures, 'has' | 'hasten' | 'reconsider'>,
  network: NetworkId,
  claim: BoundClaim,
  signal: AbortSignal,
): Promise<void> => {
  const { mirror, node, boot, clock } = context
  const { endpoint } = claim
  if (claim.node !== node) return
  const title = `endpoint ${endpoint.slice(0, 12)}`
  while (!departures.has(endpoint)) {
    const known = mirror.snapshot.endpoints(network).get(endpoint)?.record
    if (!known) break // erased meanwhile, or so new that the mirror will show it in a moment
    if (known.boot === boot) {
      if (await departures.reconsider(known)) break
      return
    }
    await sleep(clock, 10, signal).catch(cause => {
      throw new WeftError('CONFLICT', `${title} of before the boot is not erased yet: start the container again`, {
        cause,
      })
    })
  }
  await departures.hasten(endpoint, signal)
  throw new ConflictError(`${title} of this host, which has left, is not erased yet: start the container again`)
}

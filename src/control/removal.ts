// SPDX-License-Identifier: Apache-2.0
// The end of a network: while hosts are asked whether it may go, its name and subnets are nobody's to take.
import { sleep } from '../base/clock.ts'
import { WeftError } from '../base/errors.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { Context } from './context.ts'

const isRemoving = ({ state }: Network): boolean => state.kind === 'removing'

/**
 * Waits for what becomes of a network that is going; true: it is gone, false: it stays, or was not going at all.
 * CONFLICT when neither has come by the signal.
 */
export const goneInTime = async (
  { mirror, clock }: Context,
  id: NetworkId,
  signal: AbortSignal,
  isGoing: (network: Network) => boolean = isRemoving,
): Promise<boolean> => {
  let asked = false
  for (let waited = false; ; waited = true) {
    const record = mirror.snapshot.networks.get(id)?.record
    if (!record) return waited
    if (isRemoving(record)) asked = true
    else if (asked || !isGoing(record)) return false
    await sleep(clock, 10, signal).catch(cause => {
      const title = JSON.stringify(record.name ?? record.wanted ?? id)
      throw new WeftError(
        'CONFLICT',
        `network ${title} is being removed, and not every host has agreed yet: repeat the command in a moment`,
        { cause },
      )
    })
  }
}

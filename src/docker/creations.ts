// SPDX-License-Identifier: Apache-2.0
// Networks that a user's command is making on this engine just now. Their names are not known until the engine lists
// them, and it does not look whether another of the same name, a replica of ours, has come meanwhile: so there is none.
import type { Clock } from '../base/clock.ts'
import type { Bindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import type { PoolClaim } from '../model/network.ts'

export interface Creations {
  /** Docker asks for a pool of a network to be made; the name is known if weft.network has it. */
  begin(name: string | undefined): void
  /** May one of this name be under way? `listed`: Docker ids, at the last look. */
  underWay(name: string, listed: ReadonlySet<string>): boolean
}

/** How long one takes at most, ms. */
export const creationMs = 5000
/** Until the claim of its pool is in the mirror, at least. */
const noticeMs = 1000

export const openCreations = (
  { mirror, node }: Context,
  bindings: Bindings,
  clock: Pick<Clock, 'monotonic'>,
): Creations => {
  const named = new Map<string, number>() // until, monotonic ms
  let begun = Number.NEGATIVE_INFINITY
  /** All that we have heard of are listed, and no pool waits for its network. */
  const areKnown = (listed: ReadonlySet<string>): boolean => {
    const { networks, pools } = mirror.snapshot
    const isComing = ({ node: of, network }: PoolClaim): boolean =>
      of === node && networks.get(network)?.record.name === undefined && !bindings.byNetwork(network)
    return (
      [...bindings.all()].every(({ docker }) => listed.has(docker)) &&
      ![...pools.values()].some(({ record }) => isComing(record))
    )
  }
  return {
    begin(name) {
      begun = clock.monotonic()
      if (name !== undefined) named.set(name, begun + creationMs)
    },
    underWay(name, listed) {
      const now = clock.monotonic()
      for (const [other, until] of named) if (until <= now) named.delete(other)
      if (named.has(name)) return true
      return now - begun < noticeMs || (now - begun < creationMs && !areKnown(listed))
    },
  }
}

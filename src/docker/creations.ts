// SPDX-License-Identifier: Apache-2.0
// Networks that a user's command is making on this engine just now. Their names are not known until the engine lists
// them, and it does not look whether another of the same name, a replica of ours, has come meanwhile: so there is none.
import type { Clock } from '../base/clock.ts'

export interface Creations {
  /** Docker asks for a pool of a network to be made; the name is known if weft.network has it. */
  begin(name: string | undefined): void
  /** May one of this name be under way? `known`: all that we have heard of are listed, and no pool waits for its network. */
  underWay(name: string, known: () => boolean): boolean
}

/** How long one takes at most, ms. */
export const creationMs = 5000
/** Until the claim of its pool is in the mirror, at least. */
const noticeMs = 1000

export const openCreations = (clock: Pick<Clock, 'monotonic'>): Creations => {
  const named = new Map<string, number>() // until, monotonic ms
  let begun = Number.NEGATIVE_INFINITY
  return {
    begin(name) {
      begun = clock.monotonic()
      if (name !== undefined) named.set(name, begun + creationMs)
    },
    underWay(name, known) {
      const now = clock.monotonic()
      for (const [other, until] of named) if (until <= now) named.delete(other)
      if (named.has(name)) return true
      return now - begun < noticeMs || (now - begun < creationMs && !known())
    },
  }
}

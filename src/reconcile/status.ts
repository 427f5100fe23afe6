// SPDX-License-Identifier: Apache-2.0
// What the reconciler says of itself: reached, not hoped.

export interface BreakOff {
  readonly error: string
  /** The first of those without a whole pass between (ISO 8601). */
  readonly since: string
}

export interface ReconcilerStatus {
  readonly passes: number
  readonly operations: number
  /** Objects that others changed and we put right, by kind. */
  readonly repairs: Readonly<Record<string, number>>
  /** What could not be reached: object in the words of ip and nft, why, since when (ISO 8601). */
  readonly failing: readonly { readonly object: string; readonly error: string; readonly since: string }[]
  /** The last pass did not come to its end: what is wanted and what is there were not compared, or not all applied. */
  readonly brokenOff?: BreakOff
  /** Ports of containers that somebody removed: '<ns> <port>'. They come back with the container's restart. */
  readonly lost: readonly string[]
  readonly wanted: number
  readonly observed: number
  readonly lastPassMs: number
  /** Revision of the store up to which the kernel is as wanted, or 0. */
  readonly reached: string
}

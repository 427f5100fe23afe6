// SPDX-License-Identifier: Apache-2.0
// What could not be made, and whether trying again may help.
import { describe, type ErrorCode, WeftError } from '../base/errors.ts'

export interface Failure {
  readonly error: string
  /** Since when it has failed without success between (ISO 8601). */
  readonly since: string
  /** Who waits for it need not. */
  readonly final?: WeftError
}

/** What no second try mends. */
const finals: ReadonlySet<ErrorCode> = new Set(['NOT_SUPPORTED', 'FULL'])

export const failureOf = (error: unknown, since: string): Failure => ({
  error: describe(error),
  since,
  ...(error instanceof WeftError && finals.has(error.code) ? { final: error } : {}),
})

// SPDX-License-Identifier: Apache-2.0
// The contract of a section: a file that exports `run`.
import type { Row } from './row.ts'

export interface Options {
  /** Values per row. */
  readonly runs: number
  /** Small sizes: to see that everything works, not to be quoted. */
  readonly quick: boolean
}

export interface Report {
  row(row: Row): void
  /** What is going on, for who waits. */
  say(text: string): void
}

export type Run = (options: Options, report: Report) => Promise<void>

// SPDX-License-Identifier: Apache-2.0
// A row of the table: what was measured, against whom, and what it should be. A row keeps every value that was taken;
// medians, spreads and verdicts are made of them here.

/** What a goal is held against: the median of the ratio to the peer (above 1 is better for us), or our own median. */
export type Goal =
  | { readonly kind: 'ratio'; readonly atLeast: number }
  | { readonly kind: 'value'; readonly atMost: number }

export interface Row {
  readonly section: string
  readonly name: string
  /** 'ms', '/s', 'MiB': of ours and of the peer's values. */
  readonly unit: string
  readonly better: 'less' | 'more'
  /** One value per run, in the order of the runs. */
  readonly ours: readonly number[]
  readonly peer?: { readonly name: string; readonly values: readonly number[] }
  /** Absent: only reported. */
  readonly goal?: Goal
  /** What the reader has to know to understand the values. */
  readonly note?: string
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Throws RangeError where nothing, or no number, was measured. */
export const spread = (values: readonly number[]): Spread => {
  if (values.length === 0 || values.some(value => !Number.isFinite(value)))
    throw new RangeError(`not a measurement: [${values.join(', ')}]`)
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}

/** The value below which a share (0.99) of the values lies. */
export const percentile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!
}

/** Of each run, as ours and the peer's stood side by side; above 1 is better for us. */
export const ratios = ({ ours, peer, better }: Row): readonly number[] | undefined =>
  peer?.values.map((value, run) => (better === 'less' ? value / ours[run]! : ours[run]! / value))

export type Verdict = 'met' | 'missed' | 'reported'

export const verdict = (row: Row): Verdict => {
  const { goal } = row
  if (!goal) return 'reported'
  if (goal.kind === 'value') return spread(row.ours).median <= goal.atMost ? 'met' : 'missed'
  const measured = ratios(row)
  if (!measured) throw new RangeError(`${row.name} has a ratio for its goal and no peer`)
  return spread(measured).median >= goal.atLeast ? 'met' : 'missed'
}

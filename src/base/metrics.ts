// SPDX-License-Identifier: Apache-2.0
// What a part counts of itself, for Prometheus (docs/metrics.md has every name). Counting is a plain addition, whether
// anybody looks or not; what can be read from a status is read when it is asked for, and costs nothing before.

/** Values must be few: names of networks, services and containers, codes; never ids, addresses or texts of errors. */
export type Labels<L extends string> = Readonly<Record<L, string>>
export type Sample<L extends string> = readonly [labels: Labels<L>, value: number]

export interface Counter<L extends string> {
  add(labels: Labels<L>, by?: number): void
}

/** How long something took, in buckets. */
export interface Timings<L extends string> {
  observe(labels: Labels<L>, seconds: number): void
}

/** Known elsewhere: all its samples are given anew at each scrape. Those with equal labels are added up. */
export interface Series<L extends string> {
  replace(samples: Iterable<Sample<L>>): void
}

export interface Metrics {
  counter<L extends string = never>(name: string, help: string, labels?: readonly L[]): Counter<L>
  timings<L extends string = never>(name: string, help: string, labels?: readonly L[]): Timings<L>
  /** 'counter': its values only grow, or begin again at 0. */
  series<L extends string = never>(
    type: 'gauge' | 'counter',
    name: string,
    help: string,
    labels?: readonly L[],
  ): Series<L>
  /** `fill` runs at each scrape, never twice at a time. When it fails, these series have no samples in that scrape. */
  atScrape(
    what: string,
    series: readonly { replace(none: readonly []): void }[],
    fill: () => void | Promise<void>,
  ): void
}

/** Nobody looks. */
export const noMetrics: Metrics = {
  counter: () => ({ add: () => {} }),
  timings: () => ({ observe: () => {} }),
  series: () => ({ replace: () => {} }),
  atScrape: () => {},
}

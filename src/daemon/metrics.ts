// SPDX-License-Identifier: Apache-2.0
// The metrics of this process in the text format of Prometheus (prom-client): what the parts count, what is read from
// their statuses at a scrape, and what the library knows of the process itself.
import * as prometheus from 'prom-client'
import { describe } from '../base/errors.ts'
import type { Lifecycle } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { type Metrics, noMetrics } from '../base/metrics.ts'
import { type MetricsAddress, openMetricsServer } from './metrics-server.ts'

export interface Registry extends Metrics {
  readonly contentType: string
  /** The text of a scrape. Who asks while one is made gets that one. */
  scrape(): Promise<string>
}

/** Seconds, from one that nothing waits for to a driver call's deadline. */
const buckets = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

interface Filler {
  readonly what: string
  readonly series: readonly { replace(none: readonly []): void }[]
  readonly fill: () => void | Promise<void>
}

/** For the flag --metrics: answers from now on, more and more while the parts are made. Throws where it cannot listen. */
export const startMetrics = async (
  listen: MetricsAddress | undefined,
  log: Log,
  parts: Lifecycle,
): Promise<Metrics> => {
  if (!listen) return noMetrics
  const registry = openRegistry(log)
  parts.add('metrics', await openMetricsServer({ listen, ...registry, log }))
  return registry
}

export const openRegistry = (log: Log): Registry => {
  const register = new prometheus.Registry()
  const registers = [register]
  const fillers: Filler[] = []
  let running: Promise<string> | undefined
  prometheus.collectDefaultMetrics({ register })
  // named like counters, which they are not
  for (const what of ['handles', 'requests', 'resources']) register.removeSingleMetric(`nodejs_active_${what}_total`)

  const failures = new prometheus.Counter({
    name: 'weft_scrape_failures_total',
    help: 'Groups of metrics that could not be read at a scrape, and are missing in it.',
    labelNames: ['group'],
    registers,
  })

  const make = async (): Promise<string> => {
    for (const { what, series, fill } of fillers) {
      try {
        await fill()
      } catch (error) {
        for (const one of series) one.replace([])
        failures.inc({ group: what })
        log.warn({ group: what, err: describe(error) }, 'metrics not read')
      }
    }
    return register.metrics()
  }

  return {
    contentType: register.contentType,
    scrape() {
      running ??= make().finally(() => {
        running = undefined
      })
      return running
    },
    counter(name, help, labelNames = []) {
      const counter = new prometheus.Counter({ name, help, labelNames, registers })
      return { add: (labels, by = 1) => counter.inc(labels, by) }
    },
    timings(name, help, labelNames = []) {
      const histogram = new prometheus.Histogram({ name, help, labelNames, buckets, registers })
      return { observe: (labels, seconds) => histogram.observe(labels, seconds) }
    },
    series(type, name, help, labelNames = []) {
      const Kind = type === 'gauge' ? prometheus.Gauge : prometheus.Counter
      const metric = new Kind({ name, help, labelNames, registers })
      return {
        replace(samples) {
          metric.reset()
          for (const [labels, value] of samples) metric.inc(labels, value)
        },
      }
    },
    atScrape(what, series, fill) {
      failures.inc({ group: what }, 0)
      fillers.push({ what, series, fill })
    },
  }
}

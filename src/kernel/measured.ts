// SPDX-License-Identifier: Apache-2.0
// A kernel whose refusals are counted by errno: of what the reconciler wrote and observed, and of what was counted and
// forgotten. What is no failure to it (to remove what is gone) is none here.
import type { Metrics } from '../base/metrics.ts'
import { NetlinkError } from '../netlink/errors.ts'
import type { Kernel } from './kernel.ts'

/** Owns `inner`. */
export const measuredKernel = (inner: Kernel, metrics: Metrics): Kernel => {
  const errors = metrics.counter(
    'weft_netlink_errors_total',
    'Netlink requests that the kernel refused, or that broke off.',
    ['errno'],
  )
  const count = (error: unknown): void => {
    const errno = errnoOf(error)
    if (errno !== undefined) errors.add({ errno })
  }
  const counted = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      count(error)
      throw error
    }
  }
  return {
    namespaces: () => inner.namespaces(),
    observe: (ns, hints) => counted(inner.observe(ns, hints)),
    async apply(operations) {
      const results = await counted(inner.apply(operations))
      for (const { error } of results) if (error) count(error)
      return results
    },
    forgetFlows: (ns, which) => counted(inner.forgetFlows(ns, which)),
    counters: ns => counted(inner.counters(ns)),
    follow: listener => inner.follow(listener),
    close: () => inner.close(),
  }
}

/** Of an error or of what caused it. */
const errnoOf = (error: unknown): string | undefined => {
  if (error instanceof NetlinkError) return error.errnoName
  return error instanceof Error ? errnoOf(error.cause) : undefined
}

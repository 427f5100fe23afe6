// SPDX-License-Identifier: Apache-2.0
// What was asked for a service and this host cannot do, a sentence each; empty: it does everything.
import { type Scheduler, type ServiceOptions, turnSchedulers } from '../model/service-options.ts'

/** How published ports are balanced here. */
export interface Balancing {
  readonly balancer: string
  /** The first is taken for what is not among them. */
  readonly schedulers: readonly Scheduler[]
}

/** `virtual`: the service has virtual addresses. */
export const unable = (
  { scheduler, affinity, timeoutTcp, timeoutUdp }: Partial<ServiceOptions> = {},
  virtual: boolean,
  { balancer, schedulers }: Balancing,
): string[] => {
  const byIpvs = balancer === 'ipvs'
  const by = `this host balances by ${balancer}, which`
  const timed = (timeoutTcp ?? timeoutUdp) !== undefined
  const hashed = "a client's container as long as the containers are the same"
  const instead = (known: readonly Scheduler[]): string | undefined =>
    scheduler === undefined || known.includes(scheduler) ? undefined : `${known.join(', ')}; ${known[0]} is used`
  const [ports, vips] = [instead(schedulers), virtual ? instead(turnSchedulers) : undefined]
  return [
    ports && `scheduler ${scheduler}: ${by} has ${ports}`,
    vips && vips !== ports && `scheduler ${scheduler}: virtual addresses have ${vips}`,
    affinity !== undefined && !byIpvs && `affinity ${affinity} s: ${by} keeps ${hashed}`,
    affinity !== undefined && byIpvs && virtual && `affinity ${affinity} s: virtual addresses keep ${hashed}`,
    timed && byIpvs && `timeouts: ${by} has one for all services of a network, the longest that one of them wants`,
    timed && virtual && "timeouts: connections by virtual addresses have the kernel's own",
  ].filter(said => typeof said === 'string')
}

// SPDX-License-Identifier: Apache-2.0
// What the gateway of a network (M) does with a published port, whichever part of the kernel does it: every new
// connection to the gateway's end of its uplink goes to one of the targets, with its port and its source address kept.
import type { Family } from '../model/address.ts'
import type { Proto } from '../model/port.ts'
import type { Scheduler, ServiceOptions } from '../model/service-options.ts'
import type { Wanted } from '../plan/unit.ts'

export interface BalancedPort {
  /** Of the gateway. */
  readonly ns: string
  readonly proto: Proto
  readonly port: number
  readonly families: readonly BalancedFamily[]
  /** What was said of the service; undefined: nothing. */
  readonly options: ServiceOptions | undefined
}

export interface BalancedFamily {
  readonly family: Family
  /** The gateway's end of its uplink. */
  readonly at: string
  /** At least one. */
  readonly to: readonly Target[]
}

export interface Target {
  /** Plain. */
  readonly address: string
  /** Share of the new connections, where the scheduler knows shares; 0: it keeps those that it has. */
  readonly weight: number
}

export interface Engine {
  /** The first is taken for what is not among them. */
  readonly schedulers: readonly Scheduler[]
  plan(port: BalancedPort): Wanted[]
}

// SPDX-License-Identifier: Apache-2.0
// This host becomes a member of the cluster, as soon as there is a store.
import { type Clock, sleep } from '../base/clock.ts'
import { codeOf, describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { NodeFacts, Nodes } from '../control/nodes.ts'
import { familyOf } from '../model/address.ts'
import type { Config } from './config.ts'

/**
 * The store may come later than we do, or not be believed yet: `late` is called then, with why. Throws what is a refusal:
 * name or VTEP alive elsewhere.
 */
export const joinCluster = async (
  nodes: Nodes,
  config: Config,
  facts: () => NodeFacts,
  log: Log,
  clock: Clock,
  signal: AbortSignal,
  late: (error: unknown) => void = () => {},
): Promise<void> => {
  const { pools, vxlanPort } = config
  const defaults = { pools, storePorts: storePorts(config), vxlanPort, underlayFamily: familyOf(facts().vtep) }
  for (let waits = 0; ; waits++) {
    try {
      await nodes.join(facts(), defaults, signal)
      return
    } catch (error) {
      const wait = ['STORE_UNAVAILABLE', 'STORE_SUSPECT', 'TIMEOUT'].includes(codeOf(error))
      if (!wait || signal.aborted) throw error
      late(error)
      if (waits % 10 === 0) log.warn({ err: describe(error) }, 'waiting for the store')
      await sleep(clock, 1000, signal)
    }
  }
}

/** Those given, and those that IANA gave to etcd's clients and members. */
const storePorts = ({ store }: Config): readonly number[] => [
  ...[2379, 2380],
  ...(store.kind === 'etcd' ? store.endpoints.map(url => Number(/\d+$/.exec(url)![0])) : []),
]

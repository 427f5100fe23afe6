// SPDX-License-Identifier: Apache-2.0
// At boot weftd may be there before the underlay has its device, address or route (DHCP, routers): they are waited for.
import { type Clock, sleep } from '../base/clock.ts'
import { codeOf, describe, WeftError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { HostFacts } from '../kernel/host-facts.ts'

const patienceMs = 60_000
const everyMs = 250

/** Throws INVALID with the last reason when there is no underlay after a minute. */
export const awaitHost = async (read: () => Promise<HostFacts>, clock: Clock, log: Log): Promise<HostFacts> => {
  const end = clock.monotonic() + patienceMs
  for (let told = ''; ; ) {
    try {
      return await read()
    } catch (error) {
      if (codeOf(error) !== 'NOT_REACHED') throw error
      const why = describe(error)
      if (clock.monotonic() >= end) throw new WeftError('INVALID', why, { cause: error })
      if (why !== told) log.warn({ err: why }, 'waiting for the underlay, a minute at most')
      told = why
      await sleep(clock, everyMs)
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Floating addresses of this host: the pieces put together, and told of the records that they look at.
import type { Closeable } from '../base/lifecycle.ts'
import type { Context } from '../control/context.ts'
import type { AskWire } from '../control/services.ts'
import { type FloatingAddresses, floatingTables, openFloating, whoHas } from '../floating/floating.ts'
import { openWire } from '../floating/wire.ts'
import { openHostAddresses } from '../kernel/host-addresses.ts'

export interface FloatingHere extends Closeable {
  readonly askWire: AskWire
  /** Plain address → why this host could not take it. */
  problems(): ReadonlyMap<string, string>
  /** Once the mirror has a snapshot. */
  start(): void
}

export const openFloatingHere = (
  { store, mirror, node, boot, clock, log }: Context,
  instance: string,
): FloatingHere => {
  const { snapshot } = mirror
  const addresses = openHostAddresses()
  const wire = openWire(clock)
  let floating: FloatingAddresses | undefined
  let unsubscribe = (): void => {}
  return {
    askWire: (one, signal) => whoHas({ addresses, wire }, one, signal),
    problems: () => floating?.problems ?? new Map(),
    start() {
      const self = { node, instance, boot }
      const opened = openFloating({ store, snapshot, clock, log, addresses, wire, self })
      floating = opened
      unsubscribe = mirror.subscribe(changed => {
        if (changed === 'all' || changed.some(([table]) => floatingTables.has(table!))) opened.look()
      })
      opened.look()
    },
    async close() {
      unsubscribe()
      await floating?.close()
      await addresses.close()
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// Takes back what a crash left half-done on this node: reservations that nobody bound, pools whose CreateNetwork never
// came, tombstones that have rested. Only our own, only after a minute, only by compare-and-swap.
import type { Timer } from '../base/clock.ts'
import { ConflictError, describe } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { keys } from '../store/keys.ts'
import type { Context } from './context.ts'
import type { Pools } from './pools.ts'

export const reservationMs = 60_000
const everyMs = 10_000

export const openSweeper = ({ store, mirror, node, clock, log }: Context, pools: Pools): Closeable => {
  const stop = new AbortController()
  const unsettled = openHoldDown<string>(clock) // pools
  let timer: Timer | undefined
  let running: Promise<void> = Promise.resolve()

  const remove = async (key: string, revision: bigint): Promise<void> => {
    await store
      .commit([{ key, is: 'at', revision }], [{ kind: 'delete', key }], { signal: stop.signal })
      .catch(error => {
        if (!(error instanceof ConflictError)) throw error
      })
  }

  const sweep = async (): Promise<void> => {
    const now = clock.now()
    const { networks, addresses, macs, pools: claims } = mirror.snapshot
    const due: { key: string; revision: bigint }[] = []
    for (const network of networks.keys()) {
      for (const [address, { record, revision }] of addresses(network)) {
        const stale = record.kind === 'reserved' && record.node === node && now - record.since > reservationMs
        if (stale || (record.kind === 'resting' && record.until <= now))
          due.push({ key: keys.address(network, address), revision })
      }
      for (const [mac, { record, revision }] of macs(network))
        if (record.kind === 'resting' && record.until <= now) due.push({ key: keys.mac(network, mac), revision })
    }
    for (const { key, revision } of due) await remove(key, revision)
    for (const [prefix, { record }] of claims) {
      if (record.settled || record.node !== node) continue
      if (!unsettled.held(prefix, reservationMs)) continue
      unsettled.clear(prefix)
      await pools.release(prefix, stop.signal)
    }
    for (const prefix of unsettled.keys()) if (claims.get(prefix)?.record.settled !== false) unsettled.clear(prefix)
  }

  const arm = (): void => {
    timer = clock.after(everyMs * (0.5 + Math.random()), () => {
      running = (mirror.status.available ? sweep() : Promise.resolve())
        .catch(error => log.warn({ err: describe(error) }, 'sweep failed'))
        .then(() => {
          if (!stop.signal.aborted) arm()
        })
    })
  }
  arm()

  return {
    async close() {
      stop.abort(new Error('closed'))
      timer?.cancel()
      await running
    },
  }
}

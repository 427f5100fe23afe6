// SPDX-License-Identifier: Apache-2.0
// Takes back what a crash left half-done on this node: reservations that nobody bound, pools whose CreateNetwork never
// came or whose joined network the engine has no more, tombstones that have rested: only our own, only after a minute,
// only by compare-and-swap. The virtual addresses of services: claimed where that failed, freed where nobody has been for
// a while. Removals of networks that were broken off, whoever began them.
import type { Timer } from '../base/clock.ts'
import { ConflictError, describe } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { isOver } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { PoolClaim } from '../model/network.ts'
import { vipService } from '../model/service.ts'
import { keys } from '../store/keys.ts'
import { reservationMs } from './addresses.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import { finishRemovals } from './ending.ts'
import type { Pools } from './pools.ts'
import { claimVip, freeVip, vipHoldMs } from './vips.ts'

const everyMs = 10_000
const removalsEveryMs = 60_000

export const openSweeper = (context: Context, pools: Pools, bindings: Bindings): Closeable => {
  const { store, mirror, node, clock, log } = context
  const stop = new AbortController()
  const idle = openHoldDown<string>(clock) // pools that no network of this engine has
  const deserted = openHoldDown<string>(clock) // '<network> <service>' with virtual addresses, and no endpoint
  let removalsAt = clock.monotonic()
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
        const stale = record.kind === 'reserved' && record.node === node && Math.abs(now - record.since) > reservationMs
        if (stale || (record.kind === 'resting' && isOver(record, now)))
          due.push({ key: keys.address(network, address), revision })
      }
      for (const [mac, { record, revision }] of macs(network))
        if (record.kind === 'resting' && isOver(record, now)) due.push({ key: keys.mac(network, mac), revision })
    }
    for (const { key, revision } of due) await remove(key, revision)
    for (const [prefix, { record, revision }] of claims) {
      if (isForsaken(record)) await remove(keys.pool(prefix), revision)
      if (!isIdle(record) || !idle.held(prefix, reservationMs)) continue
      idle.clear(prefix)
      await pools.abandon(prefix, stop.signal)
    }
    idle.keep(prefix => {
      const claim = claims.get(prefix)
      return claim !== undefined && isIdle(claim.record)
    })
    for (const network of networks.keys()) await sweepVips(network)
    if (clock.monotonic() - removalsAt < removalsEveryMs) return
    removalsAt = clock.monotonic()
    for (const network of await finishRemovals(context, stop.signal))
      log.warn({ network }, 'its removal was broken off, and is finished now')
  }

  const isIdle = ({ node: holder, settled, joined }: PoolClaim): boolean =>
    holder === node && (joined === undefined ? !settled : !bindings.byDocker(joined))
  /** By a node that is fenced: its engine still asks by this pool when it comes back, as long as the network is there. */
  const isForsaken = ({ node: holder, network, joined }: PoolClaim): boolean => {
    if (joined === undefined || mirror.snapshot.networks.has(network)) return false
    return mirror.snapshot.nodes.get(holder)?.record.fenced !== undefined
  }

  const sweepVips = async (network: NetworkId): Promise<void> => {
    const { endpoints, vips, members } = mirror.snapshot
    for (const { record } of endpoints(network).values()) {
      const service = record.node === node ? vipService(record) : undefined
      if (service !== undefined && !vips(network).has(service))
        await claimVip(context, record, false, stop.signal).catch(error =>
          log.warn({ network, service, err: describe(error) }, 'no virtual address for a service'),
        )
    }
    for (const service of vips(network).keys()) {
      const title = `${network} ${service}`
      if (members(network, service).size > 0) deserted.clear(title)
      else if (deserted.held(title, vipHoldMs)) {
        deserted.clear(title)
        const freed = await freeVip(context, network, service, stop.signal).catch(error => {
          if (!(error instanceof ConflictError)) throw error
        })
        if (freed) log.info({ network, service }, 'virtual address freed: the service has no containers any more')
      }
    }
  }

  const arm = (): void => {
    timer = clock.after(everyMs * (0.5 + Math.random()), () => {
      // what we cannot see has not happened: nothing expires meanwhile
      if (!mirror.status.available) deserted.keep(() => false)
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

// SPDX-License-Identifier: Apache-2.0
// One floating address on this host: waiting for it, taking it, having it, leaving it. The one rule: the address is in
// our kernel only at moments at which the store surely keeps our claim. All times are of the monotonic clock, counted
// from when a renewal was *asked* for, so that they are over here before they are over in the store.
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { ConflictError, codeOf, describe, WeftError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { type HostAddresses, lateMs } from '../kernel/host-addresses.ts'
import { contains, parseInterface } from '../model/address.ts'
import type { Floating, FloatingClaim } from '../model/floating.ts'
import { candidates } from '../model/floating-hosts.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Lease, Store } from '../store/store.ts'
import type { Wire } from './wire.ts'

/** A taker waits so long after the holder's last renewal. The kernel's lateness (lateMs) fits in beside half of it. */
export const ttlMs = 4000
const renewMs = ttlMs / 6
/** Without a renewal the holder drops after this. */
export const holdMs = ttlMs / 2
/** A weftd that is stopped has so long to come back, before another host takes what it had. */
export const restartMs = 10_000
/** A call of the store that has no answer for so long is tried anew: after an outage that counts. */
const askMs = 1000
/** Between the first and the second of those that may take it, and so on. */
const turnMs = 150

export interface SeatParts {
  readonly store: Pick<Store, 'lease' | 'commit'>
  readonly snapshot: Snapshot
  readonly clock: Clock
  readonly log: Log
  /** Who we are. */
  readonly self: Pick<FloatingClaim, 'node' | 'instance' | 'boot'>
  readonly addresses: Pick<HostAddresses, 'link' | 'on' | 'ours' | 'put' | 'remove'>
  readonly wire: Wire
}

export interface Seat {
  /** Records have changed: look again. */
  poke(): void
  /** Why this host could not take it, when it tried last. */
  readonly problem: string | undefined
  /** `restart`: the address stays in the kernel and ours in the store, for restartMs. */
  close(restart: boolean): Promise<void>
}

export const openSeat = (wanted: Floating, parts: SeatParts): Seat => {
  const { store, snapshot, clock, log, self, addresses, wire } = parts
  const { address, cidr, dev } = wanted
  const place = { dev, address: cidr }
  const stop = new AbortController()
  let leaving: 'for good' | 'restart' | undefined
  let wake = Promise.withResolvers<void>()
  let problem: string | undefined
  /** Undefined: the kernel has it not. Else the time at which it has surely taken it away. */
  let goneBy: number | undefined
  let announcing = new AbortController()
  /** Claims of ours up to here are given back, though the mirror may still show one. */
  let past = 0n

  const poke = (): void => {
    wake.resolve()
    wake = Promise.withResolvers<void>()
  }
  /** Until something changes, at most so long. */
  const pause = async (ms: number): Promise<void> => {
    if (leaving) return
    const over = new AbortController()
    const changed = wake.promise
    await Promise.race([sleep(clock, ms, over.signal), changed]).finally(() => over.abort())
  }
  const claim = () => snapshot.floating.get(address)
  const isOurs = ({ node, instance, boot }: FloatingClaim): boolean =>
    node === self.node && instance === self.instance && boot === self.boot

  /** For `mostMs` at most, and never beyond what is safe until `expires`; false: it took so long that it may not stay. */
  const put = async (expires: number, mostMs: number): Promise<boolean> => {
    const from = clock.monotonic()
    const seconds = Math.floor(Math.min(mostMs, expires - from - lateMs) / 1000)
    if (seconds < 1) return true // what was written before is as safe as it was
    goneBy = Math.max(goneBy ?? 0, expires)
    await addresses.put(place, seconds)
    return clock.monotonic() + seconds * 1000 + lateMs <= expires
  }

  /** Out of the kernel. Where the kernel refuses, until it has done so by itself. */
  const down = async (): Promise<void> => {
    announcing.abort()
    while (goneBy !== undefined) {
      try {
        await addresses.remove(place)
        goneBy = undefined
      } catch (error) {
        if (clock.monotonic() >= (goneBy ?? 0)) goneBy = undefined
        else {
          log.warn({ address, err: describe(error) }, 'floating address not removed yet')
          await sleep(clock, 50)
        }
      }
    }
  }

  /** Left by a weftd before us, perhaps. */
  const isHere = async (): Promise<boolean> => {
    const here = (await addresses.ours()).some(one => one.dev === dev && one.address === cidr)
    goneBy = here ? (goneBy ?? clock.monotonic() + restartMs) : undefined
    return here
  }

  const announce = async (): Promise<void> => {
    announcing.abort()
    announcing = new AbortController()
    const { signal } = announcing
    try {
      const link = await addresses.link(dev)
      if (link) await wire.announce(link, address, signal)
    } catch (error) {
      if (!signal.aborted) log.warn({ address, err: describe(error) }, 'floating address not announced')
    }
  }

  /** Is it this host's turn? Waits for it. */
  const mayTake = async (): Promise<boolean> => {
    const turn = candidates(snapshot, wanted, self.node).indexOf(self.node)
    const { prefix } = parseInterface(cidr)
    const near = turn >= 0 && (await addresses.on(dev)).some(one => contains(prefix, parseInterface(one).address))
    if (!near) {
      await pause(5000)
      return false
    }
    if (turn > 0) await sleep(clock, turn * turnMs, stop.signal)
    return claim() === undefined
  }

  /** A claim under a lease of its own; in the place of ours where there is one. */
  const take = async (adopt: boolean): Promise<{ lease: Lease; revision: bigint }> => {
    const call = { timeoutMs: askMs, signal: stop.signal }
    const lease = await store.lease(ttlMs, { renewMs, ...call })
    try {
      const before = claim()
      if (before ? !isOurs(before.record) : adopt) throw new ConflictError(`the claim on ${address} has changed`)
      const { network, service } = wanted
      const since = before?.record.since ?? new Date(clock.now()).toISOString()
      const value = encode('floating', { ...self, network, service, dev, since })
      const revision = await store.commit(unchanged(before?.revision), [putClaim(value, lease)], call)
      return { lease, revision }
    } catch (error) {
      await lease.close()
      throw error
    }
  }
  const key = keys.floating(address)
  const putClaim = (value: string, lease: Lease) => ({ kind: 'put', key, value, lease }) as const
  const unchanged = (revision: bigint | undefined): Compare[] => [
    revision === undefined ? { key, is: 'absent' } : { key, is: 'at', revision },
    { key: keys.service(wanted.network, wanted.service), is: 'present' },
  ]

  const refuseForeign = async (): Promise<void> => {
    const link = await addresses.link(dev)
    if (!link) throw new WeftError('NOT_FOUND', `there is no device ${dev} any more`)
    if ((await addresses.on(dev)).some(one => one.startsWith(`${address}/`)))
      throw new WeftError('TAKEN', `this host has it by itself, for good, on ${dev}`)
    const mac = await wire.probe(link, address, stop.signal)
    if (mac !== undefined) throw new WeftError('TAKEN', `${mac} answers for it on ${dev}, without a claim`)
  }

  /** Somebody else should have it. */
  const mustMove = (): boolean => {
    const own = snapshot.nodes.get(self.node)?.record
    if (own?.fenced !== undefined) return true
    return own?.drained === true && !candidates(snapshot, wanted, self.node).includes(self.node)
  }

  /** From the claim to its end. */
  const hold = async (adopt: boolean): Promise<void> => {
    const { lease, revision } = await take(adopt)
    let lost = false
    let written = 0
    void lease.lost.then(() => {
      lost = true
      poke()
    })
    const isNotOursAnyMore = (): boolean => {
      const now = claim()
      if (now && !isOurs(now.record)) return true
      return !lost && snapshot.revision >= revision && now?.revision !== revision
    }

    const keep = async (): Promise<void> => {
      while (!leaving && !mustMove() && !isNotOursAnyMore()) {
        const left = lease.expires - clock.monotonic()
        if (left > holdMs && !lost) {
          const wasHere = goneBy !== undefined
          if (lease.expires !== written) {
            written = lease.expires
            if (!(await put(written, holdMs))) await down()
            else if (!wasHere && goneBy !== undefined) {
              log.info({ address, dev, service: wanted.service }, 'floating address is here')
              void announce()
            }
          }
        } else {
          if (goneBy !== undefined) log.warn({ address, dev }, 'floating address dropped: the store is away')
          await down()
          if (lost) return
        }
        await pause(Math.max(1, Math.min(renewMs / 4, left > holdMs ? left - holdMs : renewMs / 4)))
      }
    }

    let handedOver = false
    try {
      if (!adopt || !(await isHere())) await refuseForeign()
      problem = undefined
      await keep()
      if (leaving === 'restart' && goneBy !== undefined) handedOver = await handOver(revision)
    } finally {
      if (!handedOver) {
        if (goneBy !== undefined) log.info({ address, dev }, 'floating address leaves')
        await down()
      }
      announcing.abort()
      if (!lost) past = revision
      await lease.close() // with it goes the claim, at once
    }
  }

  /** To the weftd that comes after us: claim and address for restartMs, renewed by nobody. */
  const handOver = async (revision: bigint): Promise<boolean> => {
    const now = claim()
    if (!now || now.revision !== revision) return false
    let lease: Lease | undefined
    try {
      lease = await store.lease(restartMs, { timeoutMs: 1000 })
      await store.commit(unchanged(revision), [putClaim(encode('floating', now.record), lease)], { timeoutMs: 1000 })
      if (!(await put(lease.expires, restartMs))) throw new Error('it took too long')
      await lease.leave()
      return true
    } catch (error) {
      await down()
      await lease?.close()
      log.warn({ address, err: describe(error) }, 'floating address is not kept over the restart')
      return false
    }
  }

  const run = async (): Promise<void> => {
    const retry = backoff(100, 300)
    const said = (error: unknown): void => {
      const text = describe(error)
      if (problem !== text) log.warn({ address, err: text }, 'floating address not taken')
      problem = text
    }
    await isHere().catch(said)
    while (!leaving) {
      try {
        const now = claim()
        if (now && !isOurs(now.record)) {
          problem = undefined
          await down()
          await pause(60_000)
        } else if (now) {
          if (now.revision > past && !mustMove()) await hold(true)
          else await pause(1000)
        } else if (await mayTake()) {
          await hold(false)
          retry.reset()
        }
      } catch (error) {
        if (stop.signal.aborted) break
        if (codeOf(error) !== 'CONFLICT') said(error)
        await pause(codeOf(error) === 'TAKEN' ? 2000 : retry.next())
      }
    }
    if (leaving === 'for good') await down()
  }
  const running = run()

  return {
    poke,
    get problem() {
      return problem
    },
    async close(restart) {
      leaving ??= restart ? 'restart' : 'for good'
      stop.abort(new WeftError('CANCELLED', 'the seat is closed'))
      poke()
      await running
    },
  }
}

// SPDX-License-Identifier: Apache-2.0
// Hosts, their kernels, the link between them and a store, all in one made-up time: a host can be frozen, killed, cut off
// from the store or from the others, at any moment; the kernel takes an address away late, the store its leases.
import type { Clock } from '../../src/base/clock.ts'
import { ConflictError, WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openSeat, type Seat, type SeatParts } from '../../src/floating/seat.ts'
import { lateMs } from '../../src/kernel/host-addresses.ts'
import type { Floating, FloatingClaim } from '../../src/model/floating.ts'
import { decode } from '../../src/store/codec.ts'
import type { Lease } from '../../src/store/store.ts'
import { testCluster } from '../overlay/cluster.ts'

export const floating: Floating = {
  ...{ address: '192.0.2.100', cidr: '192.0.2.100/24', dev: 'eth0' },
  ...{ network: 'app', service: 'label web' },
}

interface Grant {
  readonly ttl: number
  expires: number
}
interface Stored {
  readonly value: string
  readonly revision: bigint
  readonly lease: string
}

export interface World {
  readonly now: number
  readonly hosts: readonly SimHost[]
  /** Runs for so long. `check` after every event. */
  run(ms: number, check?: () => void): Promise<void>
  /** Hosts whose kernel has the address. */
  holders(): string[]
  /** The store as a whole goes away, or comes back: then leases live for their full TTL, as after an election of etcd. */
  storeUp(up: boolean): void
  close(): Promise<void>
}

export interface SimHost {
  readonly name: string
  store: boolean
  link: boolean
  freeze(on: boolean): void
  /** As by SIGKILL: nothing of it runs any more, its kernel stays. */
  kill(): void
  /** As by SIGTERM. */
  stop(): Promise<void>
  /** weftd again, after kill or stop. */
  start(): void
  drain(on: boolean): void
  /** Nobody's, there although we did not put it in. */
  foreign(on: boolean): void
}

export const openWorld = (random: () => number, names: readonly string[]): World => {
  let now = 0
  let order = 0
  let revision = 100n
  let up = true
  let ids = 0
  let stored: Stored | undefined
  const grants = new Map<string, Grant>()
  const events: { at: number; order: number; run: () => void }[] = []
  const at = (delay: number, run: () => void) => {
    const event = { at: now + Math.max(0, delay), order: order++, run }
    events.push(event)
    return event
  }
  const drained = new Set<string>()
  const alive = new Set<string>()
  const told = new Set<() => void>()

  const changeStored = (next: Stored | undefined): void => {
    stored = next
    for (const tell of told) tell()
  }
  const tick = (): void => {
    if (up)
      for (const [id, grant] of grants)
        if (now > grant.expires) {
          grants.delete(id)
          if (stored?.lease === id) {
            revision++
            changeStored(undefined)
          }
        }
    at(500, tick)
  }
  at(0, tick)

  const open = (name: string) => {
    const offset = random() * 1e6
    let goneAt = 0 // kernel: there until then
    let foreign = false
    let frozen = false
    let life = 0 // of weftd: events of an earlier one do nothing
    let seat: Seat | undefined
    const waiting: (() => void)[] = []
    const snapshot = testCluster()
    snapshot.putNetwork({ id: 'app' })
    const host = { store: true, link: true }

    /** Reaches the program after so long, when it runs. */
    const deliver = (delay: number, run: () => void, mine = life) => {
      const guarded = (): void => {
        if (mine !== life) return
        if (frozen) waiting.push(guarded)
        else run()
      }
      return at(delay, guarded)
    }
    const clock: Clock = {
      now: () => now,
      monotonic: () => now + offset,
      after(delay, run) {
        let cancelled = false
        deliver(delay, () => cancelled || run())
        return {
          cancel: () => {
            cancelled = true
          },
        }
      },
    }
    const reachable = (): boolean => up && host.store
    const latency = (): number => 1 + random() * 30
    /** A call of the store: lost on the way there or back it says nothing, and may have been done. */
    const call = <T>(timeoutMs: number, work: () => T): Promise<T> =>
      new Promise((resolve, reject) => {
        const mine = life
        let over = false
        const settle = (run: () => void): void => {
          if (!over) run()
          over = true
        }
        deliver(timeoutMs, () => settle(() => reject(new WeftError('STORE_UNAVAILABLE', 'no answer'))))
        at(latency(), () => {
          if (!reachable()) return
          let answer: () => void
          try {
            const value = work()
            answer = () => resolve(value)
          } catch (error) {
            answer = () => reject(error)
          }
          at(latency(), () => reachable() && deliver(0, () => settle(answer), mine))
        })
      })
    const lease = async (ttl: number, options: { renewMs?: number; timeoutMs?: number } = {}): Promise<Lease> => {
      const { renewMs = ttl / 3, timeoutMs = 5000 } = options
      let expires = clock.monotonic() + ttl
      const id = String(ids++)
      await call(timeoutMs, () => grants.set(id, { ttl, expires: now + ttl }))
      const lost = Promise.withResolvers<void>()
      let closed = false
      const renew = (): void => {
        if (closed) return
        const asked = clock.monotonic()
        if (asked >= expires) return lost.resolve()
        call(Math.min(700, expires - asked), () => {
          const grant = grants.get(id)
          if (grant) grant.expires = now + grant.ttl
          return grant !== undefined
        }).then(
          there => {
            if (closed) return
            if (!there) return lost.resolve()
            expires = asked + ttl
            clock.after(renewMs, renew)
          },
          () => clock.after(ttl / 20, renew),
        )
      }
      clock.after(renewMs, renew)
      return {
        id,
        lost: lost.promise,
        get expires() {
          return expires
        },
        async leave() {
          closed = true
        },
        async close() {
          if (closed) return
          closed = true
          await call(1000, () => {
            grants.delete(id)
            if (stored?.lease === id) {
              revision++
              changeStored(undefined)
            }
          }).catch(() => {})
        },
      }
    }
    const store: SeatParts['store'] = {
      lease,
      commit: (compares, writes, options) =>
        call(options?.timeoutMs ?? 5000, () => {
          const [compare] = compares
          const holds =
            compare?.is === 'absent' ? !stored : compare?.is === 'at' && stored?.revision === compare.revision
          if (!holds) throw new ConflictError('somebody else')
          const [write] = writes
          if (write?.kind !== 'put' || !write.lease || !grants.has(write.lease.id))
            throw new WeftError('NOT_FOUND', 'the lease is gone')
          revision++
          changeStored({ value: write.value, revision, lease: write.lease.id })
          return revision
        }),
    }
    const table = snapshot.floating as Map<string, { record: FloatingClaim; revision: bigint }>
    const see = (seen: Stored | undefined, seenAt: bigint): void => {
      if (seenAt < snapshot.revision) return
      snapshot.revision = seenAt
      if (seen)
        table.set(floating.address, {
          record: decode('floating', 'floating/192.0.2.100', seen.value),
          revision: seen.revision,
        })
      else table.delete(floating.address)
      for (const one of names) {
        const isDrained = drained.has(one) ? { drained: true } : {}
        snapshot.dropNode(one)
        snapshot.putNode({
          name: one,
          addresses: [{ dev: 'eth0', address: `192.0.2.${names.indexOf(one) + 1}/24` }],
          ...isDrained,
        })
      }
      snapshot.revision = seenAt
      seat?.poke()
    }
    const tell = (): void => {
      const [seen, seenAt] = [stored, revision]
      at(latency(), () => reachable() && deliver(0, () => see(seen, seenAt)))
    }
    told.add(tell)
    /** The watch lists again after it was away. */
    const listen = (): void => {
      tell()
      at(300, listen)
    }
    listen()

    const has = (): boolean => foreign || goneAt > now
    const answer = <T>(value: T): Promise<T> => new Promise(resolve => deliver(random() * 20, () => resolve(value)))
    const parts = (): SeatParts => ({
      ...{ store, snapshot, clock, log: silentLog },
      self: { node: name, instance: 'i', boot: 'b' },
      addresses: {
        link: () => answer({ index: 2, mac: name }),
        on: () => answer([`192.0.2.${names.indexOf(name) + 1}/24`]),
        ours: () => answer(has() ? [{ dev: 'eth0', address: floating.cidr }] : []),
        put(_, seconds) {
          goneAt = now + seconds * 1000 + random() * lateMs
          return answer(undefined)
        },
        remove() {
          goneAt = 0
          return answer(undefined)
        },
      },
      wire: {
        async probe() {
          for (let i = 0; i < 3; i++) {
            const found = host.link
              ? hosts.find(other => other.host.link && other.name !== name && other.has())
              : undefined
            if (found) return answer(found.name)
            await new Promise<void>(resolve => clock.after(80, resolve))
          }
          return undefined
        },
        announce: async () => {},
      },
    })
    const handle = Object.assign(host, {
      name,
      freeze(on: boolean) {
        frozen = on
        if (!on) for (const run of waiting.splice(0)) at(0, run)
      },
      kill() {
        life++
        seat = undefined
        alive.delete(name)
        waiting.length = 0
      },
      async stop() {
        const mine = life
        await seat?.close(true)
        if (mine === life) handle.kill()
      },
      start() {
        frozen = false
        life++
        alive.add(name)
        seat = openSeat(floating, parts())
        tell()
      },
      drain(on: boolean) {
        if (on) drained.add(name)
        else drained.delete(name)
        revision++
        for (const each of told) each()
      },
      foreign(on: boolean) {
        foreign = on
      },
    })
    // presence says nothing here: every host may try
    for (const one of names) (snapshot.presence as Map<string, unknown>).set(one, {})
    handle.start()
    return { name, host: handle as SimHost, has, seat: () => seat }
  }
  const hosts: ReturnType<typeof open>[] = []
  for (const name of names) hosts.push(open(name))

  return {
    get now() {
      return now
    },
    hosts: hosts.map(({ host }) => host),
    holders: () => hosts.filter(host => host.has()).map(({ name }) => name),
    storeUp(on) {
      up = on
      if (on) for (const grant of grants.values()) grant.expires = now + grant.ttl
    },
    async run(ms, check = () => {}) {
      const until = now + ms
      for (;;) {
        let next = -1
        for (const [i, event] of events.entries()) {
          const best = events[next]
          if (!best || event.at < best.at || (event.at === best.at && event.order < best.order)) next = i
        }
        const event = events[next]
        if (!event || event.at > until) break
        events.splice(next, 1)
        now = event.at
        event.run()
        await new Promise(setImmediate)
        check()
      }
      now = until
    },
    async close() {
      for (const { host } of hosts) host.kill()
      events.length = 0
    },
  }
}

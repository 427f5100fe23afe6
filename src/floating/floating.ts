// SPDX-License-Identifier: Apache-2.0
// All floating addresses as this host sees them: a seat for each that is wanted, closed when it is wanted no more.
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { keyedQueue } from '../base/queue.ts'
import { contains, parseInterface } from '../model/address.ts'
import type { Floating } from '../model/floating.ts'
import { wantedFloating } from '../model/floating-hosts.ts'
import { openSeat, type Seat, type SeatParts } from './seat.ts'

export interface FloatingAddresses extends Closeable {
  /** Records of these tables have changed. */
  look(): void
  /** Plain address → why this host could not take it. */
  readonly problems: ReadonlyMap<string, string>
  /** What is here stays, for a weftd that comes soon. */
  close(): Promise<void>
}

/** Tables that a seat looks at. */
export const floatingTables: ReadonlySet<string> = new Set(['services', 'floating', 'nodes', 'presence', 'networks'])

/** The MAC of a machine that has it; undefined: nobody answered, or this host is not on that subnet. */
export const whoHas = async (
  { addresses, wire }: Pick<SeatParts, 'addresses' | 'wire'>,
  { address, cidr, dev }: Floating,
  signal: AbortSignal,
): Promise<string | undefined> => {
  const { prefix } = parseInterface(cidr)
  const link = await addresses.link(dev)
  if (!link || !(await addresses.on(dev)).some(one => contains(prefix, parseInterface(one).address))) return undefined
  return wire.probe(link, address, AbortSignal.any([signal, AbortSignal.timeout(3000)]))
}

export const openFloating = (parts: SeatParts): FloatingAddresses => {
  const { snapshot, addresses, log } = parts
  const seats = new Map<string, { readonly of: string; readonly seat: Seat }>()
  const queue = keyedQueue() // by address: a seat opens when the one before it has left
  let closed = false

  const seatsOf = (): void => {
    const wanted = wantedFloating(snapshot)
    for (const [address, { of, seat }] of seats) {
      const still = wanted.get(address)
      if (still && JSON.stringify(still) === of) seat.poke()
      else {
        seats.delete(address)
        void queue.run(address, () => seat.close(false))
      }
    }
    for (const [address, floating] of wanted)
      if (!seats.has(address)) {
        const of = JSON.stringify(floating)
        const opened = queue.run(address, async () => openSeat(floating, parts))
        seats.set(address, { of, seat: later(opened) })
      }
  }

  /** What a weftd before us left, and nobody asks for any more. */
  const sweep = async (): Promise<void> => {
    try {
      const wanted = new Set([...wantedFloating(snapshot).values()].map(({ dev, cidr }) => `${dev} ${cidr}`))
      for (const one of await addresses.ours())
        if (!wanted.has(`${one.dev} ${one.address}`)) await addresses.remove(one)
    } catch (error) {
      log.warn({ err: describe(error) }, 'floating addresses of before not removed')
    }
  }
  void sweep()

  return {
    look() {
      if (!closed) seatsOf()
    },
    get problems() {
      return new Map(
        [...seats].flatMap(([address, { seat }]) => (seat.problem === undefined ? [] : [[address, seat.problem]])),
      )
    },
    async close() {
      closed = true
      await Promise.all([...seats.values()].map(({ seat }) => seat.close(true)))
      await queue.idle()
    },
  }
}

/** A seat that is still to be opened. */
const later = (opening: Promise<Seat>): Seat => {
  let seat: Seat | undefined
  void opening.then(opened => {
    seat = opened
  })
  return {
    poke: () => seat?.poke(),
    get problem() {
      return seat?.problem
    },
    close: async restart => (await opening).close(restart),
  }
}

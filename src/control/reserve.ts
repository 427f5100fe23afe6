// SPDX-License-Identifier: Apache-2.0
// This host's reserve: addresses that are claimed beforehand, and what was decided with them while the store was away.
// Kept on disk, and only what is there counts: an address is noted after its claim is answered, and struck out before
// anything else is done with the claim. So whatever was answered and not heard, whenever weftd was killed, an address
// of the list is this node's, and an address that was given to a container is in it or in the store.
//
// `spare` → `taken` by RequestAddress → `bound` by CreateEndpoint → published (control/publication), or `used`: its
// endpoint is gone and it rests.
import type { Clock } from '../base/clock.ts'
import { ConflictError } from '../base/errors.ts'
import { isPairs, readState, writeDurably } from '../base/file.ts'
import { keyedQueue } from '../base/queue.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Mirror } from '../store/mirror.ts'

/** `since`: ms since 1970, of the last change. */
export interface Held {
  readonly network: NetworkId
  readonly address: string
  readonly state: 'spare' | 'taken' | 'bound' | 'used'
  readonly since: number
}

export interface Reserve {
  /** Nobody's yet. */
  spares(network: NetworkId): readonly string[]
  held(network: NetworkId, address: string): Held | undefined
  all(): readonly Held[]
  /** Endpoints that the store does not have yet, as far as is known. */
  endpoints(): readonly Endpoint[]
  has(endpoint: EndpointId): boolean
  /** Their claims are answered and in the mirror. */
  add(network: NetworkId, addresses: readonly string[]): Promise<void>
  /** Strikes out those that are in one of the states: no longer this host's by itself. Gives them. */
  forgo(
    network: NetworkId,
    addresses: readonly string[],
    states?: readonly Exclude<Held['state'], 'bound'>[],
  ): Promise<readonly string[]>
  /** One of those that `fits`, the longest unused first; undefined: none is left. */
  take(network: NetworkId, fits: (address: string) => boolean): Promise<string | undefined>
  /** Taken, and no endpoint came. */
  giveBack(network: NetworkId, address: string): Promise<void>
  /** Shows the endpoint to everybody here, as if the store had it. CONFLICT when not all its addresses are taken ones. */
  bind(endpoint: Endpoint): Promise<void>
  /** undefined: it is not, or no longer, an endpoint of the reserve: the store has it. */
  change(endpoint: EndpointId, next: (now: Endpoint) => Endpoint): Promise<Endpoint | undefined>
  /** Work with an endpoint, during which it does not change; `published` ends it. */
  exclusively<T>(endpoint: EndpointId, work: (now: Endpoint) => Promise<T>): Promise<T | undefined>
  /** Inside `exclusively`: the store has it, and the mirror shows that. */
  published(endpoint: EndpointId): Promise<void>
  /** Its addresses rest from now on. Unknown ones: nothing happens. */
  drop(endpoint: EndpointId): Promise<void>
  /** Those that have been in this state for so long are spare again. */
  expire(state: 'taken' | 'used', ms: number): Promise<void>
}

interface State {
  readonly held: Map<string, Held>
  readonly endpoints: Map<EndpointId, Endpoint>
}

/** Throws INTERNAL for a file that cannot be read: without it addresses of running containers would be given again. */
export const openReserve = async (
  path: string,
  clock: Pick<Clock, 'now'>,
  mirror: Pick<Mirror, 'show'>,
): Promise<Reserve> => {
  const remedy = 'restore it, or remove it and start the containers of this host again'
  const known = await readState(path, remedy, isFile)
  let state: State = {
    held: new Map(known?.held.map(one => [nameOf(one), one])),
    endpoints: new Map(
      known?.endpoints.map(([key, value]) => {
        const endpoint = decode('endpoint', key, value)
        return [endpoint.id, endpoint]
      }),
    ),
  }
  const queue = keyedQueue()

  const show = (endpoint: Endpoint): void =>
    mirror.show(keys.endpoint(endpoint.network, endpoint.id), encode('endpoint', endpoint))
  for (const endpoint of state.endpoints.values()) show(endpoint)

  /** `next` changes a copy, which counts when it is on the disk. */
  const decide = <T>(next: (draft: State) => T): Promise<T> =>
    queue.run('file', async () => {
      const draft = { held: new Map(state.held), endpoints: new Map(state.endpoints) }
      const result = next(draft)
      const text = textOf(draft)
      if (text !== textOf(state)) await writeDurably(path, text)
      state = draft
      return result
    })
  const put = (draft: State, network: NetworkId, address: string, becomes: Held['state']): void => {
    const held = { network, address, state: becomes, since: clock.now() }
    draft.held.delete(nameOf(held)) // last in its order
    draft.held.set(nameOf(held), held)
  }
  const inTurn = <T>(endpoint: EndpointId, work: () => Promise<T>): Promise<T> => queue.run(`e ${endpoint}`, work)

  return {
    spares: network =>
      [...state.held.values()]
        .filter(held => held.network === network && held.state === 'spare')
        .map(({ address }) => address),
    held: (network, address) => state.held.get(nameOf({ network, address })),
    all: () => [...state.held.values()],
    endpoints: () => [...state.endpoints.values()],
    has: endpoint => state.endpoints.has(endpoint),
    add: (network, addresses) =>
      decide(draft => {
        for (const address of addresses)
          if (!draft.held.has(nameOf({ network, address }))) put(draft, network, address, 'spare')
      }),
    forgo: (network, addresses, states = ['spare', 'used']) =>
      decide(draft =>
        addresses.filter(address => {
          const name = nameOf({ network, address })
          const held = draft.held.get(name)
          return held && held.state !== 'bound' && states.includes(held.state) && draft.held.delete(name)
        }),
      ),
    take: (network, fits) =>
      decide(draft => {
        for (const held of draft.held.values()) {
          if (held.network !== network || held.state !== 'spare' || !fits(held.address)) continue
          put(draft, network, held.address, 'taken')
          return held.address
        }
        return undefined
      }),
    giveBack: (network, address) =>
      decide(draft => {
        if (draft.held.get(nameOf({ network, address }))?.state === 'taken') put(draft, network, address, 'spare')
      }),
    bind: endpoint =>
      inTurn(endpoint.id, async () => {
        const { id, network, addresses } = endpoint
        await decide(draft => {
          for (const address of addresses)
            if (draft.held.get(nameOf({ network, address }))?.state !== 'taken')
              throw new ConflictError(`address ${address} is no longer kept for endpoint ${id.slice(0, 12)}`)
          draft.endpoints.set(id, endpoint)
          for (const address of addresses) put(draft, network, address, 'bound')
        })
        show(endpoint)
      }),
    change: (endpoint, next) =>
      inTurn(endpoint, async () => {
        const now = state.endpoints.get(endpoint)
        if (!now) return undefined
        const changed = next(now)
        if (JSON.stringify(changed) === JSON.stringify(now)) return now
        await decide(draft => draft.endpoints.set(endpoint, changed))
        show(changed)
        return changed
      }),
    exclusively: (endpoint, work) =>
      inTurn(endpoint, async () => {
        const now = state.endpoints.get(endpoint)
        return now && work(now)
      }),
    published: endpoint =>
      decide(draft => {
        const { network, addresses } = draft.endpoints.get(endpoint)!
        draft.endpoints.delete(endpoint)
        for (const address of addresses) draft.held.delete(nameOf({ network, address }))
      }),
    drop: endpoint =>
      inTurn(endpoint, async () => {
        const gone = state.endpoints.get(endpoint)
        if (!gone) return
        const { network, addresses } = gone
        await decide(draft => {
          draft.endpoints.delete(endpoint)
          for (const address of addresses) put(draft, network, address, 'used')
        })
        mirror.show(keys.endpoint(network, endpoint), undefined)
      }),
    async expire(from, ms) {
      const isDue = (one: Held): boolean => one.state === from && Math.abs(clock.now() - one.since) > ms
      if (![...state.held.values()].some(isDue)) return // asked for at every look
      await decide(draft => {
        for (const one of [...draft.held.values()]) if (isDue(one)) put(draft, one.network, one.address, 'spare')
      })
    },
  }
}

const nameOf = ({ network, address }: { network: NetworkId; address: string }): string => `${network} ${address}`

interface File {
  readonly v: 1
  readonly held: readonly Held[]
  /** Key and value, as they are to be in the store. */
  readonly endpoints: readonly (readonly [string, string])[]
}

const textOf = ({ held, endpoints }: State): string =>
  JSON.stringify({
    v: 1,
    held: [...held.values()],
    endpoints: [...endpoints.values()].map(one => [keys.endpoint(one.network, one.id), encode('endpoint', one)]),
  } satisfies File)

const states: readonly unknown[] = ['spare', 'taken', 'bound', 'used'] satisfies readonly Held['state'][]

/** Throws for an endpoint that cannot be read. */
const isFile = (json: unknown): json is File => {
  const { v, held, endpoints } = Object(json) as { v?: unknown; held?: unknown; endpoints?: unknown }
  if (v !== 1 || !Array.isArray(held) || !isPairs(endpoints)) return false
  for (const [key, value] of endpoints) decode('endpoint', key, value)
  return held.every((one: Partial<Held>) => {
    const { network, address, state, since } = Object(one) as Partial<Held>
    return (
      typeof network === 'string' && typeof address === 'string' && states.includes(state) && Number.isFinite(since)
    )
  })
}

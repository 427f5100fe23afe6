// SPDX-License-Identifier: Apache-2.0
// Who is behind an endpoint: name, labels, aliases, compose project and service, from Docker's event stream and its
// container list; never inside a driver call. Also finds endpoints that the engine no longer has.
import { constants } from 'node:os'
import { backoff } from '../base/backoff.ts'
import { sleep } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { keyedQueue } from '../base/queue.ts'
import type { Bindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import type { Departures } from '../control/departures.ts'
import type { Endpoints } from '../control/endpoints.ts'
import type { Holdings } from '../control/holdings.ts'
import type { Withheld } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { vipService } from '../model/service.ts'
import { type Engine, type EngineContainer, type EngineEvent, isSilent, type ListedContainer } from './engine.ts'
import type { Identity } from './identity.ts'
import type { Starts } from './starts.ts'

export interface Workloads extends Closeable {
  /** Does the engine answer, and since when not (ISO 8601)? */
  readonly engineError: string | undefined
  /** Absent until it has answered. */
  readonly engineVersion: string | undefined
  close(): Promise<void>
}

/** An endpoint that the engine does not list is erased after this, ms. */
const graceMs = 30_000
const auditEveryMs = 60_000 // a multiple of a third of the grace
const pingEveryMs = 10_000
/** Who was told to stop and runs after this, ms, has not taken it so. */
const stillRunsMs = 60_000
/** States of a container that has what it had: Docker's GET /containers/json, State. */
const lives: ReadonlySet<string> = new Set(['running', 'paused', 'restarting'])

export interface WorkloadsParts {
  readonly context: Context
  readonly engine: Engine
  readonly endpoints: Endpoints
  readonly departures: Departures
  readonly holdings: Pick<Holdings, 'endpoints'>
  /** Networks of this engine came or went, or the engine is back. */
  readonly onNetworks: () => void
  readonly bindings: Pick<Bindings, 'byDocker'>
  readonly identity: Identity
  readonly starts: Starts
}

export const openWorkloads = ({
  context,
  engine,
  endpoints,
  departures,
  holdings,
  onNetworks,
  bindings,
  identity,
  starts,
}: WorkloadsParts): Workloads => {
  const { mirror, clock, log } = context
  const stop = new AbortController()
  const missing = openHoldDown<EndpointId>(clock)
  let engineError: string | undefined = 'not asked yet'
  let silence: string | undefined // of one that hangs: its event stream stays open
  let engineVersion: string | undefined

  const limit = (): AbortSignal => AbortSignal.any([stop.signal, AbortSignal.timeout(8000)])

  const identify = async (containerId: string): Promise<void> => {
    const container = await engine.container(containerId)
    const ending = signalNumber(container.Config.StopSignal ?? '')
    if (ending === undefined) stopSignals.delete(containerId)
    else stopSignals.set(containerId, ending)
    const ours = new Map(holdings.endpoints())
    for (const [, attached] of Object.entries(container.NetworkSettings.Networks ?? {})) {
      const network = ours.get(attached.EndpointID)
      if (network === undefined) continue
      const workload = await identity(container, attached.Aliases ?? [])
      await endpoints.identify(network, attached.EndpointID, workload, withheldOf(container), limit())
    }
    unseen.delete(containerId)
  }

  const queue = keyedQueue() // events of a container in their order, containers beside each other
  const stopSignals = new Map<string, number>() // of containers that have one of their own
  const unseen = new Set<string>() // containers that could not be looked at, as while a long start holds them locked
  const destroyed = (container: string): void => {
    stopSignals.delete(container)
    unseen.delete(container)
    starts.destroyed(container)
  }
  /** What ends a container, not what it is asked by: SIGINT, SIGQUIT, SIGKILL, SIGTERM, systemd's, and its own. */
  const stops = (container: string, signal: number): boolean =>
    [2, 3, 9, 15].includes(signal) || signal > 34 || stopSignals.get(container) === signal
  const told = new Set<EndpointId>() // to stop, a moment ago
  /**
   * Told to stop: no new connections, at once. Who goes on all the same gets them again. `there` when the signal came:
   * a start after it gives the container other endpoints.
   */
  const stopping = async (container: string, there: ReadonlyMap<EndpointId, NetworkId>): Promise<void> => {
    for (const [endpoint, network] of there) {
      const record = mirror.snapshot.endpoints(network).get(endpoint)?.record
      if (record?.workload?.container !== container) continue
      if (!told.has(endpoint)) {
        told.add(endpoint)
        clock.after(stillRunsMs, () => {
          told.delete(endpoint)
          if (mirror.snapshot.endpoints(network).has(endpoint))
            void persist('stop', () => identify(container), container)
        })
      }
      if (record.ports.length > 0 || vipService(record) !== undefined)
        await endpoints.withhold(network, endpoint, 'stopping', limit())
    }
  }

  const due = new Set<string>()
  /** Behind its events, and beside other containers: one that does not answer keeps nobody waiting. */
  const catchUp = (container: string): void => {
    if (due.has(container)) return
    due.add(container)
    void queue.run(container, () => {
      due.delete(container)
      return persist('audit', () => identify(container), container)
    })
  }

  /**
   * But for what a container has that is being started: until its start is over the list shows it as it was before, and
   * the full look does not answer.
   */
  const release = async (lost: Map<EndpointId, NetworkId>, containers: readonly ListedContainer[]): Promise<void> => {
    const shown = new Map<string, NetworkId>() // by what the list calls them
    for (const { Id, Name } of await engine.networks()) {
      const network = bindings.byDocker(Id)?.network
      if (network !== undefined) shown.set(Id, network).set(Name, network)
    }
    const look = async ({ Id, NetworkSettings }: ListedContainer): Promise<void> => {
      const names = Object.entries(NetworkSettings?.Networks ?? {}).flatMap(([name, { NetworkID }]) => [
        name,
        NetworkID,
      ])
      const its = new Set(names.map(name => shown.get(name)))
      const inDoubt = [...lost].filter(([, network]) => its.has(network)).map(([endpoint]) => endpoint)
      if (inDoubt.length === 0) return
      try {
        const { State, NetworkSettings } = await engine.container(Id)
        if (!State.Running) return
        for (const { EndpointID } of Object.values(NetworkSettings.Networks ?? {})) lost.delete(EndpointID)
      } catch (error) {
        if (isSilent(error)) for (const endpoint of inDoubt) lost.delete(endpoint)
      }
    }
    await Promise.all(containers.filter(({ State }) => State !== 'running').map(look))
    for (const [endpoint, network] of lost) {
      log.warn({ endpoint: endpoint.slice(0, 12), network }, 'endpoint is unknown to the engine: released')
      await departures.add(network, endpoint)
    }
  }

  const compare = async (): Promise<void> => {
    const listed = new Map<EndpointId, ListedContainer>()
    const containers = await engine.containers()
    void starts.load(containers)
    // one that ended while Docker could not tell us keeps the id of what it had
    for (const container of containers.filter(({ State }) => lives.has(State)))
      for (const { EndpointID } of Object.values(container.NetworkSettings?.Networks ?? {}))
        if (EndpointID) listed.set(EndpointID, container)
    const lost = new Map<EndpointId, NetworkId>()
    const ours = new Map(holdings.endpoints())
    for (const [endpoint, network] of ours) {
      const container = listed.get(endpoint)
      if (container !== undefined) {
        missing.clear(endpoint)
        const record = mirror.snapshot.endpoints(network).get(endpoint)?.record
        // labels and aliases stay as they are while the endpoint lives
        const named = record?.workload !== undefined && container.Names?.includes(`/${record.workload.name}`)
        const stands = record?.withheld === listedState(container) || told.has(endpoint)
        if (!named || !stands) catchUp(container.Id) // events are lost while nobody listens, or the store takes nothing
        continue
      }
      if (!missing.held(endpoint, graceMs)) continue
      missing.clear(endpoint) // its time begins anew if it stays
      lost.set(endpoint, network)
    }
    missing.keep(endpoint => ours.has(endpoint))
    if (lost.size > 0) void queue.run('release', () => persist('release', () => release(lost, containers)))
  }
  const audit = (): Promise<void> => queue.run('audit', () => persist('audit', compare))

  const onEvent = async (
    { Type, Action, Actor }: EngineEvent,
    there: ReadonlyMap<EndpointId, NetworkId>,
  ): Promise<void> => {
    if (Type === 'network') {
      if (Action === 'create' || Action === 'destroy') onNetworks()
      const container = Actor.Attributes['container']
      if (Action === 'connect' && container) await identify(container)
    } else if (Type === 'container') {
      if (Action === 'start') {
        starts.running(Actor.ID)
        if (unseen.has(Actor.ID)) await identify(Actor.ID)
      } else if (Action === 'destroy') destroyed(Actor.ID)
      else if (Action === 'create' || Action === 'die') await starts.waiting(Actor.ID)
      else if (Action === 'kill' && stops(Actor.ID, Number(Actor.Attributes['signal']))) await stopping(Actor.ID, there)
      else if (/^(rename|pause|unpause|health_status)\b/.test(Action)) await identify(Actor.ID)
    }
  }

  /** What fails is tried again a few times, then the audit catches up. */
  const persist = async (
    action: string,
    work: () => Promise<void>,
    container?: string,
    attempts = 5,
  ): Promise<void> => {
    if (stop.signal.aborted) return
    try {
      await work()
    } catch (error) {
      if (stop.signal.aborted || (error instanceof WeftError && error.code === 'NOT_FOUND')) return
      log.warn({ action, container: container?.slice(0, 12), err: describe(error) }, 'event not taken up yet')
      if (container !== undefined) unseen.add(container)
      // an inspect waits for the container's lock: on a slow host longer than we do
      if (attempts > 1) clock.after(1000, () => void persist(action, work, container, attempts - 1))
    }
  }

  const follow = async (): Promise<void> => {
    const retry = backoff(200, 3000)
    while (!stop.signal.aborted) {
      const round = new AbortController()
      try {
        const stream = engine.events(AbortSignal.any([stop.signal, round.signal]))[Symbol.asyncIterator]()
        let next = stream.next() // subscribed before the list, so that nothing falls between
        next.catch(() => {})
        await engine.networks()
        engineVersion = await engine.version()
        engineError = silence = undefined
        onNetworks()
        void audit()
        for (let event = await next; !event.done; event = await next) {
          const { value } = event
          const container = value.Type === 'container' ? value.Actor.ID : value.Actor.Attributes['container']
          const there = new Map(value.Action === 'kill' ? holdings.endpoints() : [])
          void queue.run(container ?? value.Actor.ID, () =>
            persist(value.Action, () => onEvent(value, there), container),
          )
          retry.reset()
          next = stream.next()
          next.catch(() => {})
        }
        engineError = 'the event stream ended'
      } catch (error) {
        engineError = describe(error)
      } finally {
        round.abort(new Error('following anew'))
      }
      if (!stop.signal.aborted) await sleep(clock, retry.next(), stop.signal).catch(() => {})
    }
  }

  const patrol = async (): Promise<void> => {
    let rounds = 0
    while (!stop.signal.aborted) {
      await sleep(clock, graceMs / 3, stop.signal).catch(() => {})
      if (stop.signal.aborted || (engineError ?? silence) !== undefined || !mirror.status.available) continue
      if (++rounds % (auditEveryMs / (graceMs / 3)) === 0 || missing.size > 0) await audit()
    }
  }

  const listen = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await sleep(clock, pingEveryMs, stop.signal).catch(() => {})
      if (stop.signal.aborted || engineError !== undefined) continue // who follows asks anyway
      const before = silence
      silence = await engine.ping(stop.signal).then(() => undefined, describe)
      if (before === undefined || silence !== undefined) continue
      onNetworks()
      void audit()
    }
  }
  const working = Promise.all([follow(), patrol(), listen()])
  const unsubscribe = mirror.onAvailability(available => available && void audit())

  return {
    get engineError() {
      return engineError ?? silence
    },
    get engineVersion() {
      return engineVersion
    },
    async close() {
      stop.abort(new Error('closed'))
      unsubscribe()
      await working
      await queue.idle()
    },
  }
}

/** 'SIGWINCH', 'WINCH' or '28' → 28. */
const signalNumber = (text: string): number | undefined => {
  const known = constants.signals as Readonly<Record<string, number>>
  return /^\d+$/.test(text) ? Number(text) : (known[text] ?? known[`SIG${text}`])
}

/** The same from the list's text: 'Up 2 minutes (healthy)', '(unhealthy)', '(health: starting)', '(Paused)'. */
const listedState = ({ Status }: ListedContainer): Withheld | undefined => {
  const [, word] = /\((?:health: )?(starting|unhealthy|paused)\)$/i.exec(Status) ?? []
  return word?.toLowerCase() as Withheld | undefined
}

const withheldOf = ({ State: { Paused, Health } }: EngineContainer): Withheld | undefined => {
  if (Paused) return 'paused'
  return Health?.Status === 'starting' || Health?.Status === 'unhealthy' ? Health.Status : undefined
}

// SPDX-License-Identifier: Apache-2.0
// Every cluster network exists on every engine: creates what is missing here, removes what is gone from the cluster,
// and tells the cluster the name that Docker's user gave. One look at everything at a time, after each change and
// every half minute; always outside driver calls.
import { sleep, type Timer } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { openHoldDown } from '../base/hold-down.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Binding, Bindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import type { Departures } from '../control/departures.ts'
import { joinedHere, joinNamesake } from '../control/joining.ts'
import type { Networks } from '../control/networks.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import { bodyOf, driverName, joins, type NetworkWish, wishBody } from './bodies.ts'
import { creationMs, openCreations } from './creations.ts'
import type { Engine, EngineNetwork } from './engine.ts'
import { openHolders } from './holders.ts'
import { openRemovals } from './removals.ts'

export interface Replicas extends Closeable {
  /** Look again soon. */
  poke(): void
  /** The network whose creation on this engine we have asked for and not got yet. */
  readonly inFlight: NetworkId | undefined
  /**
   * Docker asks for a pool, '' for any. Answers the network whose replica we are having made with it: each of its pools is
   * asked for once. Else a user's command makes a network, perhaps of this name: what we are making goes again, and
   * nothing is made until the engine lists that one, 5 s at most; resolves within 3 s.
   */
  makeWay(pool: string, name: string | undefined): Promise<NetworkId | undefined>
  /** Docker's DeleteNetwork arrived: somebody typed `docker network rm`, if it was none of ours. On disk when it resolves. */
  deleted(docker: string): Promise<void>
  /**
   * Why a cluster network is not on this engine: name → reason. Or why a network of this engine is still there, although
   * the cluster has it no more: short Docker id → reason.
   */
  readonly problems: ReadonlyMap<string, string>
  /** `weft network create`: through this engine, as a user's docker network create would. Answers the cluster id. */
  create(request: NetworkWish, signal: AbortSignal): Promise<NetworkId>
  /** `weft network rm`: asks every engine; resolves when the record is gone. */
  remove(id: NetworkId, force: boolean, signal: AbortSignal): Promise<void>
  /** Resolves when a look that began after now has ended. */
  settled(): Promise<void>
  close(): Promise<void>
}

const settleMs = 10
const lookEveryMs = 30_000
/** For the engine to say who uses a network that somebody removes. */
const patienceMs = 1000
/** For a replica that is being made to be there, and gone again. */
const makeWayMs = 3_000
/** Longer than any driver call takes. */
const callMs = 10_000
/** A network that Docker's command made is made on the other engines after this: compose may be about to do it there. */
const replicaMs = 1000
/** A joined network that nobody uses is replaced after this. */
const quietMs = 60_000
/** Who has just made a network is about to use it. */
const youngMs = 10_000

const short = (docker: string): string => docker.slice(0, 12)

export const openReplicas = (
  context: Context,
  engine: Engine,
  bindings: Bindings,
  networks: Networks,
  departures: Pick<Departures, 'has' | 'addAll'>,
): Replicas => {
  const { mirror, node, clock, log } = context
  const stop = new AbortController()
  const problems = new Map<string, string>()
  const missing = openHoldDown<string>(clock) // Docker ids that are bound and not listed
  const unanswered = openHoldDown<string>(clock) // Docker ids that are listed, though we asked for their removal
  const nameless = openHoldDown<NetworkId>(clock)
  const names = new Map<string, string>() // Docker id → Docker name, of what is or was here under our eyes
  const fresh = openHoldDown<NetworkId>(clock) // networks of the cluster, once they are named
  const quiet = openHoldDown<string>(clock) // Docker ids that are joined and unused
  const joinings = new Map<string, number>() // Docker id → monotonic ms, of what was joined here under our eyes
  const creations = openCreations(context, bindings, clock)
  let listed: ReadonlySet<string> = new Set() // Docker ids, at the last look
  let inFlight: NetworkId | undefined
  let crossed: NetworkId | undefined // a user's command began meanwhile
  const asked = new Set<string>() // pools of the one in flight that Docker has asked for
  let timer: Timer | undefined
  let waiting: { readonly at: number; readonly timer: Timer } | undefined
  let running: Promise<void> | undefined
  let again = false

  const nameOf = (docker: string): string | undefined => names.get(docker)
  const holders = openHolders(context, engine, departures.has, nameOf)

  const signal = (): AbortSignal => AbortSignal.any([stop.signal, AbortSignal.timeout(8000)])
  const say = (name: string, problem: string): void => {
    if (problems.get(name) !== problem) log.warn({ network: name, problem }, 'network is not on this engine')
    problems.set(name, problem)
  }

  const look = async (): Promise<void> => {
    if (!mirror.status.available) return
    const there = new Map<string, EngineNetwork>()
    for (const network of await engine.networks()) if (network.Driver === driverName) there.set(network.Id, network)
    for (const docker of names.keys()) if (!bindings.byDocker(docker)) names.delete(docker)
    for (const { Id, Name } of there.values()) names.set(Id, Name)
    const joined = joinedHere(context)
    await each(joined, ([docker, network]) => bindings.rebind(docker, network)) // where we were stopped in between
    listed = new Set(there.keys())
    await each(bindings.all(), async binding => {
      const network = there.get(binding.docker)
      if (!network) return vanished(binding)
      missing.clear(binding.docker)
      // it may have yet to come to a removal to which it gave no answer
      if (binding.removal === 'weft' && unanswered.held(binding.docker, quietMs))
        await bindings.mark(binding.docker, undefined)
      if (joined.has(binding.docker)) return renew(binding)
      // further names of a network (weft.network) tell nothing new
      if (bindings.byNetwork(binding.network)?.docker === binding.docker) await introduce(binding, network)
    })
    await each(mirror.snapshot.networks.values(), async ({ record }) => {
      if (record.state.kind === 'removing') await removals.answer(record)
      else if (record.name === undefined) await forsaken(record)
      else if (isDue(record)) await replicate(record, record.name)
    })
    fresh.keep(id => mirror.snapshot.networks.has(id))
    quiet.keep(docker => joined.has(docker))
    unanswered.keep(docker => bindings.byDocker(docker)?.removal === 'weft')
    nameless.keep(id => {
      const known = mirror.snapshot.networks.get(id)
      return known !== undefined && known.record.name === undefined
    })
    for (const docker of joinings.keys()) if (!bindings.byDocker(docker)) joinings.delete(docker)
    // a record that is gone takes its replica with it; never one that has containers
    const moves = joinedHere(context)
    await each(bindings.all(), async ({ network, docker }) => {
      if (!mirror.snapshot.networks.has(moves.get(docker) ?? network)) await dissolve(docker)
    })
    const strays = new Set(
      [...bindings.all()]
        .filter(({ network }) => !mirror.snapshot.networks.has(network))
        .map(({ docker }) => short(docker)),
    )
    for (const name of problems.keys()) if (!mirror.snapshot.names.has(name) && !strays.has(name)) problems.delete(name)
  }
  /** One network that resists does not keep the others waiting. */
  const each = async <T>(items: Iterable<T>, work: (item: T) => Promise<void>): Promise<void> => {
    for (const item of [...items]) {
      if (stop.signal.aborted || !mirror.status.available) return
      await work(item).catch(error => {
        complain(error)
        lookAgain()
      })
    }
  }
  const complain = (error: unknown): void => {
    if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'networks not compared with the engine')
  }
  /** When what is waiting for its time may have held for it. */
  const lookAgain = (afterMs = callMs): void => {
    const at = clock.monotonic() + afterMs
    if (waiting && waiting.at <= at) return
    waiting?.timer.cancel()
    const timer = clock.after(afterMs, () => {
      waiting = undefined
      poke()
    })
    waiting = { at, timer }
  }

  const isYoung = (docker: string): boolean => clock.monotonic() - (joinings.get(docker) ?? -youngMs) < youngMs
  const removals = openRemovals({
    ...{ context, engine, bindings, networks, departures, holders },
    ...{ isYoung, lookAgain, signal },
  })

  /**
   * Bound and not listed: deleted by a command, or its creation is under way, or the engine lost it, as one that was
   * killed, or has another disk. Only a command is a wish; what was lost is made anew. Of a command whose call we did
   * not live to hear the engine's own memory tells, for as long as that lives.
   */
  const vanished = async ({ docker, network, removal }: Binding): Promise<void> => {
    const asked = removal === 'user' || (removal === undefined && (await engine.destroyed(docker)))
    if (asked) await bindings.mark(docker, 'user')
    else if (removal === undefined && !missing.held(docker, callMs)) return lookAgain()
    const others = [...bindings.all()].some(other => other.network === network && other.docker !== docker)
    const record = mirror.snapshot.networks.get(network)?.record
    if (record && !others && asked && !(await removals.ask(record, docker))) return
    if (record && !others && removal === undefined && !asked)
      log.warn({ network: record.name, docker: short(docker) }, 'network was lost by the engine: made anew')
    await bindings.unbind(docker)
    missing.clear(docker)
  }

  /** Made here, never named, and no network of this engine is it: its CreateNetwork was not answered. */
  const forsaken = async ({ id, origin, wanted }: Network): Promise<void> => {
    if (origin.node !== node) return
    if (bindings.byNetwork(id)) return nameless.clear(id)
    // who asked for it by name elsewhere may have joined it, and names it first
    if (!nameless.held(id, wanted === undefined ? callMs : 3 * callMs)) return lookAgain()
    try {
      await networks.removeNameless(id, signal())
      log.info({ id }, 'network removed from the cluster: it never got a name, no engine has it')
    } catch (error) {
      // endpoints on it: those that the engine does not have go first
      if (!(error instanceof WeftError && error.code === 'IN_USE')) throw error
    }
  }

  const introduce = async ({ network: id, docker }: Binding, network: EngineNetwork): Promise<void> => {
    const { Name, Labels, Attachable } = network
    const record = mirror.snapshot.networks.get(id)?.record
    if (record?.origin.by !== 'docker' || record.state.kind !== 'active') return
    // asked for by name here and there: who has it speaks for a host that was lost before it could
    const orphan = record.name === undefined && record.wanted !== undefined
    if (record.origin.node !== node && !(orphan && nameless.held(id, callMs))) return orphan ? lookAgain() : undefined
    const labelled = JSON.stringify(record.labels) === JSON.stringify(Labels ?? {})
    if (record.name === Name && labelled) return
    if (record.name !== undefined && record.name !== Name && Object.keys(record.labels ?? {}).length > 0) return
    // the one that had its name goes: its end lets us look again
    const holder = mirror.snapshot.names.get(record.wanted ?? Name)?.record.network
    if (holder !== undefined && mirror.snapshot.networks.get(holder)?.record.state.kind === 'removing') return
    const given = await networks.introduce(id, { name: Name, labels: Labels ?? {}, attachable: Attachable }, signal())
    if (given === undefined) return giveWay(id, docker, Name)
    if (given === record.name && labelled) return
    log.info({ network: given, id, docker: short(docker) }, 'network introduced to the cluster')
    if (given !== Name && record.options[joins] === undefined)
      say(Name, `another cluster network has this name; the one made here goes on as ${given}`)
  }

  const giveWay = async (id: NetworkId, docker: string, name: string): Promise<void> => {
    lookAgain(replicaMs) // if this fails
    const alone = ![...names].some(([other, its]) => its === name && other !== docker)
    const first = alone ? await joinNamesake(context, bindings, docker, id, name, signal()) : undefined
    if (first !== undefined) {
      again = true
      problems.delete(name)
      joinings.set(docker, clock.monotonic())
      log.info({ network: name, id: first, docker: short(docker) }, 'another host made a network of this name: joined')
      return
    }
    log.info({ network: name, id }, 'another host made a network of this name: ours gives way, nobody uses it yet')
    await networks.remove(id, signal()) // first: whoever starts a container on it just now is told to repeat
    await removals.discard(docker)
    again = true
  }

  /** Joined, it shows a subnet that it has not: a replica takes its place once nobody has used it for a while. */
  const renew = async ({ docker, network }: Binding): Promise<void> => {
    if (mirror.snapshot.networks.get(network)?.record.state.kind !== 'active') return
    if (await holders.used(docker)) return quiet.clear(docker)
    if (!quiet.held(docker, quietMs)) return
    log.info(
      { network: names.get(docker), id: network, docker: short(docker) },
      'joined network makes way to a replica',
    )
    await removals.discard(docker)
  }

  /** Missing here, and not just made elsewhere. */
  const isDue = ({ id, name, origin }: Network): boolean => {
    const held = fresh.held(id, replicaMs)
    if (bindings.byNetwork(id)) {
      problems.delete(name!)
      return false
    }
    if (!held && origin.by === 'docker') lookAgain(replicaMs)
    return held || origin.by === 'weft'
  }

  const replicate = async (record: Network, name: string): Promise<void> => {
    if (creations.underWay(name, listed)) return lookAgain(replicaMs)
    inFlight = record.id
    asked.clear()
    try {
      const docker = await engine.createNetwork(bodyOf(record, name))
      problems.delete(name)
      if (crossed === record.id) return await removals.discard(docker).finally(() => lookAgain(replicaMs))
      log.info({ network: name, id: record.id, docker: short(docker) }, 'network created on this engine')
    } catch (error) {
      if (bindings.byNetwork(record.id) || mirror.snapshot.networks.get(record.id)?.record.state.kind !== 'active')
        return
      say(
        name,
        error instanceof WeftError && error.code === 'EXISTS'
          ? 'a network that is not this one has its name here'
          : describe(error),
      )
    } finally {
      inFlight = crossed = undefined
    }
  }

  const dissolve = async (docker: string): Promise<void> => {
    if (await holders.used(docker)) {
      say(
        short(docker),
        'its cluster network is gone, but containers here still use it: remove them, then docker network rm',
      )
      return
    }
    await removals.discard(docker)
  }

  const poke = (): void => {
    if (stop.signal.aborted) return
    if (running) {
      again = true
      return
    }
    timer?.cancel()
    running = new Promise<void>(resolve => clock.after(settleMs, resolve))
      .then(look)
      .catch(complain)
      .finally(() => {
        running = undefined
        if (stop.signal.aborted) return
        if (again) {
          again = false
          poke()
        } else timer = clock.after(lookEveryMs, poke)
      })
  }

  const unsubscribe = mirror.subscribe(changed => {
    // an endpoint that went may be the last of a network without a name
    const concerns = (key: readonly string[]): boolean =>
      key[0] === 'networks' || (key[0] === 'endpoints' && [...nameless.keys()].includes(key[1]!))
    if (changed === 'all' || changed.some(concerns)) poke()
    for (const [kind, id] of changed === 'all' ? [] : changed)
      if (kind === 'networks' && mirror.snapshot.networks.get(id!)?.record.state.kind === 'removing')
        clock.after(patienceMs, () => void each([id!], removals.vetoWithoutEngine))
  })

  // what was asked for meanwhile
  const forget = mirror.onAvailability(available => available && poke())

  return {
    poke,
    async makeWay(pool, name) {
      const making = inFlight === undefined ? undefined : mirror.snapshot.networks.get(inFlight)?.record
      if (making?.pools.some(({ prefix }) => prefix === pool) && !asked.has(pool)) {
        asked.add(pool)
        return making.id
      }
      creations.begin(name)
      clock.after(creationMs, poke)
      if (inFlight === undefined) return undefined
      crossed = inFlight
      await Promise.race([running, sleep(clock, makeWayMs, stop.signal)])
      creations.begin(name)
      return undefined
    },
    get inFlight() {
      return inFlight
    },
    async deleted(docker) {
      // nor is the engine's end of a creation that failed anybody's wish
      const known = bindings.byDocker(docker)
      if (known && known.removal === undefined && known.network !== inFlight) await bindings.mark(docker, 'user')
      poke()
    },
    problems,
    async create(wish, signal) {
      if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(wish.name))
        throw new WeftError(
          'INVALID',
          `network name ${JSON.stringify(wish.name)}: letters, digits, dots, dashes and underscores`,
        )
      if (mirror.snapshot.names.has(wish.name))
        throw new WeftError(
          'EXISTS',
          `the cluster has a network ${wish.name} already: see weft network show ${wish.name}`,
        )
      const docker = await engine.createNetwork(wishBody(wish))
      const binding = bindings.byDocker(docker)
      if (!binding) throw new WeftError('INTERNAL', `docker made network ${wish.name}, but did not ask weft for it`)
      const face = { name: wish.name, labels: wish.labels, attachable: wish.attachable }
      const joined = joinedHere(context).has(docker)
      if (joined || (await networks.introduce(binding.network, face, signal)) === undefined) {
        poke() // which takes away what has been made, or joins it and has a replica take its place later
        throw new WeftError('EXISTS', `another host made a network ${wish.name} at the same moment`)
      }
      await networks.update(binding.network, now => ({ ...now, origin: { by: 'weft', node } }), signal)
      while (mirror.snapshot.networks.get(binding.network)?.record.origin.by !== 'weft') await sleep(clock, 5, signal)
      return binding.network
    },
    async remove(id, force, signal) {
      const state = { kind: 'removing', since: new Date(clock.now()).toISOString(), by: node, acks: [] } as const
      await networks.update(id, now => ({ ...now, state: force ? { ...state, force } : state }), signal)
      for (;;) {
        const record = mirror.snapshot.networks.get(id)?.record
        if (!record) return
        const title = JSON.stringify(record.name ?? id)
        if (record.state.kind === 'active')
          throw new WeftError('IN_USE', `network ${title} stays: ${record.state.veto?.why ?? 'a host refused'}`)
        const { acks } = record.state
        await sleep(clock, 50, signal).catch(cause => {
          const late = [...mirror.snapshot.presence.keys()].filter(name => !acks.includes(name))
          throw new WeftError(
            'TIMEOUT',
            `network ${title} is being removed, and ${late.join(', ') || 'the store'} has not agreed yet: it goes by itself when Docker answers there, see weft status of that host`,
            { cause },
          )
        })
      }
    },
    async settled() {
      poke()
      while (running) await running
    },
    async close() {
      stop.abort(new Error('closed'))
      unsubscribe()
      forget()
      timer?.cancel()
      waiting?.timer.cancel()
      await running
    },
  }
}

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
import type { Networks } from '../control/networks.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import type { CreateNetworkBody, Engine, EngineNetwork } from './engine.ts'

export const driverName = 'weft'

export interface Replicas extends Closeable {
  /** Look again soon. */
  poke(): void
  /** The network whose creation on this engine we have asked for and not got yet. */
  readonly inFlight: NetworkId | undefined
  /** A user is about to make this network here: whatever of it we are making goes again; resolves within 3 s. */
  makeWay(name: string): Promise<void>
  /** Docker's DeleteNetwork arrived. */
  deleted(docker: string): void
  /**
   * Why a cluster network is not on this engine: name → reason. Or why a network of this engine is still there, although
   * the cluster has it no more: short Docker id → reason.
   */
  readonly problems: ReadonlyMap<string, string>
  /** `weft network create`: through this engine, as a user's docker network create would. Answers the cluster id. */
  create(request: NetworkWish, signal: AbortSignal): Promise<NetworkId>
  /** `weft network rm`: asks every engine; resolves when the record is gone. */
  remove(id: NetworkId, signal: AbortSignal): Promise<void>
  /** Resolves when a look that began after now has ended. */
  settled(): Promise<void>
  close(): Promise<void>
}

export interface NetworkWish {
  readonly name: string
  /** range and gateway may be empty: not given. */
  readonly pools: readonly { prefix: string; range: string; gateway: string; aux: Readonly<Record<string, string>> }[]
  readonly ipv6: boolean
  readonly internal: boolean
  readonly attachable: boolean
  readonly options: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
}

const settleMs = 10
const lookEveryMs = 30_000
const removalMs = 10_000
/** Longer than any driver call takes. */
const callMs = 10_000
const makeWayMs = 5_000

const short = (docker: string): string => docker.slice(0, 12)

export const openReplicas = (context: Context, engine: Engine, bindings: Bindings, networks: Networks): Replicas => {
  const { mirror, node, clock, log } = context
  const stop = new AbortController()
  const problems = new Map<string, string>()
  const ourRemovals = new Set<string>() // Docker ids whose deletion we asked for
  const deletions = new Set<string>() // Docker ids that a user deleted, to be thought about outside the call
  const missing = openHoldDown<string>(clock) // Docker ids that are bound and not listed
  const nameless = openHoldDown<NetworkId>(clock)
  const names = new Map<string, string>() // Docker id → Docker name, of what is or was here under our eyes
  const expected = new Map<string, number>() // name of a network that a user is making here → monotonic ms until when
  let inFlight: NetworkId | undefined
  let timer: Timer | undefined
  let waiting: Timer | undefined
  let running: Promise<void> | undefined
  let again = false

  const signal = (): AbortSignal => AbortSignal.any([stop.signal, AbortSignal.timeout(8000)])
  const say = (name: string, problem: string): void => {
    if (problems.get(name) !== problem) log.warn({ network: name, problem }, 'network is not on this engine')
    problems.set(name, problem)
  }

  const look = async (): Promise<void> => {
    if (!mirror.status.available) return
    const there = new Map((await engine.networks()).filter(isOurs).map(network => [network.Id, network]))
    for (const docker of names.keys()) if (!bindings.byDocker(docker)) names.delete(docker)
    for (const { Id, Name } of there.values()) names.set(Id, Name)
    await each(bindings.all(), async binding => {
      const network = there.get(binding.docker)
      if (!network) return vanished(binding)
      missing.clear(binding.docker)
      ourRemovals.delete(binding.docker) // the engine refused it
      // further names of a network (weft.network) tell nothing new
      if (bindings.byNetwork(binding.network)?.docker === binding.docker) await introduce(binding, network)
    })
    await each(mirror.snapshot.networks.values(), async ({ record }) => {
      if (record.state.kind === 'removing') await removing(record)
      else if (record.name === undefined) await forsaken(record)
      else if (!bindings.byNetwork(record.id)) await replicate(record, record.name)
    })
    for (const id of nameless.keys()) {
      const known = mirror.snapshot.networks.get(id)
      if (!known || known.record.name !== undefined) nameless.clear(id)
    }
    // a record that is gone takes its replica with it; never one that has containers
    await each(bindings.all(), async ({ network, docker }) => {
      if (!mirror.snapshot.networks.has(network)) await dissolve(docker)
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
      await work(item).catch(complain)
    }
  }
  const complain = (error: unknown): void => {
    if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'networks not compared with the engine')
  }
  /** When what is waiting for its time may have held for it. */
  const lookAgain = (): void => {
    waiting ??= clock.after(callMs, () => {
      waiting = undefined
      poke()
    })
  }

  /** Bound and not listed: deleted by a command, or its creation is under way, or it went while we were away. */
  const vanished = async ({ docker, network }: Binding): Promise<void> => {
    if (!deletions.has(docker) && !ourRemovals.has(docker) && !missing.held(docker, callMs)) return lookAgain()
    const others = [...bindings.all()].some(other => other.network === network && other.docker !== docker)
    const record = mirror.snapshot.networks.get(network)?.record
    if (record && !others && !ourRemovals.has(docker)) await askForRemoval(record, docker)
    await bindings.unbind(docker)
    deletions.delete(docker)
    ourRemovals.delete(docker)
    missing.clear(docker)
  }

  const askForRemoval = async (record: Network, docker: string): Promise<void> => {
    const about = { network: record.name, id: record.id }
    if (record.origin.by === 'weft')
      return log.warn(about, 'docker network rm removed a replica; it comes back, use weft network rm')
    // Docker itself counts running containers only
    if (await used(docker, record.name))
      return log.warn(about, 'docker network rm removed a network that containers of this host use; it comes back')
    // the store's word counts: a veto of our own may not have come back to the mirror yet
    await networks.update(
      record.id,
      now =>
        now.state.kind === 'active'
          ? { ...now, state: { kind: 'removing', since: new Date(clock.now()).toISOString(), by: node, acks: [node] } }
          : undefined,
      signal(),
    )
    log.info(about, 'docker network rm: asking the cluster to remove it')
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
    if (record.name === Name && JSON.stringify(record.labels) === JSON.stringify(Labels ?? {})) return
    if (
      record.name !== undefined &&
      record.name !== Name &&
      record.labels !== undefined &&
      Object.keys(record.labels).length > 0
    )
      return
    // the one that had its name goes: its end lets us look again
    const holder = mirror.snapshot.names.get(record.wanted ?? Name)?.record.network
    if (holder !== undefined && mirror.snapshot.networks.get(holder)?.record.state.kind === 'removing') return
    const given = await networks.introduce(id, { name: Name, labels: Labels ?? {}, attachable: Attachable }, signal())
    if (given === undefined) {
      log.info({ network: Name, id }, 'another host made a network of this name: ours gives way, nobody uses it yet')
      await networks.remove(id, signal()) // first: whoever starts a container on it just now is told to repeat
      await discard(docker)
      again = true
      return
    }
    log.info({ network: given, id, docker: short(docker) }, 'network introduced to the cluster')
    if (given !== Name && record.options[joins] === undefined)
      say(Name, `another cluster network has this name; the one made here goes on as ${given}`)
  }

  const discard = async (docker: string): Promise<void> => {
    ourRemovals.add(docker)
    await engine.removeNetwork(docker)
    await bindings.unbind(docker)
    ourRemovals.delete(docker)
  }

  const isExpected = (name: string): boolean => (expected.get(name) ?? 0) > clock.monotonic()

  const replicate = async (record: Network, name: string): Promise<void> => {
    if (isExpected(name)) return
    inFlight = record.id
    try {
      const docker = await engine.createNetwork(bodyOf(record, name))
      problems.delete(name)
      if (isExpected(name)) return await discard(docker)
      log.info({ network: name, id: record.id, docker: short(docker) }, 'network created on this engine')
    } catch (error) {
      if (bindings.byNetwork(record.id)) return
      say(
        name,
        error instanceof WeftError && error.code === 'EXISTS'
          ? 'a network that is not this one has its name here'
          : describe(error),
      )
    } finally {
      inFlight = undefined
    }
  }

  /** By id and by name: a container that was never started since it was connected knows the name alone. */
  const used = async (docker: string, otherwise?: string): Promise<boolean> => {
    const name = names.get(docker) ?? otherwise
    return (await engine.containers({ network: name === undefined ? [docker] : [docker, name] })).length > 0
  }

  const removing = async (record: Network): Promise<void> => {
    if (record.state.kind !== 'removing') return
    const { acks, since } = record.state
    const here = [...bindings.all()].filter(binding => binding.network === record.id)
    const local = [...mirror.snapshot.endpoints(record.id).values()].some(endpoint => endpoint.record.node === node)
    if (local || (await Promise.all(here.map(binding => used(binding.docker)))).includes(true)) {
      log.warn({ network: record.name }, 'removal vetoed: containers of this host use the network')
      return networks.update(record.id, now => ({ ...now, state: { kind: 'active' } }), signal())
    }
    for (const { docker } of here) await discard(docker)
    if (!acks.includes(node))
      await networks.update(
        record.id,
        now =>
          now.state.kind === 'removing'
            ? { ...now, state: { ...now.state, acks: [...now.state.acks, node] } }
            : undefined,
        signal(),
      )
    const waiting = [...mirror.snapshot.presence.keys()].filter(name => name !== node && !acks.includes(name))
    const late = clock.now() - Date.parse(since) > removalMs
    if (waiting.length > 0 && !late) {
      clock.after(removalMs, poke)
      return
    }
    try {
      await networks.remove(record.id, signal())
    } catch (error) {
      if (!(error instanceof WeftError && error.code === 'IN_USE')) throw error
      log.warn({ network: record.name, err: error.message }, 'removal vetoed for a host that is away')
      return networks.update(record.id, now => ({ ...now, state: { kind: 'active' } }), signal())
    }
    log.info({ network: record.name, id: record.id }, 'network removed from the cluster')
  }

  const dissolve = async (docker: string): Promise<void> => {
    if (await used(docker)) {
      say(
        short(docker),
        'its cluster network is gone, but containers here still use it: remove them, then docker network rm',
      )
      return
    }
    await discard(docker)
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
  })

  return {
    poke,
    async makeWay(name) {
      expected.set(name, clock.monotonic() + makeWayMs)
      clock.after(makeWayMs, () => {
        if (isExpected(name)) return
        expected.delete(name)
        poke()
      })
      const id = mirror.snapshot.names.get(name)?.record.network
      if (id !== undefined && id === inFlight) await Promise.race([running, sleep(clock, 3000, stop.signal)])
    },
    get inFlight() {
      return inFlight
    },
    deleted(docker) {
      if (!ourRemovals.has(docker) && bindings.byDocker(docker)) deletions.add(docker)
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
      if ((await networks.introduce(binding.network, face, signal)) === undefined) {
        poke() // which takes away what has been made
        throw new WeftError('EXISTS', `another host made a network ${wish.name} at the same moment`)
      }
      await networks.update(binding.network, now => ({ ...now, origin: { by: 'weft', node } }), signal)
      while (mirror.snapshot.networks.get(binding.network)?.record.origin.by !== 'weft') await sleep(clock, 5, signal)
      return binding.network
    },
    async remove(id, signal) {
      await networks.update(
        id,
        now => ({
          ...now,
          state: { kind: 'removing', since: new Date(clock.now()).toISOString(), by: node, acks: [] },
        }),
        signal,
      )
      for (;;) {
        await sleep(clock, 50, signal)
        const record = mirror.snapshot.networks.get(id)?.record
        if (!record) return
        if (record.state.kind === 'active')
          throw new WeftError(
            'IN_USE',
            `network ${record.name ?? id} was vetoed: a host has containers on it, running or stopped`,
          )
      }
    },
    async settled() {
      poke()
      while (running) await running
    },
    async close() {
      stop.abort(new Error('closed'))
      unsubscribe()
      timer?.cancel()
      waiting?.cancel()
      await running
    },
  }
}

const isOurs = (network: EngineNetwork): boolean => network.Driver === driverName

const wishBody = (wish: NetworkWish): CreateNetworkBody => ({
  Name: wish.name,
  CheckDuplicate: true,
  Driver: driverName,
  Internal: wish.internal,
  Attachable: wish.attachable,
  EnableIPv6: wish.ipv6 || wish.pools.some(pool => pool.prefix.includes(':')),
  IPAM: {
    Driver: driverName,
    Config: wish.pools.map(({ prefix, range, gateway, aux }) => ({
      Subnet: prefix,
      ...(range === '' ? {} : { IPRange: range }),
      ...(gateway === '' ? {} : { Gateway: gateway }),
      ...(Object.keys(aux).length === 0 ? {} : { AuxiliaryAddresses: { ...aux } }),
    })),
  },
  Options: wish.options,
  Labels: wish.labels,
})

/** Given twice, to Docker and to its IPAM: the replica has both, or compose would find it changed. */
const joins = 'weft.network'

const bodyOf = (record: Network, name: string): CreateNetworkBody => ({
  Name: name,
  CheckDuplicate: true,
  Driver: driverName,
  Internal: record.internal,
  Attachable: record.attachable,
  ...(record.pools.every(pool => pool.prefix.includes(':')) ? { EnableIPv4: false } : {}),
  EnableIPv6: record.ipv6,
  IPAM: {
    Driver: driverName,
    ...(record.options[joins] === undefined ? {} : { Options: { [joins]: record.options[joins] } }),
    Config: record.pools.map(({ prefix, range, gateway, aux }) => ({
      Subnet: prefix,
      ...(range === undefined ? {} : { IPRange: range }),
      ...(gateway === undefined ? {} : { Gateway: gateway }),
      ...(aux === undefined ? {} : { AuxiliaryAddresses: { ...aux } }),
    })),
  },
  Options: record.options,
  Labels: record.labels,
})

// SPDX-License-Identifier: Apache-2.0
// Address pools: who holds which prefix in the whole cluster. All pools change under one key (`pools-epoch`), so that
// two overlapping ones can never both win. Docker asks for pools before it says anything of the network, so a claim
// waits, unsettled, for its CreateNetwork.
import { ConflictError, WeftError } from '../base/errors.ts'
import {
  contains,
  type Family,
  formatPrefix,
  overlaps,
  type Prefix,
  parseInterface,
  parsePrefix,
  refuseSubnet,
  subnets,
} from '../model/address.ts'
import { automaticLength } from '../model/cluster.ts'
import { type NetworkId, type NodeName, newId } from '../model/ids.ts'
import type { Network, PoolClaim } from '../model/network.ts'
import type { Versioned } from '../model/snapshot.ts'
import { decode, encode } from '../store/codec.ts'
import { keys, poolOfKey, splitKey } from '../store/keys.ts'
import type { Compare, Entry } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'
import { goneInTime } from './removal.ts'

export interface PoolRequest {
  readonly family: Family
  /** CIDR the user gave; absent: choose one. */
  readonly prefix?: string
  /** --ip-range. */
  readonly range?: string
  /** --ipam-opt weft.network. */
  readonly wanted?: string
  /** A replica that our own Docker API request is making just now. */
  readonly replicaOf?: NetworkId
}

export interface PoolGrant {
  readonly network: NetworkId
  readonly prefix: string
}

export interface Pools {
  request(request: PoolRequest, signal: AbortSignal): Promise<PoolGrant>
  /**
   * Frees a claim that no CreateNetwork settled, or of a joined network; of any other that is there nothing happens.
   * False, and nothing happens: it was given to several who asked at one moment, and not all have given it back.
   */
  release(prefix: string, signal: AbortSignal): Promise<boolean>
  /** The same, whoever else it was given to. */
  abandon(prefix: string, signal: AbortSignal): Promise<boolean>
  /** Was a pool of it asked for by its name (the IPAM option weft.network) of late? CreateNetwork does not tell. */
  invited(network: NetworkId): boolean
  /** Docker took this pool, its CreateNetwork has come: it did not ask again because of its host. */
  accepted(prefix: string): void
  /** Waits for what becomes of a network that Docker or the cluster is taking away; true: it is gone. */
  gone(network: NetworkId, signal: AbortSignal): Promise<boolean>
  /** Who holds this prefix; NOT_FOUND if nobody does. */
  holder(prefix: string, signal: AbortSignal): Promise<Versioned<PoolClaim>>
}

/** What dockerd cuts its bridges from unless it is told otherwise (moby, libnetwork/ipamutils). */
const dockersOwn = [
  ...['172.17.0.0/16', '172.18.0.0/16', '172.19.0.0/16', '172.20.0.0/14', '172.24.0.0/14', '172.28.0.0/14'],
  '192.168.0.0/16',
].map(text => parsePrefix(text))

/** The remedy where Docker holds a pool that weft does not know, or gave it to another driver. */
export const recreate = 'remove the network and type docker network create -d weft --ipam-driver weft NAME'

const repetitionMs = 2000
/** So many networks, of one name where it says one, may be made here at the same moment. */
const mostRepetitions = 8
/** Between RequestPool and CreateNetwork. */
const invitationMs = 10_000
/** Between Docker's word and the cluster's being asked. */
const removalMs = 2000

interface Book {
  readonly epoch: Compare
  readonly claims: ReadonlyMap<string, Versioned<PoolClaim>>
  /** Claims that cannot be read: their prefix is held all the same. */
  readonly unreadable: readonly string[]
}

/** `halves`: routes of this host beside which Docker, not every version, takes no automatic subnet; too short to be avoided. */
export const openPools = (context: Context, halves: () => readonly string[] = () => []): Pools => {
  const { store, mirror, node } = context
  /**
   * Automatic answers of late (monotonic ms) to requests by name, by prefix: Docker repeats when ours overlaps a route of
   * its host.
   */
  const answered = new Map<string, readonly number[]>()

  /** Subnets given beside one of `halves` that Docker has not taken, monotonic ms. */
  let offered: readonly number[] = []
  /** Unsettled claims that were given again: to whom Docker's repetition came from, or to a second network; how often. */
  const shared = new Map<string, number>()
  /** Networks whose pools were asked for by name, monotonic ms. */
  const invitations = new Map<NetworkId, number>()

  /** Docker gave a pool of this network back here, monotonic ms: the cluster is perhaps not asked for its end yet. */
  const givenBack = new Map<NetworkId, number>()
  const isGoing = ({ id, state, origin }: Network): boolean => {
    if (state.kind === 'removing') return true
    return origin.by === 'docker' && context.clock.monotonic() - (givenBack.get(id) ?? -removalMs) < removalMs
  }
  const gone = (id: NetworkId, signal: AbortSignal): Promise<boolean> => goneInTime(context, id, signal, isGoing)

  const book = async (signal: AbortSignal): Promise<Book> => {
    const { entries } = await store.list('pools', { signal })
    const epoch = entries.find(entry => entry.key === keys.poolsEpoch)
    return {
      epoch: epoch
        ? { key: keys.poolsEpoch, is: 'at', revision: epoch.revision }
        : { key: keys.poolsEpoch, is: 'absent' },
      ...readClaims(entries.filter(entry => entry.key.startsWith('pools/'))),
    }
  }

  const claim = async (
    { epoch }: Book,
    prefix: Prefix,
    network: NetworkId,
    { range, wanted, prefix: asked }: PoolRequest,
    signal: AbortSignal,
  ): Promise<PoolGrant> => {
    const text = formatPrefix(prefix)
    shared.delete(text)
    const name = wanted === undefined ? undefined : keys.networkName(wanted)
    const held = wanted === undefined ? undefined : await networkNamed(wanted, signal)
    if (held !== undefined && held !== network)
      throw new ConflictError(`network ${wanted} was made by somebody else meanwhile`)
    const record: PoolClaim = {
      network,
      node,
      settled: false,
      ...(range === undefined ? {} : { range }),
      ...(wanted === undefined ? {} : { wanted }),
      ...(asked === undefined ? { automatic: true } : {}),
    }
    await store.commit(
      [epoch, { key: keys.pool(text), is: 'absent' }, ...(name && !held ? [{ key: name, is: 'absent' } as const] : [])],
      [
        { kind: 'put', key: keys.poolsEpoch, value: newId() },
        { kind: 'put', key: keys.pool(text), value: encode('poolClaim', record) },
        ...(name && !held ? [{ kind: 'put', key: name, value: encode('nameClaim', { network }) } as const] : []),
      ],
      { signal },
    )
    return { network, prefix: text }
  }

  /** Refuses what overlaps a pool or a route; says what to do instead. */
  const explicit = async (text: string, request: PoolRequest, signal: AbortSignal): Promise<PoolGrant> => {
    const prefix = parseSubnet(text, request)
    const current = await book(signal)
    for (const [other, { record }] of current.claims) {
      if (!overlaps(prefix, parsePrefix(other))) continue
      const same = record.range === request.range && record.wanted === request.wanted
      const again = !record.settled && record.node === node && other === formatPrefix(prefix) && same
      if (again) {
        // Docker repeats what it got no answer to, or another network is made at the same moment: that is not to be told
        shared.set(other, (shared.get(other) ?? 0) + 1)
        return { network: record.network, prefix: other }
      }
      if (await gone(record.network, signal)) return explicit(text, request, signal)
      throw new WeftError(
        'TAKEN',
        overlapText(text, other, record, mirror.snapshot.networks.get(record.network)?.record),
      )
    }
    for (const other of current.unreadable)
      if (overlaps(prefix, parsePrefix(other)))
        throw new WeftError(
          'TAKEN',
          `subnet ${text} overlaps ${other}, which is held, but ${keys.pool(other)} in the store cannot be read: choose another subnet`,
        )
    refuseRoutes(prefix)
    const joining = request.wanted === undefined ? undefined : await networkNamed(request.wanted, signal)
    return claim(current, prefix, joining ?? newId(), request, signal)
  }

  const refuseRoutes = (prefix: Prefix): void => {
    for (const { route, host, inTheWay } of routes())
      if (overlaps(prefix, inTheWay))
        throw new WeftError(
          'TAKEN',
          `subnet ${formatPrefix(prefix)} clashes with route ${route} of host ${host}: choose another --subnet`,
        )
  }

  const routes = (): { route: string; host: NodeName; inTheWay: Prefix }[] =>
    [...mirror.snapshot.nodes.values()]
      .filter(({ record }) => record.fenced === undefined)
      .flatMap(({ record }) =>
        record.routes.map(route => ({ route, host: record.name, inTheWay: parseInterface(route).prefix })),
      )

  const dockerPools = (): Prefix[] =>
    [...mirror.snapshot.nodes.values()]
      .filter(({ record }) => record.fenced === undefined)
      .flatMap(({ record }) => (record.dockerPools ?? []).map(text => parseInterface(text).prefix))

  const automatic = async (request: PoolRequest, network: NetworkId, signal: AbortSignal): Promise<PoolGrant> => {
    const cluster = mirror.snapshot.cluster?.record
    if (!cluster) throw new WeftError('STORE_UNAVAILABLE', 'the cluster record has not arrived yet')
    const current = await book(signal)
    const held = [...current.claims.keys(), ...current.unreadable].map(text => parsePrefix(text))
    const taken = [...held, ...dockersOwn, ...routes().map(({ inTheWay }) => inTheWay)]
    const inFamily = taken.filter(prefix => prefix.family === request.family)
    const pools = cluster.pools.map(text => parsePrefix(text)).filter(({ family }) => family === request.family)
    const dockers = dockerPools().filter(prefix => prefix.family === request.family)
    let beside: Prefix | undefined // among coming networks of Docker's own
    let half: Prefix | undefined
    for (const within of pools)
      for (const candidate of subnets(within, Math.max(within.length, automaticLength[request.family]))) {
        if (inFamily.some(prefix => overlaps(prefix, candidate))) continue
        if (halfAt(candidate) !== undefined) half ??= candidate
        else if (dockers.some(prefix => overlaps(prefix, candidate))) beside ??= candidate
        else return claim(current, candidate, network, request, signal)
      }
    if (beside) return claim(current, beside, network, request, signal)
    if (half) {
      refuseHalves(half)
      const grant = await claim(current, half, network, request, signal)
      offered = [...offered, context.clock.monotonic()]
      return grant
    }
    if (pools.length === 0)
      throw new WeftError(
        'FULL',
        `the cluster has no pool of IPv${request.family} (--pools of its first node): give --subnet`,
      )
    const covering = routes().filter(({ inTheWay }) =>
      pools.some(pool => overlaps(pool, inTheWay) && inTheWay.length <= pool.length),
    )
    const left = pools.some(pool => dockersOwn.some(own => overlaps(pool, own)))
      ? ", without Docker's own defaults"
      : ''
    const where = `no free IPv${request.family} subnet is left in the cluster's pools ${pools.map(formatPrefix).join(', ')}${left}`
    throw new WeftError(
      'FULL',
      covering.length === 0
        ? `${where}: give --subnet, or remove unused networks`
        : `${where}, because of ${covering.map(({ route, host }) => `route ${route} of host ${host}`).join(', ')}: remove ${covering.length === 1 ? 'that route' : 'those routes'}, or give a --subnet outside`,
    )
  }

  const halfAt = (candidate: Prefix): string | undefined =>
    halves().find(route => overlaps(parsePrefix(route), candidate))

  /** Docker, where it minds them, would ask until no subnet is left. */
  const refuseHalves = (candidate: Prefix): void => {
    offered = offered.filter(at => context.clock.monotonic() - at <= repetitionMs)
    if (offered.length >= mostRepetitions)
      throw new WeftError(
        'TAKEN',
        `route ${halfAt(candidate)} of this host overlaps every subnet that weft could choose, and Docker takes none beside it: give --subnet, or create the network on another host`,
      )
  }

  /** Who has or claims this name: a network that is there, or one that is being made on some host. */
  const networkNamed = async (name: string, signal: AbortSignal): Promise<NetworkId | undefined> => {
    const entry = await store.get(keys.networkName(name), { signal })
    const id = entry && decode('nameClaim', entry.key, entry.value).network
    if (id === undefined) return undefined
    return (await gone(id, signal)) ? networkNamed(name, signal) : id
  }

  const joined = async (id: NetworkId, request: PoolRequest, signal: AbortSignal): Promise<PoolGrant | undefined> => {
    const record = mirror.snapshot.networks.get(id)?.record
    const prefixes = record
      ? record.pools.map(pool => pool.prefix)
      : [...(await book(signal)).claims].filter(([, claim]) => claim.record.network === id).map(([text]) => text)
    const refuseRange = (prefix: string): void => {
      const has = record?.pools.find(pool => pool.prefix === prefix)?.range
      if (record && request.range !== undefined && request.range !== has)
        throw new WeftError(
          'INVALID',
          `network ${nameOf(record)} has ${has === undefined ? 'no --ip-range' : `--ip-range ${has}`}, not ${request.range}: leave --ip-range out to join it`,
        )
    }
    const ofFamily = prefixes.filter(text => parsePrefix(text).family === request.family)
    if (request.prefix !== undefined) {
      const text = formatPrefix(parseSubnet(request.prefix, request))
      if (ofFamily.includes(text)) {
        refuseRange(text)
        return { network: id, prefix: text }
      }
      if (record) throw mismatch(record, request.prefix)
      return undefined
    }
    if (ofFamily[0] !== undefined) {
      refuseRange(ofFamily[0])
      return { network: id, prefix: ofFamily[0] }
    }
    if (record)
      throw new WeftError(
        'INVALID',
        `network ${nameOf(record)} has no IPv${request.family} subnet: it was created without`,
      )
    return undefined
  }

  /** The same answer again within 2 s: a user's next command, or Docker refused it for what is in its host's way. */
  const refuseRepetition = (prefix: string): void => {
    const now = context.clock.monotonic()
    const before = (answered.get(prefix) ?? []).filter(at => now - at <= repetitionMs)
    answered.set(prefix, [...before, now])
    if (before.length === 0) return
    const route = routes().find(({ host, inTheWay }) => host === node && overlaps(inTheWay, parsePrefix(prefix)))?.route
    if (route === undefined && before.length < mostRepetitions) return
    throw new WeftError(
      'TAKEN',
      `subnet ${prefix} of that network clashes with ${route ? `route ${route}` : 'a route or resolver'} of host ${node}: remove the route, or give the network another subnet`,
    )
  }

  const release = async (prefix: string, signal: AbortSignal): Promise<boolean> => {
    const others = shared.get(prefix) ?? 0
    if (others > 0) {
      shared.set(prefix, others - 1)
      return false
    }
    shared.delete(prefix)
    await free(prefix, signal)
    return true
  }

  const free = async (prefix: string, signal: AbortSignal): Promise<void> => {
    const network = mirror.snapshot.pools.get(prefix)?.record.network
    if (network !== undefined) givenBack.set(network, context.clock.monotonic())
    for (const map of [givenBack, invitations])
      for (const id of map.keys()) if (!mirror.snapshot.networks.has(id)) map.delete(id)
    const entry = await store.get(keys.pool(prefix), { signal })
    if (!entry) return
    const [, { record }] = claimOf(entry)
    if (record.node !== node || (record.settled && record.joined === undefined)) return
    const named = record.wanted === undefined ? undefined : await store.get(keys.networkName(record.wanted), { signal })
    const ours = named && decode('nameClaim', named.key, named.value).network === record.network
    await store
      .commit(
        [{ key: entry.key, is: 'at', revision: entry.revision }],
        [{ kind: 'delete', key: entry.key }, ...(ours ? [{ kind: 'delete', key: named.key } as const] : [])],
        { signal },
      )
      .catch(ignoreConflict)
  }

  return {
    async request(request, signal) {
      // our own request names the very subnet; another that comes at the same moment is a user's
      const replica =
        request.replicaOf === undefined ? undefined : mirror.snapshot.networks.get(request.replicaOf)?.record
      const own = replica?.pools.find(pool => pool.prefix === request.prefix)
      if (replica && own) return { network: replica.id, prefix: own.prefix }
      const grant = await attempt(context, signal, async () => {
        // who has the name is looked up again after each lost race
        const id = request.wanted === undefined ? undefined : await networkNamed(request.wanted, signal)
        const grant = id === undefined ? undefined : await joined(id, request, signal)
        if (grant) return grant
        return request.prefix === undefined
          ? automatic(request, id ?? newId(), signal)
          : explicit(request.prefix, request, signal)
      })
      if (request.wanted !== undefined && request.prefix === undefined) refuseRepetition(grant.prefix)
      if (request.wanted !== undefined) invitations.set(grant.network, context.clock.monotonic())
      return grant
    },
    invited(network) {
      const at = invitations.get(network)
      return at !== undefined && context.clock.monotonic() - at < invitationMs
    },
    accepted(prefix) {
      answered.delete(prefix)
      offered = []
    },
    gone,
    release,
    abandon(prefix, signal) {
      shared.delete(prefix)
      return release(prefix, signal)
    },
    async holder(prefix, signal) {
      const mirrored = mirror.snapshot.pools.get(prefix)
      if (mirrored) return mirrored
      const entry = await store.get(keys.pool(prefix), { signal })
      if (!entry)
        throw new WeftError('NOT_FOUND', `pool ${prefix} belongs to no network of the cluster (any more): ${recreate}`)
      return claimOf(entry)[1]
    },
  }
}

const ignoreConflict = (error: unknown): void => {
  if (!(error instanceof WeftError && error.code === 'CONFLICT')) throw error
}

const claimOf = (entry: Entry): [string, Versioned<PoolClaim>] => [
  poolOfKey(splitKey(entry.key)[1]!),
  { record: decode('poolClaim', entry.key, entry.value), revision: entry.revision },
]

/** A key that is no prefix holds nothing; status names both kinds. */
const readClaims = (entries: readonly Entry[]): Pick<Book, 'claims' | 'unreadable'> => {
  const claims = new Map<string, Versioned<PoolClaim>>()
  const unreadable: string[] = []
  for (const entry of entries)
    try {
      claims.set(...claimOf(entry))
    } catch {
      const text = prefixOf(entry)
      if (text !== undefined) unreadable.push(text)
    }
  return { claims, unreadable }
}

const prefixOf = ({ key }: Entry): string | undefined => {
  try {
    return formatPrefix(parsePrefix(poolOfKey(splitKey(key)[1]!)))
  } catch {
    return undefined
  }
}

const parseSubnet = (text: string, { family, range }: PoolRequest): Prefix => {
  const { prefix } = parseInterface(text, 'subnet') // Docker itself accepts host bits
  if (prefix.family !== family) throw new WeftError('INVALID', `subnet ${text} is not IPv${family}`)
  refuseSubnet(prefix, `subnet ${text}`)
  if (
    range !== undefined &&
    !(
      contains(prefix, parseInterface(range, 'ip-range').address) &&
      parsePrefix(range, 'ip-range').length >= prefix.length
    )
  )
    throw new WeftError('INVALID', `ip-range ${range} is not inside subnet ${text}`)
  return prefix
}

const nameOf = (network: Network): string => JSON.stringify(network.name ?? network.id)

const overlapText = (asked: string, other: string, claim: PoolClaim, network: Network | undefined): string => {
  if (!network)
    return `subnet ${asked} overlaps ${other}, which a network that is being created on host ${claim.node} holds: choose another, or weft node rm ${claim.node} if that host is gone`
  const join = `--opt weft.network=${network.name} --ipam-opt weft.network=${network.name}`
  return `subnet ${asked} overlaps ${other} of cluster network ${nameOf(network)}: ${network.name === undefined ? 'choose another' : `to join that network add ${join} to docker network create, else choose another subnet`}`
}

const mismatch = (network: Network, asked: string): WeftError =>
  new WeftError(
    'INVALID',
    `network ${nameOf(network)} has ${network.pools.map(pool => pool.prefix).join(', ')}, not ${asked}: leave --subnet out to join it`,
  )

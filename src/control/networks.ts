// SPDX-License-Identifier: Apache-2.0
// Cluster networks: made or joined by CreateNetwork, named once Docker's API tells the name, removed when nobody uses
// them. Every cluster network exists on every engine; which Docker network that is here, bindings know.
import { ConflictError, WeftError } from '../base/errors.ts'
import { keyedQueue } from '../base/queue.ts'
import { type Family, familyOf } from '../model/address.ts'
import { type NetworkId, type NodeName, vniRange } from '../model/ids.ts'
import { insideMtu, leastInside, overhead } from '../model/mtu.ts'
import type { Network, Pool, PoolClaim } from '../model/network.ts'
import type { Snapshot, Versioned } from '../model/snapshot.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import type { Compare, Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import { finishRemoval, sweepNetwork } from './ending.ts'
import { differenceOf } from './joining.ts'
import { otherOption, parseOptions } from './options.ts'
import type { Pools } from './pools.ts'
import { goneInTime } from './removal.ts'

export interface NetworkRequest {
  readonly docker: string
  /** As Docker gives them: prefix, gateway and aux plain. */
  readonly pools: readonly Pool[]
  readonly options: Readonly<Record<string, string>>
  readonly internal: boolean
  readonly ipv6: boolean
  /** Our own request to the engine is making a replica of this one just now. */
  readonly replicaOf?: NetworkId
}

/** What only the engine's API tells. */
export interface NetworkFace {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly attachable: boolean
}

export interface Networks {
  create(request: NetworkRequest, signal: AbortSignal): Promise<Network>
  /**
   * Name, labels and flags of a network made by Docker's command. Answers the name it really got: `<name>-<4 hex>` when
   * another has that name and this one is in use; undefined when it is not, and has to give way.
   */
  introduce(id: NetworkId, face: NetworkFace, signal: AbortSignal): Promise<string | undefined>
  find(nameOrId: string): Versioned<Network>
  /**
   * Removes record and claims; refused with IN_USE while endpoints are on it, unless they are of fenced nodes, or of silent
   * ones where its removal is forced.
   */
  remove(id: NetworkId, signal: AbortSignal): Promise<void>
  /** The same, if it never got a name. */
  removeNameless(id: NetworkId, signal: AbortSignal): Promise<void>
  /** Docker gave this pool back. A network of ours that never got a name goes with it: its creation was not answered. */
  forsake(pool: string, signal: AbortSignal): Promise<void>
  /** Changes the removal's state by compare-and-swap; undefined from `change`: leave it. */
  update(id: NetworkId, change: (network: Network) => Network | undefined, signal: AbortSignal): Promise<void>
}

export const openNetworks = (context: Context, bindings: Bindings, pools: Pools): Networks => {
  const { store, mirror, node } = context
  const queue = keyedQueue() // one creation of a network at a time
  /** Prefixes of networks that were refused, and that Docker gives back without being their first holder. */
  const refused = new Map<string, number>()

  const create = (request: NetworkRequest, signal: AbortSignal): Promise<Versioned<Network>> =>
    attempt(context, signal, async () => {
      const options = parseOptions(request.options)
      const claims = await Promise.all(request.pools.map(pool => pools.holder(pool.prefix, signal)))
      const id = claims[0]!.record.network
      const known = await store.get(keys.network(id), { signal })
      if (known && claims[0]!.record.joined === request.docker)
        // Docker repeats its calls
        return { record: decode('network', known.key, known.value), revision: known.revision }
      if (known) {
        const record = join(decode('network', known.key, known.value), request, options.network)
        if (record.state.kind === 'active') {
          refuseSecond(record, request, options.network)
          return { record, revision: known.revision }
        }
        // its end may wait for us
        if (request.replicaOf === id)
          throw new WeftError('CONFLICT', `network ${JSON.stringify(record.name ?? id)} is being removed: no replica`)
        const gone = await goneInTime(context, id, signal)
        throw gone
          ? new WeftError('CONFLICT', `network ${JSON.stringify(record.name ?? id)} has just gone: repeat the command`)
          : new ConflictError(`network ${id} stays`)
      }
      const foreign = claims.findIndex(
        ({ record }) => record.network !== id && (record.settled || record.node !== node),
      )
      if (foreign >= 0)
        throw notTogether(
          request.pools.map(pool => pool.prefix),
          foreign,
          claims[foreign]!.record,
        )
      return make(id, request, claims, signal)
    })

  /**
   * Docker networks of this engine that asked for one subnet at the same moment were all given its claim: it was not to be
   * told whether Docker repeats its call. The first has it; another joins only who says so.
   */
  const refuseSecond = ({ id, name }: Network, request: NetworkRequest, wanted: string | undefined): void => {
    const first = bindings.byNetwork(id)?.docker
    if (first === undefined || bindings.byDocker(request.docker)?.network === id) return
    if (request.replicaOf === id || wanted !== undefined || pools.invited(id)) return
    for (const { prefix } of request.pools) refused.set(prefix, (refused.get(prefix) ?? 0) + 1)
    const join =
      name === undefined ? '' : `add --opt weft.network=${name} --ipam-opt weft.network=${name} to join it, or `
    throw new WeftError(
      'TAKEN',
      `subnet ${request.pools[0]!.prefix} is that of network ${JSON.stringify(name ?? first.slice(0, 12))}, which was made at the same moment: ${join}choose another --subnet`,
    )
  }

  /** An engine before 28 asks for an IPv4 subnet even where the network has none. */
  const notTogether = (prefixes: readonly string[], foreign: number, { network }: PoolClaim): WeftError => {
    const title = JSON.stringify(mirror.snapshot.networks.get(network)?.record.name ?? network)
    const others = prefixes.filter((_, i) => i !== foreign).join(', ')
    return new WeftError(
      'INVALID',
      `subnet ${prefixes[foreign]} is that of network ${title}, which has no subnet ${others}: a network of IPv6 alone needs Docker 28 on every host`,
    )
  }

  const join = (network: Network, request: NetworkRequest, name: string | undefined): Network => {
    const known = network.name ?? network.wanted
    const title = JSON.stringify(known ?? network.id)
    if (name !== undefined && known !== undefined && name !== known)
      throw new WeftError(
        'INVALID',
        `the subnet is that of network ${title}, not of ${name}: give --ipam-opt weft.network=${name} as well`,
      )
    if (request.internal !== network.internal)
      throw new WeftError(
        'INVALID',
        `network ${title} is ${network.internal ? '' : 'not '}--internal: create it here the same way`,
      )
    const other = otherOption(request.options, network)
    if (other !== undefined) throw new WeftError('INVALID', `network ${title} ${other}`)
    for (const { prefix, aux = {} } of request.pools) {
      const known = network.pools.find(known => known.prefix === prefix)
      if (!known) throw new WeftError('INVALID', `network ${title} has no subnet ${prefix}`)
      for (const [name, address] of Object.entries(aux))
        if (!Object.values(known.aux ?? {}).includes(address))
          throw new WeftError(
            'INVALID',
            `network ${title} does not keep ${address} from its containers: leave --aux-address ${name}=${address} out to join it`,
          )
    }
    return network
  }

  const make = async (
    id: NetworkId,
    request: NetworkRequest,
    claims: readonly Versioned<PoolClaim>[],
    signal: AbortSignal,
  ): Promise<Versioned<Network>> => {
    const options = parseOptions(request.options)
    for (const { gateway, aux = {} } of request.pools)
      for (const [name, address] of Object.entries(aux))
        if (address === gateway)
          throw new WeftError(
            'INVALID',
            `auxiliary address "${name}" ${address} is the gateway of its subnet: choose another --aux-address or --gateway`,
          )
    const cluster = mirror.snapshot.cluster!.record
    const asked = claims.find(claim => claim.record.wanted !== undefined)?.record.wanted
    // compose 2 has no words for IPAM options: what Docker was given for any subnet is joined to the network of that name
    const anySubnet = claims.every(claim => claim.record.automatic === true)
    const wanted = asked ?? (anySubnet ? options.network : undefined)
    if (options.network !== undefined && wanted === undefined)
      throw new WeftError(
        'INVALID',
        `--opt weft.network=${options.network} with --subnet needs --ipam-opt weft.network=${options.network} beside it: Docker asks for addresses first`,
      )
    const vni = options.vni ?? (await freeVni(signal))
    const limit = roomOnAll(mirror.snapshot, cluster.underlayFamily)
    if (options.mtu !== undefined && options.mtu > limit)
      throw new WeftError(
        'INVALID',
        `mtu ${options.mtu} does not fit the underlay: at most ${limit} inside VXLAN on every host`,
      )
    const record: Network = {
      id,
      ...(wanted === undefined ? {} : { wanted }),
      vni,
      // Docker says the --ip-range only to RequestPool
      pools: request.pools.map((pool, i) => ({ ...pool, ...rangeOf(claims[i]!.record) })),
      mtu: options.mtu ?? limit,
      options: request.options,
      labels: {},
      internal: request.internal,
      attachable: false,
      ipv6: request.ipv6 || request.pools.some(pool => familyOf(pool.prefix) === 6),
      state: { kind: 'active' },
      origin: { by: 'docker', node },
    }
    const there = asked === undefined && wanted !== undefined ? namesake(wanted) : undefined
    const difference = there && differenceOf(record, there)
    if (difference !== undefined)
      throw new WeftError('INVALID', `network ${JSON.stringify(wanted)} ${difference}: create it here the same way`)
    const compares: Compare[] = [
      { key: keys.network(id), is: 'absent' },
      { key: keys.vni(vni), is: 'absent' },
      ...request.pools.map(
        (pool, i): Compare => ({ key: keys.pool(pool.prefix), is: 'at', revision: claims[i]!.revision }),
      ),
    ]
    const writes: Write[] = [
      { kind: 'put', key: keys.network(id), value: encode('network', record) },
      { kind: 'put', key: keys.vni(vni), value: encode('vniClaim', { network: id }) },
      ...request.pools.map((pool, i): Write => {
        const { wanted: _, ...claim } = claims[i]!.record
        return {
          kind: 'put',
          key: keys.pool(pool.prefix),
          value: encode('poolClaim', { ...claim, network: id, settled: true }),
        }
      }),
    ]
    try {
      return { record, revision: await store.commit(compares, writes, { signal }) }
    } catch (error) {
      if (error instanceof ConflictError && options.vni !== undefined) await refuseVni(vni, id, signal)
      throw error
    }
  }

  /** Of a network that goes, its VNI is free in a moment: the caller tries again. */
  const refuseVni = async (vni: number, id: NetworkId, signal: AbortSignal): Promise<void> => {
    const claim = await store.get(keys.vni(vni), { signal })
    const holder = claim && decode('vniClaim', claim.key, claim.value).network
    if (holder === undefined || holder === id) return
    await pools.gone(holder, signal)
    if ((await finishRemoval(context, claim!, signal)) !== undefined) return
    throw new WeftError(
      'TAKEN',
      `VNI ${vni} belongs to another network of the cluster: choose another, or leave weft.vni out`,
    )
  }

  const namesake = (name: string): Network | undefined =>
    mirror.snapshot.networks.get(mirror.snapshot.names.get(name)?.record.network ?? '')?.record

  const freeVni = async (signal: AbortSignal): Promise<number> => {
    for (let tries = 0; tries < 64; tries++) {
      const vni = vniRange.first + Math.floor(Math.random() * (vniRange.last - vniRange.first))
      if (!(await store.get(keys.vni(vni), { signal }))) return vni
    }
    throw new WeftError('FULL', 'no free VNI was found: remove unused networks')
  }

  const current = async (id: NetworkId, signal: AbortSignal): Promise<Versioned<Network> | undefined> => {
    const entry = await store.get(keys.network(id), { signal })
    return entry && { record: decode('network', entry.key, entry.value), revision: entry.revision }
  }

  const unused = async (id: NetworkId, signal: AbortSignal): Promise<boolean> =>
    (await store.list(`endpoints/${id}/`, { signal })).entries.length === 0

  const remove = (id: NetworkId, signal: AbortSignal, only?: (network: Network) => boolean): Promise<void> =>
    attempt(context, signal, async () => {
      const known = await current(id, signal)
      if (!known || only?.(known.record) === false) return
      const { entries } = await store.list(`endpoints/${id}/`, { signal })
      const nodes = [...new Set(entries.map(entry => decode('endpoint', entry.key, entry.value).node))]
      const { state } = known.record
      const forced = state.kind === 'removing' && state.force === true
      const holding: NodeName[] = []
      for (const name of nodes) {
        if (fenced(context, name)) continue
        const silent = !(await store.get(keys.presence(name), { signal }))
        if (!(forced && silent)) holding.push(silent ? `${name}, which is silent (--force takes them away)` : name)
      }
      if (holding.length > 0)
        throw new WeftError(
          'IN_USE',
          `network ${JSON.stringify(known.record.name ?? id)} has containers on ${holding.join(', ')}: stop them first`,
        )
      await sweepNetwork(context, id, known, signal)
    })

  return {
    async create(request, signal) {
      if (request.pools.length === 0)
        throw new WeftError('INVALID', 'a weft network needs a subnet: use --ipam-driver weft')
      for (const { prefix } of request.pools) pools.accepted(prefix)
      const { record: claim } = await pools.holder(request.pools[0]!.prefix, signal)
      return queue.run(claim.network, async () => {
        const { record, revision } = await create(request, signal)
        // a binding without a record in the mirror would be taken for one whose network is gone
        await mirror.reached(revision, signal)
        await bindings.bind(request.docker, record.id)
        return record
      })
    },
    introduce: (id, face, signal) =>
      attempt(context, signal, async () => {
        const known = await current(id, signal)
        if (!known) throw new WeftError('NOT_FOUND', `network ${id} is gone`)
        if (known.record.name !== undefined && known.record.origin.node !== node) return known.record.name
        const name = known.record.name ?? known.record.wanted ?? face.name
        const claimed = await store.get(keys.networkName(name), { signal })
        const holder = claimed && decode('nameClaim', claimed.key, claimed.value).network
        const free = holder === undefined || holder === id
        if (!free && known.record.name === undefined && (await unused(id, signal))) return undefined
        const given = free ? name : `${name}-${id.slice(0, 4)}`
        const { wanted: _, ...rest } = known.record
        const record: Network = { ...rest, name: given, labels: face.labels, attachable: face.attachable }
        if (JSON.stringify(record) === JSON.stringify(known.record)) return given
        const key = keys.networkName(given)
        await store.commit(
          [
            { key: keys.network(id), is: 'at', revision: known.revision },
            free && claimed ? { key, is: 'at', revision: claimed.revision } : { key, is: 'absent' },
          ],
          [
            { kind: 'put', key: keys.network(id), value: encode('network', record) },
            { kind: 'put', key, value: encode('nameClaim', { network: id }) },
          ],
          { signal },
        )
        return given
      }),
    find(nameOrId) {
      const { networks, names } = mirror.snapshot
      const id = names.get(nameOrId)?.record.network ?? nameOrId
      const network = networks.get(id) ?? [...networks.values()].find(({ record }) => record.name === nameOrId)
      if (!network)
        throw new WeftError(
          'NOT_FOUND',
          `there is no network ${JSON.stringify(nameOrId)} in the cluster: see weft network ls`,
        )
      return network
    },
    remove: (id, signal) => remove(id, signal),
    removeNameless: (id, signal) => remove(id, signal, ({ name }) => name === undefined),
    async forsake(pool, signal) {
      const others = refused.get(pool) ?? 0
      if (others > 1) refused.set(pool, others - 1)
      else refused.delete(pool)
      if (others > 0) return
      const entry = await store.get(keys.pool(pool), { signal })
      const claim = entry && decode('poolClaim', entry.key, entry.value)
      if (!claim?.settled || claim.node !== node || claim.joined !== undefined) return
      // what was asked for by name, others may have joined
      await remove(claim.network, signal, ({ name, wanted }) => name === undefined && wanted === undefined)
    },
    update: (id, change, signal) =>
      attempt(context, signal, async () => {
        const known = await current(id, signal)
        const next = known && change(known.record)
        if (!next) return
        const revision = await store.commit(
          [{ key: keys.network(id), is: 'at', revision: known.revision }],
          [{ kind: 'put', key: keys.network(id), value: encode('network', next) }],
          { signal },
        )
        await mirror.reached(revision, signal)
      }),
  }
}

/** Bytes inside VXLAN that every host has, where it is enough for a network. */
const roomOnAll = ({ nodes }: Snapshot, family: Family): number => {
  const living = [...nodes.values()].map(({ record }) => record).filter(({ fenced }) => fenced === undefined)
  const least = living.reduce((least, next) => (next.mtu < least.mtu ? next : least))
  const inside = insideMtu(least.mtu, family)
  if (inside < leastInside)
    throw new WeftError(
      'NOT_SUPPORTED',
      `the underlay device of node ${least.name} has an MTU of ${least.mtu}, and a network needs ${leastInside + overhead(family)} on every host: raise it there, or weft node rm ${least.name} if the node is gone for good`,
    )
  return inside
}

const rangeOf = ({ range }: PoolClaim): { range?: string } => (range === undefined ? {} : { range })

const fenced = ({ mirror }: Context, name: NodeName): boolean => {
  const known = mirror.snapshot.nodes.get(name)
  return known === undefined || known.record.fenced !== undefined
}

/**
 * Its maker died before it had a name: no other host has it. One that was asked for by name others may have joined, and
 * the next who asks for it so names it.
 */
export const isStillborn = ({ name, wanted, origin }: Network, maker: NodeName): boolean =>
  name === undefined && wanted === undefined && origin.node === maker

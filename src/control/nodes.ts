// SPDX-License-Identifier: Apache-2.0
// This host's place in the cluster: its record, its number, its presence; and fencing of nodes that are gone for good.
import { randomBytes } from 'node:crypto'
import { backoff } from '../base/backoff.ts'
import { sleep } from '../base/clock.ts'
import { codeOf, describe, WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { type Family, familyOf } from '../model/address.ts'
import { type Cluster, defaultPools4 } from '../model/cluster.ts'
import { restFrom } from '../model/endpoint.ts'
import { type EndpointId, type NodeName, newId, nodeNumbers } from '../model/ids.ts'
import type { DeviceAddress, Node } from '../model/node.ts'
import type { Versioned } from '../model/snapshot.ts'
import { batches } from '../store/batches.ts'
import { decode, encode } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import { type Compare, type Entry, type Lease, limits, type Write } from '../store/store.ts'
import { attempt } from './attempt.ts'
import type { Context } from './context.ts'
import { sweepNetwork } from './ending.ts'
import { isStillborn } from './networks.ts'
import { withoutHolders } from './ports.ts'

/** What the host says of itself at each start. */
export interface NodeFacts {
  readonly instance: string
  readonly vtep: string
  readonly mtu: number
  readonly routes: readonly string[]
  readonly addresses: readonly DeviceAddress[]
  /** Absent: Docker has not said yet, what the cluster knows holds. */
  readonly dockerPools?: readonly string[]
  readonly version: string
}

export interface ClusterDefaults {
  /** Of a family that none is of, the default. */
  readonly pools: readonly string[]
  /** Of the store's members. */
  readonly storePorts: readonly number[]
  readonly vxlanPort: number
  readonly underlayFamily: Family
}

/** TTL of presence: a dead node is seen after at most this. A hint only, never a reason to cut traffic. */
export const presenceMs = 10_000

export interface Nodes extends Closeable {
  /** Makes or updates this node's record. Refuses a name or VTEP that lives elsewhere. */
  join(facts: NodeFacts, defaults: ClusterDefaults, signal: AbortSignal): Promise<Node>
  /** New routes or MTU of this host. */
  update(facts: NodeFacts, signal: AbortSignal): Promise<void>
  /** Keeps presence until closed. `applied` is said again when it has moved, every `presenceMs` at most. */
  startPresence(instance: string, applied: () => bigint): void
  present(name: NodeName): boolean
  setDrained(name: NodeName, drained: boolean, signal: AbortSignal): Promise<void>
  /**
   * Fences a dead node: tombstone, and release of all it held. Refused with IN_USE while it is present. Safe to repeat:
   * one that broke off half-way goes on with the release.
   */
  fence(name: NodeName, signal: AbortSignal): Promise<{ endpoints: number }>
  /** The second half alone. NOT_FOUND when the node is not fenced, or no longer. */
  release(name: NodeName, signal: AbortSignal): Promise<{ endpoints: number }>
  close(): Promise<void>
}

interface Turn {
  readonly compare: Compare
  readonly write: Write
}

export const openNodes = (context: Context): Nodes => {
  const { store, mirror, node: self, boot, clock, log } = context
  const stop = new AbortController()
  let presence: Promise<void> = Promise.resolve()

  const nodeOf = async (name: NodeName, signal: AbortSignal): Promise<Versioned<Node> | undefined> => {
    const entry = await store.get(keys.node(name), { signal })
    return entry && { record: decode('node', entry.key, entry.value), revision: entry.revision }
  }

  const ensureCluster = async (defaults: ClusterDefaults, signal: AbortSignal): Promise<Cluster> => {
    const entry = await store.get(keys.cluster, { signal })
    if (entry) return decode('cluster', entry.key, entry.value)
    const usual = [defaultPools4, randomUla()].filter(
      text => !defaults.pools.some(given => familyOf(given) === familyOf(text)),
    )
    const record: Cluster = {
      id: newId(),
      pools: [...defaults.pools, ...usual],
      underlayFamily: defaults.underlayFamily,
      vxlanPort: defaults.vxlanPort,
      reservedPorts: [...new Set([22, ...defaults.storePorts, defaults.vxlanPort])],
      created: new Date(clock.now()).toISOString(),
    }
    await store.commit(
      [{ key: keys.cluster, is: 'absent' }],
      [{ kind: 'put', key: keys.cluster, value: encode('cluster', record) }],
      { signal },
    )
    return record
  }

  /** VTEPs come one at a time, or two hosts that join at the same moment might both have one. */
  const nextTurn = async (signal: AbortSignal): Promise<Turn> => {
    const key = keys.nodesEpoch
    const entry = await store.get(key, { signal })
    return {
      compare: entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' },
      write: { kind: 'put', key, value: newId() },
    }
  }

  const refuseTwins = async (facts: NodeFacts, signal: AbortSignal): Promise<void> => {
    const { entries } = await store.list('nodes/', { signal })
    for (const entry of entries) {
      const other = readable(() => decode('node', entry.key, entry.value))
      if (other === undefined) continue // status names it
      if (other.name !== self && other.fenced === undefined && other.vtep === facts.vtep)
        throw new WeftError(
          'TAKEN',
          `VTEP ${facts.vtep} belongs to node ${other.name}: give this host its own with --vtep, or weft node rm ${other.name}`,
        )
    }
  }

  /** Alive elsewhere: another instance, or this very data directory copied. A lease of our own past runs out first. */
  const refuseLiving = async (facts: NodeFacts, signal: AbortSignal): Promise<void> => {
    const until = clock.monotonic() + presenceMs + 3000
    for (let first = true; ; first = false) {
      const entry = await store.get(keys.presence(self), { signal })
      if (!entry) return
      const there = decode('presence', entry.key, entry.value)
      if (there.instance === facts.instance && there.boot === boot) return // our own, before a restart of the agent
      const record = await nodeOf(self, signal)
      if (clock.monotonic() > until)
        throw new WeftError(
          'TAKEN',
          `node name ${self} is alive elsewhere (VTEP ${record?.record.vtep ?? 'unknown'}, ${there.instance === facts.instance ? 'from a copy of this data directory' : 'with another data directory'}): choose another --node, or stop that one`,
        )
      if (first) log.warn({ node: self }, 'node name is still present in the store, waiting for it to expire')
      await sleep(clock, 500, signal)
    }
  }

  /**
   * Never the one this node had before it was fenced: what other hosts still have of it must not look right. The one
   * that it still has when its record was lost.
   */
  const freeNumber = async (
    instance: string,
    before: number | undefined,
    signal: AbortSignal,
  ): Promise<{ number: number; claim: Compare }> => {
    const { entries } = await store.list('node-numbers/', { signal })
    const numberOf = ({ key }: Entry): number => Number(key.slice('node-numbers/'.length))
    const ours = entries.find(({ key, value }) => {
      const claim = readable(() => decode('nodeNumber', key, value))
      return claim?.node === self && claim.instance === instance
    })
    if (ours) return { number: numberOf(ours), claim: { key: ours.key, is: 'at', revision: ours.revision } }
    const used = new Set(entries.map(numberOf))
    for (let number = nodeNumbers.first; number <= nodeNumbers.last; number++)
      if (!used.has(number) && number !== before)
        return { number, claim: { key: keys.nodeNumber(number), is: 'absent' } }
    throw new WeftError('FULL', 'the cluster has 65,535 nodes: remove dead ones with weft node rm')
  }

  /** `turn`: a new VTEP may come. */
  const write = async (facts: NodeFacts, signal: AbortSignal, turn?: Turn): Promise<Node> => {
    const entry = await store.get(keys.node(self), { signal })
    // one that cannot be read is written again
    const known = entry && readable(() => decode('node', entry.key, entry.value))
    const unchanged: Compare = entry
      ? { key: entry.key, is: 'at', revision: entry.revision }
      : { key: keys.node(self), is: 'absent' }
    if (known && known.fenced === undefined) {
      const record: Node = { ...known, ...facts, boot }
      if (JSON.stringify(record) === JSON.stringify(known)) return record
      await put(record, [unchanged], [], signal, known.vtep === facts.vtep ? undefined : turn)
      return record
    }
    const { number, claim } = await freeNumber(facts.instance, known?.number, signal)
    const held = known ? undefined : mirror.snapshot.nodes.get(self)?.record // the record was lost
    const drained = held?.fenced === undefined && held?.instance === facts.instance && held.drained === true
    const record: Node = {
      ...{ name: self, number, boot, ...facts },
      ...(drained ? { drained } : {}),
    }
    const value = encode('nodeNumber', { node: self, instance: facts.instance })
    await put(record, [unchanged, claim], [{ kind: 'put', key: keys.nodeNumber(number), value }], signal, turn)
    return record
  }

  const put = async (
    record: Node,
    compares: readonly Compare[],
    more: readonly Write[],
    signal: AbortSignal,
    turn?: Turn,
  ): Promise<void> => {
    const write: Write = { kind: 'put', key: keys.node(self), value: encode('node', record) }
    const guards = turn ? [...compares, turn.compare] : compares
    const writes = turn ? [write, ...more, turn.write] : [write, ...more]
    await mirror.reached(await store.commit(guards, writes, { signal }), signal)
  }

  /** Of two hosts that came with one name at the same moment, the first to be present stays. */
  const ownPresence = async (instance: string, signal: AbortSignal): Promise<Compare> => {
    const key = keys.presence(self)
    const entry = await store.get(key, { signal })
    if (!entry) return { key, is: 'absent' }
    const there = decode('presence', key, entry.value)
    if (there.instance !== instance || there.boot !== boot)
      throw new WeftError('TAKEN', `node name ${self} is alive elsewhere: choose another --node, or stop that one`)
    return { key, is: 'at', revision: entry.revision }
  }

  const announce = async (lease: Lease, instance: string, applied: bigint): Promise<void> => {
    const value = encode('presence', { node: self, instance, boot, applied: String(applied) })
    const compare = await ownPresence(instance, stop.signal)
    const write: Write = { kind: 'put', key: keys.presence(self), value, lease }
    await store.commit([compare], [write], { signal: stop.signal })
  }

  /** Ends with the lease, or throws. */
  const keepSaying = async (lease: Lease, instance: string, applied: () => bigint): Promise<void> => {
    const over = new AbortController()
    void lease.lost.then(() => over.abort())
    const ended = AbortSignal.any([over.signal, stop.signal])
    for (let said: bigint | undefined; !ended.aborted; ) {
      const now = applied()
      try {
        if (now !== said) await announce(lease, instance, now)
        said = now
      } catch (error) {
        // what has been said stands as long as the lease does
        if (said === undefined || codeOf(error) === 'TAKEN') throw error
      }
      await sleep(clock, presenceMs, ended).catch(() => {})
    }
  }

  const keepPresent = async (instance: string, applied: () => bigint): Promise<void> => {
    const retry = backoff(200, 2000)
    while (!stop.signal.aborted) {
      let lease: Lease | undefined
      try {
        lease = await store.lease(presenceMs, { signal: stop.signal })
        await keepSaying(lease, instance, applied)
        retry.reset()
      } catch (error) {
        if (!stop.signal.aborted) log.warn({ err: describe(error) }, 'presence not announced')
      }
      await lease?.close()
      if (!stop.signal.aborted) await sleep(clock, retry.next(), stop.signal).catch(() => {})
    }
  }

  /** The tombstone. It may be there already. */
  const bury = async (name: NodeName, signal: AbortSignal): Promise<void> => {
    const known = await nodeOf(name, signal)
    if (!known) throw new WeftError('NOT_FOUND', `there is no node ${name}: see weft node ls`)
    if (await store.get(keys.presence(name), { signal }))
      throw new WeftError(
        'IN_USE',
        `node ${name} is alive: stop weftd there first (its containers would lose the network)`,
      )
    if (known.record.fenced !== undefined) return
    const record: Node = { ...known.record, fenced: new Date(clock.now()).toISOString() }
    await store.commit(
      [
        { key: keys.node(name), is: 'at', revision: known.revision },
        { key: keys.presence(name), is: 'absent' },
      ],
      [
        { kind: 'put', key: keys.node(name), value: encode('node', record) },
        { kind: 'delete', key: keys.nodeNumber(known.record.number) },
      ],
      { signal },
    )
  }

  /**
   * Everything that a fenced node held. Ports first: a release that breaks off leaves what the mirror shows. Each commit
   * holds only while the node is away, and for the very records that were looked at: what a node that came back has made
   * since is not touched.
   */
  const release = async (name: NodeName, signal: AbortSignal): Promise<{ endpoints: number }> => {
    let endpoints = 0
    await attempt(context, signal, async () => {
      const known = await nodeOf(name, signal)
      if (known?.record.fenced === undefined || (await store.get(keys.presence(name), { signal })))
        throw new WeftError('NOT_FOUND', `there is no fenced node ${name}, or it has come back: see weft node ls`)
      const away: readonly Compare[] = [
        { key: keys.node(name), is: 'at', revision: known.revision },
        { key: keys.presence(name), is: 'absent' },
      ]
      const ofNode = ({ value }: Entry): boolean =>
        readable(() => JSON.parse(value) as { node?: string } | null)?.node === name
      const gone = new Set((await store.list('endpoints/', { signal })).entries.filter(ofNode).map(idOf))
      for (const prefix of ['ports/', 'endpoints/', 'addresses/', 'macs/']) {
        const { entries } = await store.list(prefix, { signal })
        const held = new Map(entries.map(({ key, revision }) => [key, revision]))
        const writes = entries.flatMap((entry): Write[] => {
          if (prefix === 'ports/') return withoutHolders(context, entry, gone)
          if (!ofNode(entry)) return []
          // who holds it may send for a moment: what cuts it off is on its way to the others
          return [
            prefix === 'endpoints/'
              ? { kind: 'delete', key: entry.key }
              : { kind: 'put', key: entry.key, value: encode('addressClaim', restFrom(clock.now())) },
          ]
        })
        for (const batch of batches(writes, limits.writesPerCommit - away.length)) {
          const unchanged = batch.map(({ key }): Compare => ({ key, is: 'at', revision: held.get(key)! }))
          await store.commit([...away, ...unchanged], batch, { signal })
          if (prefix === 'endpoints/') endpoints += batch.length
        }
      }
      await releaseUnborn(name, away, signal)
    })
    return { endpoints }
  }

  /** What it was making: pools whose network never came, and networks that never got a name. */
  const releaseUnborn = async (name: NodeName, away: readonly Compare[], signal: AbortSignal): Promise<void> => {
    const { entries } = await store.list('pools/', { signal })
    for (const { key, value, revision } of entries) {
      const claim = readable(() => decode('poolClaim', key, value))
      if (claim?.node !== name || claim.settled) continue
      const named = claim.wanted === undefined ? undefined : await store.get(keys.networkName(claim.wanted), { signal })
      const unmade = named?.value === encode('nameClaim', { network: claim.network })
      const isMade = (await store.get(keys.network(claim.network), { signal })) !== undefined
      const gone = [{ key, revision }, ...(unmade && !isMade ? [named] : [])]
      await store.commit(
        [...away, ...gone.map(({ key, revision }): Compare => ({ key, is: 'at', revision }))],
        gone.map(({ key }): Write => ({ kind: 'delete', key })),
        { signal },
      )
    }
    for (const { key, value, revision } of (await store.list('networks/', { signal })).entries) {
      const record = readable(() => decode('network', key, value))
      if (!record || !isStillborn(record, name)) continue
      if ((await store.list(`endpoints/${record.id}/`, { signal })).entries.length > 0) continue
      await sweepNetwork(context, record.id, { record, revision }, signal)
    }
  }

  return {
    async join(facts, defaults, signal) {
      const cluster = await attempt(context, signal, () => ensureCluster(defaults, signal))
      if (familyOf(facts.vtep) !== cluster.underlayFamily)
        throw new WeftError('INVALID', `--vtep ${facts.vtep}: this cluster's underlay is IPv${cluster.underlayFamily}`)
      await refuseLiving(facts, signal)
      return attempt(context, signal, async () => {
        const turn = await nextTurn(signal)
        await refuseTwins(facts, signal)
        return write(facts, signal, turn)
      })
    },
    async update(facts, signal) {
      await attempt(context, signal, () => write(facts, signal))
    },
    startPresence(instance, applied) {
      presence = keepPresent(instance, applied)
    },
    present: name => mirror.snapshot.presence.has(name),
    setDrained: (name, drained, signal) =>
      attempt(context, signal, async () => {
        const known = await nodeOf(name, signal)
        if (!known || known.record.fenced !== undefined)
          throw new WeftError('NOT_FOUND', `there is no node ${name}: see weft node ls`)
        const { drained: _, ...rest } = known.record
        const record: Node = drained ? { ...rest, drained } : rest
        await store.commit(
          [{ key: keys.node(name), is: 'at', revision: known.revision }],
          [{ kind: 'put', key: keys.node(name), value: encode('node', record) }],
          { signal },
        )
      }),
    async fence(name, signal) {
      await attempt(context, signal, () => bury(name, signal))
      return release(name, signal)
    },
    release,
    async close() {
      stop.abort(new Error('closed'))
      await presence
    },
  }
}

/** undefined: it throws. */
const readable = <T>(read: () => T): T | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** endpoints/<network>/<id> */
const idOf = ({ key }: Entry): EndpointId => splitKey(key)[2]!

const randomUla = (): string => {
  const bytes = randomBytes(5).toString('hex')
  return `fd${bytes.slice(0, 2)}:${bytes.slice(2, 6)}:${bytes.slice(6, 10)}::/48`.replace(/:0{1,3}/g, ':')
}

// SPDX-License-Identifier: Apache-2.0
// Which nodes do not answer through the data path: those that run backends of ports and of virtual addresses of this host
// are asked, in each network that they share with it. Kept from the records that change. The store's presence plays no part: all of this
// works while the store is away.
import { type Backoff, backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Node } from '../model/node.ts'
import { parsePortKey, portKey } from '../model/port.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { gatewayLink, gatewayNs } from '../plan/names.ts'
import { type Unit, type UnitKey, unitKey, unitsOfEndpoint } from '../plan/unit.ts'
import type { Report, Target } from './peer-probes.ts'
import type { Verdict } from './peer-verdict.ts'

/** What changes for who asks; what is dropped goes first. */
export interface Order {
  readonly drop: readonly number[]
  readonly add: readonly Target[]
}
/** The thread that asks. */
export interface Asker extends Closeable {
  order(order: Order): void
  close(): Promise<void>
}
export interface AskerEvents {
  readonly report: (report: Report) => void
  /** It ended without having been closed. */
  readonly died: (error: unknown) => void
}

export interface Silence {
  readonly network: NetworkId
  readonly node: NodeName
  /** When it was noticed, ISO 8601. */
  readonly since: string
}

export interface Peers extends Closeable {
  /** These records have changed; 'all' also when networks of this host have. */
  look(changed: readonly (readonly string[])[] | 'all'): void
  /** Gets no new connections, unless there is nobody else. */
  silent(network: NetworkId, node: NodeName): boolean
  /** Has been silent for a second in which others answered. */
  dead(network: NetworkId, node: NodeName): boolean
  readonly silences: readonly Silence[]
  /** Everybody who is asked, by network. */
  readonly verdicts: readonly { readonly network: NetworkId; readonly node: NodeName; readonly verdict: Verdict }[]
  /** Everybody has answered or is silent, or cannot be asked yet; at most 5 s, for a slow machine: a second will do. */
  settled(): Promise<void>
  close(): Promise<void>
}

export interface PeersParts {
  readonly snapshot: Snapshot
  readonly host: () => Pick<Host, 'node' | 'bound'>
  /** Link-local address of a node's gateways. */
  readonly addressOf: (node: Node) => string
  /** Where a namespace is. */
  readonly pathOf: (ns: string) => string
  readonly start: (events: AskerEvents) => Asker
  /** What may lead elsewhere now. */
  readonly changed: (leads: Iterable<Lead>) => void
  readonly clock: Clock
  readonly log: Log
}

/** What leads to backends: a port, or the virtual addresses of a service. */
export type Lead = Extract<Unit, { kind: 'port' | 'vip' }>

/** A node in a network that backends of ours are in. */
interface Peer {
  readonly network: NetworkId
  readonly node: NodeName
  readonly leads: Map<UnitKey, Lead>
  /** Absent: not to be asked, being fenced or in a network that is not here. */
  target: Target | undefined
  verdict: Verdict | undefined
  /** ms since 1970 */
  since: number
}

const settleMs = 5000
const keyOf = (network: NetworkId, node: NodeName): string => `${network} ${node}`
const isSilent = (verdict: Verdict | undefined): boolean => verdict === 'silent' || verdict === 'dead'

export const openPeers = ({
  snapshot,
  host,
  addressOf,
  pathOf,
  start,
  changed: onChanged,
  clock,
  log,
}: PeersParts): Peers => {
  const peers = new Map<string, Peer>()
  const byId = new Map<number, Peer>()
  const ofLead = new Map<UnitKey, { readonly lead: Lead; readonly peers: ReadonlySet<string> }>()
  const waiting = new Set<() => void>()
  const retry: Backoff = backoff(1000, 30_000)
  let asker: Asker | undefined
  let restart: Timer | undefined
  let lastId = 0
  let closed = false

  /** Whom it leads to, by the records: whether they get connections just now does not matter, they may have some. */
  const peersOf = (lead: Lead): ReadonlySet<string> => {
    const found = new Set<string>()
    for (const { network, ids } of backendsOf(snapshot, lead)) {
      const endpoints = snapshot.endpoints(network)
      for (const id of ids) {
        const node = endpoints.get(id)?.record.node
        if (node === undefined || node === host().node) continue
        const peer = keyOf(network, node)
        found.add(peer)
        if (!peers.has(peer))
          peers.set(peer, {
            ...{ network, node, leads: new Map() },
            ...{ target: undefined, verdict: undefined, since: 0 },
          })
      }
    }
    return found
  }
  const lookAtLead = (lead: Lead): Peer[] => {
    const key = unitKey(lead)
    const before = ofLead.get(key)?.peers ?? new Set()
    const now = peersOf(lead)
    if (now.size > 0) ofLead.set(key, { lead, peers: now })
    else ofLead.delete(key)
    for (const peer of before) if (!now.has(peer)) peers.get(peer)?.leads.delete(key)
    for (const peer of now) peers.get(peer)?.leads.set(key, lead)
    return [...new Set([...before, ...now])].flatMap(peer => peers.get(peer) ?? [])
  }

  const targetOf = ({ network: id, node: name, leads }: Peer): Omit<Target, 'id'> | undefined => {
    const network = snapshot.networks.get(id)?.record
    const node = snapshot.nodes.get(name)?.record
    const wanted = [...leads.values()].some(({ kind }) => kind === 'vip' || !network?.internal)
    if (!wanted || !network || !host().bound.has(id)) return undefined
    if (!node || node.fenced !== undefined) return undefined
    return { node: name, netns: pathOf(gatewayNs(network.vni)), address: `${addressOf(node)}%${gatewayLink}` }
  }
  const aim = (wanted: Iterable<Peer>): void => {
    const drop: number[] = []
    const add: Target[] = []
    for (const peer of wanted) {
      const now = targetOf(peer)
      const { target: before } = peer
      if (peer.leads.size === 0) peers.delete(keyOf(peer.network, peer.node))
      if (before?.netns === now?.netns && before?.address === now?.address) continue
      if (before) {
        byId.delete(before.id)
        drop.push(before.id)
      }
      peer.target = now && { id: ++lastId, ...now }
      peer.verdict = undefined
      if (!peer.target) continue
      byId.set(peer.target.id, peer)
      add.push(peer.target)
    }
    if (drop.length > 0 || add.length > 0) send({ drop, add })
    settle()
  }

  const send = (order: Order): void => {
    if (asker) return asker.order(order)
    if (closed || restart || order.add.length === 0) return
    run(order.add)
  }
  const run = (add: readonly Target[]): void => {
    asker = start({ report, died })
    asker.order({ drop: [], add })
  }
  const died = (error: unknown): void => {
    const wait = retry.next()
    log.error({ err: describe(error), wait }, 'the thread that asks other nodes has ended: nobody counts as silent')
    asker = undefined
    const back = new Map<UnitKey, Lead>()
    for (const peer of byId.values()) {
      if (isSilent(peer.verdict)) for (const [key, lead] of peer.leads) back.set(key, lead)
      peer.verdict = 'unasked'
    }
    onChanged(back.values())
    settle()
    restart = clock.after(wait, () => {
      restart = undefined
      if (!closed) run([...byId.values()].flatMap(({ target }) => target ?? []))
    })
  }

  const report = (reports: Report): void => {
    retry.reset()
    const touched = new Map<UnitKey, Lead>()
    for (const [id, verdict] of reports) {
      const peer = byId.get(id)
      if (!peer) continue
      const before = peer.verdict
      peer.verdict = verdict
      if (!isSilent(before) && !isSilent(verdict)) continue
      if (!isSilent(before)) peer.since = clock.now()
      const who = { node: peer.node, network: snapshot.networks.get(peer.network)?.record.name ?? peer.network }
      if (verdict === 'silent') log.warn(who, 'node does not answer: no new connections to its containers')
      else if (verdict === 'dead') log.warn(who, 'node does not answer: connections to its containers are forgotten')
      else log.info({ ...who, ms: clock.now() - peer.since }, 'node answers again')
      for (const [key, lead] of peer.leads) touched.set(key, lead)
    }
    if (touched.size > 0) onChanged(touched.values())
    settle()
  }

  const isSettled = (): boolean => {
    for (const { verdict } of byId.values()) if (verdict === undefined) return false
    return true
  }
  const settle = (): void => {
    if (waiting.size > 0 && isSettled()) for (const done of waiting) done()
  }

  return {
    look(changed) {
      if (closed) return
      const touched = new Set<Peer>()
      const lookAt = (lead: Lead): void => {
        for (const peer of lookAtLead(lead)) touched.add(peer)
      }
      if (changed === 'all') {
        for (const { lead } of [...ofLead.values()]) lookAt(lead)
        for (const lead of allLeads(snapshot)) lookAt(lead)
        for (const peer of peers.values()) touched.add(peer)
      } else
        for (const [table, a, b] of changed as readonly [string, string, string][])
          if (table === 'ports') lookAt({ kind: 'port', ...parsePortKey(`${a}/${b}`) })
          else if (table === 'vips' || table === 'members') lookAt({ kind: 'vip', network: a, service: b })
          else if (table === 'endpoints') {
            // one that is gone has given up its claims in the same transaction, and is told to have left its service
            for (const unit of unitsOfEndpoint(a, b, snapshot))
              if (unit.kind === 'port' || unit.kind === 'vip') lookAt(unit)
          } else if (table === 'nodes' || table === 'networks')
            for (const peer of peers.values())
              if ((table === 'nodes' ? peer.node : peer.network) === a) touched.add(peer)
      if (touched.size > 0) aim(touched)
    },
    silent: (network, node) => isSilent(peers.get(keyOf(network, node))?.verdict),
    dead: (network, node) => peers.get(keyOf(network, node))?.verdict === 'dead',
    get silences() {
      return [...byId.values()]
        .filter(({ verdict }) => isSilent(verdict))
        .map(({ network, node, since }) => ({ network, node, since: new Date(since).toISOString() }))
    },
    get verdicts() {
      return [...byId.values()].map(({ network, node, verdict = 'unasked' }) => ({ network, node, verdict }))
    },
    settled() {
      if (isSettled()) return Promise.resolve()
      return new Promise(resolve => {
        const done = (): void => {
          waiting.delete(done)
          late.cancel()
          resolve()
        }
        const late = clock.after(settleMs, done)
        waiting.add(done)
      })
    },
    async close() {
      closed = true
      restart?.cancel()
      for (const done of [...waiting]) done()
      await asker?.close()
      asker = undefined
    },
  }
}

const allLeads = function* (snapshot: Snapshot): Generator<Lead> {
  for (const key of snapshot.ports.keys()) yield { kind: 'port', ...parsePortKey(key) }
  for (const network of snapshot.networks.keys())
    for (const service of snapshot.vips(network).keys()) yield { kind: 'vip', network, service }
}

/** By a port, those of the whole cluster: one of a single host leads to that host. */
const backendsOf = (
  snapshot: Snapshot,
  lead: Lead,
): readonly { readonly network: NetworkId; readonly ids: Iterable<EndpointId> }[] => {
  if (lead.kind === 'vip') {
    const { network, service } = lead
    return snapshot.vips(network).has(service) ? [{ network, ids: snapshot.members(network, service) }] : []
  }
  const claim = snapshot.ports.get(portKey(lead.proto, lead.port))?.record.cluster
  return claim ? [{ network: claim.network, ids: claim.holders }] : []
}

// SPDX-License-Identifier: Apache-2.0
// Connections to a backend that is gone, or whose node is dead, are forgotten, those and no others: a client that still
// waits for its first answer is balanced anew with its next packet, and UDP does not go on into the void. In M those of
// published ports; in N those that it translates to backends of this node, and those by a virtual address, which are known
// by the mark of their backend, wherever it lives. So is what a container of this node began with the outside: the answers
// are nothing for who has its address next. In H, UDP that was sent to a port before it was led to where it leads now:
// who goes on sending from one port keeps the entry alive, and would never arrive.
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { FlowsOf, LedPort } from '../kernel/objects.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import { portKey } from '../model/port.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { linkNetwork } from '../plan/links.ts'
import { gatewayNs, switchNs } from '../plan/names.ts'
import { type Unit, type UnitKey, unitKey } from '../plan/unit.ts'
import { publishedHere } from './plan.ts'
import { marksOf } from './vip-plan.ts'

export interface Flows {
  /** The kernel is as planned; these units were planned anew. Who was a backend before and is none now is cleared. */
  look(units: Iterable<Unit>): void
}

export interface FlowsParts {
  readonly snapshot: Snapshot
  readonly host: () => Host
  /** Deletes what is tracked in a namespace as translated to these addresses or marked so, or all other such, or not as led; answers how many. */
  readonly forget: (ns: string, which: FlowsOf) => Promise<number>
  readonly log: Log
}

export const openFlows = ({ snapshot, host, forget, log }: FlowsParts): Flows => {
  const ofUnit = new Map<UnitKey, readonly Backend[]>()
  const uses = new Map<string, Map<string, number>>() // namespace → address that it translates to, or mark → by how many units
  let started = false // who went while we were away is unknown

  const leads = new Map<UnitKey, string>() // UDP port → where it led to
  const owedLeads = new Map<number, LedPort>()

  const owed = new Map<string, Set<string> | 'others'>() // namespace → what could not be forgotten yet

  const clear = (ns: string, gone: Set<string> | 'others'): void => {
    const used = uses.get(ns)
    const which =
      gone === 'others'
        ? { toOthersThan: new Set(used?.keys()) }
        : { to: [...gone].filter(address => !used?.has(address)) }
    if ('to' in which && which.to.length === 0) return
    forget(ns, which).then(
      flows => flows > 0 && log.info({ ns, flows }, 'connections to backends that are gone'),
      error => {
        log.warn({ ns, err: describe(error) }, 'connections not forgotten yet')
        const known = owed.get(ns)
        owed.set(ns, gone === 'others' || known === 'others' ? 'others' : new Set([...(known ?? []), ...gone]))
      },
    )
  }
  /** Where a UDP port has begun to lead to. */
  const begun = (unit: Unit & { kind: 'port' }): void => {
    const led = unit.proto === 'udp' ? ledTo(unit.port, snapshot, host()) : undefined
    const key = unitKey(unit)
    const now = JSON.stringify(led)
    if (led && leads.get(key) !== now) owedLeads.set(unit.port, led)
    else if (!led) owedLeads.delete(unit.port)
    if (led) leads.set(key, now)
    else leads.delete(key)
  }
  const clearLed = (): void => {
    const led = [...owedLeads.values()]
    owedLeads.clear()
    if (led.length === 0) return
    forget('', { led }).then(
      flows => flows > 0 && log.info({ flows, ports: led.map(({ port }) => port) }, 'UDP that was led elsewhere'),
      error => {
        log.warn({ err: describe(error) }, 'UDP that was led elsewhere is not forgotten yet')
        for (const one of led) if (!owedLeads.has(one.port)) owedLeads.set(one.port, one)
      },
    )
  }
  const count = ({ ns, address }: Backend, by: number): void => {
    const addresses = uses.get(ns) ?? new Map<string, number>()
    const next = (addresses.get(address) ?? 0) + by
    if (next === 0) addresses.delete(address)
    else uses.set(ns, addresses.set(address, next))
  }

  return {
    look(units) {
      const left: Backend[] = []
      for (const unit of units) {
        if (unit.kind !== 'port' && unit.kind !== 'vip' && unit.kind !== 'endpoint') continue
        if (unit.kind === 'port') begun(unit)
        const key = unitKey(unit)
        const before = ofUnit.get(key) ?? []
        const now = endsOf(unit, snapshot, host())
        for (const backend of now) count(backend, 1)
        for (const backend of before) count(backend, -1)
        left.push(...before)
        if (now.length > 0) ofUnit.set(key, now)
        else ofUnit.delete(key)
      }
      clearLed()
      const gone = new Map<string, Set<string>>()
      for (const { ns, address } of left)
        if (!uses.get(ns)?.has(address)) gone.set(ns, (gone.get(ns) ?? new Set()).add(address))
      for (const [ns, which] of owed) {
        owed.delete(ns)
        clear(ns, which)
      }
      for (const [ns, addresses] of gone) clear(ns, addresses)
      if (started) return
      started = true
      for (const network of host().bound.keys()) {
        const vni = snapshot.networks.get(network)?.record.vni
        if (vni === undefined) continue
        for (const ns of [gatewayNs(vni), switchNs(vni)]) clear(ns, 'others')
      }
    },
  }
}

/** Undefined: nowhere, as nobody gets new connections. */
const ledTo = (port: number, snapshot: Snapshot, host: Host): LedPort | undefined => {
  const record = snapshot.ports.get(portKey('udp', port))?.record
  const { network, backends, addresses } = (record && publishedHere(record, 'udp', port, snapshot, host)) ?? {}
  if (!network || !backends?.some(({ weight }) => weight > 0)) return undefined
  const { gateway4, gateway6 } = linkNetwork(host.bound.get(network.id)!.slot)
  return { port, to: [gateway4, gateway6], ...(addresses ? { at: addresses } : {}) }
}

interface Backend {
  readonly ns: string
  /** Plain, or the mark of its connections; after 'from ' of who began them. */
  readonly address: string
}

type Ending = Unit & { kind: 'port' | 'vip' | 'endpoint' }
const endsOf = (unit: Ending, snapshot: Snapshot, host: Host): Backend[] => {
  if (unit.kind === 'port') return byPort(unit, snapshot, host)
  return unit.kind === 'vip' ? byVip(unit, snapshot, host) : byEndpoint(unit, snapshot, host)
}

/** By the gateway of its own node it reaches the outside. */
const byEndpoint = ({ network, endpoint }: Unit & { kind: 'endpoint' }, snapshot: Snapshot, host: Host): Backend[] => {
  const vni = snapshot.networks.get(network)?.record.vni
  const known = living(network, endpoint, snapshot, host)
  if (vni === undefined || known?.node !== host.node) return []
  return known.addresses.map(address => ({ ns: gatewayNs(vni), address: `from ${address}` }))
}

/** Whoever may have connections by a port of this host: also those that get no new ones. */
const byPort = ({ proto, port }: Unit & { kind: 'port' }, snapshot: Snapshot, host: Host): Backend[] => {
  const record = snapshot.ports.get(portKey(proto, port))?.record
  if (!record) return []
  const { cluster, local } = record
  const holders = [...(cluster?.holders.map(endpoint => ({ network: cluster.network, endpoint })) ?? []), ...local]
  return holders.flatMap(({ network, endpoint }): Backend[] => {
    const own = inSwitch(network, endpoint, snapshot, host)
    const vni = snapshot.networks.get(network)?.record.vni
    const known = living(network, endpoint, snapshot, host)
    if (vni === undefined || !known) return own
    if (host.dead(network, known.node)) {
      const { backends } = publishedHere(record, proto, port, snapshot, host) ?? {}
      if (!backends?.some(one => one.endpoint.id === endpoint)) return own
    }
    return [...known.addresses.map(address => ({ ns: gatewayNs(vni), address })), ...own]
  })
}

const byVip = ({ network, service }: Unit & { kind: 'vip' }, snapshot: Snapshot, host: Host): Backend[] => {
  const vni = snapshot.networks.get(network)?.record.vni
  if (vni === undefined || !host.bound.has(network) || !snapshot.vips(network).has(service)) return []
  return [
    ...[...snapshot.members(network, service)].flatMap(id => inSwitch(network, id, snapshot, host)),
    ...marksOf(network, service, snapshot, host).map(mark => ({ ns: switchNs(vni), address: mark })),
  ]
}

const inSwitch = (network: NetworkId, id: EndpointId, snapshot: Snapshot, host: Host): Backend[] => {
  const vni = snapshot.networks.get(network)?.record.vni
  const known = living(network, id, snapshot, host)
  if (vni === undefined || known?.node !== host.node) return []
  return known.addresses.map(address => ({ ns: switchNs(vni), address }))
}

const living = (network: NetworkId, id: EndpointId, snapshot: Snapshot, host: Host): Endpoint | undefined => {
  const known = snapshot.endpoints(network).get(id)?.record
  if (!known || !host.bound.has(network) || host.departed(id)) return undefined
  return snapshot.nodes.get(known.node)?.record.fenced === undefined ? known : undefined
}

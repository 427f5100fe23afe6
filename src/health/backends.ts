// SPDX-License-Identifier: Apache-2.0
// Active probes: each node asks its own containers of services that have a probe (`weft service create --probe`). Who
// does not answer so many times in a row gets no new connections until it does again; who goes to and fro has to
// answer for longer each time.
import { type Clock, sleep } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import { endpointService } from '../model/service.ts'
import type { Probe } from '../model/service-options.ts'
import { type Snapshot, serviceOptions } from '../model/snapshot.ts'
import { gatewayNs } from '../plan/names.ts'
import type { Question } from './ask.ts'

export interface BackendProbes extends Closeable {
  /** These endpoints have changed, or what was said of their services. */
  look(endpoints: Iterable<readonly [NetworkId, EndpointId]>): void
  /** Why a container of this node fails its probe, or has nothing that could be asked. */
  readonly failures: ReadonlyMap<EndpointId, string>
  close(): Promise<void>
}

export interface BackendProbesParts {
  readonly snapshot: Snapshot
  readonly node: NodeName
  readonly clock: Clock
  readonly log: Log
  /** Why it does not answer, as seen from this namespace; undefined: it does. Rejects when it cannot be asked, and when the signal aborts. */
  readonly ask: (ns: string, question: Question, signal: AbortSignal) => Promise<string | undefined>
  readonly fail: (network: NetworkId, endpoint: EndpointId, failing: boolean, signal: AbortSignal) => Promise<void>
}

/** In a row, before it gets connections again. */
const recovered = 2
/** Who failed again must answer for this long, twice as long each time, before it counts. */
const firstHoldMs = 4000
const longestHoldMs = 60_000
/** Without a failure for so long its past is forgotten. */
const calmMs = 5 * 60_000

/** It stays in service all the same. */
const nothingToAsk = 'it publishes no TCP port; --probe tcp:PORT says which one to ask'

/** The question could not be put, which says nothing of the container. */
const nobodyAsked = Symbol('nobody asked')

export const openBackendProbes = ({ snapshot, node, clock, log, ask, fail }: BackendProbesParts): BackendProbes => {
  const stop = new AbortController()
  const asked = new Map<EndpointId, Promise<void>>()
  const failures = new Map<EndpointId, string>()

  /** What is to be asked of a container of this node. */
  const probeOf = (network: NetworkId, id: EndpointId): { endpoint: Endpoint; probe?: Probe } | undefined => {
    const endpoint = snapshot.endpoints(network).get(id)?.record
    if (endpoint?.node !== node || !endpoint.gateway) return undefined
    const service = endpointService(endpoint)
    const probe = service === undefined ? undefined : serviceOptions(snapshot, network, service)?.probe
    return probe ? { endpoint, probe } : { endpoint }
  }

  const question = async (endpoint: Endpoint, probe: Probe): Promise<string | undefined> => {
    const vni = snapshot.networks.get(endpoint.network)?.record.vni
    if (vni === undefined) return undefined
    for (const { port, http } of targetsOf(endpoint, probe)) {
      const one = { address: endpoint.addresses[0]!, port, timeoutMs: probe.timeoutMs, ...(http ? { http } : {}) }
      const why = await ask(gatewayNs(vni), one, stop.signal)
      if (why !== undefined) return why
    }
    return undefined
  }

  const watch = async (network: NetworkId, id: EndpointId): Promise<void> => {
    let bad = 0
    let good = 0
    let goodSince = 0
    let flaps = 0
    let lastFailure = 0
    const tell = (failing: boolean): Promise<void> =>
      fail(network, id, failing, stop.signal).catch(error =>
        log.warn({ endpoint: id.slice(0, 12), err: describe(error) }, 'outcome of a probe not announced yet'),
      )
    let couldAsk = true
    const known = (why: string | undefined): string | undefined => {
      couldAsk = true
      return why
    }
    const unasked = (error: unknown): typeof nobodyAsked => {
      stop.signal.throwIfAborted()
      if (couldAsk) log.warn({ endpoint: id.slice(0, 12), err: describe(error) }, 'container cannot be asked yet')
      couldAsk = false
      return nobodyAsked
    }
    for (;;) {
      const now = probeOf(network, id)
      if (!now?.probe) {
        failures.delete(id)
        if (now?.endpoint.failing) await tell(false)
        const then = probeOf(network, id)
        if (!then?.probe && !then?.endpoint.failing) return
      } else if (targetsOf(now.endpoint, now.probe).length === 0) {
        failures.set(id, nothingToAsk)
        if (now.endpoint.failing) await tell(false)
      } else if (!now.endpoint.unready) {
        const why = await question(now.endpoint, now.probe).then(known, unasked)
        const at = clock.monotonic()
        if (why === nobodyAsked) {
          // stays what it was: our own end was not there, or has no port free
        } else if (why === undefined) {
          bad = 0
          if (good++ === 0) goodSince = at
          if (at - lastFailure > calmMs) flaps = 0
          if (failures.get(id) === nothingToAsk) failures.delete(id)
          const holdMs = flaps < 2 ? 0 : Math.min(longestHoldMs, firstHoldMs * 2 ** (flaps - 2))
          if (good >= recovered && at - goodSince >= holdMs) {
            if (failures.delete(id)) log.info({ endpoint: id.slice(0, 12) }, 'container answers its probe again')
            if (now.endpoint.failing) await tell(false)
          }
        } else {
          good = 0
          lastFailure = at
          if (++bad >= now.probe.failures) {
            if (!failures.has(id)) {
              flaps++
              log.warn({ endpoint: id.slice(0, 12), why }, 'container fails its probe')
            }
            failures.set(id, why)
            if (!now.endpoint.failing) await tell(true)
          }
        }
      }
      await sleep(clock, now?.probe?.intervalMs ?? 1000, stop.signal)
    }
  }

  return {
    failures,
    look(endpoints) {
      for (const [network, id] of endpoints) {
        if (asked.has(id) || stop.signal.aborted) continue
        const now = probeOf(network, id)
        if (!now?.probe && !now?.endpoint.failing) continue
        asked.set(
          id,
          watch(network, id)
            .catch(error => stop.signal.aborted || log.error({ err: describe(error) }, 'probe'))
            .then(() => void asked.delete(id)),
        )
      }
    },
    async close() {
      stop.abort(new Error('closed'))
      await Promise.all(asked.values())
    },
  }
}

interface Target {
  readonly port: number
  readonly http?: Question['http']
}

/**
 * Ports as they are reached from the gateway: a published one by its number on hosts, which N translates, as for every
 * connection of the mesh; another as it is.
 */
const targetsOf = ({ ports }: Endpoint, { target }: Probe): readonly Target[] => {
  const tcp = ports.filter(({ proto }) => proto === 'tcp')
  const reached = (port: number): number => tcp.find(mapping => mapping.port === port)?.hostPort ?? port
  if (target.kind === 'http') {
    const { path, status } = target
    return [{ port: reached(target.port), http: { path, status } }]
  }
  return target.port === undefined ? tcp.map(({ hostPort }) => ({ port: hostPort })) : [{ port: reached(target.port) }]
}

// SPDX-License-Identifier: Apache-2.0
// A container gets connections when it accepts them: its own node knocks at the TCP ports that it publishes until all
// are open. One that opens some of them late, or never, gets its connections after a while all the same.
import { backoff } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { EndpointId, NetworkId, NodeName } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { gatewayNs } from '../plan/names.ts'

export interface Readiness extends Closeable {
  /** These endpoints have changed. */
  look(endpoints: Iterable<readonly [NetworkId, EndpointId]>): void
  close(): Promise<void>
}

export interface ReadinessParts {
  readonly snapshot: Snapshot
  readonly node: NodeName
  readonly clock: Clock
  readonly log: Log
  /** Does it accept a connection, as seen from this namespace? Rejects when the signal aborts. */
  readonly accepts: (ns: string, address: string, port: number, signal: AbortSignal) => Promise<boolean>
  readonly ready: (network: NetworkId, endpoint: EndpointId, signal: AbortSignal) => Promise<void>
}

/** Who listens at some of its ports after this, ms, is not waited for any longer: nobody may ever open the others. */
export const patienceMs = 10_000
/** Nor who listens at none after this, and has TCP ports alone: it may answer others than us. */
export const patienceOfAllMs = 60_000

export const openReadiness = ({ snapshot, node, clock, log, accepts, ready }: ReadinessParts): Readiness => {
  const stop = new AbortController()
  const waiting = new Map<EndpointId, Promise<void>>()

  const unready = (network: NetworkId, id: EndpointId): Endpoint | undefined => {
    const record = snapshot.endpoints(network).get(id)?.record
    return record?.node === node && record.unready ? record : undefined
  }
  const tcpPorts = ({ ports }: Endpoint): number[] =>
    // by the published port: N translates it, as for every connection of the mesh
    ports.filter(({ proto }) => proto === 'tcp').map(({ hostPort }) => hostPort)

  const wait = async (network: NetworkId, id: EndpointId): Promise<void> => {
    const retry = backoff(10, 100)
    const since = clock.monotonic()
    const waited = (ms: number): boolean => clock.monotonic() - since > ms
    for (; ; await sleep(clock, waited(patienceMs) ? 1000 : retry.next(), stop.signal)) {
      const record = unready(network, id)
      const vni = snapshot.networks.get(network)?.record.vni
      if (!record || vni === undefined) return
      const knock = async (port: number): Promise<boolean> => {
        for (const address of record.addresses)
          if (await accepts(gatewayNs(vni), address, port, stop.signal).catch(() => false)) return true
        return false
      }
      // UDP that it answers waits as long as its TCP
      const patienceOfNone = record.ports.every(({ proto }) => proto === 'tcp') ? patienceOfAllMs : patienceMs
      const isOpen = async (): Promise<boolean> => {
        for (const port of tcpPorts(record)) if (!(await knock(port))) return false
        return true
      }
      const isLate = async (): Promise<boolean> => {
        if (!waited(patienceMs)) return false
        for (const port of tcpPorts(record)) if (waited(patienceOfNone) || (await knock(port))) return true
        return false
      }
      if (!(await isOpen())) {
        if (!(await isLate())) continue
        log.warn({ endpoint: id.slice(0, 12) }, 'a published port does not accept connections, it gets them now')
      }
      await ready(network, id, stop.signal).catch(error =>
        log.warn({ endpoint: id.slice(0, 12), err: describe(error) }, 'container not announced as ready yet'),
      )
    }
  }

  return {
    look(endpoints) {
      for (const [network, id] of endpoints)
        if (!waiting.has(id) && unready(network, id))
          waiting.set(
            id,
            wait(network, id)
              .catch(error => stop.signal.aborted || log.error({ err: describe(error) }, 'readiness'))
              .then(() => void waiting.delete(id)),
          )
    },
    async close() {
      stop.abort(new Error('closed'))
      await Promise.all(waiting.values())
    },
  }
}

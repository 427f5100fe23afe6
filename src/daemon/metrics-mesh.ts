// SPDX-License-Identifier: Apache-2.0
// Metrics of services: their containers by state, from the records, and what this host has sent to each, from
// the kernel's balancer. Costs one dump per network that publishes ports: of IPVS as much as there are services, of
// nftables as much as there are translated connections.
import { serviceMessages, titleOf } from '../api/convert.ts'
import { floatingMessage } from '../api/floating.ts'
import type { Metrics, Sample } from '../base/metrics.ts'
import type { BalanceCount } from '../kernel/kernel.ts'
import type { NetworkId, NodeName } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { titleOfNetwork } from './metrics-state.ts'

export interface MeshParts {
  readonly snapshot: Snapshot
  readonly silent: (network: NetworkId, node: NodeName) => boolean
  /** What this host has sent to the containers of a network; nothing where the network is not here. */
  readonly counters: (network: NetworkId) => Promise<readonly BalanceCount[]>
}

type BackendLabel = 'network' | 'service' | 'container' | 'node' | 'proto' | 'port'

export const measureMesh = (metrics: Metrics, { snapshot, silent, counters }: MeshParts): void => {
  const backends = metrics.series(
    'gauge',
    'weft_service_backends',
    'Containers of a service by state. active is always there, the others where they are not 0.',
    ['network', 'service', 'state'],
  )
  const labels = ['network', 'service', 'container', 'node', 'proto', 'port'] as const satisfies BackendLabel[]
  const active = metrics.series(
    'gauge',
    'weft_backend_connections_active',
    'Connections by this host to a container now; of TCP established ones.',
    labels,
  )
  const connections = metrics.series(
    'counter',
    'weft_backend_connections_total',
    'Connections that this host gave to a container. Only IPVS counts them.',
    labels,
  )
  const received = metrics.series(
    'counter',
    'weft_backend_received_bytes_total',
    'Bytes that clients sent to a container by this host. Only IPVS counts them.',
    labels,
  )
  const sent = metrics.series(
    'counter',
    'weft_backend_sent_bytes_total',
    'Bytes that a container sent to clients by this host. Only IPVS counts them.',
    labels,
  )

  const services = () =>
    serviceMessages(
      snapshot,
      () => undefined,
      silent,
      () => [],
      one => floatingMessage(snapshot, one, new Map()),
    )

  metrics.atScrape('services', [backends], () => {
    const nameless = namelessIn(snapshot)
    const samples: Sample<'network' | 'service' | 'state'>[] = []
    for (const service of services()) {
      const about = { network: service.network, service: nameless(titleOf(service)) }
      samples.push([{ ...about, state: 'active' }, 0])
      for (const { state } of service.backends) samples.push([{ ...about, state }, 1])
    }
    backends.replace(samples)
  })

  metrics.atScrape('backends', [active, connections, received, sent], async () => {
    const nameless = namelessIn(snapshot)
    const published = Map.groupBy(services(), service => service.network)
    const samples = { active: [], connections: [], received: [], sent: [] } as Record<string, Sample<BackendLabel>[]>
    for (const id of snapshot.networks.keys()) {
      const network = titleOfNetwork(snapshot, id)
      const here = published.get(network)
      if (!here) continue
      const counts = new Map((await counters(id)).map(count => [countKey(count.proto, count.port, count.to), count]))
      if (counts.size === 0) continue
      for (const service of here)
        for (const { container, node, addresses } of service.backends)
          for (const { proto, hostPort } of service.ports)
            for (const address of addresses) {
              const count = counts.get(countKey(proto, hostPort, address))
              if (!count) continue
              const about = {
                ...{ network, service: nameless(titleOf(service)), container: nameless(container) },
                ...{ node, proto, port: String(hostPort) },
              }
              samples['active']!.push([about, count.active])
              if (!count.all) continue
              samples['connections']!.push([about, Number(count.all.connections)])
              samples['received']!.push([about, Number(count.all.bytesIn)])
              samples['sent']!.push([about, Number(count.all.bytesOut)])
            }
    }
    active.replace(samples['active']!)
    connections.replace(samples['connections']!)
    received.replace(samples['received']!)
    sent.replace(samples['sent']!)
  })
}

const countKey = (proto: string, port: number, to: string): string => `${proto} ${port} ${to}`

/** Until Docker's events have told the name of a container an id stands there, which no label may be: '' instead. */
const namelessIn = (snapshot: Snapshot): ((name: string) => string) => {
  const ids = new Set<string>()
  for (const network of snapshot.networks.keys())
    for (const [id, { record }] of snapshot.endpoints(network)) if (!record.workload) ids.add(id.slice(0, 12))
  return name => (ids.has(name) ? '' : name)
}

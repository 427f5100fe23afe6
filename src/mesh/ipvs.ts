// SPDX-License-Identifier: Apache-2.0
// The balancer of IPVS: a virtual service at the gateway's end of its uplink, a destination for each target. What has
// no share stays as a destination of weight 0, which its connections need.
import type { KernelObject } from '../kernel/objects.ts'
import { defaultScheduler, schedulers } from '../model/service-options.ts'
import { idleSeconds } from '../plan/tracking.ts'
import type { Wanted } from '../plan/unit.ts'
import type { Engine } from './balancer.ts'

export const ipvs: Engine = {
  schedulers,
  plan({ ns, proto, port, families, options }) {
    const { scheduler: name = defaultScheduler, affinity, timeoutTcp, timeoutUdp } = options ?? {}
    // a target without a share is passed over; without this flag its clients would be refused
    const scheduler = name === 'sh' || name === 'mh' ? `${name} -b ${name}-fallback` : name
    const objects = families.flatMap(({ at: address, to }): KernelObject[] => [
      { kind: 'ipvs-service', ns, proto, address, port, scheduler, ...(affinity === undefined ? {} : { affinity }) },
      ...to.map(
        (target): KernelObject => ({
          kind: 'ipvs-destination',
          ns,
          service: { proto, address, port },
          to: target.address,
          weight: target.weight,
        }),
      ),
    ])
    const wanted = objects.map((object): Wanted => ({ object, rank: 0 }))
    if (proto === 'sctp') return wanted
    // one for all services of the network: the longest that one of them wants
    const seconds = { tcp: timeoutTcp, udp: timeoutUdp }[proto] ?? idleSeconds[proto]
    return [...wanted, { object: { kind: 'ipvs-timeout', ns, of: proto, seconds }, rank: seconds }]
  },
}

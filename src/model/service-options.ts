// SPDX-License-Identifier: Apache-2.0
// What an operator says of a service (`weft service create`). Which containers are one service follows from their labels
// (model/service); this is only how they are served. It may be there before the first of them.
import type { NetworkId } from './ids.ts'
import type { DeviceAddress } from './node.ts'
import { serviceKey, serviceTitle } from './service.ts'

/** As in ipvsadm(8). */
export const schedulers = ['rr', 'wrr', 'lc', 'wlc', 'sh', 'mh'] as const
export type Scheduler = (typeof schedulers)[number]
export const defaultScheduler: Scheduler = 'rr'
/** Where nftables chooses: always for virtual addresses. The first is taken for what is not among them. */
export const turnSchedulers: readonly Scheduler[] = ['rr', 'wrr', 'sh']

/** services/<network>/<optionsKey>. What is absent was not named. */
export interface ServiceOptions {
  readonly network: NetworkId
  /** optionsKey of the service. */
  readonly service: string
  readonly scheduler?: Scheduler
  /** Seconds that a client's address keeps its backend after its last connection. Absent: off. */
  readonly affinity?: number
  /** Seconds without a packet after which a connection is forgotten. Absent: the kernel's own. */
  readonly timeoutTcp?: number
  readonly timeoutUdp?: number
  /** Absent: not probed. */
  readonly probe?: Probe
  /** Floating addresses: exactly one host has each. Absent: none. */
  readonly addresses?: readonly DeviceAddress[]
}

/** How the node of a backend asks it whether it works. */
export interface Probe {
  readonly target: ProbeTarget
  readonly intervalMs: number
  /** Not longer than the interval. */
  readonly timeoutMs: number
  /** So many in a row take it out. */
  readonly failures: number
}

export type ProbeTarget =
  /** It accepts a connection. Port in the container; absent: every TCP port that it publishes. */
  | { readonly kind: 'tcp'; readonly port?: number }
  /** GET answers with one of these statuses. */
  | { readonly kind: 'http'; readonly port: number; readonly path: string; readonly status: StatusRange }

/** Both ends included. */
export interface StatusRange {
  readonly first: number
  readonly last: number
}

export const probeDefaults = { intervalMs: 2000, timeoutMs: 1000, failures: 3 } as const
export const defaultStatus: StatusRange = { first: 200, last: 399 }

/** As typed: 'http:80/healthz=200-399'. */
export const formatTarget = (target: ProbeTarget): string => {
  if (target.kind === 'tcp') return target.port === undefined ? 'tcp' : `tcp:${target.port}`
  const { first, last } = target.status
  return `http:${target.port}${target.path}=${first}${last === first ? '' : `-${last}`}`
}

/**
 * Where the options of a service are, by what people call it ('web', 'shop/web'): one place for a label `web` and a
 * container `web`, as it may be named before either is there.
 */
export const optionsKeyOf = (title: string): string => {
  const slash = title.indexOf('/')
  return serviceKey(
    slash < 0
      ? { by: 'label', name: title }
      : { by: 'compose', project: title.slice(0, slash), name: title.slice(slash + 1) },
  )
}

/** The same of a service key, as endpoints and claims of ports have it. */
export const optionsKey = (service: string): string => optionsKeyOf(serviceTitle(service))

// SPDX-License-Identifier: Apache-2.0
// The options of `weft service create`, as they were typed: checked one by one, and put over what was said before.
import { WeftError } from '../base/errors.ts'
import {
  defaultStatus,
  type Probe,
  type ProbeTarget,
  probeDefaults,
  type Scheduler,
  type ServiceOptions,
  type StatusRange,
  schedulers,
} from '../model/service-options.ts'
import { parseAddresses } from './floating.ts'
import { nearest } from './options.ts'

/** Absent: as it was. */
export interface ServiceRequest {
  readonly scheduler?: string | undefined
  /** Seconds; 0: off. */
  readonly affinity?: number | undefined
  /** Seconds; 0: the kernel's own. */
  readonly timeoutTcp?: number | undefined
  readonly timeoutUdp?: number | undefined
  /** tcp[:PORT], http:PORT/PATH[=STATUS[-STATUS]], none. */
  readonly probe?: string | undefined
  readonly probeIntervalMs?: number | undefined
  readonly probeTimeoutMs?: number | undefined
  readonly probeFailures?: number | undefined
  /** CIDRs, or 'none' alone; empty: as it was. */
  readonly addresses?: readonly string[] | undefined
  readonly dev?: string | undefined
}

const day = 86_400

/** Throws INVALID naming the option and what it takes. */
export const changedBy = (before: ServiceOptions, request: ServiceRequest): ServiceOptions => {
  const { network, service } = before
  const scheduler = request.scheduler === undefined ? before.scheduler : parseScheduler(request.scheduler)
  const affinity = seconds('affinity', request.affinity, 'off', before.affinity)
  const timeoutTcp = seconds('timeout-tcp', request.timeoutTcp, "the kernel's default", before.timeoutTcp)
  const timeoutUdp = seconds('timeout-udp', request.timeoutUdp, "the kernel's default", before.timeoutUdp)
  const probe = changedProbe(before.probe, request)
  const addresses = parseAddresses(request.addresses, request.dev, before.addresses)
  return {
    network,
    service,
    ...(scheduler === undefined ? {} : { scheduler }),
    ...(affinity === undefined ? {} : { affinity }),
    ...(timeoutTcp === undefined ? {} : { timeoutTcp }),
    ...(timeoutUdp === undefined ? {} : { timeoutUdp }),
    ...(probe === undefined ? {} : { probe }),
    ...(addresses === undefined ? {} : { addresses }),
  }
}

/** A name as `weft service ls` prints it: a label, a container's name, or PROJECT/SERVICE. Throws INVALID. */
export const checkServiceName = (name: string): void => {
  const parts = name.split('/')
  if (name.length > 255 || parts.length > 2 || parts.some(part => part === '' || part !== part.trim()))
    throw invalid(`service name ${JSON.stringify(name)}`, 'a name, or PROJECT/SERVICE, of at most 255 characters')
  if (/\p{Cc}/u.test(name)) throw invalid(`service name ${JSON.stringify(name)}`, 'a name without control characters')
}

const invalid = (what: string, wanted: string): WeftError => new WeftError('INVALID', `${what}: give ${wanted}`)

const parseScheduler = (text: string): Scheduler => {
  const found = schedulers.find(one => one === text)
  if (found === undefined)
    throw invalid(
      `--scheduler ${JSON.stringify(text)}`,
      `one of ${schedulers.join(', ')}, perhaps ${nearest(text, schedulers)}`,
    )
  return found
}

/** 0 takes the option away. */
const seconds = (
  name: string,
  value: number | undefined,
  zero: string,
  before: number | undefined,
): number | undefined => {
  if (value === undefined) return before
  if (!Number.isInteger(value) || value < 0 || value > day)
    throw invalid(`--${name} ${value}`, `whole seconds from 1 to ${day}, or 0 for ${zero}`)
  return value === 0 ? undefined : value
}

const changedProbe = (before: Probe | undefined, request: ServiceRequest): Probe | undefined => {
  const { probe, probeIntervalMs, probeTimeoutMs, probeFailures } = request
  const details = [probeIntervalMs, probeTimeoutMs, probeFailures].some(value => value !== undefined)
  const target = probe === undefined ? before?.target : probe === 'none' ? undefined : parseTarget(probe)
  if (!target) {
    if (details)
      throw invalid(
        '--probe-interval, --probe-timeout and --probe-failures say how to probe, and nothing is probed',
        '--probe as well',
      )
    return undefined
  }
  const known = before ?? probeDefaults
  const intervalMs = within('probe-interval', probeIntervalMs ?? known.intervalMs, 100, 3_600_000, 1000)
  // a shorter interval shortens a timeout that nobody named
  const timeoutMs = within(
    'probe-timeout',
    probeTimeoutMs ?? Math.min(known.timeoutMs, intervalMs),
    10,
    3_600_000,
    1000,
  )
  if (timeoutMs > intervalMs)
    throw invalid(
      `--probe-timeout ${timeoutMs / 1000} is longer than the interval of ${intervalMs / 1000} s`,
      'a shorter one, or a longer --probe-interval',
    )
  return { target, intervalMs, timeoutMs, failures: within('probe-failures', probeFailures ?? known.failures, 1, 100) }
}

/** `unit`: by which the value is divided for people. */
const within = (name: string, value: number, least: number, most: number, unit = 1): number => {
  if (!Number.isInteger(value) || value < least || value > most)
    throw invalid(
      `--${name} ${value / unit}`,
      unit === 1
        ? `a whole number from ${least} to ${most}`
        : `seconds from ${least / unit} to ${most / unit}, such as 0.5`,
    )
  return value
}

const targetForms = 'tcp, tcp:PORT, http:PORT/PATH[=STATUS[-STATUS]], or none'

const parseTarget = (text: string): ProbeTarget => {
  const name = `--probe ${JSON.stringify(text)}`
  if (text === 'tcp') return { kind: 'tcp' }
  const tcp = /^tcp:(\d+)$/.exec(text)
  if (tcp) return { kind: 'tcp', port: portOf(name, tcp[1]!) }
  // visible ASCII: it goes into a request line as it is (RFC 9112 section 3)
  const http = /^http:(\d+)(\/[!-~]*?)(?:=(\d{3})(?:-(\d{3}))?)?$/.exec(text)
  if (!http) throw invalid(name, targetForms)
  const [, port, path, first, last] = http as unknown as [string, string, string, string?, string?]
  return { kind: 'http', port: portOf(name, port), path, status: statusOf(name, first, last) }
}

const portOf = (name: string, text: string): number => {
  const port = Number(text)
  if (port < 1 || port > 65535) throw invalid(name, 'a port from 1 to 65535')
  return port
}

const statusOf = (name: string, first: string | undefined, last = first): StatusRange => {
  if (first === undefined || last === undefined) return defaultStatus
  const status = { first: Number(first), last: Number(last) }
  if (status.first < 100 || status.last > 599 || status.first > status.last)
    throw invalid(name, 'statuses from 100 to 599, the lower one first')
  return status
}

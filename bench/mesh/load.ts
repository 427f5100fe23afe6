// SPDX-License-Identifier: Apache-2.0
// Requests as fast as they are answered, by wrk, from the outside client.
import { cpus } from 'node:os'
import type { Lab } from '../../test/e2e/lab.ts'

export type Connections = 'keep-alive' | 'a new connection each'

export interface Answered {
  readonly perSecond: number
  /** Microseconds. */
  readonly p50: number
  readonly p99: number
}

/** Microseconds in one of wrk's units. */
const units: Readonly<Record<string, number>> = { us: 1, ms: 1e3, s: 1e6, m: 6e7 }

/** Throws where wrk's output has not what it should, or requests failed. */
export const parseWrk = (out: string): Answered => {
  const percentile = (share: number): number => {
    const [, value, unit] = new RegExp(`^ *${share}% +([0-9.]+)([a-z]+)$`, 'm').exec(out) ?? []
    return Number(value) * units[unit ?? '']!
  }
  const answered = {
    perSecond: Number(/^Requests\/sec: +([0-9.]+)$/m.exec(out)?.[1]),
    p50: percentile(50),
    p99: percentile(99),
  }
  if (Object.values(answered).some(value => !Number.isFinite(value)) || /Socket errors|Non-2xx/.test(out))
    throw new Error(`wrk: ${out}`)
  return answered
}

/** wrk on the first CPU. */
export const request = async (
  lab: Lab,
  url: string,
  seconds: number,
  count: number,
  connections: Connections,
): Promise<Answered> => {
  const close = connections === 'keep-alive' ? [] : ['-H', 'Connection: close']
  const load = ['wrk', '-t', '1', '-c', String(count), '-d', `${seconds}s`, '--latency', ...close, url]
  return parseWrk(await lab.exec('client', 'taskset', '-c', '0', ...load))
}

/** The server's CPU. */
export const serverCpu = cpus().length - 1

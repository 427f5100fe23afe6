// SPDX-License-Identifier: Apache-2.0
// What is measured on a path, by iperf3 and sockperf: the sender is pinned to the first CPU, the receiver to the last,
// or both to the first.
import { cpus } from 'node:os'
import type { Path } from './paths.ts'

export type Cpus = 'one CPU' | 'two CPUs'
export type Protocol = 'TCP' | 'UDP'

/** Ports by what listens. */
const streamPort = 6000
const pongPort: Readonly<Record<Protocol, Readonly<Record<Cpus, number>>>> = {
  TCP: { 'one CPU': 6001, 'two CPUs': 6002 },
  UDP: { 'one CPU': 6003, 'two CPUs': 6004 },
}
/** Octets of a message. */
const messageBytes = 64

/** iperf3 makes a file where TMPDIR says, which is the section's and not there on its hosts. */
const pinned = (cpu: number, ...command: string[]): string[] => [
  'env',
  '-u',
  'TMPDIR',
  'taskset',
  '-c',
  String(cpu),
  ...command,
]
const first = 0
const last = cpus().length - 1

/** Starts what answers; it is there when `listening` says so. */
export const startServers = (path: Path): void => {
  path.serve(...pinned(last, 'iperf3', '-s', '-p', String(streamPort)))
  for (const protocol of ['TCP', 'UDP'] as const)
    for (const which of ['one CPU', 'two CPUs'] as const) {
      const port = String(pongPort[protocol][which])
      const cpu = which === 'one CPU' ? first : last
      path.serve(...pinned(cpu, 'sockperf', 'server', '-p', port, ...(protocol === 'TCP' ? ['--tcp'] : [])))
    }
}

interface Ended {
  readonly error?: string
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number }
    readonly sum: { readonly packets: number; readonly lost_packets: number; readonly seconds: number }
  }
}

const iperf = async (path: Path, seconds: number, ...options: string[]): Promise<Ended> => {
  const command = ['iperf3', '-J', '-c', path.address, '-p', String(streamPort), '-t', String(seconds), ...options]
  const said = JSON.parse(await path.send(...pinned(first, ...command))) as Ended
  if (said.error !== undefined) throw new Error(`iperf3: ${said.error}`)
  return said
}

/** Gbit/s that arrived. */
export const stream = async (path: Path, seconds: number, streams: number): Promise<number> =>
  (await iperf(path, seconds, '-P', String(streams))).end.sum_received.bits_per_second / 1e9

/** Datagrams of 64 octets a second that arrived; more are sent than can be. */
export const datagrams = async (path: Path, seconds: number): Promise<number> => {
  const {
    packets,
    lost_packets,
    seconds: took,
  } = (await iperf(path, seconds, '-u', '-b', '0', '-l', String(messageBytes))).end.sum
  return (packets - lost_packets) / took
}

/** Microseconds from a question of 64 octets to its answer, one at a time. */
export const pingPong = async (
  path: Path,
  seconds: number,
  protocol: Protocol,
  which: Cpus,
): Promise<{ readonly p50: number; readonly p99: number }> => {
  const options = ['-i', path.address, '-p', String(pongPort[protocol][which]), '-t', String(seconds)]
  const size = ['-m', String(messageBytes), '--full-rtt', ...(protocol === 'TCP' ? ['--tcp'] : [])]
  const out = await path.send(...pinned(first, 'sockperf', 'ping-pong', ...options, ...size))
  const percentile = (share: string): number => Number(new RegExp(`percentile ${share} *= *([0-9.]+)`).exec(out)?.[1])
  return { p50: percentile('50\\.000'), p99: percentile('99\\.000') }
}

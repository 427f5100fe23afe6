// SPDX-License-Identifier: Apache-2.0
// Section datapath: containers on two hosts through weft, through Docker's own overlay, through a VXLAN made by hand,
// and the underlay itself. All paths take turns within each measurement.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Goal, Row } from '../frame/row.ts'
import type { Run } from '../frame/section.ts'
import { openHosts } from '../hosts/hosts.ts'
import { openPaths, type Path, type PathName } from './paths.ts'
import { type Cpus, datagrams, type Protocol, pingPong, startServers, stream } from './probes.ts'

type Taken = Readonly<Record<string, number>>
interface Measurement {
  readonly unit: string
  readonly better: 'less' | 'more'
  /** Names of the rows → one value each. */
  take(path: Path, seconds: number): Promise<Taken>
}

const pong = (protocol: Protocol, which: Cpus): Measurement => ({
  unit: 'µs',
  better: 'less',
  async take(path, seconds) {
    const { p50, p99 } = await pingPong(path, seconds, protocol, which)
    return { [`${protocol} ping-pong on ${which}, p50`]: p50, [`${protocol} ping-pong on ${which}, p99`]: p99 }
  },
})
const measurements: readonly Measurement[] = [
  ...[1, 4].map(
    (count): Measurement => ({
      unit: 'Gbit/s',
      better: 'more',
      take: async (path, seconds) => ({
        [`TCP, ${count} stream${count > 1 ? 's' : ''}`]: await stream(path, seconds, count),
      }),
    }),
  ),
  {
    unit: '/s',
    better: 'more',
    take: async (path, seconds) => ({ 'UDP datagrams of 64 octets': await datagrams(path, seconds) }),
  },
  pong('TCP', 'one CPU'),
  pong('TCP', 'two CPUs'),
  pong('UDP', 'one CPU'),
  pong('UDP', 'two CPUs'),
]

/** Which of ours is held against whom, and what it should reach. */
const comparisons: readonly {
  readonly ours: PathName
  readonly as: string
  readonly peer: PathName
  readonly goal?: Goal
}[] = [
  { ours: 'weft', as: '', peer: 'overlay', goal: { kind: 'ratio', atLeast: 1 } },
  { ours: 'weft', as: '', peer: 'made by hand', goal: { kind: 'ratio', atLeast: 0.95 } },
  { ours: 'weft', as: '', peer: 'raw' },
  { ours: 'published', as: ', both ends publish a port', peer: 'overlay', goal: { kind: 'ratio', atLeast: 0.8 } },
]
const peerNames: Readonly<Record<PathName, string>> = {
  weft: 'weft',
  published: 'weft, published',
  overlay: "Docker's overlay",
  'made by hand': 'VXLAN by hand',
  raw: 'raw underlay',
}

/** The first turn of the first run finds its servers still starting. */
const patient = async <T>(work: () => Promise<T>): Promise<T> => {
  for (let left = 20; ; left--)
    try {
      return await work()
    } catch (error) {
      if (left === 0) throw error
      await sleep(500)
    }
}

export const run: Run = async ({ runs, quick }, report) => {
  const seconds = quick ? 1 : 2
  report.say('two hosts with weft and a swarm')
  const hosts = await openHosts()
  try {
    const paths = await openPaths(hosts)
    const names = Object.keys(paths) as PathName[]
    for (const path of Object.values(paths)) startServers(path)
    for (const measurement of quick ? measurements.slice(1, 4) : measurements) {
      const values = new Map<string, Map<PathName, number[]>>()
      for (let run = 0; run < runs; run++)
        for (const name of names) {
          const taken = await patient(() => measurement.take(paths[name], seconds))
          for (const [row, value] of Object.entries(taken)) {
            const ofRow = values.get(row) ?? new Map<PathName, number[]>()
            ofRow.set(name, [...(ofRow.get(name) ?? []), value])
            values.set(row, ofRow)
          }
        }
      const { unit, better } = measurement
      for (const [row, of] of values) {
        report.say(row)
        for (const { ours, as, peer, goal } of comparisons)
          report.row({
            section: 'datapath',
            name: `${row}${as}`,
            unit,
            better,
            ours: of.get(ours)!,
            peer: { name: peerNames[peer], values: of.get(peer)! },
            ...(goal ? { goal } : {}),
          } satisfies Row)
      }
    }
  } finally {
    await hosts.lab.close()
  }
}

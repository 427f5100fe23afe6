// SPDX-License-Identifier: Apache-2.0
// Section mesh: an outside client asks a published port, by a host with the container and by one without; against
// Docker's swarm ingress, Docker's own `-p`, and the server without any container. With IPVS (scripts/vm) everything, and
// weft by both of its engines; without IPVS there is no swarm ingress.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Goal } from '../frame/row.ts'
import type { Report, Run } from '../frame/section.ts'
import { type Hosts, openHosts } from '../hosts/hosts.ts'
import { measureLevers } from './levers.ts'
import { type Answered, type Connections, request, serverCpu } from './load.ts'
import { nginx } from './nginx.ts'
import { hasIpvs, openWays, type Way, type Ways } from './ways.ts'

const names: Readonly<Record<Way, string>> = {
  raw: 'the server on the host itself',
  host: "Docker's bridge, -p",
  'swarm from afar': 'swarm ingress, entry without a backend',
  swarm: 'swarm ingress, entry with the backend',
  'weft from afar': 'entry without a backend',
  weft: 'entry with the backend',
}
const perSecondGoal: Readonly<Record<Connections, number>> = { 'keep-alive': 1.3, 'a new connection each': 1.15 }

const comparisons: readonly { readonly ours: Way; readonly peer: Way }[] = [
  { ours: 'weft from afar', peer: 'swarm from afar' },
  { ours: 'weft', peer: 'swarm' },
  { ours: 'weft from afar', peer: 'raw' },
  { ours: 'weft from afar', peer: 'host' },
  { ours: 'weft', peer: 'host' },
]

/** Of one value. */
const secondsOf = ({ quick }: { readonly quick: boolean }): number => (quick ? 1 : 3)

const measure = async (
  hosts: Hosts,
  ways: Ways,
  engine: string,
  options: { readonly runs: number; readonly quick: boolean },
  report: Report,
): Promise<void> => {
  const { runs, quick } = options
  const seconds = secondsOf(options)
  for (const count of quick ? [8] : [1, 8, 32])
    for (const connections of ['keep-alive', 'a new connection each'] as const) {
      report.say(`${engine}: ${count} connections, ${connections}`)
      const taken = new Map<Way, Answered[]>()
      for (let run = 0; run < runs; run++)
        for (const [way, url] of Object.entries(ways) as [Way, string][])
          taken.set(way, [...(taken.get(way) ?? []), await request(hosts.lab, url, seconds, count, connections)])
      for (const { ours, peer } of comparisons) {
        const [own, other] = [taken.get(ours)!, taken.get(peer)]
        if (!other) continue
        const label = `${engine}, ${names[ours]}: ${count} connections, ${connections}`
        const row = (what: keyof Answered, unit: string, better: 'less' | 'more', goal?: Goal): void =>
          report.row({
            section: 'mesh',
            name: `${label}, ${what === 'perSecond' ? 'requests' : what}`,
            unit,
            better,
            ours: own.map(one => one[what]),
            peer: { name: names[peer], values: other.map(one => one[what]) },
            ...(goal ? { goal } : {}),
          })
        const swarm = peer.startsWith('swarm')
        row('perSecond', '/s', 'more', swarm ? { kind: 'ratio', atLeast: perSecondGoal[connections] } : undefined)
        if (!swarm) continue
        row('p50', 'µs', 'less')
        row('p99', 'µs', 'less', { kind: 'ratio', atLeast: 1 })
      }
    }
}

/** Answers come on all ways. */
const answering = async (hosts: Hosts, ways: Ways): Promise<void> => {
  for (const [way, url] of Object.entries(ways)) {
    const said = await hosts.lab.until(
      async () => (await hosts.lab.try('exec', 'client', 'curl', '-s', '-m', '2', url)).out,
      60_000,
    )
    if (said !== 'hello') throw new Error(`${way}: ${url} says ${JSON.stringify(said)}`)
  }
}

export const run: Run = async (options, report) => {
  const server = ['taskset', '-c', String(serverCpu), ...nginx()]
  report.say('two hosts with weft and a swarm')
  const hosts = await openHosts()
  const { lab } = hosts
  try {
    const ways = await openWays(hosts, server)
    await answering(hosts, ways)
    if (hasIpvs()) {
      await measure(hosts, ways, 'IPVS', options, report)
      report.say('weftd by nftables')
      for (const host of ['h1', 'h2']) {
        await lab.ok('stop', host, 'weftd')
        await lab.ok('--weftd-args', '--lb nft', 'start', host, 'weftd')
      }
      await sleep(2000) // the way changes under a client that asks: what is asked first may meet either
      await answering(hosts, ways)
    }
    await measure(hosts, ways, 'nftables', options, report)
    if (hasIpvs())
      await measureLevers(hosts, ways, { runs: options.runs, seconds: secondsOf(options), count: 8 }, report)
  } finally {
    await lab.close()
  }
}

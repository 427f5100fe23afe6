// SPDX-License-Identifier: Apache-2.0
// What weft does not have, put into its namespaces by hand and taken away again by turns: would it be worth it?
import type { Report } from '../frame/section.ts'
import { type Hosts, weftNetwork } from '../hosts/hosts.ts'
import { type Answered, type Connections, request } from './load.ts'
import type { Way, Ways } from './ways.ts'

interface Lever {
  readonly name: string
  /** A table of its own, in M of both hosts. */
  readonly rules: string
}

/** Established connections pass M without its chains; by nftables only, as IPVS keeps its own. */
const flowtable: Lever = {
  name: 'a flowtable in M',
  rules: `table inet lever {
    flowtable fast { hook ingress priority 0; devices = { up0, gw0 }; }
    chain forward { type filter hook forward priority -1; policy accept; ct state established flow add @fast; }
  }`,
}

const pulled: readonly Way[] = ['weft from afar', 'weft']

/** With against without, a value of each by turns. */
export const measureLevers = async (
  { lab }: Hosts,
  ways: Ways,
  { runs, seconds, count }: { readonly runs: number; readonly seconds: number; readonly count: number },
  report: Report,
): Promise<void> => {
  const vni = await lab.vni('h1', weftNetwork)
  const inM = (command: string): Promise<unknown> =>
    Promise.all(['h1', 'h2'].map(host => lab.inside(host, 'm', vni, 'nft', command)))
  for (const connections of ['keep-alive', 'a new connection each'] satisfies Connections[]) {
    report.say(`${flowtable.name}: ${count} connections, ${connections}`)
    const [without, pulling] = [new Map<Way, Answered[]>(), new Map<Way, Answered[]>()]
    const take = async (into: Map<Way, Answered[]>): Promise<void> => {
      for (const way of pulled)
        into.set(way, [...(into.get(way) ?? []), await request(lab, ways[way]!, seconds, count, connections)])
    }
    for (let run = 0; run < runs; run++) {
      await take(without)
      await inM(flowtable.rules)
      await take(pulling)
      await inM('delete table inet lever')
    }
    for (const way of pulled)
      report.row({
        section: 'mesh',
        name: `nftables, ${way}, with ${flowtable.name}: ${count} connections, ${connections}, requests`,
        unit: '/s',
        better: 'more',
        ours: pulling.get(way)!.map(one => one.perSecond),
        peer: { name: 'without', values: without.get(way)!.map(one => one.perSecond) },
      })
  }
}

// SPDX-License-Identifier: Apache-2.0
// All hosts of a lab looked at through their own tools until docker inspect, the store and the kernel say the same, and
// pings pass exactly between containers that share a network.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lab } from './lab.ts'
import {
  type Attachment,
  attachmentsOf,
  differences,
  expected,
  parseStore,
  parseView,
  type Store,
  seen,
  type View,
  viewScript,
} from './truth.ts'

export interface Look {
  readonly views: View[]
  readonly store: Store
  /** How many there are. */
  readonly facts: number
  readonly wrong: string[]
}

export interface Agreement {
  look(): Promise<Look>
  /** Every container pings every address of the others, all at once. */
  ping(views: readonly View[]): Promise<{ tried: number; answered: number; wrong: string[] }>
  /** Until all agree, at most so long; gives the last differences. */
  agree(ms?: number): Promise<{ wrong: string[]; note: string }>
}

export const openAgreement = (lab: Lab, hosts: readonly string[]): Agreement => {
  const look = async (): Promise<Look> => {
    const [store, ...views] = await Promise.all([
      lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/', '-w', 'json').then(parseStore),
      ...hosts.map(async host => parseView(host, await lab.exec(host, 'sh', '-c', viewScript))),
    ])
    const facts = expected(views, store)
    return { views, store, facts: facts.length, wrong: differences(facts, seen(views, store)) }
  }

  const ping = async (views: readonly View[]): Promise<{ tried: number; answered: number; wrong: string[] }> => {
    const all = attachmentsOf(views)
    let tried = 0
    const script = ({ containers }: View): string => {
      const ofOne = containers.map(({ Id, Name, State: { Pid } }) => {
        const targets = all.filter(({ id }) => id !== Id).flatMap(({ addresses }) => addresses)
        tried += targets.length
        return targets.map(ip => {
          const command = `nsenter -t ${Pid} -n ping -n -c1 -W1 ${ip}`
          return `{ ${command} > /dev/null 2>&1 && echo 'ping ${Name.slice(1)} -> ${ip}'; } &`
        })
      })
      return [...ofOne.flat(), 'wait'].join('\n')
    }
    const out = await Promise.all(views.map(view => lab.exec(view.host, 'sh', '-c', script(view))))
    // those that share a network answer each other there, nobody else does
    const reached = (from: Attachment): string[] => {
      const peers = all.filter(to => to.network === from.network && to.id !== from.id)
      return peers.flatMap(({ addresses }) => addresses.map(ip => `ping ${from.container} -> ${ip}`))
    }
    const answers = out.flatMap(text => text.split('\n').filter(Boolean))
    return { tried, answered: answers.length, wrong: differences(all.flatMap(reached), answers) }
  }

  const agree = async (patience = 20_000): Promise<{ wrong: string[]; note: string }> => {
    const from = Date.now()
    for (let looks = 1, matrices = 0; ; ) {
      const { views, facts, wrong } = await look()
      const pings = wrong.length > 0 ? undefined : await ping(views)
      const ms = Date.now() - from
      if (pings) matrices++
      if (pings?.wrong.length === 0 || ms > patience) {
        const matrix = pings && `${pings.answered} of ${pings.tried} pings answered (matrix ${matrices})`
        return {
          wrong: pings?.wrong ?? wrong,
          note: `agreed after ${ms} ms: ${facts} facts (look ${looks}), ${matrix}`,
        }
      }
      looks++
      await sleep(200)
    }
  }
  return { look, ping, agree }
}

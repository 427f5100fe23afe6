// SPDX-License-Identifier: Apache-2.0
// Section answer: from the moment at which `docker run` returns on host 2 until a container on host 1, which asks all
// the time, gets its first answer: to a ping of the new container's address, and to its name.
import { fileURLToPath } from 'node:url'
import { percentile } from '../frame/row.ts'
import type { Run } from '../frame/section.ts'
import { openHosts, overlayNetwork, weftNetwork } from '../hosts/hosts.ts'

const prober = fileURLToPath(new URL('prober.ts', import.meta.url))
const patienceMs = 30_000
const leastMs = 0.1

interface Taken {
  readonly packet: number
  readonly name: number
}

export const run: Run = async ({ runs, quick }, report) => {
  report.say('two hosts with weft and a swarm')
  const hosts = await openHosts('--dns', '') // weft's resolver alone: unknown names are answered at once
  const { lab } = hosts
  const each = quick ? 2 : 20
  const now = (): number => performance.timeOrigin + performance.now()
  const kinds = {
    weft: { network: weftNetwork, prefix: '10.202' },
    overlay: { network: overlayNetwork, prefix: '10.201' },
  }
  let count = 0

  /** Resolves with what a line of a program in the asking container's namespace says. */
  const ask = (pid: string, pattern: RegExp, ...command: string[]) => {
    const child = lab.background('exec', 'h1', 'nsenter', '-t', pid, '-n', ...command)
    const seen = async (what: RegExp): Promise<string> => {
      const line = await lab.until(async () => what.exec(child.out())?.[1] ?? '', patienceMs)
      await child.stop()
      if (line === '') throw new Error(`${command.join(' ')}: nothing came: ${child.out().slice(-400)}`)
      return line
    }
    return { started: () => lab.until(async () => child.out() !== ''), first: () => seen(pattern) }
  }
  /** ms after docker run returned; what came before it counts as the least. */
  const take = async (kind: keyof typeof kinds, pid: string): Promise<Taken> => {
    const { network, prefix } = kinds[kind]
    const address = `${prefix}.${100 + (count >> 8)}.${count & 255}`
    const name = `new${count++}`
    const ping = ask(pid, /\[([0-9.]+)\] \d+ bytes from/, 'ping', '-D', '-n', '-i', '0.002', '-W', '1', address)
    const resolver = ask(pid, /^([0-9.]+)$/m, process.execPath, prober, name)
    await Promise.all([ping.started(), resolver.started()])
    await hosts.idle('h2', name, network, '--ip', address)
    const returned = now()
    const [packet, named] = await Promise.all([ping.first(), resolver.first()])
    await lab.docker('h2', 'rm', '-f', name)
    return {
      packet: Math.max(leastMs, Number(packet) * 1000 - returned),
      name: Math.max(leastMs, Number(named) - returned),
    }
  }

  try {
    const pids = { weft: '', overlay: '' }
    for (const kind of ['weft', 'overlay'] as const) {
      await hosts.idle('h1', `asks-${kind}`, kinds[kind].network)
      // the asking kernel repeats an ARP request after 2 ms instead of 1 s, else that second is what would be measured
      await lab.within('h1', `asks-${kind}`, 'sysctl', '-qw', 'net.ipv4.neigh.eth0.retrans_time_ms=2')
      await hosts.idle('h2', `stays-${kind}`, kinds[kind].network)
      pids[kind] = await lab.docker('h1', 'inspect', '-f', '{{.State.Pid}}', `asks-${kind}`)
    }
    const taken = { weft: [] as Taken[][], overlay: [] as Taken[][] }
    for (let run = 0; run < runs; run++) {
      report.say(`run ${run + 1}`)
      const now = { weft: [] as Taken[], overlay: [] as Taken[] }
      for (let i = 0; i < each; i++)
        for (const kind of ['weft', 'overlay'] as const) now[kind].push(await take(kind, pids[kind]))
      for (const kind of ['weft', 'overlay'] as const) taken[kind].push(now[kind])
    }
    for (const what of ['packet', 'name'] as const)
      for (const [label, share, goal] of [
        ['median', 0.5, 10],
        ['p99', 0.99, 50],
      ] as const) {
        const values = (kind: keyof typeof taken): number[] =>
          taken[kind].map(ofRun =>
            percentile(
              ofRun.map(one => one[what]),
              share,
            ),
          )
        report.row({
          section: 'answer',
          name: `first answered ${what} after docker run, ${label} of ${each}`,
          unit: 'ms',
          better: 'less',
          ours: values('weft'),
          peer: { name: "Docker's overlay", values: values('overlay') },
          goal: { kind: 'value', atMost: goal },
          note: 'what was answered before docker run returned counts as 0.1 ms',
        })
      }
  } finally {
    await lab.close()
  }
}

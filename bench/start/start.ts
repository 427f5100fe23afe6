// SPDX-License-Identifier: Apache-2.0
// Section start: what a network adds to `docker run` beside the network `none`, `docker network connect` and
// `docker network create`, and many containers at once on two hosts; for weft, Docker's overlay and Docker's bridge.
import { idle } from '../../test/e2e/lab.ts'
import { interleave, timed } from '../frame/interleave.ts'
import { spread } from '../frame/row.ts'
import type { Run } from '../frame/section.ts'
import { bridgeNetwork, openHosts, overlayNetwork, weftNetwork } from '../hosts/hosts.ts'

const networks = { weft: weftNetwork, overlay: overlayNetwork, bridge: bridgeNetwork } as const
type Name = keyof typeof networks
const names = Object.keys(networks) as Name[]
const peerNames = { overlay: "Docker's overlay", bridge: "Docker's bridge" } as const

/** Options of `docker network create` that make another network of each kind. */
const creation: Readonly<Record<Name, readonly string[]>> = {
  weft: ['-d', 'weft', '--ipam-driver', 'weft'],
  overlay: ['-d', 'overlay', '--attachable'],
  bridge: ['-d', 'bridge'],
}

export const run: Run = async ({ runs, quick }, report) => {
  report.say('two hosts with weft and a swarm')
  const hosts = await openHosts()
  const { lab } = hosts
  const each = quick ? 1 : 5
  const many = quick ? 4 : 100
  const remove = (host: string, containers: readonly string[]) => lab.docker(host, 'rm', '-f', ...containers)

  /** Median ms of `docker run` of one container after another. */
  const runsOn = async (network: string): Promise<number> => {
    const taken: number[] = []
    for (let i = 0; i < each; i++) {
      taken.push(await timed(() => hosts.idle('h1', 'one', network)))
      await remove('h1', ['one'])
    }
    return spread(taken).median
  }
  const connects = async (network: string): Promise<number> => {
    const taken: number[] = []
    for (let i = 0; i < each; i++) {
      taken.push(await timed(() => lab.docker('h1', 'network', 'connect', network, 'sleeper')))
      await lab.docker('h1', 'network', 'disconnect', network, 'sleeper')
    }
    return spread(taken).median
  }
  let made = 0
  const creates = async (name: Name): Promise<number> => {
    const network = `made${made++}`
    const ms = await timed(() => lab.docker('h1', 'network', 'create', ...creation[name], network))
    await lab.docker('h1', 'network', 'rm', network)
    return ms
  }
  /** Seconds until all of `many` containers run, half of them on each host, 8 commands at a time on each. */
  const atOnce = async (network: string): Promise<number> => {
    const script = `seq ${many / 2} | xargs -P 8 -I% docker run -d --name many% --network ${network} busybox ${idle.join(' ')}`
    const ms = await timed(() => Promise.all(['h1', 'h2'].map(host => lab.exec(host, 'sh', '-ec', script))))
    const all = Array.from({ length: many / 2 }, (_, i) => `many${i + 1}`)
    await Promise.all(['h1', 'h2'].map(host => remove(host, all)))
    return ms / 1000
  }
  const inTurns = <T extends Name | 'none'>(which: readonly T[], take: (name: T) => Promise<number>) =>
    interleave(
      runs,
      Object.fromEntries(which.map(name => [name, () => take(name)])) as Record<T, () => Promise<number>>,
    )
  const rows = (
    name: string,
    unit: string,
    values: Readonly<Record<Name, readonly number[]>>,
    goals: boolean,
  ): void => {
    for (const peer of ['overlay', 'bridge'] as const)
      report.row({
        section: 'start',
        name,
        unit,
        better: 'less',
        ours: values.weft,
        peer: { name: peerNames[peer], values: values[peer] },
        // at most 0.35 of the overlay's time, and not above the bridge's
        ...(goals ? { goal: { kind: 'ratio', atLeast: peer === 'overlay' ? 1 / 0.35 : 1 } as const } : {}),
      })
  }

  try {
    await lab.docker('h1', 'run', '-d', '--name', 'sleeper', '--network', bridgeNetwork, 'busybox', ...idle)
    await lab.docker('h1', 'network', 'create', 'other')
    for (const network of Object.values(networks)) await runsOn(network) // the first of each makes what all others share

    report.say('docker run')
    const ran = await inTurns([...names, 'none'], name => runsOn(name === 'none' ? 'none' : networks[name]))
    const over = (name: Name): number[] => ran[name].map((ms, i) => Math.max(ms - ran.none[i]!, 0.1))
    rows(
      'docker run, beyond what it takes on "none"',
      'ms',
      { weft: over('weft'), overlay: over('overlay'), bridge: over('bridge') },
      true,
    )
    rows('docker run, all of it', 'ms', ran, false)
    report.say('docker network connect')
    const connected = await inTurns(names, name => connects(name === 'bridge' ? 'other' : networks[name]))
    rows('docker network connect', 'ms', connected, true)
    report.say('docker network create')
    rows('docker network create', 'ms', await inTurns(names, creates), true)
    report.say(`${many} containers at once`)
    rows(`${many} containers at once on two hosts`, 's', await inTurns(names, name => atOnce(networks[name])), true)
  } finally {
    await lab.close()
  }
}

// SPDX-License-Identifier: Apache-2.0
// Who sees what happens meanwhile: pings that count their losses, and everything that is written to a host's kernel.
import type { Lab } from './lab.ts'

/** Into a container's network by the kernel: an exec of Docker's ends with its engine. */
const enter = 'p=$(docker inspect -f "{{.State.Pid}}" "$1"); shift; exec nsenter -t "$p" -n busybox "$@"'

/** Pings so many times a second from a container for so many seconds; the answer is how many were lost. */
export const startPing = (lab: Lab, host: string, container: string, to: string, seconds: number, perSecond = 1000) => {
  const count = seconds * perSecond
  const pace = ['-q', '-c', String(count), '-i', String(1 / perSecond), '-W', '2']
  const running = lab.background('exec', host, 'sh', '-c', enter, 'sh', container, 'ping', ...pace, to)
  const over = new Promise(resolve => running.child.once('close', resolve))
  return async (): Promise<number> => {
    await over
    const [, sent, received] = /(\d+) packets transmitted, (\d+) packets received/.exec(running.out()) ?? []
    if (Number(sent) !== count) throw new Error(`only ${sent} pings: ${running.out()}`)
    return Number(sent) - Number(received)
  }
}

/** What the kernel finds out about its neighbours by itself. */
const learned = /^\[NEIGH\](Deleted )?(ff0.*|224\..*|.* (REACHABLE|STALE|DELAY|PROBE|INCOMPLETE|FAILED)\s*)$/

/** Everything that is written to the kernel of a host while it runs: its own tables and links, and those of N and M. */
export const startMonitors = (lab: Lab, host: string, vni: number) => {
  const inside = (which: string, ...command: string[]) =>
    lab.background('exec', host, 'ip', 'netns', 'exec', `weft-${which}${vni}`, ...command)
  const all = [
    lab.background('exec', host, 'ip', 'monitor', 'all'),
    lab.background('exec', host, 'nft', 'monitor'),
    ...['n', 'm'].flatMap(which => [inside(which, 'ip', 'monitor', 'all'), inside(which, 'nft', 'monitor')]),
  ]
  return async (): Promise<string> => {
    await Promise.all(all.map(one => one.stop()))
    return all
      .map(one => one.out())
      .join('')
      .split('\n')
      .filter(line => line !== '' && !learned.test(line))
      .join('\n')
  }
}

/** Every table, row and address of ours on a host that shows these networks, word by word: in whatever order they are. */
export const rowsOf = async (lab: Lab, host: string, vnis: readonly number[]): Promise<string> => {
  const here = ['nft -s list table inet weft', 'ip nexthop show', 'ip -o address show scope global']
  const inside = [
    ...['nft -s list ruleset', 'bridge fdb show', 'ip neigh show nud permanent'],
    ...['ip route show', 'ip -6 route show', 'ip -o address show scope global'],
  ]
  const all = await Promise.all([
    ...here.map(one => lab.exec(host, ...one.split(' '))),
    ...vnis.flatMap(vni =>
      (['n', 'm'] as const).flatMap(which => inside.map(one => lab.inside(host, which, vni, ...one.split(' ')))),
    ),
  ])
  // an address of a device itself is permanent, and another when it is made anew, with its link-local one; multicast is the kernel's
  const own = /^\S+ dev \S+ (?!.*nhid).*permanent\n?|^.*(fe80|ff00)::.*\n?|^\d+: |@\S+/gm
  const words = (text: string): string[] => text.replaceAll(own, '').match(/[^\s,{}]+/g) ?? []
  return all.map(text => words(text).sort().join('\n')).join('\n\n')
}

/** A TCP stream between containers, a line each 50 ms; true from `whole` when every line has come in order. */
export const startStream = async (lab: Lab, from: [string, string], to: [string, string], address: string) => {
  const port = '7007'
  // nc ends when either side has nothing to say
  const sink = lab.background('docker', to[0], 'exec', to[1], 'sh', '-c', `sleep 100000 | nc -l -p ${port}`)
  const write = 'i=0; while :; do i=$((i+1)); echo $i; usleep 50000; done'
  // the listener may not be there yet
  const source = lab.background(
    'docker',
    from[0],
    'exec',
    from[1],
    'sh',
    '-c',
    `sleep 1; { ${write}; } | nc ${address} ${port}`,
  )
  await lab.until(async () => sink.out().includes('\n'), 20_000)
  return async (): Promise<{ lines: number; whole: boolean }> => {
    const before = sink.out().trim().split('\n').length
    await lab.until(async () => sink.out().trim().split('\n').length > before + 10, 20_000)
    const lines = sink.out().trim().split('\n').map(Number)
    await Promise.all([source.stop(), sink.stop()])
    return { lines: lines.length, whole: lines.length > before + 10 && lines.every((n, i) => n === i + 1) }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Docker hosts for a test, by scripts/lab: real engines, a real etcd, this machine's kernel.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const lab = fileURLToPath(new URL('../../scripts/lab', import.meta.url))

/** How much longer things may take in the emulated machine. */
export const slowness = process.env['WEFT_VM'] ? 6 : 1

/** Flags of `lab up`: $WEFT_LB says by what published ports are balanced, else weftd chooses. */
export const balancerFlags = process.env['WEFT_LB'] ? ['--weftd-args', `--lb ${process.env['WEFT_LB']}`] : []
/** What it chooses then. */
export const byIpvs = process.env['WEFT_VM'] !== undefined && process.env['WEFT_LB'] !== 'nft'

export interface Answer {
  readonly code: number
  readonly out: string
  readonly err: string
}

const run = (args: readonly string[], timeoutMs: number): Promise<Answer> =>
  new Promise(resolve => {
    execFile(lab, args as string[], { timeout: timeoutMs, maxBuffer: 64 << 20 }, (error, out, err) => {
      const code = error ? (typeof error.code === 'number' ? error.code : 255) : 0
      resolve({ code, out: String(out).trim(), err: String(err).trim() })
    })
  })

export interface Lab {
  /** A lab command; throws with what it said when it fails. */
  ok(...args: string[]): Promise<string>
  /** The same, whatever its exit code. */
  try(...args: string[]): Promise<Answer>
  docker(host: string, ...args: string[]): Promise<string>
  tryDocker(host: string, ...args: string[]): Promise<Answer>
  weft(host: string, ...args: string[]): Promise<string>
  exec(who: string, ...args: string[]): Promise<string>
  /** In a network namespace of weft on that host: 'n' is the switch, 'm' the gateway. */
  inside(host: string, which: 'n' | 'm', vni: number, ...args: string[]): Promise<string>
  /** A program of this machine in the network namespace of a container: the image need not have it. */
  within(host: string, container: string, ...args: string[]): Promise<string>
  /** Stays: killed by close. */
  background(...args: string[]): { child: ChildProcess; out: () => string; stop(): Promise<void> }
  /** Repeats until it gives something true, or the time is over; gives the last. */
  until<T>(test: () => Promise<T>, ms?: number): Promise<T>
  /** Until the engine of that host has the network; throws when it does not come. */
  shows(host: string, network: string): Promise<void>
  vni(host: string, network: string): Promise<number>
  close(): Promise<void>
}

export const openLab = async (name: string, hosts: number, ...options: string[]): Promise<Lab> => {
  const common = ['--name', name]
  const children = new Set<ChildProcess>()
  const engine = process.env['WEFT_ENGINE'] ? ['--engine', process.env['WEFT_ENGINE']] : []
  const up = await run([...common, 'up', String(hosts), ...engine, ...options], 300_000 * slowness)
  if (up.code !== 0) throw new Error(`lab up: ${up.err}`)
  const attempt = (...args: string[]): Promise<Answer> => run([...common, ...args], 180_000 * slowness)
  const ok = async (...args: string[]): Promise<string> => {
    const answer = await attempt(...args)
    if (answer.code !== 0) throw new Error(`lab ${args.join(' ')}: ${answer.code}: ${answer.err}\n${answer.out}`)
    return answer.out
  }
  const self: Lab = {
    ok,
    try: attempt,
    docker: (host, ...args) => ok('docker', host, ...args),
    tryDocker: (host, ...args) => attempt('docker', host, ...args),
    weft: (host, ...args) => ok('weft', host, ...args),
    exec: (who, ...args) => ok('exec', who, ...args),
    inside: (host, which, vni, ...args) => ok('exec', host, 'ip', 'netns', 'exec', `weft-${which}${vni}`, ...args),
    within: (host, ...args) =>
      ok(
        'exec',
        host,
        'sh',
        '-c',
        'p=$(docker inspect -f "{{.State.Pid}}" "$1"); shift; exec nsenter -t "$p" -n "$@"',
        'sh',
        ...args,
      ),
    background(...args) {
      const child = spawn(lab, [...common, ...args], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
      children.add(child)
      let out = ''
      child.stdout.on('data', chunk => {
        out += String(chunk)
      })
      child.stderr.on('data', chunk => {
        out += String(chunk)
      })
      return {
        child,
        out: () => out,
        async stop() {
          if (child.exitCode !== null || child.signalCode !== null) return
          const gone = new Promise(resolve => child.once('close', resolve))
          process.kill(-child.pid!, 'SIGINT')
          await Promise.race([gone, sleep(2000)])
          if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, 'SIGKILL')
          await gone
        },
      }
    },
    async until(test, ms = 10_000) {
      const begin = Date.now()
      for (;;) {
        const value = await test()
        const ago = Date.now() - begin
        if (value || ago > ms * slowness) return value
        // a look is dear: some ten processes
        await sleep(Math.min(Math.max(100, ago / 8), 1000))
      }
    },
    async shows(host, network) {
      const list = () => self.docker(host, 'network', 'ls', '-q', '-f', `name=^${network}$`)
      if (!(await self.until(list, 30_000))) throw new Error(`network ${network} did not come to ${host}`)
    },
    async vni(host, network) {
      return (JSON.parse(await self.weft(host, 'network', 'show', network, '-o', 'json')) as { vni: number }).vni
    },
    async close() {
      for (const child of children)
        if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, 'SIGKILL')
      await run([...common, 'down'], 120_000 * slowness)
    },
  }
  return self
}

/** A container that answers `hello` over HTTP. */
export const server = ['sh', '-c', 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp']
export const idle = ['sleep', '1000000']
/** HTTP by nc: the static busybox's wget has no resolver of its own that works. */
export const http = (host: string, port: number): string[] => [
  'sh',
  '-c',
  `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 ${host} ${port}`,
]

// SPDX-License-Identifier: Apache-2.0
// A Debian made by debootstrap with nothing but git, with mirrors, proxies and certificates of this machine. It has its
// own mounts and processes, so whatever a command leaves there is seen, and goes with it.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { type Result, root } from './lab.ts'

/** Never throws for its exit code; killed after `minutes`. */
export const command = (file: string, args: readonly string[], env = process.env, minutes = 15): Promise<Result> =>
  new Promise(done => {
    execFile(
      file,
      args,
      { cwd: '/', env, maxBuffer: 1 << 26, timeout: minutes * 60_000, killSignal: 'SIGKILL' as const },
      (error, out, err) => {
        done({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err })
      },
    )
  })
const must = async (file: string, args: readonly string[], env = process.env): Promise<string> => {
  const result = await command(file, args, env)
  if (result.code !== 0) throw new Error(`${file} ${args.join(' ')}: ${`${result.out}${result.err}`.slice(-2000)}`)
  return result.out
}

/** How this machine reaches mirrors and registries, as far as the environment says it. */
const reach: Record<string, string> = {}
for (const [name, value] of Object.entries(process.env))
  if (/^(https?_proxy|no_proxy|node_extra_ca_certs|npm_config_(registry|cafile|.*proxy))$/i.test(name))
    reach[name] = value!

export class Machine {
  /** Of Debian: bookworm, trixie. */
  readonly suite: string
  // nobody else reaches it there
  readonly #parent = mkdtempSync(join(process.env['TMPDIR'] ?? '/var/tmp', 'weft-bare-'))
  readonly folder: string
  #outer: ChildProcess | undefined
  #init = 0

  constructor(suite: string) {
    this.suite = suite
    this.folder = join(this.#parent, suite)
  }

  async make(): Promise<void> {
    const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm'
    const format = '$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)'
    const known = () => must('apt-get', ['indextargets', '--format', format, 'Identifier: Packages'])
    let targets = await known()
    if (!/^Debian /m.test(targets)) {
      await must('apt-get', ['-q', 'update'])
      targets = await known()
    }
    const sources = targets
      .split('\n')
      .filter(line => line.startsWith('Debian '))
      .map(line => line.split(' ').slice(1) as [string, string, string])
      .map(([uri, release, component]) => ({ uri, release: release.replace(codename, this.suite), component }))
    const mirror = sources.find(source => source.release === this.suite && source.component === 'main')?.uri
    if (!mirror) throw new Error(`apt of this machine has no mirror of Debian: ${targets}`)
    const secure = sources.some(source => source.uri.startsWith('https:'))
    const settings = await must('apt-config', ['dump'])
    const proxy = /^Acquire::http::Proxy "(.+)";$/m.exec(settings)?.[1]
    await must(
      'debootstrap',
      ['--variant=minbase', `--include=git${secure ? ',ca-certificates' : ''}`, this.suite, this.folder, mirror],
      proxy ? { ...process.env, http_proxy: proxy } : process.env,
    )
    this.write('/etc/apt/sources.list', sources.map(s => `deb ${s.uri} ${s.release} ${s.component}\n`).join(''))
    this.write(
      '/etc/apt/apt.conf.d/00machine',
      (settings.match(/^Acquire::(?!IndexTargets|cdrom).*;$/gm) ?? []).join('\n'),
    )
    for (const path of ['/etc/apt/trusted.gpg.d', '/etc/apt/auth.conf', '/etc/apt/auth.conf.d']) this.#bring(path)
    for (const path of ['/etc/resolv.conf', '/etc/hosts', '/usr/local/share/ca-certificates']) this.#bring(path)
    for (const path of ['/etc/npmrc', join(homedir(), '.npmrc')]) {
      const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
      const kept = lines.filter(line => /^(\/\/|@[^:]+:registry|registry|ca|cafile|strict-ssl|.*proxy)\b/.test(line))
      if (kept.length) this.write(path === '/etc/npmrc' ? path : '/root/.npmrc', `${kept.join('\n')}\n`)
      for (const line of kept) this.#certificates(/^cafile\s*=\s*(.*)$/.exec(line)?.[1])
    }
    for (const [name, value] of Object.entries(reach)) if (/ca_?(file|certs)$/i.test(name)) this.#certificates(value)
    if (secure) await must('chroot', [this.folder, 'update-ca-certificates'])
    await must('git', ['-c', 'safe.directory=*', 'clone', '-q', '--bare', root, join(this.folder, 'srv/weft.git')])
    await this.#start()
  }

  write(path: string, text: string, mode = 0o644): void {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true })
    writeFileSync(join(this.folder, path), text, { mode })
  }
  #bring(path: string): void {
    if (existsSync(path)) cpSync(path, join(this.folder, path), { recursive: true, dereference: true })
  }
  /** Debian's own bundle comes with its package. */
  #certificates(path: string | undefined): void {
    if (path && !path.startsWith('/etc/ssl/certs/')) this.#bring(path)
  }

  /** A first process with mounts, processes and a name of its own; the network is this machine's, for the mirrors. */
  async #start(): Promise<void> {
    const script = `set -e
      mount --bind "$1" "$1"
      cd "$1"
      mount -t proc proc proc
      mount --rbind /sys sys
      mount --rbind /dev dev
      mount -t tmpfs -o mode=755 run run
      mount -t tmpfs -o mode=1777 tmp tmp
      if [ -d /lib/modules ]; then mkdir -p usr/lib/modules; mount --bind /lib/modules usr/lib/modules; fi
      pivot_root . mnt
      umount -l /mnt
      hostname bare
      mkfifo run/wait
      exec 3<> run/wait # where nobody will ever write
      rm run/wait
      echo ready
      while :; do read -r -u 3 _; done`
    const namespaces = ['--mount', '--pid', '--uts', '--ipc', '--fork', '--kill-child']
    const args = ['--pdeathsig', 'KILL', 'unshare', ...namespaces, 'bash', '-c', script, 'machine', this.folder]
    const outer = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#outer = outer
    for await (const line of createInterface({ input: outer.stdout })) if (line === 'ready') break
    this.#init = Number(readFileSync(`/proc/${outer.pid}/task/${outer.pid}/children`, 'utf8').trim())
    if (!this.#init) throw new Error('the machine did not start')
  }

  async close(): Promise<void> {
    const outer = this.#outer
    if (outer && outer.exitCode === null && outer.signalCode === null) {
      const gone = new Promise(done => outer.once('close', done))
      outer.kill('SIGKILL')
      await gone
      // its first process is killed with it, and takes the others along
      while (existsSync(`/proc/${this.#init}`)) await new Promise(done => setTimeout(done, 50))
    }
    rmSync(this.#parent, { recursive: true, force: true })
  }

  #command(script: string, user: string, clone: string): string[] {
    const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    const home = user === 'root' ? '/root' : `/home/${user}`
    const env = Object.entries({ ...reach, HOME: home, PATH: path, TERM: 'dumb' }).map(
      ([name, value]) => `${name}=${value}`,
    )
    const enter = ['-t', String(this.#init), '-m', '-p', '-u', '-i', '-r', '-w', 'env', '-i', '-C', clone, ...env]
    return [...enter, ...(user === 'root' ? [] : ['runuser', '-u', user, '--']), 'bash', '-c', script]
  }
  run(script: string, user = 'root', clone = '/', minutes = 15): Promise<Result> {
    return command('nsenter', this.#command(script, user, clone), process.env, minutes)
  }
  /** At a terminal, where Ctrl-C is typed once a line says `after`, and again while it cleans up. */
  async interrupt(script: string, after: RegExp, user: string, clone: string): Promise<Result> {
    const args = this.#command(`exec script -qec '${script}' /dev/null`, user, clone)
    const child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const ended = new Promise<number>(done => child.once('close', code => done(code ?? -1)))
    child.stdin.on('error', () => {}) // gone when the last one is typed
    let out = ''
    for await (const line of createInterface({ input: child.stdout })) {
      out += `${line}\n`
      if (after.test(line) || line.includes('cleaning up')) child.stdin.write('\x03')
    }
    return { code: await ended, out, err: '' }
  }

  /** What runs, as far as it is not dead already: `apart` counts what a lab has in network namespaces, too. */
  processes(apart = true): string[] {
    const proc = `/proc/${this.#init}/root/proc`
    const network = readlinkSync(`${proc}/1/ns/net`)
    return readdirSync(proc)
      .filter(entry => /^\d+$/.test(entry))
      .flatMap(pid => {
        try {
          if (/^State:\s+[ZX]/m.test(readFileSync(`${proc}/${pid}/status`, 'utf8'))) return []
          if (!apart && readlinkSync(`${proc}/${pid}/ns/net`) !== network) return []
          return [readFileSync(`${proc}/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').slice(0, 200)]
        } catch {
          return [] // it ended meanwhile
        }
      })
  }
  mounts(): string[] {
    // `ip netns` makes /run/netns a mount of its own, for good
    const mounts = readFileSync(`/proc/${this.#init}/mounts`, 'utf8').split('\n')
    return mounts.map(line => line.split(' ').slice(0, 3).join(' ')).filter(line => !line.includes(' /run/netns '))
  }
  /** Files that only a lab, an installation or a service of the machine's own has. */
  files(): string[] {
    const list = (path: string): string[] => {
      const folder = join(`/proc/${this.#init}/root`, path)
      return existsSync(folder) ? readdirSync(folder).map(file => `${path}/${file}`) : []
    }
    const found = ['/run', '/run/netns', '/var/lib/weft-lab', '/var/lib/docker', '/usr/sbin'].flatMap(list)
    return found.filter(path => /netns\/|weft|docker[^/]*(\/|\.pid|\.sock)|containerd\/|policy-rc\.d/.test(path))
  }
  state(): object {
    return { processes: this.processes(), mounts: this.mounts(), files: this.files() }
  }
}

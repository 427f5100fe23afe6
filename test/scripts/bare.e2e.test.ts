// SPDX-License-Identifier: Apache-2.0
// The README's commands where nothing is but git and the clone: a Debian made by debootstrap, with mirrors, proxies and
// certificates of this machine. It has its own mounts and processes, so whatever the demo leaves is seen, and goes with
// it. WEFT_BARE_SUITE says which Debian: bookworm (the default) or trixie.
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
import t from 'tap'
import { type Result, root, run } from './lab.ts'

t.setTimeout(1_800_000)
if (process.getuid?.() !== 0) {
  t.plan(0, 'needs root for namespaces')
  process.exit()
}
const suite = process.env['WEFT_BARE_SUITE'] ?? 'bookworm'

const command = (file: string, args: readonly string[], env = process.env): Promise<Result> =>
  new Promise(done => {
    execFile(
      file,
      args,
      { cwd: '/', env, maxBuffer: 1 << 26, timeout: 900_000, killSignal: 'SIGKILL' as const },
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

class Machine {
  // nobody else reaches it there
  readonly #parent = mkdtempSync(join(process.env['TMPDIR'] ?? '/var/tmp', 'weft-bare-'))
  readonly folder = join(this.#parent, suite)
  #outer: ChildProcess | undefined
  #init = 0

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
      .map(([uri, release, component]) => ({ uri, release: release.replace(codename, suite), component }))
    const mirror = sources.find(source => source.release === suite && source.component === 'main')?.uri
    if (!mirror) throw new Error(`apt of this machine has no mirror of Debian: ${targets}`)
    const secure = sources.some(source => source.uri.startsWith('https:'))
    const settings = await must('apt-config', ['dump'])
    const proxy = /^Acquire::http::Proxy "(.+)";$/m.exec(settings)?.[1]
    await must(
      'debootstrap',
      ['--variant=minbase', `--include=git${secure ? ',ca-certificates' : ''}`, suite, this.folder, mirror],
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
  run(script: string, user = 'root', clone = '/'): Promise<Result> {
    return command('nsenter', this.#command(script, user, clone))
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

const installed = await run('scripts/install', ['bare'])
if (installed.code !== 0) throw new Error(installed.err)
const machine = new Machine()
t.teardown(() => machine.close())
await machine.make()
const clone = '/root/weft'
const before = machine.state()
const packages = (): Promise<string> => machine.run('dpkg-query -W').then(result => result.out)
const bare = await packages()

t.test('a clone, and nothing else', async t => {
  t.match(await machine.run(`git clone -q /srv/weft.git ${clone}`), { code: 0 })
  t.match(await machine.run('scripts/demo --help', 'root', clone), { code: 0, out: /usage: scripts\/demo/ })
  t.not((await machine.run('command -v node npm dockerd ip curl sudo python3 make')).code, 0)
})

t.test('elsewhere a clear error, and nothing is touched', async t => {
  const others = { 'fedora 41': 'ID=fedora\nVERSION_ID=41', 'debian 11': 'ID=debian\nVERSION_ID="11"' }
  for (const [name, text] of Object.entries(others)) {
    machine.write('/srv/os-release', `${text}\n`)
    for (const script of ['scripts/demo', 'scripts/test']) {
      const there = await machine.run(
        `unshare -m sh -c 'mount --bind /srv/os-release /etc/os-release; ${script}'`,
        'root',
        clone,
      )
      t.match(there, { code: 1, err: `install: needs Debian 12 or 13 on amd64 (this is ${name} on x86_64)` }, script)
    }
  }
  const small = await machine.run('setarch linux32 scripts/demo', 'root', clone)
  t.match(small, { code: 1, err: /needs Debian 12 or 13 on amd64 \(this is debian 1[23] on i686\)/ })
  const apart = ['--mount', '--pid', '--fork', '--kill-child']
  // plain chroots, seen from outside
  const chroot = `exec chroot '${machine.folder}' env -i PATH=/usr/sbin:/usr/bin HOME=/root ${clone}/scripts/demo`
  t.match(await command('unshare', [...apart, 'sh', '-c', chroot]), { code: 1, err: 'demo: needs /proc mounted' })
  const mounted = `mount -t proc proc '${machine.folder}/proc' && ${chroot}`
  t.match(await command('unshare', [...apart, 'sh', '-c', mounted]), { code: 1, err: /demo: \/ is not a mount point/ })
  await machine.run('useradd -m joe && git clone -q /srv/weft.git ~joe/weft && chown -R joe: ~joe/weft')
  const user = await machine.run('scripts/demo', 'joe', '/home/joe/weft')
  t.match(user, { code: 1, err: 'demo: needs root, and there is no sudo' })
  t.equal(await packages(), bare)
  t.same(machine.state(), before)
})

t.test('while apt works no service may start, and another Docker is left alone', async t => {
  const programs = {
    dockerd: 'exit 0',
    'apt-get': 'echo "$*" >> /srv/fake/asked; /usr/sbin/policy-rc.d docker start; echo "policy $?" >> /srv/fake/asked',
  }
  for (const [name, text] of Object.entries(programs)) machine.write(`/srv/fake/${name}`, `#!/bin/sh\n${text}\n`, 0o755)
  const result = await machine.run('PATH=/srv/fake:$PATH scripts/install base lab', 'root', clone)
  t.equal(result.code, 0, result.err)
  const asked = await machine.run('cat /srv/fake/asked')
  t.match(asked.out, /install .*npm.*etcd-server/)
  t.notMatch(asked.out, /docker\.io|docker-cli/)
  t.match(asked.out, /policy 101/)
  t.notMatch(asked.out, /policy [^1]/)
  t.same(machine.state(), before, 'the policy is gone')
})

t.test('Ctrl-C while packages are fetched leaves nothing', async t => {
  const result = await machine.interrupt('scripts/demo', /install: fetched/, 'root', clone)
  t.equal(result.code, 130, result.out.slice(-1000))
  t.match(result.out, /interrupted, cleaning up/)
  t.equal(await packages(), bare)
  t.same(machine.state(), before)
})

t.test('scripts/demo installs, builds, shows, and what it prints works', async t => {
  const begin = performance.now()
  const demo = await machine.run('scripts/demo', 'root', clone)
  t.comment(`first run: ${Math.round((performance.now() - begin) / 1000)} s`)
  t.equal(demo.code, 0, `${demo.out}${demo.err}`.slice(-3000))
  t.match(demo.err, /install: fetched .*install: set up/s, 'with progress')
  t.match(demo.out, /hello from bob/)
  const printed = demo.out.match(/^ {2}scripts\/lab .*$/gm) ?? []
  t.equal(printed.length, 9)
  for (const line of printed) {
    const answer = await machine.run(line, 'root', clone)
    t.equal(answer.code, 0, `${line}: ${answer.err}`)
  }
  t.equal(machine.processes(false).length, 1, 'no service of its own started')
  t.match(await machine.run('dpkg -S "$(command -v node)" && dpkg -V nodejs npm docker.io'), {
    code: 0,
    out: /^nodejs: /,
  })
})

t.test('a second run is quick, and --down leaves nothing', async t => {
  const begin = performance.now()
  const demo = await machine.run('scripts/demo', 'root', clone)
  t.comment(`second run: ${Math.round((performance.now() - begin) / 1000)} s`)
  t.equal(demo.code, 0, demo.err)
  t.notSame(machine.state(), before, 'there is something to look for')
  t.match(await machine.run('scripts/demo --down', 'root', clone), { code: 0, err: '' })
  t.same(machine.state(), before)
})

const few = 'scripts/test --no-vm test/scripts/install.test.ts'
const counted = { code: 0, out: /\n[1-9]\d* passed, 0 failed, 0 skipped\n$/ }
t.test('scripts/test runs, and counts', async t => {
  const result = await machine.run(few, 'root', clone)
  t.match(result, counted, result.out.slice(-1000))
})

t.test('through sudo, in a clone of one who is not root', async t => {
  const get = 'DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends sudo'
  t.match(await machine.run(`${get} && echo 'joe ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/joe`), { code: 0 })
  const demo = await machine.run('scripts/demo', 'joe', '/home/joe/weft')
  t.equal(demo.code, 0, `${demo.out}${demo.err}`.slice(-3000))
  const printed = demo.out.match(/^ {2}sudo scripts\/lab .*$/gm) ?? []
  t.equal(printed.length, 9)
  for (const line of printed) {
    const answer = await machine.run(line, 'joe', '/home/joe/weft')
    t.equal(answer.code, 0, `${line}: ${answer.err}`)
  }
  t.equal((await machine.run('find ~joe/weft ! -user joe | head')).out, '', 'files of the clone stay theirs')
  t.match(await machine.run('scripts/demo --down', 'joe', '/home/joe/weft'), { code: 0 })
  t.same(machine.state(), before)
  t.match(await machine.run(`sudo ${few}`, 'joe', '/home/joe/weft'), counted)
})

for (const [user, folder] of [
  ['root', clone],
  ['joe', '/home/joe/weft'],
] as const)
  for (const after of [/underlay, router/, /etcd answers/, /weftd ready/, /a container on each host/]) {
    t.test(`Ctrl-C of ${user} after ${after} leaves nothing`, async t => {
      const result = await machine.interrupt('scripts/demo', after, user, folder)
      t.equal(result.code, 130, result.out.slice(-1000))
      t.match(result.out, /interrupted, cleaning up/)
      t.notMatch(result.out, /Look around/)
      t.same(machine.state(), before)
    })
  }

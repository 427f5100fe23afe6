// SPDX-License-Identifier: Apache-2.0
// Another Docker Engine: scripts/engine fetches Debian trixie's through this machine's mirror, and two hosts that run
// it share a network. Each run fetches anew, into a cache of its own.
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { http, idle, openLab, server } from '../e2e/lab.ts'
import { root, run } from './lab.ts'

t.setTimeout(600_000)
const cache = mkdtempSync(join(tmpdir(), 'weft-engine-'))
t.teardown(() => rmSync(cache, { recursive: true, force: true }))
const engine = (...args: string[]) => run('scripts/engine', args, { WEFT_CACHE: cache })
const engines = join(cache, 'engines')

const first = await engine('26.1')
if (first.code !== 0) throw new Error(`no engine: ${first.err}`)
const folder = first.out.trim()

t.test('fetched once, with what an engine needs and nothing else', async t => {
  t.match(first.err, /fetching Docker 26\.1\.\d+ of trixie: \d+ packages/)
  t.match(folder, /\/engines\/trixie-26\.1\.\d+\/bin$/)
  t.same(readdirSync(folder).sort(), [
    'containerd',
    'containerd-shim-runc-v2',
    'ctr',
    'docker',
    'docker-init',
    'docker-proxy',
    'dockerd',
    'etcd',
    'etcdctl',
    'runc',
  ])
  t.equal(readdirSync(engines).length, 1, 'no lists and packages stay')
  for (const name of ['26.1', '26', 'trixie']) t.same(await engine(name), { code: 0, out: first.out, err: '' }, name)
})

t.test('mistakes and failures are answered with what is missing, nothing stays', async t => {
  t.match(await engine('--help'), { code: 0, out: /usage: scripts\/engine/ })
  t.match(await engine(), { code: 2, err: /usage: scripts\/engine/ })
  t.match(await engine('--frobnicate'), { code: 2, err: /unknown option --frobnicate/ })
  t.match(await engine('../trixie'), { code: 2, err: /neither a version nor a Debian/ })
  t.match(await engine('26.1', '28'), { code: 2, err: /one engine at a time/ })
  const settings = join(cache, 'apt.conf')
  const unreachable = ['http', 'https'].map(scheme => `Acquire::${scheme}::Proxy "http://127.0.0.1:9";\n`)
  writeFileSync(settings, ['Acquire::Retries "0";\n', ...unreachable].join(''))
  const cut = await run('scripts/engine', ['26.10'], { WEFT_CACHE: cache, APT_CONFIG: settings })
  t.match(cut, { code: 1, err: /127\.0\.0\.1[\s\S]*no engine 26\.10 at .*trixie: not to be had; forky: not to be had/ })
  t.equal(readdirSync(engines).length, 1)
})

t.test('the store on the etcd of that Debian', async t => {
  const files = ['etcd', 'etcd-cluster'].map(name => `test/store/${name}.etcd.test.ts`)
  for (const file of files) {
    const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}`, TAP_TIMEOUT: '500' }
    const { code, out } = await new Promise<{ code: number; out: string }>(done => {
      execFile(process.execPath, [join(root, file)], { cwd: root, env, maxBuffer: 1 << 28 }, (error, out) => {
        done({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out })
      })
    })
    t.equal(code, 0, `${file}: ${out.match(/^ *not ok.*$/gm)?.join('; ') ?? out.slice(-300)}`)
    t.ok((out.match(/^ *ok \d+/gm)?.length ?? 0) > 20, file)
    t.notMatch(out, /# SKIP/)
  }
})

t.test('two hosts with it share a network', async t => {
  const lab = await openLab('eng', 2, '--engine', folder)
  t.teardown(() => lab.close())
  for (const host of ['h1', 'h2'])
    t.match(
      await lab.docker(host, 'version', '--format', '{{.Client.Version}} {{.Server.Version}}'),
      /^26\.1\.\S+ 26\.1\.\S+$/,
    )
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
  t.ok(await lab.until(async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=^app$')) !== '', 30_000))
  await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'one', 'busybox', ...idle)
  const published = ['-p', '8080:80', 'busybox', ...server]
  await lab.docker('h2', 'run', '-d', '--init', '--network', 'app', '--name', 'two', ...published)
  for (const [host, from, to] of [
    ['h1', 'one', 'two'],
    ['h2', 'two', 'one'],
  ] as const)
    for (const family of ['-4', '-6']) {
      const ping = () => lab.tryDocker(host, 'exec', from, 'ping', family, '-c', '1', '-W', '2', to)
      t.ok(await lab.until(async () => (await ping()).code === 0, 30_000), `${from} reaches ${to} by name, ${family}`)
    }
  t.match(await lab.docker('h1', 'exec', 'one', ...http('two', 80)), /hello/)
  // published a moment after it listens
  const curl = () => lab.try('exec', 'client', 'curl', '-s', '-m', '10', 'http://10.9.0.2:8080/')
  t.ok(await lab.until(async () => /hello/.test((await curl()).out), 30_000), 'by its published port')
  t.match(await lab.exec('client', 'curl', '-s', '-m', '10', '-g', 'http://[fd09::2]:8080/'), /hello/)
  await lab.docker('h1', 'rm', '-f', 'one')
  await lab.docker('h2', 'rm', '-f', 'two')
  await lab.docker('h1', 'network', 'rm', 'app')
  const left = (host: string) => lab.docker(host, 'network', 'ls', '-q', '-f', 'driver=weft')
  t.ok(await lab.until(async () => (await left('h1')) + (await left('h2')) === '', 30_000), 'and it goes again')
})

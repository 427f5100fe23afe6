// SPDX-License-Identifier: Apache-2.0
// Three members of etcd that ask for client certificates: weftd comes up and works, says which file is wrong when it
// cannot, starts containers while the leader dies and while a member is without the others, is loud when it is refused
// later, and takes files that were replaced.
import { copyFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { TlsFiles } from '../../src/store/etcd-tls.ts'
import { makeAuthority } from '../store/certificates.ts'
import { idle, openLab } from './lab.ts'

const lab = await openLab('tls', 2, '--etcd', '3', '--tls')
const dir = await mkdtemp(join(tmpdir(), 'weft-tls-'))
t.teardown(async () => {
  await lab.close()
  await rm(dir, { recursive: true })
})
const hosts = ['h1', 'h2']
const files = `${process.env['WEFT_LAB_DIR'] ?? '/var/lib/weft-lab'}/tls/tls`
const filesOf = (who: string): TlsFiles => ({
  ca: `${files}/${who}/ca.pem`,
  cert: `${files}/${who}/cert.pem`,
  key: `${files}/${who}/key.pem`,
})
const ours = filesOf('weftd')
const right = async (): Promise<boolean> =>
  (await Promise.all(hosts.map(host => lab.try('weft', host, 'status')))).every(({ code }) => code === 0)

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await lab.shows('h2', 'app')
for (const host of hosts) await lab.docker(host, 'run', '-d', '--network', 'app', '--name', host, 'busybox', ...idle)

t.test('it works', async t => {
  t.ok(await lab.until(right))
  t.match(await lab.exec('s1', 'etcdctl', 'endpoint', 'status', '--cluster'), /https:\/\/10\.9\.0\.243/)
  const clear = await lab.try('exec', 's1', 'env', 'ETCDCTL_ENDPOINTS=http://10.9.0.241:2379', 'etcdctl', 'get', 'a')
  t.not(clear.code, 0, 'nobody gets in without a certificate')
  t.ok(await lab.until(async () => (await lab.tryDocker('h1', 'exec', 'h1', 'ping', '-c', '1', 'h2')).code === 0))
})

t.test('a start with files that will not do ends, and names the file', async t => {
  const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))
  const start = (with_: TlsFiles) => {
    const flags = {
      node: 'h9',
      vtep: '10.9.0.19',
      store: 'etcd://10.9.0.241:2379,10.9.0.242:2379,10.9.0.243:2379',
      'data-dir': '/run/nine',
      'api-socket': '/run/nine.sock',
      'plugin-socket': '/run/nine-plugin.sock',
      docker: 'unix:///run/docker.sock',
      'etcd-ca': with_.ca,
      'etcd-cert': with_.cert,
      'etcd-key': with_.key,
    }
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
    return lab.try('exec', 'h1', 'timeout', '60', process.execPath, main, ...args)
  }
  await lab.exec('h1', 'ip', 'address', 'add', '10.9.0.19/24', 'dev', 'eth0')
  const other = makeAuthority(dir, 'other')
  const stranger = other.issue('stranger')
  const expired = makeAuthority(dir, 'old').issue('node', -1)
  const rows: [string, TlsFiles, RegExp][] = [
    [
      'a CA that did not sign',
      { ...ours, ca: other.ca },
      /--etcd-ca \S+other\.pem did not sign the server's certificate/,
    ],
    ['a stranger', { ...stranger, ca: ours.ca }, /refuses --etcd-cert \S+other-stranger\.pem: it is signed by an/],
    [
      'an expired one',
      { ...expired, ca: ours.ca },
      /--etcd-cert \S+old-node\.pem is no usable certificate: it expired on/,
    ],
    [
      'a foreign key',
      { ...ours, key: stranger.key },
      /--etcd-key \S+stranger\.key is no usable key: it does not belong to/,
    ],
    ['no file', { ...ours, cert: '/nonexistent.pem' }, /--etcd-cert \/nonexistent\.pem cannot be read/],
    ['no certificate', { ...ours, ca: '/etc/hosts' }, /--etcd-ca \/etc\/hosts is no usable certificate/],
  ]
  for (const [what, with_, sentence] of rows) {
    const from = Date.now()
    const { code, out, err } = await start(with_)
    t.equal(code, 2, `${what}: exit code`)
    const said = `${out}\n${err}`.split('\n').filter(line => /^weftd: |"cannot start"/.test(line))
    t.match(said[0], sentence, `${what}: the file`)
    t.equal(said.length, 1, `${what}: ${said.join('\n') || out + err}`)
    t.comment(`${what}: ${Date.now() - from} ms`)
  }
  await lab.exec('h1', 'ip', 'address', 'del', '10.9.0.19/24', 'dev', 'eth0')
  t.ok(await lab.until(right), 'nobody else was disturbed')
})

/** Runs containers on both hosts for so long; how many, how many failed, the longest. */
const running = (ms: number) => {
  const end = Date.now() + ms
  return Promise.all(
    hosts.map(async host => {
      const took: number[] = []
      const failed: string[] = []
      while (Date.now() < end) {
        const from = Date.now()
        const { code, err } = await lab.tryDocker(host, 'run', '--rm', '--network', 'app', 'busybox', 'true')
        took.push(Date.now() - from)
        if (code !== 0) failed.push(err)
      }
      return { runs: took.length, failed, longest: Math.max(...took) }
    }),
  )
}
const leader = async (): Promise<string> => {
  const lines = (await lab.exec('store', 'etcdctl', 'endpoint', 'status')).split('\n')
  return `s${/10\.9\.0\.24(\d)/.exec(lines.find(line => line.split(', ')[4] === 'true') ?? '')?.[1]}`
}

t.test('the leader is killed: docker run goes on', async t => {
  const loads = running(12_000)
  await sleep(2000)
  const dead = await leader()
  await lab.ok('kill', dead, 'etcd')
  for (const { runs, failed, longest } of await loads) {
    t.comment(`${runs} runs, ${failed.length} failed, the longest ${longest} ms`)
    t.same(failed, [])
  }
  await lab.ok('start', dead, 'etcd')
  t.ok(await lab.until(right))
})

t.test('each member in turn hears none of the others: docker run goes on', async t => {
  for (const alone of ['s1', 's2', 's3']) {
    const rules = ['input tcp dport', 'input tcp sport', 'output tcp dport', 'output tcp sport']
    const cut = [
      'add table inet cut',
      ...['input', 'output'].map(hook => `add chain inet cut ${hook} { type filter hook ${hook} priority 0; }`),
      ...rules.map(rule => `add rule inet cut ${rule} 2380 drop`),
    ].join('; ')
    await lab.exec(alone, 'nft', cut)
    for (const { runs, failed, longest } of await running(12_000)) {
      t.comment(`${alone}: ${runs} runs, ${failed.length} failed, the longest ${longest} ms`)
      t.same(failed, [])
    }
    await lab.exec(alone, 'nft', 'delete table inet cut')
    t.ok(await lab.until(right, 20_000))
  }
})

t.test('refused later: weft status names the file; replaced files are taken without a restart', async t => {
  const members = ['s1', 's2', 's3']
  const processes = async (): Promise<unknown> =>
    (JSON.parse(await lab.ok('status', '--output', 'json')) as { hosts: { weftd: number }[] }).hosts.map(
      one => one.weftd,
    )
  const before = await processes()
  const next = makeAuthority(dir, 'next')
  const addresses = members.map((_, i) => `10.9.0.24${i + 1}`)
  const theirs = next.issue('etcd', 2, addresses)
  const mine = next.issue('weftd')
  const replace = (part: keyof TlsFiles, from: TlsFiles, to: TlsFiles): void => copyFileSync(from[part], to[part])
  const parts = ['ca', 'cert', 'key'] as const
  const loud = async (sentence: RegExp): Promise<void> => {
    for (const host of hosts) {
      const says = async () => {
        const { code, out } = await lab.try('weft', host, 'status')
        return code === 1 && sentence.test(out)
      }
      t.ok(await lab.until(says, 30_000), `${host}: ${sentence}`)
    }
  }
  for (const part of parts) replace(part, theirs, filesOf('etcd'))
  for (const member of members) await lab.ok('kill', member, 'etcd')
  await lab.ok('start', 'store', 'etcd')
  await loud(/--etcd-ca \S+weftd\/ca\.pem did not sign the server's certificate/)
  replace('ca', mine, ours)
  await loud(/the server refuses --etcd-cert \S+weftd\/cert\.pem: it is signed by an authority/)
  t.equal((await lab.tryDocker('h1', 'exec', 'h1', 'ping', '-c', '1', 'h2')).code, 0, 'packets and names go on')
  replace('key', mine, ours)
  await loud(/--etcd-key \S+weftd\/key\.pem is no usable key: it does not belong to \S+weftd\/cert\.pem/)
  replace('cert', mine, ours)
  t.ok(await lab.until(right, 30_000))
  for (const host of hosts)
    await lab.docker(host, 'run', '--rm', '--network', 'app', 'busybox', 'ping', '-c', '1', 'h2')
  t.same(await processes(), before, 'the same processes')
})

// SPDX-License-Identifier: Apache-2.0
// A scrape of a running weftd: its form, its names against docs/metrics.md, and that values move with what happens.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type MetricFamily, metricValue, parseExposition } from '../daemon/exposition.ts'
import { balancerFlags, openLab, server } from './lab.ts'

const lab = await openLab('metr', 2, '--weftd-args', `--metrics :9473 ${balancerFlags[1] ?? ''}`.trim())
t.teardown(() => lab.close())

type Scrape = ReadonlyMap<string, MetricFamily>
const url = 'http://127.0.0.1:9473/metrics'
const scrape = async (host: string): Promise<Scrape> =>
  parseExposition(`${await lab.exec(host, 'curl', '-sS', '-f', '-m', '30', url)}\n`)
/** Scrapes until the value is as wanted, and gives the last. */
const becomes = async (
  host: string,
  name: string,
  labels: Readonly<Record<string, string>>,
  wanted: (value: number | undefined) => boolean,
  ms?: number,
): Promise<number | undefined> => {
  let value: number | undefined
  await lab.until(async () => {
    value = metricValue(await scrape(host), name, labels)
    return wanted(value)
  }, ms)
  return value
}

await lab.docker('h1', ...'network create -d weft --ipam-driver weft --subnet 10.70.0.0/24 app'.split(' '))
await lab.shows('h2', 'app')
const web = ['--network', 'app', '--label', 'weft.service=web', '-p', '8080:80']
await lab.docker('h2', 'run', '-d', '--name', 'one', ...web, 'busybox', ...server)
const ask = () => lab.try('exec', 'client', 'curl', '-s', '-m', '3', 'http://10.9.0.1:8080/')
await lab.until(async () => (await ask()).out === 'hello', 30_000)

t.test('one path on the loopback alone', async t => {
  const code = async (...args: string[]): Promise<string> =>
    (await lab.try('exec', 'h1', 'curl', '-s', '-m', '10', '-o', '/dev/null', '-w', '%{http_code}', ...args)).out
  t.equal(await code(url), '200')
  t.equal(await code('http://127.0.0.1:9473/'), '404')
  t.equal(await code('-X', 'POST', url), '405')
  t.equal(await code('http://10.9.0.1:9473/metrics'), '000')
})

t.test('names, types and labels are those of docs/metrics.md', async t => {
  const families = await scrape('h1')
  const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `([a-z_]+)(\*?)` \| ([a-z, ]+) \| ([a-z, ]*)\|/gm)].map(
    ([, name, open, types, labels]) => ({
      ...{ name: name!, open: open === '*', types: types!.trim().split(', ') },
      labels: labels!.trim() === '' ? [] : labels!.trim().split(', '),
    }),
  )
  t.ok(rows.length > 20)
  const unused = new Set(rows)
  for (const [name, { type, samples }] of families) {
    const row = rows.find(row => (row.open ? name.startsWith(row.name) : name === row.name))
    if (!t.ok(row, `${name} is documented`)) continue
    unused.delete(row!)
    t.ok(row!.types.includes(type), `${name} is a ${type}`)
    for (const { labels } of samples) {
      const has = Object.keys(labels).filter(label => label !== 'le' || type !== 'histogram')
      const right = row!.open ? has.every(label => row!.labels.includes(label)) : `${has}` === `${row!.labels}`
      if (!right) t.fail(`${name} has labels ${has}`)
    }
  }
  t.same(
    [...unused].map(({ name }) => name),
    [],
    'nothing is documented that is not there',
  )
})

t.test('what is, is shown', async t => {
  const families = await scrape('h1')
  const value = (name: string, labels = {}) => metricValue(families, name, labels)
  t.equal(value('weft_build_info'), 1)
  t.equal(value('weft_store_available'), 1)
  t.ok(value('weft_store_revision')! > 1)
  t.ok(value('weft_reconciler_passes_total')! > 1)
  t.ok(value('weft_reconciler_plan_seconds_count')! > 1)
  t.ok(value('weft_reconciler_apply_seconds_count')! > 0)
  t.equal(value('weft_objects', { state: 'failing' }), 0)
  t.ok(value('weft_objects', { state: 'wanted' })! > 10)
  t.ok(value('weft_store_request_seconds_count', { operation: 'commit' })! > 0)
  t.equal(value('weft_service_backends', { network: 'app', service: 'web', state: 'active' }), 1)
  t.equal(value('weft_peers', { state: 'answers' }), 1)
  t.equal(value('weft_peer_silent', { network: 'app', node: 'h2' }), 0)
  const pool = { network: 'app', pool: '10.70.0.0/24' }
  t.equal(value('weft_pool_addresses', { ...pool, state: 'used' }), 1)
  const all = ['used', 'vip', 'reserved', 'spare', 'resting', 'free'].map(
    state => value('weft_pool_addresses', { ...pool, state })!,
  )
  t.equal(
    all.reduce((a, b) => a + b, 0),
    253,
    '256 without network, broadcast and gateway',
  )
  t.equal(value('weft_store_audit_repairs_total'), 0)
  t.equal(value('weft_scrape_failures_total'), 0)
  t.ok(value('nodejs_eventloop_lag_p99_seconds')! >= 0)
  t.ok((await becomes('h1', 'weft_store_watch_lag_seconds', {}, lag => lag! > 1))! < 60, 'quiet, and heard of')
})

t.test('docker run is counted', async t => {
  const calls = { method: 'NetworkDriver.CreateEndpoint' }
  const before = await scrape('h1')
  await lab.docker('h1', 'run', '-d', '--name', 'two', '--network', 'app', 'busybox', 'sleep', '1000')
  const after = await scrape('h1')
  for (const [name, labels] of [
    ['weft_docker_calls_total', { ...calls, code: 'OK' }],
    ['weft_docker_call_seconds_count', calls],
  ] as const)
    t.equal(metricValue(after, name, labels), (metricValue(before, name, labels) ?? 0) + 1, name)
  const refused = await lab.tryDocker('h1', 'run', '--network', 'app', '--ip', '10.70.0.1', 'busybox', 'true')
  t.not(refused.code, 0)
  const bad = metricValue(await scrape('h1'), 'weft_docker_calls_total', { method: 'IpamDriver.RequestAddress' })!
  const good = metricValue(await scrape('h1'), 'weft_docker_calls_total', {
    ...{ method: 'IpamDriver.RequestAddress', code: 'OK' },
  })!
  t.equal(bad - good, 1, 'the gateway is nobody’s')
  t.equal(await becomes('h1', 'weft_pool_addresses', { network: 'app', state: 'used' }, value => value === 2), 2)
  await lab.docker('h1', 'rm', '-f', 'two')
  const resting = { network: 'app', state: 'resting' }
  t.ok(await becomes('h1', 'weft_pool_addresses', resting, value => value! > 0))
})

t.test('a connection through the mesh is counted where it came in', async t => {
  const of = { network: 'app', service: 'web', container: 'one', node: 'h2', proto: 'tcp', port: '8080' }
  const hold = 'use IO::Socket::INET; my $s = IO::Socket::INET->new("10.9.0.1:8080") or die; sleep 1000'
  const held = lab.background('exec', 'client', 'perl', '-e', hold)
  t.equal(await becomes('h1', 'weft_backend_connections_active', of, value => value === 1, 20_000), 1)
  const families = await scrape('h1')
  const total = metricValue(families, 'weft_backend_connections_total', of)
  if (metricValue(families, 'weft_build_info', { balancer: 'ipvs' }) === 1) t.ok(total! > 0)
  else t.equal(total, undefined, 'nftables does not count')
  t.equal(metricValue(await scrape('h2'), 'weft_backend_connections_active', of) ?? 0, 0, 'h2 was not asked')
  await held.stop()
})

t.test('a repair is counted by its object', async t => {
  const before = metricValue(await scrape('h1'), 'weft_repairs_total', { object: 'nft-table' }) ?? 0
  await lab.exec('h1', 'nft', 'delete', 'table', 'inet', 'weft')
  t.ok((await becomes('h1', 'weft_repairs_total', { object: 'nft-table' }, value => (value ?? 0) > before))! > before)
})

t.test('a node that falls silent, and a store that goes away', async t => {
  const rule = ['INPUT', '-p', 'udp', '--dport', '8473', '-j', 'DROP']
  await lab.exec('h2', 'iptables', '-I', ...rule)
  const silent = { network: 'app', node: 'h2' }
  t.equal(await becomes('h1', 'weft_peer_silent', silent, value => value === 1, 30_000), 1)
  const backends = { service: 'web', state: 'silent' }
  t.equal(await becomes('h1', 'weft_service_backends', backends, value => value === 1), 1)
  await lab.exec('h2', 'iptables', '-D', ...rule)
  t.equal(await becomes('h1', 'weft_peer_silent', silent, value => value === 0, 30_000), 0)

  await lab.ok('stop', 'store', 'etcd')
  t.equal(await becomes('h1', 'weft_store_available', {}, value => value === 0, 60_000), 0)
  t.ok((await becomes('h1', 'weft_store_watch_lag_seconds', {}, value => value! > 12, 60_000))! > 12)
  t.not((await lab.try('weft', 'h1', 'network', 'create', 'late')).code, 0)
  await lab.ok('start', 'store', 'etcd')
  t.equal(await becomes('h1', 'weft_store_available', {}, value => value === 1, 60_000), 1)
  t.ok((await becomes('h1', 'weft_store_watch_lag_seconds', {}, value => value! < 8, 60_000))! < 8)
  t.ok(metricValue(await scrape('h1'), 'weft_store_errors_total', { code: 'STORE_UNAVAILABLE' })! > 0)
})

t.test('an address that is taken is said at the start', async t => {
  const [node, main] = ['scripts/node', 'dist/main.js'].map(path =>
    fileURLToPath(new URL(`../../${path}`, import.meta.url)),
  )
  const args = ['--data-dir', '/run/second', '--store', 'embedded', '--plugin-socket', '/run/second.sock']
  const second = await lab.try('exec', 'h1', node!, main!, ...args, '--metrics', ':9473')
  t.equal(second.code, 1)
  t.match(second.err, '--metrics 127.0.0.1:9473: another process listens there: choose another port')
  t.equal((await lab.try('exec', 'h1', node!, main!, '--metrics', 'here')).code, 2)
})

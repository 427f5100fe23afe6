// SPDX-License-Identifier: Apache-2.0
// weft service create, ls, show, rm against the API of a node: output, words of refusal and exit codes.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { apiHandlers } from '../../src/api/handlers.ts'
import type { ApiParts } from '../../src/api/parts.ts'
import { openApiServer } from '../../src/api/server.ts'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openPools } from '../../src/control/pools.ts'
import { openServices } from '../../src/control/services.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { testCluster } from '../overlay/cluster.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const dir = mkdtempSync(join(tmpdir(), 'weft-cli-'))
const path = join(dir, 'api.sock')

/** As IPVS counts. */
const counts = [
  {
    proto: 'tcp',
    port: 8080,
    to: '10.80.0.2',
    active: 2,
    all: { connections: 40n, bytesIn: 4000n, bytesOut: 90_000n },
  },
  { proto: 'tcp', port: 8080, to: 'fd00:80::2', active: 1, all: { connections: 2n, bytesIn: 5n, bytesOut: 7n } },
  { proto: 'tcp', port: 8081, to: '10.80.0.2', active: 9 },
]

const weft = (...args: string[]): Promise<{ code: number; out: string; err: string }> =>
  new Promise(resolve =>
    execFile(process.execPath, [main, '--api', `unix://${path}`, ...args], (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    ),
  )

let balancer = 'nft'
t.before(async () => {
  const store = await openEmbeddedStore({})
  const mirror = openMirror(store, silentLog)
  await mirror.ready()
  const put = (key: string, value: string) => store.commit([], [{ kind: 'put', key, value }])
  const shapes = testCluster()
  for (const id of ['app', 'back']) {
    shapes.putNetwork({ id })
    await put(keys.network(id), encode('network', shapes.networks.get(id)!.record))
  }
  const claim = { cluster: { network: 'app', service: 'container web', holders: ['e1'] }, local: [] }
  const ports = [{ proto: 'tcp', port: 80, hostPort: 8080 }] as const
  shapes.putEndpoint({ id: 'e1', network: 'app', node: 'a', gateway: true, ports, service: 'container web' })
  await put(keys.endpoint('app', 'e1'), encode('endpoint', shapes.endpoints('app').get('e1')!.record))
  await mirror.reached(await put(keys.port('tcp', 8080), encode('portClaim', claim)))
  const context = { store, mirror, node: 'a', boot: 'b', clock: systemClock, log: silentLog }
  const bindings = await openBindings(join(dir, 'bindings.json'), 64, () => {})
  const networks = openNetworks(context, bindings, openPools(context))
  const parts = {
    schedulers: ['rr', 'lc'],
    snapshot: mirror.snapshot,
    networks,
    bindings,
    services: openServices(context, async () => undefined),
  }
  const server = await openApiServer(
    path,
    apiHandlers({
      ...parts,
      get balancer() {
        return balancer
      },
      counters: async () => counts,
      silences: () => [],
      portProblems: () => new Map(),
      floatingProblems: () => new Map(),
    } as unknown as ApiParts),
    silentLog,
  )
  t.teardown(async () => {
    await server.close()
    await mirror.close()
    await store.close()
    rmSync(dir, { recursive: true })
  })
})

t.test('said, shown, changed, forgotten', async t => {
  const options = ['--scheduler', 'lc', '--affinity', '60', '--probe', 'http:80/ok', '--probe-interval', '0.5']
  t.match(await weft('service', 'create', 'web', '--network', 'app', ...options), { code: 0, out: 'web\n' })
  t.match(
    (await weft('service', 'show', 'web')).out,
    /Balance: {2}lc, affinity 60 s\nProbe: {4}http:80\/ok=200-399, every 0.5 s, answer within 0.5 s, out after 3\n/,
  )
  const kept = /Problem: {2}affinity 60 s: this host balances by nft, which keeps a client's container as long as/
  t.match((await weft('service', 'show', 'web')).out, kept, 'what it is not')
  await weft('service', 'create', 'web', '--network', 'app', '--timeout-tcp', '900')
  const { out } = await weft('service', 'show', 'web', '-o', 'json')
  t.match(JSON.parse(out), { options: { scheduler: 'lc', affinity: 60, timeoutTcp: 900 }, backends: [{ node: 'a' }] })
  const yaml = await weft('service', 'show', 'web', '--output', 'yaml')
  t.same(parse(yaml.out), JSON.parse(out), 'the same as YAML')
  balancer = 'ipvs'
  const longest = /Problem: {2}timeouts: this host balances by ipvs, which has one for all services of a network/
  t.match((await weft('service', 'show', 'web')).out, longest)
  balancer = 'nft'
  t.match(await weft('service', 'rm', 'web', '--network', 'app'), { code: 0, out: 'web\n' })
  t.match((await weft('service', 'show', 'web')).out, /Balance: {2}rr\n\n/, 'its containers stay')
  t.match(await weft('service', 'rm', 'web', '--network', 'app'), { code: 4, err: /nothing was said of service "web"/ })
})

t.test('before its first container', async t => {
  const made = await weft('service', 'create', 'shop/api', '--network', 'back')
  t.match(made, { code: 0, out: /^shop\/api {2}no container .*yet\n$/ })
  t.match((await weft('service', 'ls')).out, /^shop\/api +back +0\/0$/m)
})

t.test('what is wrong is named, and the exit code says usage or unknown', async t => {
  for (const [args, code, err] of [
    [['web'], 2, /--network/],
    [['web', '--network', 'none'], 4, /there is no network "none"/],
    [['web', '--network', 'app', '--affinity', 'long'], 2, /--affinity "long": give a whole number/],
    [['web', '--network', 'app', '--affinity', '86401'], 2, /--affinity 86401: give whole seconds/],
    [['web', '--network', 'app', '--probe-interval', '1m'], 2, /--probe-interval "1m": give seconds/],
    [['web', '--network', 'app', '--scheduler', 'sed'], 2, /--scheduler "sed": give one of/],
    [['web', '--network', 'app', '--scheduler', 'mh'], 1, /balanced here by nft, which has rr, lc: choose one of them/],
    [['a/b/c', '--network', 'app'], 2, /service name "a\/b\/c": give a name, or PROJECT\/SERVICE/],
  ] as const)
    t.match(await weft('service', 'create', ...args), { code, err }, args.join(' '))
})

t.test('what the kernel of this host counts', async t => {
  const { out } = await weft('service', 'show', 'web', '--network', 'app')
  t.match(out, /WEIGHT +ACTIVE +TOTAL +IN +OUT/)
  t.match(out, / active +1 +3 +42 +4005 +90007 /)
  counts.length = 0
  const { out: none } = await weft('service', 'show', 'web', '--network', 'app')
  t.match(none, / active +1 +0 +- +- +- /, 'what nobody counts is not 0')
})

// SPDX-License-Identifier: Apache-2.0
// weft network create against the API of a node: what is asked of it, words of refusal and exit codes.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { CreateNetworkRequest } from '../../src/api/gen/weft.ts'
import { apiHandlers } from '../../src/api/handlers.ts'
import type { ApiParts } from '../../src/api/parts.ts'
import { openApiServer } from '../../src/api/server.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { testCluster } from '../overlay/cluster.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const dir = mkdtempSync(join(tmpdir(), 'weft-cli-'))
const path = join(dir, 'api.sock')
const asked: CreateNetworkRequest[] = []
let refusal: WeftError | undefined

const create = (...args: string[]): Promise<{ code: number; out: string; err: string }> =>
  new Promise(resolve =>
    execFile(
      process.execPath,
      [main, '--api', `unix://${path}`, 'network', 'create', 'app', ...args],
      (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err }),
    ),
  )

t.before(async () => {
  const snapshot = testCluster()
  snapshot.putNetwork({ id: 'app' })
  const parts = {
    ...{ snapshot, networks: { find: (id: string) => snapshot.networks.get(id) }, bindings: { byNetwork: () => {} } },
    networkProblems: () => new Map(),
    createNetwork: async (request: CreateNetworkRequest) => {
      asked.push(request)
      if (refusal) throw refusal
      return 'app'
    },
  }
  const server = await openApiServer(path, apiHandlers(parts as unknown as ApiParts), silentLog)
  t.teardown(async () => {
    await server.close()
    rmSync(dir, { recursive: true })
  })
})

t.test('each gateway and range goes to the subnet that it is in', async t => {
  const subnets = ['--subnet', '10.62.0.0/24', '--subnet', '10.63.0.0/24', '--subnet', 'fd00:62::/64']
  const gateways = ['--gateway', 'fd00:62::7', '--gateway', '10.63.0.7', '--gateway', '10.62.0.7']
  t.match(await create(...subnets, ...gateways, '--ip-range', '10.63.0.128/25'), { code: 0 })
  t.match(asked.pop()?.pools, [
    { prefix: '10.62.0.0/24', gateway: '10.62.0.7', range: '' },
    { prefix: '10.63.0.0/24', gateway: '10.63.0.7', range: '10.63.0.128/25' },
    { prefix: 'fd00:62::/64', gateway: 'fd00:62::7', range: '' },
  ])
})

t.test('a flag that nothing comes of is refused', async t => {
  const subnet = ['--subnet', '10.61.0.0/24']
  for (const [args, err] of [
    [['--gateway', '10.61.0.1'], /--gateway and --ip-range need --subnet beside them/],
    [
      [...subnet, '--gateway', 'fd00:61::1'],
      /--gateway fd00:61::1 is not inside --subnet 10\.61\.0\.0\/24: give its --subnet too/,
    ],
    [[...subnet, '--gateway', '10.62.0.1'], /--gateway 10\.62\.0\.1 is not inside --subnet/],
    [[...subnet, '--ip-range', 'fd00:61::/80'], /--ip-range fd00:61::\/80 is not inside --subnet/],
    [
      [...subnet, '--gateway', '10.61.0.1', '--gateway', '10.61.0.2'],
      /--gateway 10\.61\.0\.2: .* has 10\.61\.0\.1 already/,
    ],
    [[...subnet, '--gateway', 'first'], /--gateway "first" is not an IP address/],
    [
      [...subnet, '--subnet', '10.61.0.128/25'],
      /--subnet 10\.61\.0\.0\/24 and --subnet 10\.61\.0\.128\/25 overlap: give one of them/,
    ],
    [['--subnet', '10.61.0.0', '--gateway', '10.61.0.1'], /--subnet "10\.61\.0\.0" is not an address with a prefix/],
  ] as const)
    t.match(await create(...args), { code: 2, err }, args.join(' '))
  t.same(asked, [])
})

t.test('it joins no network, and says what does', async t => {
  t.match(await create('--opt', 'weft.network=shop'), {
    code: 2,
    err: /joins none: leave it out, or type docker network create .* --ipam-opt weft\.network=shop app$/m,
  })
  t.same(asked, [])
})

t.test('exit codes of what weftd answers', async t => {
  for (const [code, exit] of [
    ['FULL', 1],
    ['INVALID', 2],
    ['NOT_REACHED', 5],
  ] as const) {
    refusal = new WeftError(code, 'says weftd')
    t.match(await create(), { code: exit, out: '', err: 'weft: says weftd\n' }, code)
  }
})

// SPDX-License-Identifier: Apache-2.0
// Which bridges are Docker's, as far as only Docker knows, and also while it does not answer.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openBridges } from '../../src/docker/bridges.ts'
import type { EngineNetwork } from '../../src/docker/engine.ts'

const network = (Driver: string, name?: string) =>
  ({ Driver, Options: name === undefined ? null : { 'com.docker.network.bridge.name': name } }) as EngineNetwork

t.test('names of bridges, from Docker or as it last said', async t => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-bridges-'))
  t.teardown(() => rm(dir, { recursive: true }))
  const path = join(dir, 'bridges.json')
  let answer: EngineNetwork[] | undefined
  const networks = async () => {
    if (!answer) throw new Error('no engine')
    return answer
  }
  const engine = { networks, addressPools: async () => ['10.0.0.0/8', 'fd00::/48', 'rubbish'] }
  const bridges = await openBridges(path, engine, silentLog)
  await bridges.look()
  t.same(bridges.names, [])
  t.equal(bridges.pools, undefined)
  answer = [network('bridge', 'shop'), network('bridge'), network('bridge', 'docker0'), network('macvlan', 'other')]
  await bridges.look()
  t.same(bridges.names, ['docker0', 'shop'])
  t.same(bridges.pools, ['10.0.0.0/8', 'fd00::/48'])
  answer = undefined
  await bridges.look()
  t.same(bridges.names, ['docker0', 'shop'], 'Docker is away')
  const next = await openBridges(path, engine, silentLog)
  t.same(next.names, ['docker0', 'shop'], 'at the next start')
  answer = [network('bridge', 'docker0')]
  await next.look()
  t.same(JSON.parse(await readFile(path, 'utf8')), ['docker0'])
  await writeFile(path, '[1')
  t.same((await openBridges(path, engine, silentLog)).names, [], 'damaged: nothing is known')
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { serviceMessages } from '../../src/api/convert.ts'
import { testCluster } from '../overlay/cluster.ts'

t.test('a service of very many containers, each once, in a moment', t => {
  const snapshot = testCluster()
  for (const name of ['a', 'b']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1' })
  const count = 20_000
  const holders = Array.from({ length: count }, (_, i) => `e${i}`)
  for (const [i, id] of holders.entries())
    snapshot.putEndpoint({
      ...{ id, network: 'n1', node: i % 2 === 0 ? 'a' : 'b', addresses: [`10.80.${i >> 8}.${i & 255}`] },
      workload: { name: `web-${i >> 1}`, container: id, aliases: [], labels: { 'weft.service': 'web' } },
    })
  snapshot.putVip('n1', 'label web', '10.80.255.254')
  for (const port of [80, 443])
    snapshot.putPort(`tcp/${port}`, { cluster: { network: 'n1', service: 'label web', holders }, local: [] })
  const from = performance.now()
  const [service] = serviceMessages(
    snapshot,
    () => undefined,
    () => false,
    () => [],
    () => t.fail('it has no floating address') as never,
  )
  const ms = performance.now() - from
  t.equal(service?.backends.length, count, 'equal names on two nodes are two')
  t.ok(ms < 4000, `weftd does nothing else for ${ms} ms`)
  t.end()
})

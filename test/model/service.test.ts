// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { endpointService, labelProblems, weightOf } from '../../src/model/service.ts'
import { testCluster } from '../overlay/cluster.ts'

const withLabels = (labels: Record<string, string>) => {
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a' })
  snapshot.putNetwork({ id: 'n' })
  const workload = { container: 'c', name: 'one', aliases: [], labels }
  snapshot.putEndpoint({ id: 'e', network: 'n', node: 'a', workload })
  return snapshot.endpoints('n').get('e')!.record
}

t.test('a label that is no name makes no service, and is said', async t => {
  t.equal(endpointService(withLabels({ 'weft.service': 'web' })), 'label web')
  t.same(labelProblems(withLabels({ 'weft.service': 'web', 'weft.weight': '0' })), [])
  for (const label of ['', '  ', 'x'.repeat(256), 'a\nb', '\x1b[31mred']) {
    const endpoint = withLabels({ 'weft.service': label })
    t.equal(endpointService(endpoint), 'container one')
    t.match(labelProblems(endpoint), [/weft\.service is empty, longer than 255 characters or has control/])
  }
})

t.test('a weight that cannot be read is 1, and is said', async t => {
  for (const [label, weight] of [
    ['0', 0],
    ['1000', 1000],
    ['1001', 1],
    ['-1', 1],
    ['1e2', 1],
    ['', 1],
  ] as const) {
    const endpoint = withLabels({ 'weft.weight': label })
    t.equal(weightOf(endpoint), weight, label)
    t.equal(labelProblems(endpoint).length, weight === 1 ? 1 : 0)
  }
})

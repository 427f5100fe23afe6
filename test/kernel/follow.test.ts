// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { follow } from '../../src/kernel/follow.ts'

t.test('when the second monitor cannot be opened, the first does not keep the namespace', async t => {
  const refused = new Error('refused')
  let opened = 0
  let closed = 0
  const open = async () => {
    if (++opened === 2) throw refused
    return { close: async () => void closed++ }
  }
  const parts = {
    ns: 'weft-n1',
    links: { byName: new Map(), byIndex: new Map() },
    peerOf: () => undefined,
    pairsOf: () => [],
    onObserved: () => {},
    onLost: () => {},
    onOverrun: () => {},
    onDevice: () => {},
    ownNetfilterPort: () => false,
  }
  await t.rejects(follow(parts, open), refused)
  t.equal(opened, 2)
  t.equal(closed, 1)
})

t.test('what was told of links and lost is not what was told of tables and lost', async t => {
  const told: string[] = []
  const lost: (() => void)[] = []
  const parts = {
    ns: 'weft-n1',
    links: { byName: new Map(), byIndex: new Map() },
    peerOf: () => undefined,
    pairsOf: () => [],
    onObserved: () => {},
    onLost: () => told.push('look'),
    onOverrun: () => told.push('begin anew'),
    onDevice: () => {},
    ownNetfilterPort: () => false,
  }
  const open = async ({ onLost }: { onLost(): void }) => {
    lost.push(onLost)
    return { close: async () => {} }
  }
  await follow(parts, open)
  for (const one of lost) one()
  t.same(told, ['begin anew', 'look'])
})

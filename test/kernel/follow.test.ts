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
    onDevice: () => {},
    ownNetfilterPort: () => false,
  }
  await t.rejects(follow(parts, open), refused)
  t.equal(opened, 2)
  t.equal(closed, 1)
})

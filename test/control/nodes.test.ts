// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { checkCopy } from '../../src/control/copy.ts'
import { openNodes, presenceMs } from '../../src/control/nodes.ts'
import { decode, encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Store, Write } from '../../src/store/store.ts'
import { manualClock } from '../store/clock.ts'

const put = (key: string, value: string): Write => ({ kind: 'put', key, value })
const nodeRecord = (name: string, number: number, fenced?: string): Write =>
  put(
    keys.node(name),
    encode('node', {
      ...{
        name,
        number,
        instance: 'i',
        boot: 'b',
        vtep: `192.0.2.${number}`,
        mtu: 1500,
        routes: [],
        addresses: [],
        version: '0',
      },
      ...(fenced === undefined ? {} : { fenced }),
    }),
  )
const endpointRecord = (node: string, i: number): Write =>
  put(
    keys.endpoint('n', `${node}${i}`),
    encode('endpoint', {
      ...{ id: `${node}${i}`, network: 'n', node, boot: 'b', addresses: [`10.0.${node === 'a' ? 1 : 2}.${i}`] },
      ...{ mac: `02:00:00:00:0${node}:${i}`, ports: [], gateway: false, identity: 4 },
    }),
  )
const held = (node: string, i: number): Write[] => [
  endpointRecord(node, i),
  put(
    keys.address('n', `10.0.${node === 'a' ? 1 : 2}.${i}`),
    encode('addressClaim', { kind: 'bound', node, boot: 'b', endpoint: `${node}${i}` }),
  ),
  put(keys.mac('n', `02:00:00:00:0${node}:${i}`), encode('macClaim', { kind: 'bound', node, endpoint: `${node}${i}` })),
  put(
    keys.port('tcp', (node === 'a' ? 7000 : 8000) + i),
    encode('portClaim', { local: [{ node, network: 'n', endpoint: `${node}${i}` }] }),
  ),
]

/** Two nodes with containers; b is dead. `before` may refuse a commit, or do something first. */
const open = async (t: Test, containers = 3, clock: Clock = systemClock) => {
  const inner = await openEmbeddedStore({})
  let before = async (_: readonly Write[]): Promise<void> => {}
  const store: Store = {
    ...inner,
    async commit(compares, writes, call) {
      await before(writes)
      return inner.commit(compares, writes, call)
    },
  }
  await inner.commit([], [nodeRecord('a', 1), nodeRecord('b', 2), ...held('a', 1)])
  for (let i = 1; i <= containers; i++) await inner.commit([], held('b', i))
  const mirror = openMirror(inner, silentLog, 'a')
  const nodes = openNodes({ store, mirror, node: 'a', boot: 'b', clock, log: silentLog })
  t.teardown(async () => {
    await nodes.close()
    await mirror.close()
    await inner.close()
  })
  const left = async (): Promise<string[]> => {
    const { entries } = await inner.list('')
    const resting = entries.filter(({ value }) => (JSON.parse(value) as { kind?: string }).kind === 'resting')
    t.ok(resting.every(({ key }) => /^(addresses|macs)\//.test(key)))
    return entries
      .filter(entry => !resting.includes(entry))
      .map(({ key }) => key)
      .filter(key => /^(endpoints|addresses|macs|ports)/.test(key))
  }
  const ofA = ['addresses/n/10.0.1.1', 'endpoints/n/a1', 'macs/n/02%3A00%3A00%3A00%3A0a%3A1', 'ports/tcp/7001']
  const beforeCommit = (run: typeof before): void => {
    before = run
  }
  return { inner, nodes, left, ofA, beforeCommit, signal: AbortSignal.timeout(10_000) }
}
const defaults = { pools: [], storePorts: [4001], vxlanPort: 4789, underlayFamily: 4 } as const
const outage = new WeftError('STORE_UNAVAILABLE', 'no store')

t.test('a fencing that breaks off at any commit is finished when it is repeated', async t => {
  for (let k = 1; ; k++) {
    const { nodes, left, ofA, beforeCommit, signal } = await open(t, 120)
    let commits = 0
    beforeCommit(async () => {
      if (++commits === k) throw outage
    })
    const first = await nodes.fence('b', signal).catch(error => {
      if (error !== outage) throw error
      return undefined
    })
    const again = await nodes.fence('b', signal)
    t.same(await left(), ofA, `commit ${k}`)
    if (!first) continue
    t.equal(k, 10, 'the tombstone, and two for each kind of record')
    t.same([first, again], [{ endpoints: 120 }, { endpoints: 0 }])
    break
  }
})

t.test('what a dead node was making goes with it: pools without a network, and networks without a name', async t => {
  const { inner, nodes, signal } = await open(t)
  const pool = (prefix: string, network: string, node: string, settled: boolean, wanted?: string) =>
    put(keys.pool(prefix), encode('poolClaim', { network, node, settled, ...(wanted === undefined ? {} : { wanted }) }))
  const network = (id: string, node: string, vni: number, prefix: string, names: object = {}) => [
    pool(prefix, id, node, true),
    put(keys.vni(vni), encode('vniClaim', { network: id })),
    put(
      keys.network(id),
      encode('network', {
        ...{ id, vni, pools: [{ prefix }], mtu: 1450, options: {}, labels: {}, internal: false, attachable: false },
        ...{ ipv6: false, state: { kind: 'active' }, origin: { by: 'docker', node } },
        ...names,
      }),
    ),
  ]
  const name = (title: string, id: string) => put(keys.networkName(title), encode('nameClaim', { network: id }))
  await inner.commit(
    [],
    [
      pool('10.1.0.0/24', 'never', 'b', false, 'never'),
      name('never', 'never'),
      pool('10.2.0.0/24', 'coming', 'a', false),
      ...network('nameless', 'b', 7, '10.3.0.0/24'),
      ...network('named', 'b', 8, '10.4.0.0/24', { name: 'named' }),
      ...network('asked', 'b', 9, '10.5.0.0/24', { wanted: 'asked' }),
      ...network('living', 'a', 10, '10.6.0.0/24'),
    ],
  )
  await nodes.fence('b', signal)
  const { entries } = await inner.list('')
  const left = entries.map(({ key }) => key).filter(key => /^(pools|networks|network-names|vnis)\//.test(key))
  t.same(left, [
    ...['networks/asked', 'networks/living', 'networks/named'],
    ...['2', '4', '5', '6'].map(i => keys.pool(`10.${i}.0.0/24`)),
    ...['vnis/10', 'vnis/8', 'vnis/9'],
  ])
})

t.test('a node that comes back in the middle keeps what it has made since', async t => {
  const { inner, nodes, left, beforeCommit, signal } = await open(t)
  beforeCommit(async writes => {
    if (!writes.some(({ key }) => key.startsWith('endpoints/'))) return
    beforeCommit(async () => {})
    await inner.commit([], [nodeRecord('b', 3), endpointRecord('b', 1)])
  })
  await t.rejects(nodes.fence('b', signal), { code: 'NOT_FOUND', message: /has come back/ })
  t.ok((await left()).includes('endpoints/n/b1'))
  t.notMatch((await inner.get(keys.node('b')))?.value, /fenced/, 'and is not fenced again')
})

t.test('a record that changes in the middle is looked at again', async t => {
  const { inner, nodes, left, ofA, beforeCommit, signal } = await open(t)
  beforeCommit(async writes => {
    if (!writes.some(({ key }) => key.startsWith('macs/'))) return
    beforeCommit(async () => {})
    const [, , mac] = held('b', 1)
    await inner.commit([], [{ kind: 'delete', key: mac!.key }])
  })
  t.same(await nodes.fence('b', signal), { endpoints: 3 })
  t.same(await left(), ofA)
  t.match((await inner.get(keys.address('n', '10.0.2.1')))?.value, /"resting"/, 'its holder may send for a moment')
})

t.test('only a node that is away is fenced or released', async t => {
  const { inner, nodes, left, signal } = await open(t)
  const all = await left()
  const presence = put(keys.presence('b'), encode('presence', { node: 'b', instance: 'i', boot: 'b', applied: '0' }))
  await t.rejects(nodes.release('b', signal), { code: 'NOT_FOUND' }, 'without a tombstone')
  await inner.commit([], [presence])
  await t.rejects(nodes.fence('b', signal), { code: 'IN_USE', message: /is alive: stop weftd/ })
  await inner.commit([], [nodeRecord('b', 2, 'now')])
  await t.rejects(nodes.fence('b', signal), { code: 'IN_USE' }, 'fenced, and about to join again')
  await t.rejects(nodes.release('b', signal), { code: 'NOT_FOUND' })
  t.same(await left(), all)
  await t.rejects(nodes.fence('c', signal), { code: 'NOT_FOUND', message: /there is no node c/ })
})

t.test('presence says what the kernel has, under one lease', async t => {
  const clock = manualClock()
  const { inner, nodes } = await open(t, 3, clock)
  const presence = async () => {
    const entry = await inner.get(keys.presence('a'))
    return entry && { ...decode('presence', entry.key, entry.value), revision: entry.revision }
  }
  let applied = 7n
  const later = async () => {
    await sleep(20) // it waits again
    clock.advance(presenceMs)
  }
  nodes.startPresence('i', () => applied)
  const said = async (text: string) => {
    for (let i = 0; i < 200 && (await presence())?.applied !== text; i++) await sleep(5)
    t.equal((await presence())?.applied, text)
    return (await presence())!.revision
  }
  const first = await said('7')
  await later()
  t.equal(await said('7'), first, 'nothing new: nothing is written')
  applied = 9n
  await later()
  await said('9')
  await inner.commit([], [{ kind: 'delete', key: keys.presence('a') }])
  applied = 10n
  await later()
  await said('10')
  // somebody of this name is there instead
  await inner.commit(
    [],
    [put(keys.presence('a'), encode('presence', { node: 'a', instance: 'j', boot: 'b', applied: '1' }))],
  )
  applied = 11n
  await later()
  await sleep(50)
  t.match(await presence(), { instance: 'j', applied: '1' })
})

t.test('of a new cluster: pools of both families, and ports that are kept free', async t => {
  const facts = { instance: 'i', vtep: '192.0.2.9', mtu: 1500, routes: [], addresses: [], version: '1' }
  const ula = /^fd[0-9a-f:]+::\/48$/
  for (const [pools, wanted] of [
    [[], ['10.224.0.0/12', ula]],
    [['10.0.0.0/8'], ['10.0.0.0/8', ula]],
    [['fd00:1::/48'], ['fd00:1::/48', '10.224.0.0/12']],
    [
      ['fd00:1::/48', '10.0.0.0/8'],
      ['fd00:1::/48', '10.0.0.0/8'],
    ],
  ] as const) {
    const { inner, nodes, signal } = await open(t)
    await nodes.join(facts, { ...defaults, pools }, signal)
    const cluster = decode('cluster', keys.cluster, (await inner.get(keys.cluster))!.value)
    t.match(cluster.pools, wanted)
    t.equal(cluster.pools.length, 2)
    t.same(cluster.reservedPorts, [22, 4001, 4789])
  }
})

t.test('a record of our own that was lost or damaged is written again with its number; others stop nobody', async t => {
  const { inner, nodes, signal } = await open(t)
  const facts = { instance: 'i', vtep: '192.0.2.9', mtu: 1500, routes: [], addresses: [], version: '1' }
  await inner.commit([], [{ kind: 'delete', key: keys.node('a') }, nodeRecord('c', 1), put(keys.node('b'), 'garbage')])
  const { number } = await nodes.join(facts, defaults, signal)
  await nodes.setDrained('a', true, signal)
  for (const lost of [{ kind: 'delete', key: keys.node('a') }, put(keys.node('a'), 'garbage')] satisfies Write[]) {
    await inner.commit([], [lost])
    const written = await nodes.join(facts, defaults, signal)
    t.match(written, { number, instance: 'i' })
    t.match((await inner.get(keys.node('a')))?.value, /192.0.2.9.*"drained":true/)
  }
})

t.test('of two hosts with one VTEP that join at the same moment one is refused', async t => {
  // anew, with a number of its own; and again with another VTEP than before
  for (const known of [false, true]) {
    const { inner, nodes, beforeCommit, signal } = await open(t)
    if (!known) await inner.commit([], [{ kind: 'delete', key: keys.node('a') }])
    const mirror = openMirror(inner, silentLog, 'c')
    t.teardown(() => mirror.close())
    const other = openNodes({ store: inner, mirror, node: 'c', boot: 'b', clock: systemClock, log: silentLog })
    t.teardown(() => other.close())
    const facts = { instance: 'i', vtep: '192.0.2.9', mtu: 1500, routes: [], addresses: [], version: '1' }
    beforeCommit(async writes => {
      if (!writes.some(({ key }) => key === keys.node('a'))) return
      beforeCommit(async () => {})
      t.match(await other.join({ ...facts, instance: 'j' }, defaults, signal), { vtep: '192.0.2.9' })
    })
    await t.rejects(nodes.join(facts, defaults, signal), {
      code: 'TAKEN',
      message: /^VTEP 192\.0\.2\.9 belongs to node c: give this host its own with --vtep/,
    })
    t.notMatch((await inner.get(keys.node('a')))?.value ?? '', /192\.0\.2\.9/)
    const { entries } = await inner.list('')
    const copy = entries.filter(({ key }) => /^(cluster|nodes)/.test(key))
    t.doesNotThrow(() => checkCopy(copy), 'and the store can be copied')
  }
})

// SPDX-License-Identifier: Apache-2.0
// What a node has by the changes is what it has by a look at everything.
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { openHoldings } from '../../src/control/holdings.ts'
import type { AddressClaim } from '../../src/model/endpoint.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'

t.test('any sequence of changes: as by a look at everything', async t => {
  const store = await openEmbeddedStore({})
  const mirror = openMirror(store, silentLog)
  t.teardown(async () => {
    await mirror.close()
    await store.close()
  })
  const flags = { mtu: 1450, options: {}, labels: {}, internal: false, attachable: false, ipv6: false } as const
  const more = {
    vni: 7,
    pools: [{ prefix: '10.9.0.0/24' }],
    state: { kind: 'active' },
    origin: { by: 'docker', node: 'a' },
  } as const
  const nets = ['n', 'm']
  for (const id of nets)
    await store.commit(
      [],
      [{ kind: 'put', key: keys.network(id), value: encode('network', { id, name: id, ...more, ...flags }) }],
    )
  const signal = AbortSignal.timeout(20_000)
  await mirror.ready(signal)
  t.equal(mirror.snapshot.networks.size, 2)
  const byChanges = openHoldings({ mirror, node: 'a' })
  let state = 11
  const pick = <T>(all: readonly T[]): T => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return all[Math.floor((state / 2 ** 31) * all.length)]!
  }
  const change = async (): Promise<bigint> => {
    const [net, node, number] = [pick(nets), pick(['a', 'b']), pick([2, 3, 4, 5])]
    const claims: readonly AddressClaim[] = [
      { kind: 'spare', node, boot: 'b', since: 0 },
      { kind: 'bound', node, boot: 'b', endpoint: 'e' },
      { kind: 'resting', until: 1 },
    ]
    const address = `10.9.0.${number}`
    const rest = { mac: '02:77:0a:09:00:02', ports: [], gateway: false, identity: 0 }
    const endpoint = { id: `e${number}`, network: net, node, boot: 'b', addresses: [address], ...rest }
    const [key, value] = pick([
      [keys.address(net, address), encode('addressClaim', pick(claims))],
      [keys.endpoint(net, endpoint.id), encode('endpoint', endpoint)],
    ] as const)
    return store.commit([], [pick([true, true, false]) ? { kind: 'put', key, value } : { kind: 'delete', key }])
  }
  let had = 0
  for (let i = 0; i < 300; i++) {
    await mirror.reached(await change(), signal)
    const own = nets.flatMap(net =>
      [...mirror.snapshot.endpoints(net).values()]
        .filter(({ record }) => record.node === 'a')
        .map(one => one.record.id),
    )
    if (
      [...byChanges.endpoints()]
        .map(([id]) => id)
        .sort()
        .join() !== own.sort().join()
    )
      t.fail(`after ${i} changes: endpoints ${[...byChanges.endpoints()]} instead of ${own}`)
    const atOnce = openHoldings({ mirror, node: 'a' })
    for (const net of nets) {
      const spares = [...byChanges.spares(net)].sort()
      had += spares.length
      if (
        spares.join() !== [...atOnce.spares(net)].sort().join() ||
        byChanges.hasEndpoint(net) !== atOnce.hasEndpoint(net)
      )
        t.fail(
          `after ${i} changes: ${net} has ${spares}, at once ${[...atOnce.spares(net)]}; ${byChanges.hasEndpoint(net)}, at once ${atOnce.hasEndpoint(net)}`,
        )
    }
    await atOnce.close()
  }
  t.ok(had > 50, `${had} seen`)
  // its record could not be read at the start
  const claim = encode('addressClaim', { kind: 'spare', node: 'a', boot: 'b', since: 0 })
  await store.commit(
    [],
    [
      { kind: 'put', key: keys.network('late'), value: '{}' },
      { kind: 'put', key: keys.address('late', '10.9.0.9'), value: claim },
    ],
  )
  const other = openMirror(store, silentLog)
  await other.ready(signal)
  const late = openHoldings({ mirror: other, node: 'a' })
  t.same([...late.spares('late')], [])
  const value = encode('network', { id: 'late', name: 'late', ...more, ...flags })
  await other.reached(await store.commit([], [{ kind: 'put', key: keys.network('late'), value }]), signal)
  t.same([...late.spares('late')], ['10.9.0.9'])
  await late.close()
  await other.close()
  await byChanges.close()
})

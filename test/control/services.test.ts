// SPDX-License-Identifier: Apache-2.0
// What is said of services: option by option, by two nodes at once, and with the end of their network.
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openPools } from '../../src/control/pools.ts'
import { openServices } from '../../src/control/services.ts'
import { serviceOptions } from '../../src/model/snapshot.ts'
import { encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { testCluster } from '../overlay/cluster.ts'

const limit = () => AbortSignal.timeout(20_000)

/** `answers`: who has every address on the wire. */
const open = async (t: Test, answers: { mac?: string | undefined } = {}) => {
  const store = await openEmbeddedStore({})
  const shapes = testCluster()
  shapes.putNetwork({ id: 'app' })
  const value = encode('network', shapes.networks.get('app')!.record)
  await store.commit([], [{ kind: 'put', key: keys.network('app'), value }], { signal: limit() })
  const mirrors = [openMirror(store, silentLog), openMirror(store, silentLog)]
  for (const mirror of mirrors) await mirror.ready(limit())
  t.teardown(async () => {
    for (const mirror of mirrors) await mirror.close()
    await store.close()
  })
  const contexts = mirrors.map((mirror, i) => ({
    ...{ store, mirror, node: 'ab'[i]!, boot: 'b', clock: systemClock, log: silentLog },
  }))
  return {
    store,
    contexts,
    nodes: contexts.map(context => openServices(context, async () => answers.mac)),
    snapshot: mirrors[0]!.snapshot,
  }
}

t.test('a second create changes what it names and leaves the rest', async t => {
  const { nodes, snapshot, store } = await open(t)
  const create = (request: object) => nodes[0]!.create('app', 'web', request, limit())
  const base = { network: 'app', service: 'label web' }
  t.same(await create({}), base)
  t.same(await create({ scheduler: 'lc', affinity: 60 }), { ...base, scheduler: 'lc', affinity: 60 })
  const all = { ...base, scheduler: 'lc', affinity: 60, timeoutTcp: 900, timeoutUdp: 30 }
  t.same(await create({ timeoutTcp: 900, timeoutUdp: 30 }), all)
  const { revision } = await store.identity()
  t.same(await create({ scheduler: 'lc' }), all)
  t.equal((await store.identity()).revision, revision, 'nothing new, nothing written')
  const probe = { target: { kind: 'tcp' }, intervalMs: 2000, timeoutMs: 1000, failures: 3 }
  t.same(await create({ probe: 'tcp', affinity: 0 }), (({ affinity: _, ...rest }) => ({ ...rest, probe }))(all))
  t.match(await create({ probeIntervalMs: 500 }), { probe: { intervalMs: 500, timeoutMs: 500 } }, 'no overlap')
  t.match(await create({ probe: 'http:80/ok=204' }), {
    probe: { target: { kind: 'http', port: 80, path: '/ok', status: { first: 204, last: 204 } }, intervalMs: 500 },
  })
  t.equal((await create({ probe: 'none' })).probe, undefined)
  t.match(serviceOptions(snapshot, 'app', 'label web'), { scheduler: 'lc' })
  t.match(serviceOptions(snapshot, 'app', 'container web'), { scheduler: 'lc' }, 'of a container by itself as well')
  t.equal(serviceOptions(snapshot, 'app', 'compose shop web'), undefined)
})

t.test('forms of a probe', async t => {
  const { nodes } = await open(t)
  const target = async (probe: string) => (await nodes[0]!.create('app', 'web', { probe }, limit())).probe?.target
  t.same(await target('tcp:8080'), { kind: 'tcp', port: 8080 })
  const http = { kind: 'http', port: 80, path: '/', status: { first: 200, last: 399 } }
  t.same(await target('http:80/'), http)
  t.same(await target('http:80/a?b=c=200-299'), { ...http, path: '/a?b=c', status: { first: 200, last: 299 } })
  t.same(await target('http:80/a?b=c'), { ...http, path: '/a?b=c' })
})

t.test('what makes no sense is refused with its name and what it takes', async t => {
  const { nodes, snapshot } = await open(t)
  for (const [request, message] of [
    [{ scheduler: 'rrr' }, /--scheduler "rrr": give one of rr, .*perhaps rr/],
    [{ affinity: 86_401 }, /--affinity 86401: give whole seconds from 1 to 86400, or 0 for off/],
    [{ timeoutTcp: -1 }, /--timeout-tcp -1: .*kernel's default/],
    [{ timeoutUdp: 1.5 }, /--timeout-udp 1.5/],
    [{ probe: 'icmp' }, /--probe "icmp": give tcp, tcp:PORT, http/],
    [{ probe: 'tcp:70000' }, /a port from 1 to 65535/],
    [{ probe: 'tcp:0' }, /a port from 1 to 65535/],
    [{ probe: 'http:80' }, /--probe "http:80"/],
    [{ probe: 'http:80/a b' }, /--probe "http:80\/a b"/],
    [{ probe: 'http:80/\r\nX: y' }, /--probe/],
    [{ probe: 'http:80/=099' }, /statuses from 100 to 599/],
    [{ probe: 'http:80/=300-200' }, /the lower one first/],
    [{ probeFailures: 2 }, /nothing is probed: give --probe as well/],
    [{ probe: 'none', probeFailures: 2 }, /nothing is probed/],
    [{ probe: 'tcp', probeFailures: 0 }, /--probe-failures 0: give a whole number from 1 to 100/],
    [{ probe: 'tcp', probeIntervalMs: 50 }, /--probe-interval 0.05: give seconds from 0.1 to 3600/],
    [{ probe: 'tcp', probeTimeoutMs: 3000 }, /--probe-timeout 3 is longer than the interval of 2 s/],
  ] as const)
    await t.rejects(nodes[0]!.create('app', 'web', request, limit()), { code: 'INVALID', message })
  for (const name of ['', 'a/b/c', '/a', 'a/', ' a', 'a\n', 'x'.repeat(256)])
    await t.rejects(nodes[0]!.create('app', name, {}, limit()), { code: 'INVALID', message: /service name/ }, name)
  t.equal(snapshot.services('app').size, 0)
})

t.test('two nodes at once: what each named is there', async t => {
  const { nodes, snapshot } = await open(t)
  const [a, b] = nodes as [(typeof nodes)[0], (typeof nodes)[0]]
  for (let round = 0; round < 20; round++) {
    const name = `shop/web${round}`
    await Promise.all([
      a.create('app', name, { scheduler: 'wlc' }, limit()),
      b.create('app', name, { affinity: 5 }, limit()),
    ])
    t.match(serviceOptions(snapshot, 'app', `compose shop web${round}`), { scheduler: 'wlc', affinity: 5 })
  }
  const gone = await Promise.allSettled([a.remove('app', 'shop/web0', limit()), b.remove('app', 'shop/web0', limit())])
  t.same(gone.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.match(
    gone.find(({ status }) => status === 'rejected'),
    { reason: { code: 'NOT_FOUND', message: /weft service ls/ } },
  )
})

t.test('a record that cannot be read is named, and can be removed', async t => {
  const { nodes, store } = await open(t)
  const key = keys.service('app', 'label web')
  await store.commit([], [{ kind: 'put', key, value: '{"v":1,"network":"app","service":"x","scheduler":"no"}' }])
  await t.rejects(nodes[0]!.create('app', 'web', {}, limit()), { code: 'INVALID', message: /services\/.*scheduler/ })
  await nodes[0]!.remove('app', 'web', limit())
  await nodes[0]!.create('app', 'web', {}, limit())
})

t.test('they go with their network, and none is made without one', async t => {
  const { nodes, contexts, store } = await open(t)
  await nodes[0]!.create('app', 'web', {}, limit())
  const bindings = await openBindings('/nonexistent/bindings.json', 64, () => {})
  const networks = openNetworks(contexts[0]!, bindings, openPools(contexts[0]!))
  await networks.remove('app', limit())
  t.same((await store.list('services/')).entries, [])
  await t.rejects(nodes[0]!.create('app', 'web', {}, limit()), { code: 'NOT_FOUND', message: /network app is gone/ })
})

t.test('a floating address is asked for on the wire first: who answers is named', async t => {
  const answers = { mac: undefined as string | undefined }
  const { nodes, store, contexts } = await open(t, answers)
  const addresses = [{ dev: 'eth0', address: '192.0.2.1/24' }]
  const facts = { number: 1, instance: 'i', boot: 'b', vtep: '192.0.2.1', mtu: 1500, routes: [], version: '0' }
  const presence = { node: 'a', instance: 'i', boot: 'b', applied: '0' }
  await store.commit(
    [],
    [
      { kind: 'put', key: keys.node('a'), value: encode('node', { name: 'a', ...facts, addresses }) },
      { kind: 'put', key: keys.presence('a'), value: encode('presence', presence) },
    ],
  )
  for (const { mirror } of contexts) await mirror.reached((await store.identity()).revision, limit())
  const create = () => nodes[0]!.create('app', 'web', { addresses: ['192.0.2.100/24'], dev: 'eth0' }, limit())
  answers.mac = '02:00:00:00:00:99'
  await t.rejects(create(), {
    code: 'TAKEN',
    message: /192.0.2.100\/24 is not free: 02:00:00:00:00:99 answers for it on eth0/,
  })
  answers.mac = undefined
  t.match(await create(), { addresses: [{ dev: 'eth0', address: '192.0.2.100/24' }] })
  answers.mac = '02:00:00:00:00:99'
  t.match(await create(), { addresses: [{ address: '192.0.2.100/24' }] }, 'ours since: not asked again')
  t.equal((await nodes[0]!.create('app', 'web', { addresses: ['none'] }, limit())).addresses, undefined)
})

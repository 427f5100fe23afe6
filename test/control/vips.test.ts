// SPDX-License-Identifier: Apache-2.0
// Which services have virtual addresses, that hosts which race give them one, and who takes them back.
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import type { Context } from '../../src/control/context.ts'
import { openNetworks } from '../../src/control/networks.ts'
import { openSweeper } from '../../src/control/sweeper.ts'
import { claimVip, freeVip, vipHoldMs } from '../../src/control/vips.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'
import type { PortMapping } from '../../src/model/port.ts'
import { decode, encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import type { Write } from '../../src/store/store.ts'
import { testCluster } from '../overlay/cluster.ts'
import { manualClock } from '../store/clock.ts'

const limit = () => AbortSignal.timeout(10_000)
const web = 'label web'

const open = async (t: Test, range?: string) => {
  const store = await openEmbeddedStore({})
  const shapes = testCluster()
  shapes.putNetwork({ id: 'app' })
  const shape = shapes.networks.get('app')!.record
  const network = range === undefined ? shape : { ...shape, pools: [{ ...shape.pools[0]!, range }] }
  const commit = (...writes: Write[]) => store.commit([], writes, { signal: limit() })
  await commit({ kind: 'put', key: keys.network('app'), value: encode('network', network) })
  for (const { prefix } of network.pools) {
    const value = encode('poolClaim', { network: 'app', node: 'a', settled: true })
    await commit({ kind: 'put', key: keys.pool(prefix), value })
  }
  /** A node with a mirror of its own, as each host has. */
  const node = async (name: string): Promise<Context> => {
    const mirror = openMirror(store, silentLog)
    await mirror.ready(limit())
    t.teardown(() => mirror.close())
    return { store, mirror, node: name, boot: 'b', clock: systemClock, log: silentLog }
  }
  t.teardown(() => store.close())
  let made = 0
  const endpoint = (id: string, more: Partial<Endpoint> & { label?: string; project?: string } = {}): Endpoint => {
    const { label, project, ...rest } = more
    const compose = project === undefined ? {} : { project, service: 'api' }
    const labels: Record<string, string> = label === undefined ? {} : { 'weft.service': label }
    return {
      ...{ id, network: 'app', node: 'a', boot: 'b', addresses: [`10.80.0.${++made + 1}`], ports: [], gateway: false },
      ...{ mac: `02:77:0a:50:00:0${made}`, identity: 4 },
      workload: { container: id, name: id, aliases: [], labels, ...compose },
      ...rest,
    }
  }
  const put = async (record: Endpoint, ...contexts: Context[]): Promise<Endpoint> => {
    const key = keys.endpoint('app', record.id)
    const revision = await commit({ kind: 'put', key, value: encode('endpoint', record) })
    for (const { mirror } of contexts) await mirror.reached(revision, limit())
    return record
  }
  const drop = async (id: string, ...contexts: Context[]): Promise<void> => {
    const revision = await commit({ kind: 'delete', key: keys.endpoint('app', id) })
    for (const { mirror } of contexts) await mirror.reached(revision, limit())
  }
  const vips = async (): Promise<Record<string, readonly string[]>> => {
    const { entries } = await store.list('vips/app/')
    return Object.fromEntries(
      entries.map(({ key, value }) => [
        decodeURIComponent(key.slice('vips/app/'.length)),
        decode('vip', key, value).addresses,
      ]),
    )
  }
  const claims = async (): Promise<string[]> =>
    (await store.list('addresses/app/')).entries.map(({ key, value }) => {
      const claim = decode('addressClaim', key, value)
      return `${decodeURIComponent(key.slice('addresses/app/'.length))} ${claim.kind === 'vip' ? claim.service : claim.kind}`
    })
  return { store, node, endpoint, put, drop, vips, claims, network }
}

t.test('one made by the label, and one of compose that publishes a port; nobody else', async t => {
  const { node, endpoint, put, vips, claims } = await open(t)
  const a = await node('a')
  const ports: PortMapping[] = [{ proto: 'tcp', port: 80, hostPort: 8080 }]
  const all = [
    endpoint('one', { label: 'web' }),
    endpoint('api', { project: 'shop', ports, gateway: true }),
    endpoint('quiet', { project: 'other' }),
    endpoint('lone', { ports }),
  ]
  for (const record of all) await claimVip(a, await put(record, a), true, limit())
  t.same(await vips(), {
    'compose shop api': ['10.80.0.253', 'fd00:80::fffe'],
    [web]: ['10.80.0.254', 'fd00:80::ffff'],
  })
  t.same(await claims(), [
    '10.80.0.253 compose shop api',
    '10.80.0.254 label web',
    'fd00:80::fffe compose shop api',
    'fd00:80::ffff label web',
  ])
})

t.test('hosts that race give a service one address, and none twice', async t => {
  const { node, endpoint, put, vips, claims } = await open(t)
  const contexts = await Promise.all(['a', 'b', 'c'].map(node))
  const names = ['web', 'db', 'mail', 'shop']
  const records = contexts.map((_, i) => names.map(label => endpoint(`${label}${i}`, { label })))
  for (const one of records.flat()) await put(one)
  await Promise.all(
    contexts.flatMap((context, i) => records[i]!.map(record => claimVip(context, record, true, limit()))),
  )
  const given = Object.values(await vips()).flat()
  t.equal(given.length, 8)
  t.equal(new Set(given).size, 8)
  t.equal((await claims()).length, 8, 'nothing is left of the attempts')
})

t.test('freed when nobody is there, not when somebody came back', async t => {
  const { node, endpoint, put, drop, vips, claims, store } = await open(t)
  const [a, b] = [await node('a'), await node('b')]
  const one = await put(endpoint('one', { label: 'web' }), a, b)
  await claimVip(a, one, true, limit())
  const before = await vips()
  t.notOk(await freeVip(b, 'app', web, limit()), 'it has a container')
  await drop('one', a, b)
  const two = await put(endpoint('two', { label: 'web' }), a)
  const { revision } = (await store.get(keys.vip('app', web)))!
  await claimVip(a, two, true, limit())
  t.ok((await store.get(keys.vip('app', web)))!.revision > revision, 'written anew: who looked before cannot free it')
  t.same(await vips(), before, 'with the same addresses')
  await drop('two', a, b)
  t.ok(await freeVip(b, 'app', web, limit()))
  t.same(await vips(), {})
  t.same(await claims(), ['10.80.0.254 resting', 'fd00:80::ffff resting'])
  await claimVip(a, await put(endpoint('three', { label: 'web' }), a), true, limit())
  t.same((await vips())[web], ['10.80.0.253', 'fd00:80::fffe'], "what rests is nobody's")
})

t.test('the sweeper claims what is missing, and frees what nobody has come back to in time', async t => {
  const { node, endpoint, put, drop, vips } = await open(t)
  const clock = manualClock()
  const status = { available: true, error: undefined, damaged: new Map<string, string>(), records: 0 }
  const a = await node('a')
  const write = (address: string, claim: object): Write => ({
    ...{ kind: 'put', key: keys.address('app', address), value: encode('addressClaim', claim as never) },
  })
  const twoHours = clock.now() + 7_200_000
  const written = await a.store.commit(
    [],
    [
      write('10.80.0.77', { kind: 'resting', until: twoHours }),
      write('10.80.0.78', { kind: 'resting', until: clock.now() + 60_000 }),
      write('10.80.0.79', { kind: 'reserved', node: 'a', boot: 'b', since: twoHours }),
    ],
  )
  await a.mirror.reached(written, limit())
  const sweeper = openSweeper(
    { ...a, clock, mirror: { ...a.mirror, snapshot: a.mirror.snapshot, status } },
    {} as never,
    { byDocker: () => undefined } as never,
  )
  t.teardown(() => sweeper.close())
  /** Sweep by sweep; each is done before the next. */
  const pass = async (ms: number): Promise<void> => {
    for (const end = clock.now() + ms; clock.now() < end; ) {
      clock.advance(1000)
      for (let i = 0; i < 40; i++) await new Promise(resolve => setImmediate(resolve))
    }
  }
  await put(endpoint('far', { label: 'far', node: 'b' }), a)
  await put(endpoint('one', { label: 'web' }), a)
  await pass(20_000)
  t.same(Object.keys(await vips()), [web], "another node's are its own to claim")
  const { entries } = await a.store.list(keys.address('app', '10.80.0.7'))
  t.same(
    entries.map(({ key }) => key),
    [keys.address('app', '10.80.0.78')],
    'what a host wrote whose clock was ahead is over',
  )
  await drop('one', a)
  await pass(vipHoldMs - 60_000)
  t.same(Object.keys(await vips()), [web], 'held')
  status.available = false
  await pass(120_000)
  status.available = true
  await pass(vipHoldMs - 60_000)
  t.same(Object.keys(await vips()), [web], 'what cannot be seen does not count')
  await put(endpoint('two', { label: 'web' }), a)
  await pass(20_000)
  await drop('two', a)
  await pass(vipHoldMs - 60_000)
  t.same(Object.keys(await vips()), [web], 'begun anew')
  await pass(100_000)
  t.same(await vips(), {})
})

t.test('no container gets it, and a full subnet says so', async t => {
  const { node, endpoint, put, network, vips } = await open(t, '10.80.0.0/30')
  const a = await node('a')
  await claimVip(a, await put(endpoint('one', { label: 'web' }), a), true, limit())
  t.same((await vips())[web], ['10.80.0.3'])
  const bindings = { byNetwork: () => ({ docker: 'd' }) } as never
  const pools = { holder: async () => ({ record: { network: 'app' } }) } as never
  const addresses = openAddresses(a, bindings, pools, { spares: () => [], held: () => undefined } as never, {} as never)
  const { prefix } = network.pools[0]!
  await t.rejects(addresses.request(prefix, '10.80.0.3', false, limit()), {
    code: 'TAKEN',
    message: 'address 10.80.0.3 is the virtual address of service web: choose another --ip',
  })
  t.equal(await addresses.request(prefix, undefined, false, limit()), '10.80.0.2/24')
  await t.rejects(addresses.request(prefix, undefined, false, limit()), { code: 'FULL' })
  const db = await put(endpoint('two', { label: 'db' }), a)
  await t.rejects(claimVip(a, db, true, limit()), { code: 'FULL', message: /no virtual address/ })
})

t.test('it goes with its network', async t => {
  const { node, endpoint, put, drop, vips, claims } = await open(t)
  const a = await node('a')
  await claimVip(a, await put(endpoint('one', { label: 'web' }), a), true, limit())
  await drop('one', a)
  await openNetworks(a, {} as never, {} as never).remove('app', limit())
  t.same([await vips(), await claims()], [{}, []])
  await claimVip(a, endpoint('two', { label: 'web' }), true, limit())
  t.same(await vips(), {}, 'and none is claimed in one that is gone')
})

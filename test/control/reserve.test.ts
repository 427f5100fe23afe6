// SPDX-License-Identifier: Apache-2.0
// Hosts that lose the store at any moment, whose commits are done and not answered, and that are killed: no address ever
// has two containers, and when all is back the store has what runs, and nothing else.
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { codeOf } from '../../src/base/errors.ts'
import type { Closeable } from '../../src/base/lifecycle.ts'
import { silentLog } from '../../src/base/log.ts'
import { openAddresses } from '../../src/control/addresses.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openDepartures } from '../../src/control/departures.ts'
import { openEndpoints } from '../../src/control/endpoints.ts'
import { openHoldings } from '../../src/control/holdings.ts'
import { openPools } from '../../src/control/pools.ts'
import { openReserve } from '../../src/control/reserve.ts'
import { openSpares } from '../../src/control/spares.ts'
import { openSweeper } from '../../src/control/sweeper.ts'
import type { AddressClaim, Endpoint } from '../../src/model/endpoint.ts'
import { decode, encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { guardStore } from '../../src/store/guard.ts'
import { keys, splitKey } from '../../src/store/keys.ts'
import { isAway, openMirror } from '../../src/store/mirror.ts'
import type { Store } from '../../src/store/store.ts'
import { until } from '../until.ts'
import { cutOff } from './cut-off.ts'

/** A minute is a second: also on the wall, which claims are dated by. */
const factor = 60
const start = Date.now()
const quick: Clock = {
  now: () => start + (Date.now() - start) * factor,
  monotonic: () => performance.now() * factor,
  after: (delayMs, run) => systemClock.after(delayMs / factor, run),
}
const limit = () => AbortSignal.timeout(15_000)
const plain = (text: string): string => text.replace(/\/.*/, '')
/** Numbers from 0 to 1 that are the same at every run (mulberry32). */
const seeded = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let x = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
  return ((x ^ (x >>> 14)) >>> 0) / 4294967296
}

const openCluster = async (t: Test, names: readonly string[], pools: readonly string[], clock: Clock = quick) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-reserve-'))
  const store = await openEmbeddedStore({})
  const put = (key: string, value: string) => store.commit([], [{ kind: 'put', key, value }])
  const flags = { mtu: 1450, options: {}, labels: {}, internal: false, attachable: false, ipv6: false } as const
  const state = { kind: 'active' } as const
  const origin = { by: 'docker', node: names[0]! } as const
  await put(
    keys.cluster,
    encode('cluster', {
      ...{ id: 'c', pools: ['10.224.0.0/12'], underlayFamily: 4, vxlanPort: 8473, reservedPorts: [], created: '' },
    }),
  )
  const network = { id: 'n', name: 'app', vni: 7, pools: pools.map(prefix => ({ prefix })), ...flags, state, origin }
  await put(keys.network('n'), encode('network', network))
  for (const prefix of pools)
    await put(keys.pool(prefix), encode('poolClaim', { network: 'n', node: names[0]!, settled: true }))
  for (const [i, name] of names.entries()) {
    const facts = { number: i + 1, instance: name, boot: 'b', vtep: `192.0.2.${i + 1}`, mtu: 1500, routes: [] }
    await put(keys.node(name), encode('node', { name, ...facts, version: '0' }))
    await put(keys.presence(name), encode('presence', { node: name, instance: name, boot: 'b', applied: '0' }))
  }
  const hosts = new Map<string, Awaited<ReturnType<typeof openHost>>>()
  let lives = 0
  const openHost = async (node: string, from?: string) => {
    const home = join(dir, `${node}.${++lives}`)
    // as kill -9 leaves it: what the kernel has, at one moment
    if (from !== undefined && existsSync(from)) cpSync(from, home, { recursive: true })
    else mkdirSync(home, { recursive: true })
    const line = cutOff(store)
    const guarded = await guardStore(line, { dir: join(home, 'guard'), log: silentLog, clock: systemClock })
    const mirror = openMirror(guarded, silentLog, node)
    const context = { store: guarded as Store, mirror, node, boot: 'b', clock, log: silentLog }
    const bindings = await openBindings(join(home, 'bindings.json'), 64, () => {})
    await bindings.bind('d', 'n')
    const departures = await openDepartures(join(home, 'departures.json'), clock, silentLog, () => {})
    const reserve = await openReserve(join(home, 'reserve.json'), clock, mirror)
    const all = openPools(context)
    const addresses = openAddresses(context, bindings, all, reserve, departures)
    const endpoints = openEndpoints(context, bindings, addresses, departures, async () => undefined, reserve)
    const background = () => {
      departures.start((network, endpoint, signal) => endpoints.erase(network, endpoint, signal))
      const holdings = openHoldings(context)
      return [
        holdings,
        openSpares(context, bindings, reserve, departures, holdings),
        openSweeper(context, all, bindings),
      ]
    }
    const parts: Closeable[] = [departures]
    const host = {
      ...{ node, home, line, mirror, reserve, endpoints, addresses, departures, guarded },
      /** What waits for the store in weftd, waits here. */
      begin: () => void parts.push(...background()),
      /** As `docker run`: undefined when it is refused, and what Docker does then is done. */
      async run(endpoint: string, ip?: string): Promise<readonly string[] | undefined> {
        const given: string[] = []
        try {
          for (const prefix of pools)
            given.push(plain(await addresses.request(prefix, given.length > 0 ? undefined : ip, false, limit())))
          await endpoints.create({ docker: 'd', endpoint, addresses: given }, limit())
          return given
        } catch (error) {
          await host.remove(endpoint)
          for (const [i, one] of given.entries()) await addresses.release(pools[i]!, one, limit()).catch(() => {})
          if (codeOf(error) === 'INTERNAL') throw error
          return undefined
        }
      },
      remove: (endpoint: string) => endpoints.delete('d', endpoint),
      async end() {
        await line.close()
        for (const part of parts.reverse()) await part.close()
        await mirror.close()
        await guarded.close()
      },
    }
    hosts.set(node, host)
    return host
  }
  for (const name of names) {
    const host = await openHost(name)
    await host.mirror.ready(limit())
    host.begin()
  }
  t.teardown(async () => {
    for (const host of hosts.values()) await host.end()
    await store.close()
    rmSync(dir, { recursive: true })
  })
  const records = async <T>(table: string, read: (key: string, value: string) => T): Promise<Map<string, T>> => {
    const { entries } = await store.list(`${table}/n/`)
    return new Map(entries.map(({ key, value }) => [splitKey(key)[2]!, read(key, value)]))
  }
  return {
    store,
    host: (name: string) => hosts.get(name)!,
    /** Killed at this moment, and started again, with or without the store. */
    async kill(name: string, isCut: boolean, joins = true) {
      const old = hosts.get(name)!
      const opened = openHost(name, old.home)
      await old.end()
      const host = await opened
      if (isCut) host.line.cut()
      await host.mirror.ready(limit())
      if (joins) host.begin()
      return host
    },
    claims: () => records<AddressClaim>('addresses', (key, value) => decode('addressClaim', key, value)),
    stored: () => records<Endpoint>('endpoints', (key, value) => decode('endpoint', key, value)),
    async spares(name: string): Promise<string[]> {
      const claims = await records('addresses', (key, value) => decode('addressClaim', key, value))
      return [...claims].flatMap(([address, one]) => (one.kind === 'spare' && one.node === name ? [address] : []))
    },
  }
}

const wide = ['10.9.0.0/20', 'fd00:9::/64']

t.test('a reserve comes with the first container, serves without the store, and goes with the last', async t => {
  const { host, claims, stored, spares, kill } = await openCluster(t, ['a', 'b'], wide)
  const a = host('a')
  t.same(await spares('a'), [])
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 32), '16 of each family')
  t.same((await spares('a')).sort(), [...a.reserve.spares('n')].sort())
  t.same(await spares('b'), [], 'none where no container is')
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  const kept = new Set(a.reserve.spares('n'))
  const born = (await a.run('born'))!
  t.ok(born.every(address => kept.has(address)))
  t.ok(a.mirror.snapshot.endpoints('n').has('born'), 'for everybody here')
  t.notOk((await stored()).has('born'))
  await a.endpoints.publish('d', 'born', [], undefined, limit())
  await t.rejects(
    a.endpoints.publish('d', 'born', [{ proto: 'tcp', port: 80, hostPort: 80, end: 80 }], undefined, limit()),
    { code: 'STORE_UNAVAILABLE', message: /no port is published without the store/ },
  )
  const workload = { container: 'c', name: 'born', aliases: [], labels: {} }
  await a.endpoints.identify('n', 'born', workload, undefined, limit())
  t.equal(a.mirror.snapshot.endpoints('n').get('born')!.record.workload!.name, 'born')
  t.same(
    (await a.endpoints.create({ docker: 'd', endpoint: 'born', addresses: born }, limit())).addresses,
    born,
    'again',
  )
  const { record: known } = a.mirror.snapshot.endpoints('n').get('born')!
  await t.rejects(a.reserve.bind({ ...known, id: 'thief' }), { code: 'CONFLICT' }, 'of an address that another has')
  for (let i = 0; i < 14; i++) t.ok(await a.run(`more${i}`), `one more: ${i}`)
  await a.remove('more0')
  t.same(await a.run('beyond-1').then(() => a.run('beyond-2')), undefined)
  await t.rejects(a.addresses.request(wide[0]!, undefined, false, limit()), {
    code: 'STORE_UNAVAILABLE',
    message: /no address of subnet 10\.9\.0\.0\/20 without the store, none is left in the reserve of this host/,
  })
  const again = await kill('a', true)
  t.equal(again.reserve.endpoints().length, a.reserve.endpoints().length, 'killed: all are known')
  t.ok(again.mirror.snapshot.endpoints('n').get('born')!.record.gateway)
  again.line.mend()
  t.ok(await until(() => again.reserve.endpoints().length === 0), 'published')
  const record = (await stored()).get('born')!
  t.same(record.addresses, born)
  t.equal(record.workload!.name, 'born')
  for (const address of born) t.match((await claims()).get(address), { kind: 'bound', node: 'a', endpoint: 'born' })
  t.notOk((await stored()).has('more0'))
  for (const id of (await stored()).keys()) await again.remove(id)
  const live = async () => [...(await claims()).values()].filter(({ kind }) => kind !== 'resting').length
  t.ok(await until(async () => (await stored()).size === 0 && (await live()) === 0), 'nothing is left')
  t.same(again.reserve.all(), [])
})

t.test('--ip of a spare address: its node gives it back', async t => {
  const { host, store, spares } = await openCluster(t, ['a', 'b'], wide, systemClock)
  const [a, b] = [host('a'), host('b')]
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 32))
  const [other, own] = (await spares('a')).filter(address => address.includes('.')) as [string, string]
  t.equal((await b.run('asks', other))?.[0], other)
  t.notOk(a.reserve.held('n', other))
  t.equal((await a.run('own', own))?.[0], own)
  t.notOk(a.reserve.held('n', own))
  // weftd was killed between the claim and the list
  const unlisted = encode('addressClaim', { kind: 'spare', node: 'a', boot: 'b', since: 0 })
  await store.commit([], [{ kind: 'put', key: keys.address('n', '10.9.9.9'), value: unlisted }])
  t.equal((await a.run('unlisted', '10.9.9.9'))?.[0], '10.9.9.9')
  const third = (await spares('a')).find(address => address.includes('.'))!
  a.line.cut()
  await t.rejects(b.addresses.request(wide[0]!, third, false, limit()), {
    code: 'CONFLICT',
    message: /is in the reserve of host a, which has not given it back/,
  })
  t.ok(await until(() => isAway(a.mirror.status)))
  t.ok(a.reserve.held('n', third), 'asked for, and still its own')
})

t.test('a node that is drained keeps none, and has them again when it is not', async t => {
  const { host, store, spares } = await openCluster(t, ['a', 'b'], wide)
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 32))
  const key = keys.node('a')
  const { value } = (await store.get(key))!
  await store.commit([], [{ kind: 'put', key, value: value.replace('{', '{"drained":true,') }])
  t.ok(await until(async () => (await spares('a')).length === 0))
  t.same(a.reserve.all(), [])
  await store.commit([], [{ kind: 'put', key, value }])
  t.ok(await until(() => a.reserve.spares('n').length === 32))
})

t.test('a MAC of a spare address is nobody else', async t => {
  const { host, spares } = await openCluster(t, ['a', 'b'], ['10.9.0.0/20'])
  const [a, b] = [host('a'), host('b')]
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  const [address] = (await spares('a')) as [string]
  const mac = `02:77:${address
    .split('.')
    .map(byte => Number(byte).toString(16).padStart(2, '0'))
    .join(':')}`
  const given = plain(await b.addresses.request('10.9.0.0/20', undefined, false, limit()))
  await t.rejects(b.endpoints.create({ docker: 'd', endpoint: 'e', addresses: [given], mac }, limit()), {
    code: 'TAKEN',
    message: `mac address ${mac} is kept for address ${address}: choose another --mac-address`,
  })
})

t.test('a full pool: the reserves are given back to who asks, to the last address', async t => {
  const { host, spares } = await openCluster(t, ['a', 'b'], ['10.9.0.0/25'], systemClock)
  const given = new Set<string>()
  let started = 0
  t.ok(await host('a').run('begin'))
  t.ok(await until(() => host('a').reserve.spares('n').length === 3), 'a fair part of a small one')
  for (let full = 0; full < 2; ) {
    const rounds = await Promise.all(['a', 'b'].map(name => host(name).run(`c${++started}`)))
    for (const addresses of rounds)
      if (addresses) given.add(addresses[0]!)
      else full++
  }
  t.equal(given.size, 126 - 1)
  t.same([...(await spares('a')), ...(await spares('b'))], [])
})

t.test('a pool that gets short just after the last container of a host: it gives its reserve back', async t => {
  const { host, spares } = await openCluster(t, ['a', 'b'], ['10.9.0.0/25'], systemClock)
  const [a, b] = [host('a'), host('b')]
  t.ok(await b.run('begin'))
  t.ok(await until(() => b.reserve.spares('n').length === 3))
  await b.remove('begin')
  let given = 0
  while (await a.run(`c${given}`)) given++
  t.equal(given, 126 - 1, 'all but the one that rests')
  t.same(await spares('b'), [])
})

t.test('a store that is not believed: nothing begins without it, nothing is published into it', async t => {
  const { host, store, stored } = await openCluster(t, ['a'], wide)
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 32))
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  t.ok(await a.run('born'))
  const cluster = (await store.get(keys.cluster))!.value
  await store.commit([], [{ kind: 'put', key: keys.cluster, value: cluster.replace('"id":"c"', '"id":"other"') }])
  a.line.mend()
  t.ok(await until(() => a.mirror.status.code === 'STORE_SUSPECT'))
  await t.rejects(a.addresses.request(wide[0]!, undefined, false, limit()), { code: 'STORE_SUSPECT' })
  await new Promise(resolve => setTimeout(resolve, 300))
  t.notOk((await stored()).has('born'))
  await a.guarded.accept()
  t.ok(await until(async () => (await stored()).has('born')), 'accepted: published')
})

t.test('a node that was fenced meanwhile: what others have now is lost, the rest comes back', async t => {
  const { host, store, stored, claims } = await openCluster(t, ['a', 'b'], ['10.9.0.0/20'])
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  const [lost, kept] = [(await a.run('lost'))![0]!, (await a.run('kept'))![0]!]
  for (const address of (await claims()).keys())
    await store.commit([], [{ kind: 'delete', key: keys.address('n', address) }])
  t.same(await host('b').run('other', lost), [lost])
  a.line.mend()
  t.ok(await until(async () => (await stored()).has('kept')))
  t.ok(await until(() => !a.mirror.snapshot.endpoints('n').has('lost')))
  t.notOk((await stored()).has('lost'))
  t.match((await claims()).get(lost), { kind: 'bound', node: 'b' })
  t.match((await claims()).get(kept), { kind: 'bound', node: 'a' })
  t.ok(await until(() => a.reserve.held('n', lost) === undefined))
})

t.test("a list from before: what was another's when the store was last seen is not given", async t => {
  const { host } = await openCluster(t, ['a', 'b'], ['10.9.0.0/20'])
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  t.same(await host('b').run('other', '10.9.1.9'), ['10.9.1.9'])
  t.ok(await until(() => a.mirror.snapshot.addresses('n').get('10.9.1.9')?.record.kind === 'bound'))
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  await a.reserve.add('n', ['10.9.1.9'])
  const given: (readonly string[] | undefined)[] = []
  for (let i = 0; i < 17; i++) given.push(await a.run(`e${i}`))
  t.equal(given.filter(addresses => addresses !== undefined).length, 16)
  t.notOk(given.flat().includes('10.9.1.9'))
})

t.test('an address whose last container here is not erased yet: published after that, not lost', async t => {
  const { host, store, stored, claims } = await openCluster(t, ['a'], ['10.9.0.0/20'])
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  const [address] = (await a.run('next')) as [string]
  const { record } = a.mirror.snapshot.endpoints('n').get('next')!
  // it was published without an answer, and had rested when the next one came
  const bound = { kind: 'bound', node: 'a', endpoint: 'last' } as const
  await store.commit(
    [],
    [
      { kind: 'put', key: keys.endpoint('n', 'last'), value: encode('endpoint', { ...record, id: 'last' }) },
      { kind: 'put', key: keys.address('n', address), value: encode('addressClaim', { ...bound, boot: 'b' }) },
      { kind: 'put', key: keys.mac('n', record.mac), value: encode('macClaim', bound) },
    ],
  )
  a.line.mend()
  t.ok(await until(() => a.mirror.status.available))
  await new Promise(resolve => setTimeout(resolve, 300))
  t.notOk(a.departures.has('next'), 'not given up')
  await a.remove('last')
  t.ok(await until(async () => (await stored()).has('next')))
  t.match((await claims()).get(address), { kind: 'bound', endpoint: 'next' })
  t.notOk((await stored()).has('last'))
})

t.test('published while Docker makes it the way out: it becomes that all the same', async t => {
  const { host, store, stored } = await openCluster(t, ['a'], ['10.9.0.0/20'])
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  a.line.cut()
  t.ok(await until(() => isAway(a.mirror.status)))
  await a.run('born')
  const asked = Promise.withResolvers<Promise<void>>()
  const publishing = a.reserve.exclusively('born', async record => {
    a.line.mend()
    await until(() => a.mirror.status.available)
    asked.resolve(a.endpoints.publish('d', 'born', [], undefined, limit()))
    await store.commit([], [{ kind: 'put', key: keys.endpoint('n', 'born'), value: encode('endpoint', record) }])
    await a.reserve.published('born')
  })
  await publishing
  await await asked.promise
  t.equal((await stored()).get('born')!.gateway, true)
})

t.test('starts that a silent store keeps waiting: those behind the first wait no more', async t => {
  const { host } = await openCluster(t, ['a'], ['10.9.0.0/20'], systemClock)
  const a = host('a')
  await a.run('first')
  t.ok(await until(() => a.reserve.spares('n').length === 16))
  const kept = new Set(a.reserve.spares('n'))
  a.line.stall()
  const patience = AbortSignal.timeout(8000) // of Docker's call
  const given = await Promise.all(
    Array.from({ length: 8 }, () => a.addresses.request('10.9.0.0/20', undefined, false, patience)),
  )
  t.equal(new Set(given).size, 8)
  t.ok(given.every(address => kept.has(plain(address))))
  a.line.mend()
})

t.test('weftd came back without the store: addresses that have rested serve again', async t => {
  const { host, kill } = await openCluster(t, ['a'], ['10.9.0.0/20'])
  const first = host('a')
  await first.run('first')
  t.ok(await until(() => first.reserve.spares('n').length === 16))
  first.line.cut()
  const a = await kill('a', true, false)
  t.ok(await until(() => isAway(a.mirror.status)))
  for (let i = 0; i < 16; i++) t.ok(await a.run(`e${i}`))
  for (let i = 0; i < 16; i++) await a.remove(`e${i}`)
  t.ok(await until(() => a.reserve.all().every(({ state }) => state === 'used')))
  await new Promise(resolve => setTimeout(resolve, 1200))
  t.ok(await a.run('later'))
})

t.test('a damaged list is refused: without it addresses of running containers would be given again', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-reserve-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const path = join(dir, 'reserve.json')
  const held = { network: 'n', address: '10.9.0.2', state: 'spare', since: 1 }
  for (const text of [
    'zzz',
    '{"v":2}',
    JSON.stringify({ v: 1, held: [{ ...held, state: 'mine' }], endpoints: [] }),
    JSON.stringify({ v: 1, held: [null], endpoints: [] }),
    JSON.stringify({ v: 1, held: [held], endpoints: [['endpoints/n/e', '{}']] }),
  ]) {
    writeFileSync(path, text)
    await t.rejects(openReserve(path, quick, { show() {} }), { code: 'INTERNAL', message: /reserve\.json is damaged/ })
  }
  writeFileSync(path, JSON.stringify({ v: 1, held: [held], endpoints: [] }))
  t.same((await openReserve(path, quick, { show() {} })).spares('n'), ['10.9.0.2'])
})

for (const seed of [1, 2, 3, 4])
  t.test(`outages, lost answers and crashes in random order, seed ${seed}`, async t => {
    const random = seeded(seed)
    const names = ['a', 'b', 'c']
    const pools = seed % 2 ? ['10.9.0.0/22', 'fd00:9::/64'] : ['10.9.0.0/25']
    const { host, stored, claims, spares: spare, kill } = await openCluster(t, names, pools)
    const running = new Map<string, { node: string; addresses: readonly string[] }>()
    const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)]!
    let made = 0
    let alone = 0
    const clash = (): string[] => {
      const owner = new Map<string, string>()
      return [...running].flatMap(([id, { addresses }]) =>
        addresses.flatMap(address => {
          const other = owner.get(address)
          owner.set(address, id)
          return other === undefined ? [] : [`${address} has ${other} and ${id}`]
        }),
      )
    }
    const start = async (node: string, ip?: string): Promise<void> => {
      const id = `e${++made}`
      const addresses = await host(node).run(id, ip)
      if (host(node).reserve.has(id)) alone++
      if (addresses) running.set(id, { node, addresses })
    }
    const steps: readonly (() => Promise<void>)[] = [
      ...Array.from({ length: 6 }, () => () => start(pick(names))),
      () => Promise.all(names.map(name => start(name))).then(() => {}),
      async () => {
        const [id, { node }] = pick([...running, ['none', { node: 'a' }]] as [string, { node: string }][])
        running.delete(id)
        await host(node).remove(id)
      },
      async () => {
        const spares = (await spare(pick(names))).filter(address => address.includes('.'))
        if (spares[0] !== undefined) await start(pick(names), pick(spares))
      },
      async () => host(pick(names)).line.cut(),
      async () => host(pick(names)).line.mend(),
      async () => host(pick(names)).line.mend(),
      async () => host(pick(names)).line.loseNextAnswer(),
      async () => void (await kill(pick(names), random() < 0.5)),
      async () => {
        // killed inside a start: Docker is told of a failure, and takes back what it has
        const node = pick(names)
        const id = `e${++made}`
        const run = host(node).run(id)
        await new Promise(resolve => setTimeout(resolve, random() * 10))
        const host2 = await kill(node, random() < 0.5)
        const addresses = await run
        await host2.remove(id)
        for (const [i, address] of (addresses ?? []).entries())
          await host2.addresses.release(pools[i]!, address, limit()).catch(() => {})
      },
      () => new Promise(resolve => setTimeout(resolve, random() * 200)),
    ]
    for (let i = 0; i < 120; i++) {
      await pick(steps)()
      const wrong = clash()
      if (wrong.length > 0) return void t.same(wrong, [], `after step ${i}`)
    }
    t.ok(alone > 3, `${alone} began without the store`)
    for (const name of names) host(name).line.mend()
    // a minute is a second here: of who was cut off for long a third of all records is gone, which is not believed
    const accept = async (): Promise<boolean> => {
      for (const name of names) if (host(name).mirror.status.code === 'STORE_SUSPECT') await host(name).guarded.accept()
      return names.every(name => host(name).mirror.status.available)
    }
    t.ok(await until(accept), 'all have the store')
    const fact = (id: string, node: string, addresses: readonly string[]) => `${id} on ${node}: ${addresses.join(' ')}`
    const wanted = [...running].map(([id, { node, addresses }]) => fact(id, node, addresses)).sort()
    const shown = async () => [...(await stored())].map(([id, one]) => fact(id, one.node, one.addresses)).sort()
    await until(async () => JSON.stringify(await shown()) === JSON.stringify(wanted))
    t.same(await shown(), wanted, 'the store has what runs, and nothing else')
    const bound = new Map([...running].flatMap(([id, { addresses }]) => addresses.map(address => [address, id])))
    const leaks = async () =>
      [...(await claims())].filter(([address, claim]) => {
        if (claim.kind === 'bound') return bound.get(address) !== claim.endpoint
        if (claim.kind === 'spare') return host(claim.node).reserve.held('n', address)?.state !== 'spare'
        return claim.kind === 'reserved'
      })
    await until(async () => (await leaks()).length === 0)
    t.same(await leaks(), [], 'no claim is left over')
    const left = () => names.flatMap(name => host(name).reserve.endpoints())
    await until(() => left().length === 0)
    t.same(left(), [])
  })

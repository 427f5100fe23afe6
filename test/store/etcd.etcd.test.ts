// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { follow, storeSuite } from '../suites/store.ts'
import { openProxy, startEtcd } from './etcd-server.ts'

const server = await startEtcd()
t.teardown(() => server.close())
let prefixes = 0
const open = async (endpoint = server.endpoint, prefix = `/t${prefixes++}/`) =>
  openEtcdStore({ endpoints: [endpoint], prefix, log: silentLog, clock: systemClock })

storeSuite(t, 'etcd', async () => {
  const store = await open()
  return { store, close: () => store.close() }
})

t.test('the watch survives cuts, also right after it was made again, and loses nothing', async t => {
  const proxy = await openProxy(server.port)
  const prefix = `/t${prefixes++}/`
  const store = await open(proxy.endpoint, prefix)
  const direct = await open(server.endpoint, prefix)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  for (let round = 0; round < 12; round++) {
    proxy.cut()
    await direct.commit(
      [],
      Array.from({ length: 10 }, (_, i) => ({ kind: 'put' as const, key: `r${round}/${i}`, value: 'v' })),
    )
    setTimeout(() => proxy.cut(), round * 15)
    await direct.commit([], [{ kind: 'put', key: `late${round}`, value: 'v' }])
    if (round > 0) await direct.commit([], [{ kind: 'delete', key: `late${round - 1}` }])
  }
  const { entries } = await direct.list('')
  t.ok(await watch.until(() => watch.state.size === entries.length, 20_000), `${watch.state.size} of ${entries.length}`)
  t.same(watch.state, new Map(entries.map(entry => [entry.key, entry.value])))
  await watch.close()
  await store.close()
  await direct.close()
  await proxy.close()
})

t.test('a catch-up of thousands of events and of more than 4 MiB arrives whole, cut in its middle', async t => {
  const proxy = await openProxy(server.port)
  const prefix = `/t${prefixes++}/`
  const store = await open(proxy.endpoint, prefix)
  const direct = await open(server.endpoint, prefix)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  proxy.refuse(true)
  for (let i = 0; i < 30; i++)
    await direct.commit(
      [],
      Array.from({ length: 100 }, (_, j) => ({
        kind: 'put' as const,
        key: `k${i * 100 + j}`,
        value: 'x'.repeat(1800),
      })),
    )
  proxy.refuse(false)
  setTimeout(() => proxy.cut(), 300)
  t.ok(await watch.until(() => watch.state.size === 3000, 30_000), `${watch.state.size}`)
  await watch.close()
  await store.close()
  await direct.close()
  await proxy.close()
})

t.test('history compacted while we were away: the difference comes by a new list', async t => {
  const proxy = await openProxy(server.port)
  const prefix = `/t${prefixes++}/`
  const store = await open(proxy.endpoint, prefix)
  const direct = await open(server.endpoint, prefix)
  await direct.commit(
    [],
    [
      { kind: 'put', key: 'stays', value: '1' },
      { kind: 'put', key: 'goes', value: '1' },
    ],
  )
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 2))
  proxy.refuse(true)
  t.ok(await watch.until(() => watch.events.some(event => event.kind === 'unavailable')))
  await direct.commit([], [{ kind: 'delete', key: 'goes' }])
  const last = await direct.commit([], [{ kind: 'put', key: 'new', value: '1' }])
  await server.compact(last)
  proxy.refuse(false)
  t.ok(await watch.until(() => watch.state.has('new') && !watch.state.has('goes'), 20_000))
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'available'), 'available after what was missed')
  await watch.close()
  await store.close()
  await direct.close()
  await proxy.close()
})

t.test('etcd killed and started again: calls say so, then go on', async t => {
  const own = await startEtcd()
  const store = await open(own.endpoint)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  await store.commit([], [{ kind: 'put', key: 'a', value: '1' }])
  await own.kill()
  await t.rejects(store.commit([], [{ kind: 'put', key: 'b', value: '1' }], { timeoutMs: 1500 }), {
    code: 'STORE_UNAVAILABLE',
  })
  await t.rejects(store.get('a', { timeoutMs: 500 }), { code: 'STORE_UNAVAILABLE' })
  await own.start()
  t.equal((await store.get('a', { timeoutMs: 15_000 }))?.value, '1')
  for (let i = 0; ; i++) {
    const done = await store.commit([], [{ kind: 'put', key: 'c', value: '1' }]).then(
      () => true,
      () => false,
    )
    if (done || i > 20) break
  }
  t.ok(await watch.until(() => watch.state.has('c'), 20_000))
  await watch.close()
  await store.close()
  await own.close()
})

t.test('a certificate file that cannot be used is named', async t => {
  const tls = { ca: '/nonexistent/ca.pem', cert: '/nonexistent/c.pem', key: '/nonexistent/k.pem' }
  await t.rejects(
    openEtcdStore({ endpoints: ['https://127.0.0.1:1'], prefix: '/t/', tls, log: silentLog, clock: systemClock }),
    {
      code: 'INVALID',
      message: /--etcd-ca \/nonexistent\/ca.pem cannot be read/,
    },
  )
})

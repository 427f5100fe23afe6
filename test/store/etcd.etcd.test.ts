// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { openMembers } from '../../src/store/etcd-client.ts'
import { guardStore } from '../../src/store/guard.ts'
import type { Compare, Entry, Write } from '../../src/store/store.ts'
import { watchPrefix } from '../../src/store/watch.ts'
import { converges, follow, storeSuite } from '../suites/store.ts'
import { fastClock } from './clock.ts'
import { startEtcd } from './etcd-server.ts'
import { openProxy } from './proxy.ts'

const put = (key: string, value = ''): Write => ({ kind: 'put', key, value })
const server = await startEtcd()
t.teardown(() => server.close())
let prefixes = 0
const newPrefix = (): string => `/t${prefixes++}/`
const open = (port = server.port, prefix = newPrefix(), clock = systemClock) =>
  openEtcdStore({ endpoints: [`http://127.0.0.1:${port}`], prefix, log: silentLog, clock })

storeSuite(t, 'etcd', async () => {
  const store = await open()
  return { store, close: () => store.close() }
})

storeSuite(t, 'guarded etcd', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-guard-'))
  t.teardown(() => rm(dir, { recursive: true }))
  const store = await guardStore(await open(), { dir, log: silentLog, clock: systemClock })
  return { store, close: () => store.close() }
})

/** A store behind a proxy with a watch on it, and another one straight to the server. */
const behindProxy = async (t: Test, clock = systemClock) => {
  const proxy = await openProxy(server.port)
  const prefix = newPrefix()
  const store = await open(proxy.port, prefix, clock)
  const direct = await open(server.port, prefix)
  const watch = follow(store, '')
  t.teardown(async () => {
    await watch.close()
    await store.close()
    await direct.close()
    await proxy.close()
  })
  t.ok(await watch.until(() => watch.events.length > 0))
  return { proxy, store, direct, watch }
}
t.test('25 outages with a second cut just after: not one event is lost', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  for (let round = 0; round < 25; round++) {
    proxy.cut()
    await direct.commit(
      [],
      Array.from({ length: 10 }, (_, i) => put(`r${round}/${i}`, 'v')),
    )
    const second = sleep((round * 200) / 25).then(() => proxy.cut())
    await direct.commit([], [put(`late${round}`)])
    if (round > 0) await direct.commit([], [{ kind: 'delete', key: `late${round - 1}` }])
    await second
    await sleep(40)
  }
  await converges(t, watch, direct, '')
})

t.test('cut at each of the first answers after coming back', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  for (let nth = 1; nth <= 10; nth++) {
    let answers = 0
    proxy.onAnswer(() => {
      if (++answers === nth) proxy.cut()
    })
    proxy.cut()
    for (let i = 0; i < 12; i++) await direct.commit([], [put(`n${nth}/${i}`)])
    t.ok(await watch.until(() => watch.state.size === nth * 12), `cut at answer ${nth}: ${watch.state.size}`)
  }
  proxy.onAnswer(undefined)
  await converges(t, watch, direct, '')
})

t.test('a catch-up of 3,000 events and more than 4 MiB, cut in its middle again and again', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  proxy.refuse(true)
  for (let i = 0; i < 150; i++)
    await direct.commit(
      [],
      Array.from({ length: 20 }, (_, j) => put(`k${i * 20 + j}`, 'x'.repeat(1800))),
    )
  let bytes = 0
  let cuts = 0
  proxy.onAnswer(size => {
    bytes += size
    if (bytes < 600_000 || cuts === 6) return
    bytes = 0
    cuts++
    proxy.cut()
  })
  proxy.refuse(false)
  await converges(t, watch, direct, '', 30_000)
  t.equal(cuts, 6)
  t.notOk(
    watch.events.some(event => event.kind === 'changes' && event.relisted),
    'by the stream alone',
  )
})

t.test('a catch-up of large revisions comes in fragments, each revision still as one', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  const value = 'x'.repeat(180_000)
  proxy.refuse(true)
  for (let i = 0; i < 8; i++)
    await direct.commit(
      [],
      Array.from({ length: 5 }, (_, j) => put(`big${j}`, `${i}${value}`)),
    )
  proxy.refuse(false)
  await converges(t, watch, direct, '')
  const state = new Map<string, string>()
  for (const event of watch.events) {
    if (event.kind !== 'changes') continue
    for (const { key, entry } of event.changes) state.set(key, entry?.value ?? '')
    t.equal(new Set(state.values()).size, 1, 'all five of one commit')
    t.equal(state.size, 5)
  }
})

t.test('history compacted while we were away: the difference comes by a new list', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  await direct.commit([], [put('stays', '1'), put('goes', '1')])
  t.ok(await watch.until(() => watch.state.size === 2))
  proxy.refuse(true)
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'))
  await direct.commit([], [{ kind: 'delete', key: 'goes' }])
  await server.compact(await direct.commit([], [put('new', '1')]))
  proxy.refuse(false)
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'available'))
  t.match(watch.events.at(-2), { kind: 'changes', relisted: true }, 'available after what was missed')
  await converges(t, watch, direct, '')
})

t.test('chaos: 40 cuts, writes, deletes and compactions', async t => {
  const { proxy, direct, watch } = await behindProxy(t)
  let stop = false
  let written = 0
  const writing = Array.from({ length: 8 }, async (_, worker) => {
    for (let i = 0; !stop; i++) {
      const key = `w${worker}/${(i * 7) % 60}`
      await direct.commit([], i % 3 === 2 ? [{ kind: 'delete', key }] : [put(key, String(i)), put(`all/${worker}`)])
      written++
    }
  })
  for (let round = 0; round < 40; round++) {
    await sleep(Math.random() * 200)
    if (round % 5 === 4) proxy.refuse(true)
    if (round % 5 === 4) await sleep(60)
    proxy.refuse(false)
    proxy.cut()
    if (round % 2 === 0) await server.compact((await direct.identity()).revision).catch(() => {})
  }
  stop = true
  await Promise.all(writing)
  t.comment(`${written} commits`)
  await converges(t, watch, direct, '')
})

t.test('bytes that vanish: noticed without waiting for TCP, complete afterwards', async t => {
  const { proxy, store, direct, watch } = await behindProxy(t, fastClock(10))
  t.ok(await watch.until(() => watch.events.length > 0))
  proxy.swallow(true)
  await direct.commit([], [put('a')])
  const since = Date.now()
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'))
  t.ok((Date.now() - since) * 10 < 20_000, 'within 20 s')
  await t.rejects(store.get('a', { timeoutMs: 3000 }), { code: 'STORE_UNAVAILABLE' })
  proxy.swallow(false)
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'available'))
  await converges(t, watch, direct, '')
})

t.test('a commit whose answer is lost, and that would be done twice, is unknown and not sent again', async t => {
  const { proxy, store, direct } = await behindProxy(t)
  await direct.commit([], [put('there')])
  let lost = 0
  for (let i = 0; i < 10; i++) {
    await store.get('warm')
    proxy.onAnswer(() => proxy.cut())
    const done = store.commit([{ key: 'there', is: 'present' }], [put(`k${i}`, 'mine')])
    await t.rejects(done, { code: 'STORE_UNAVAILABLE' }, 'unknown, not somebody else')
    proxy.onAnswer(undefined)
    if (await direct.get(`k${i}`)) lost++
  }
  t.ok(lost > 0, `${lost} of 10 had been written`)
})

t.test('one that can be done only once is sent again, and knows what it did the first time', async t => {
  const { proxy, store, direct } = await behindProxy(t)
  const commit = async (compares: Compare[], writes: Write[], meanwhile: () => Promise<unknown> = async () => {}) => {
    await store.get('warm')
    let cuts = 0
    proxy.onAnswer(() => {
      if (cuts++ > 0) return
      proxy.refuse(true)
      proxy.cut()
      void meanwhile().then(() => proxy.refuse(false))
    })
    const done = await store.commit(compares, writes).catch((error: unknown) => error)
    proxy.onAnswer(undefined)
    t.ok(cuts > 0, 'its answer was lost')
    return done
  }
  const revision = await commit([{ key: 'a', is: 'absent' }], [put('a', 'mine'), put('b', 'mine')])
  t.equal(revision, (await direct.get('a'))?.revision, 'made once, at this revision')
  t.equal(revision, (await direct.get('b'))?.revision)
  const next = await commit(
    [{ key: 'a', is: 'at', revision: revision as bigint }],
    [put('a', 'new'), { kind: 'delete', key: 'b' }],
  )
  t.equal(next, (await direct.get('a'))?.revision)
  t.equal(await direct.get('b'), undefined)
  t.equal((await direct.identity()).revision, next, 'and nothing was written after it')
  // what is taken for the answer may be a word of HTTP/2 before it: then nothing was done yet
  let done = false
  for (let i = 0; i < 20 && !done; i++) {
    const key = `c${i}`
    const changed = await commit([{ key, is: 'absent' }], [put(key, 'mine')], async () => {
      for (let k = 0; k < 20 && !done; k++) done = (await direct.get(key)) !== undefined
      await direct.commit([], [put(key, 'theirs')])
    })
    const theirs = await direct.get(key)
    t.equal(theirs?.value, 'theirs')
    if (done) t.equal(changed, theirs!.revision - 1n, 'changed by another since, and done all the same')
    else t.match(changed, { code: 'CONFLICT' }, 'another was first')
  }
  t.ok(done)
  const half = await commit([{ key: 'd', is: 'absent' }], [put('d', 'mine'), put('e', 'mine')], () =>
    direct.commit([], [put('e', 'theirs')]),
  )
  t.equal(half, (await direct.get('d'))?.revision, 'the same of one of its keys')
  const deleted = await commit([{ key: 'd', is: 'at', revision: half as bigint }], [put('d', 'more')], () =>
    direct.commit([], [{ kind: 'delete', key: 'd' }]),
  )
  t.match(deleted, { code: 'STORE_UNAVAILABLE' }, 'deleted: unknown')
  const taken = await store
    .commit([{ key: 'c0', is: 'absent' }], [put('c0', 'theirs')])
    .catch((error: unknown) => error)
  t.match(taken, { code: 'CONFLICT' }, 'the first time it is a conflict, however equal')
})

t.test('one that can be done only once and did not arrive: a conflict where another did the like since', async t => {
  const { proxy, store, direct } = await behindProxy(t)
  const old = await direct.commit([], [put('b', 'old')])
  const commit = async (compares: Compare[], writes: Write[], others: Write[]): Promise<unknown> => {
    await store.get('warm')
    proxy.swallow(true)
    const done = store.commit(compares, writes).catch((error: unknown) => error)
    await sleep(200)
    await direct.commit([], others)
    proxy.refuse(true)
    proxy.swallow(false) // cuts what is open: it may have arrived, as far as the client knows
    proxy.refuse(false)
    return done
  }
  const absent = await commit([{ key: 'a', is: 'absent' }], [put('a', 'mine'), put('x', 'mine')], [put('a', 'theirs')])
  t.match(absent, { code: 'CONFLICT' })
  const at = await commit([{ key: 'b', is: 'at', revision: old }], [put('b', 'mine')], [put('b', 'theirs')])
  t.match(at, { code: 'CONFLICT' })
  const gone = (await direct.get('b'))!.revision
  const deleted = await commit(
    [{ key: 'b', is: 'at', revision: gone }],
    [{ kind: 'delete', key: 'b' }, put('y')],
    [put('b', 'again')],
  )
  t.match(deleted, { code: 'STORE_UNAVAILABLE' }, 'what only a deletion tells by is not sent again')
  t.same(
    (await direct.list('')).entries.map(({ key, value }) => [key, value]),
    [
      ['a', 'theirs'],
      ['b', 'again'],
    ],
  )
  const free = await commit([{ key: 'c', is: 'absent' }], [put('c', 'mine')], [put('z')])
  t.equal(free, (await direct.get('c'))?.revision, 'where nobody did, it is done')
})

t.test('a commit that never left waits for the server; a read too', async t => {
  const { proxy, store } = await behindProxy(t)
  proxy.refuse(true)
  await t.rejects(
    store.get('k', { timeoutMs: 300 }),
    { code: 'STORE_UNAVAILABLE' },
    'the connection is known to be gone',
  )
  const done = store.commit([{ key: 'k', is: 'absent' }], [put('k')])
  const read = store.get('k')
  await sleep(1000)
  proxy.refuse(false)
  await Promise.all([done, read])
  t.ok(await store.get('k'))
  proxy.refuse(true)
  const stopped = AbortSignal.timeout(200)
  await t.rejects(store.get('k', { signal: stopped, timeoutMs: 3000 }), { name: 'TimeoutError' })
  await t.rejects(store.commit([], [put('b')], { timeoutMs: 300 }), { code: 'STORE_UNAVAILABLE' })
})

t.test('a lease that cannot be renewed is lost soon after its TTL, on both sides', async t => {
  const { proxy, store, direct } = await behindProxy(t)
  const lease = await store.lease(2000)
  await store.commit([], [{ ...put('l'), lease } as Write])
  await sleep(1500)
  proxy.refuse(true)
  const since = Date.now()
  await lease.lost
  const took = Date.now() - since
  t.ok(took > 1000 && took < 2600, `lost after ${took} ms`)
  const watch = follow(direct, '')
  t.ok(await watch.until(() => watch.events.length > 0 && !watch.state.has('l'), 5000), 'the key is gone')
  await watch.close()
  proxy.refuse(false)
  const revoked = await store.lease(5000)
  await server.etcdctl('lease', 'revoke', BigInt(revoked.id).toString(16))
  await revoked.lost
  await revoked.close()
  t.pass('revoked by somebody else is lost as well')
})

t.test('renewals and watches that end leave the connections as they are', async t => {
  const { proxy, store } = await behindProxy(t)
  const lease = await store.lease(1000)
  await store.commit([], [{ ...put('l'), lease } as Write])
  const { taken } = proxy
  t.ok(taken <= 4, `${taken} connections: one for each kind of call`)
  for (let i = 0; i < 10; i++) {
    const watch = follow(store, 'l')
    await watch.until(() => watch.events.length > 0)
    await watch.close()
    await sleep(200)
    t.ok(await store.get('l'), 'renewed')
  }
  t.equal(proxy.taken, taken)
  await lease.close()
})

t.test('an outage shorter than the TTL loses no lease', async t => {
  const { proxy, store, direct } = await behindProxy(t)
  const lease = await store.lease(3000)
  await store.commit([], [{ ...put('l'), lease } as Write])
  let lost = false
  void lease.lost.then(() => {
    lost = true
  })
  proxy.refuse(true)
  await sleep(1500)
  proxy.refuse(false)
  await sleep(2000)
  t.ok(await direct.get('l'))
  t.notOk(lost)
})

t.test('the audit finds what a watch was not told, repairs and counts it', async t => {
  const prefix = newPrefix()
  const store = await open(server.port, prefix)
  const members = openMembers([server.endpoint])
  const stop = new AbortController()
  let repaired = 0
  let heard = 0
  const forged: Entry = { key: 'missed', value: '', revision: 1n }
  const { engine } = await store.identity()
  const events = watchPrefix({
    members,
    prefix,
    part: '',
    async list(part, call, at) {
      const listed = await store.list(part, call)
      return { ...listed, engine, entries: at === undefined ? listed.entries : [...listed.entries, forged] }
    },
    head: call => store.identity(call),
    unavailable: cause => cause as Error,
    signal: stop.signal,
    clock: systemClock,
    log: silentLog,
    auditEveryMs: 400,
    onAuditRepair: count => {
      repaired += count
    },
    onHeard: () => {
      heard++
    },
  })
  t.match((await events.next()).value, { kind: 'snapshot' })
  t.match((await events.next()).value, { kind: 'changes', relisted: true, changes: [{ key: 'missed' }] })
  t.equal(repaired, 1)
  const next = events.next()
  await sleep(1000)
  t.equal(repaired, 1, 'once')
  const before = heard
  t.ok(before > 0, 'the member has shown that it has everything')
  await store.commit([], [put('a')])
  t.match((await next).value, { kind: 'changes', relisted: false, changes: [{ key: 'a' }] }, 'the stream goes on')
  t.ok(heard > before, 'an event was heard')
  stop.abort(new Error('done'))
  await events.return(undefined)
  members.close()
  await store.close()
})

t.test('etcd killed and started again: calls say so, then go on', async t => {
  const own = await startEtcd()
  t.teardown(() => own.close())
  const store = await open(own.port)
  t.teardown(() => store.close())
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  await store.commit([], [put('a', '1')])
  await own.kill()
  await t.rejects(store.commit([], [put('b', '1')], { timeoutMs: 1500 }), { code: 'STORE_UNAVAILABLE' })
  await t.rejects(store.get('a', { timeoutMs: 500 }), { code: 'STORE_UNAVAILABLE' })
  const waiting = store.commit([], [put('c', '1')], { timeoutMs: 10_000 })
  await own.start()
  await waiting
  t.equal((await store.get('a'))?.value, '1')
  await converges(t, watch, store, '')
  await watch.close()
})

t.test('another store at the same address: listed again; behind the guard, not believed', async t => {
  const own = await startEtcd()
  const dir = await mkdtemp(join(tmpdir(), 'weft-guard-'))
  const prefix = newPrefix()
  const plain = await open(own.port, prefix)
  const guarded = await guardStore(await open(own.port, prefix), { dir, log: silentLog, clock: systemClock })
  t.teardown(async () => {
    await plain.close()
    await guarded.close()
    await own.close()
    await rm(dir, { recursive: true })
  })
  await guarded.commit([], [put('cluster', '{"id":"c1"}'), put('nodes/a', '{}')])
  const watches = [follow(plain, ''), follow(guarded, '')] as const
  for (const watch of watches) t.ok(await watch.until(() => watch.state.size === 2))
  await own.kill()
  own.forget()
  await own.start()
  t.ok(
    await watches[0].until(() => watches[0].state.size === 0),
    'the watch notices that its revision is from elsewhere',
  )
  const suspect = () => watches[1].events.at(-1)
  t.ok(
    await watches[1].until(() => {
      const event = suspect()
      return event?.kind === 'unavailable' && /not believed/.test(event.error.message)
    }),
  )
  t.equal(watches[1].state.size, 2, 'nothing goes')
  await t.rejects(guarded.commit([], [put('x')]), { code: 'STORE_SUSPECT', message: /it is empty/ })
  await guarded.accept()
  t.ok(await watches[1].until(() => watches[1].state.size === 0 && suspect()?.kind === 'available'))
  await guarded.commit([], [put('cluster', '{"id":"c2"}')])
  for (const watch of watches) {
    t.ok(await watch.until(() => watch.state.size === 1))
    await watch.close()
  }
})

// SPDX-License-Identifier: Apache-2.0
import { appendFileSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { type GuardOptions, guardStore } from '../../src/store/guard.ts'
import type { Store, StoreIdentity, WatchEvent, Write } from '../../src/store/store.ts'
import { follow } from '../suites/store.ts'
import { fastClock } from './clock.ts'

const put = (key: string, value = ''): Write => ({ kind: 'put', key, value })
const fill = async (store: Store, cluster = 'c1'): Promise<void> => {
  const writes = [put('cluster', JSON.stringify({ id: cluster })), put('nodes/a', '{}'), put('nodes/b', '{}')]
  for (let i = 0; i < 30; i++) writes.push(put(`endpoints/n/${i}`, String(i)))
  await store.commit([], writes)
}
const options = async (t: Test): Promise<GuardOptions> => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-guard-'))
  t.teardown(() => rm(dir, { recursive: true, force: true }))
  return { dir, log: silentLog, clock: fastClock(20) }
}
const guarded = async (t: Test, inner: Store, parts: GuardOptions) => {
  const store = await guardStore(inner, parts)
  t.teardown(() => store.close())
  return store
}
type Followed = ReturnType<typeof follow>
const last = (watch: Followed) => watch.events.at(-1)
const doubted = (watch: Followed) =>
  watch.until(() => {
    const event = last(watch)
    return event?.kind === 'unavailable' && event.error instanceof WeftError && event.error.code === 'STORE_SUSPECT'
  })
const clear = async (store: Store): Promise<void> => {
  const { entries } = await store.list('')
  await store.commit(
    [],
    entries.map(({ key }): Write => ({ kind: 'delete', key })),
  )
}

t.test('a store emptied while we run is not believed, nothing goes, until it is accepted', async t => {
  const inner = await openEmbeddedStore({})
  const store = await guarded(t, inner, await options(t))
  await fill(store)
  const [watch, part] = [follow(store, ''), follow(store, 'nodes/')]
  t.ok(await watch.until(() => watch.state.size === 33))
  await clear(inner)
  for (const one of [watch, part]) t.ok(await doubted(one))
  t.equal(watch.state.size, 33)
  t.equal(part.state.size, 2, 'a watch of a part is guarded as well')
  const calls: Promise<unknown>[] = [
    store.commit([], [put('x')]),
    store.get('cluster'),
    store.list(''),
    store.lease(5000),
  ]
  for (const call of calls) await t.rejects(call, { code: 'STORE_SUSPECT', message: /weft store accept/ })
  t.ok(await store.identity(), 'who it is may be asked')
  const late = follow(store, '')
  t.ok(await doubted(late))
  t.equal(late.state.size, 33, 'a watch made now begins with what is believed')
  await sleep(600) // looked at again, with the same outcome
  await t.rejects(store.commit([], [put('x')]), { code: 'STORE_SUSPECT' })
  t.equal(watch.events.filter(event => event.kind === 'unavailable').length, 1, 'said once')
  t.ok(await store.accept())
  for (const one of [watch, part, late])
    t.ok(await one.until(() => one.state.size === 0 && last(one)?.kind === 'available'), 'differences, then available')
  await store.commit([], [put('x')])
  t.notOk(await store.accept(), 'nothing is in doubt any more')
  for (const one of [watch, part, late]) {
    t.same(one.breaches, [])
    await one.close()
  }
})

t.test('the right store coming back is believed by itself', async t => {
  const inner = await openEmbeddedStore({})
  const store = await guarded(t, inner, await options(t))
  await fill(store)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 33))
  await inner.commit([], [{ kind: 'delete', key: 'cluster' }])
  t.ok(await doubted(watch))
  await inner.commit([], [put('cluster', JSON.stringify({ id: 'c1' })), put('new')])
  t.ok(await watch.until(() => watch.state.size === 34 && last(watch)?.kind === 'available'))
  await store.commit([], [put('x')])
  await watch.close()
})

t.test('changes of ordinary size, and many one by one, are believed', async t => {
  const inner = await openEmbeddedStore({})
  const store = await guarded(t, inner, await options(t))
  await fill(store)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 33))
  await store.commit(
    [],
    [
      { kind: 'delete', key: 'endpoints/n/1' },
      { kind: 'delete', key: 'nodes/b' },
    ],
  )
  const { entries } = await inner.list('endpoints/')
  await inner.commit(
    [],
    entries.map(({ key }): Write => ({ kind: 'delete', key })),
  )
  t.ok(await watch.until(() => watch.state.size === 2), 'a network with most of the endpoints is removed')
  t.notOk(watch.events.some(event => event.kind === 'unavailable'))
  await watch.close()
})

for (const [what, why, prepare] of [
  ['another cluster', /holds cluster c2 instead of c1/, (store: Store) => fill(store, 'c2')],
  ['an empty store', /it is empty/, async () => {}],
  ['another engine with the same cluster', /is engine .* perhaps restored/, (store: Store) => fill(store)],
] as const)
  t.test(`${what} found at a start is not believed; the start is from the disk`, async t => {
    const parts = await options(t)
    const first = await guardStore(await openEmbeddedStore({}), parts)
    await fill(first)
    await first.commit([], [put('endpoints/n/0', 'the last change is kept as well')])
    const before = follow(first, '')
    t.ok(await before.until(() => /kept as well/.test(before.state.get('endpoints/n/0') ?? '')))
    await before.close()
    await first.close()
    const inner = await openEmbeddedStore({})
    await prepare(inner)
    const store = await guarded(t, inner, parts)
    await t.rejects(
      store.commit([], [put('x')]),
      { code: 'STORE_SUSPECT', message: why },
      'not one commit before a look',
    )
    const watch = follow(store, '')
    t.ok(await doubted(watch))
    t.equal(watch.events[0]?.kind, 'snapshot')
    t.same(watch.state, before.state)
    await store.accept()
    await watch.until(() => last(watch)?.kind === 'available')
    await store.commit([], [put('x')])
    t.ok(await watch.until(() => watch.state.has('x')), 'accepted')
    await watch.close()
  })

/** A store whose watch and identity are the test's to write. */
const scripted = () => {
  const events: WatchEvent[] = []
  let wake = (): void => {}
  let rounds = 0
  const state = { engine: 'e1', revision: 100n, reachable: true, snapshot: [] as { key: string; value: string }[] }
  const entries = () => state.snapshot.map(one => ({ ...one, revision: 5n }))
  const refuse = async (): Promise<never> => {
    throw new WeftError('STORE_UNAVAILABLE', 'not now')
  }
  const store: Store = {
    identity: async (): Promise<StoreIdentity> =>
      state.reachable ? { engine: state.engine, version: 'etcd 3.4.23', revision: state.revision } : refuse(),
    get: refuse,
    list: refuse,
    commit: async () => state.revision,
    lease: refuse,
    close: async () => {},
    async *watch(_, signal) {
      rounds++
      signal.addEventListener('abort', () => wake(), { once: true })
      yield { kind: 'snapshot', entries: entries(), revision: state.revision }
      while (!signal.aborted) {
        const event = events.shift()
        if (event) yield event
        else
          await new Promise<void>(resolve => {
            wake = resolve
          })
      }
    },
  }
  return {
    store,
    state,
    get rounds() {
      return rounds
    },
    say(event: WatchEvent) {
      events.push(event)
      wake()
    },
    relist(revision: bigint) {
      const changes = entries().map(entry => ({ key: entry.key, entry }))
      events.push({ kind: 'changes', changes, revision, relisted: true })
      wake()
    },
  }
}
const cluster = { key: 'cluster', value: '{"id":"c1"}' }

t.test('a list older than an answered commit is asked for again, not doubted; an older store is', async t => {
  const { store: inner, state, relist } = scripted()
  state.snapshot = [cluster, { key: 'nodes/a', value: '{}' }]
  const store = await guarded(t, inner, await options(t))
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 2))
  state.revision = 200n
  t.equal(await store.commit([], [put('x')]), 200n)
  relist(150n)
  await sleep(50)
  t.notOk(
    watch.events.some(event => event.kind === 'unavailable'),
    'the second read shows the store where it should be',
  )
  state.revision = 160n
  relist(160n)
  t.ok(await doubted(watch))
  t.match(last(watch), { error: { message: /went back from 200 to 160/ } })
  await watch.close()
})

t.test('a store that cannot be asked is unavailable, not suspect', async t => {
  const inner = scripted()
  inner.state.snapshot = [cluster]
  const store = await guarded(t, inner.store, await options(t))
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 1))
  inner.state.reachable = false
  inner.relist(101n)
  t.ok(await watch.until(() => last(watch)?.kind === 'unavailable'))
  t.match(last(watch), { error: { code: 'STORE_UNAVAILABLE', message: 'not now' } })
  await store.commit([], [put('x')])
  inner.state.reachable = true
  t.ok(await watch.until(() => last(watch)?.kind === 'available'))
  t.ok(inner.rounds > 1, 'listed again')
  inner.say({ kind: 'unavailable', error: new Error('down') })
  t.ok(await watch.until(() => last(watch)?.kind === 'unavailable'), 'and passes on what the store says of itself')
  inner.say({ kind: 'available' })
  t.ok(await watch.until(() => last(watch)?.kind === 'available'))
  t.same(watch.breaches, [])
  await watch.close()
})

t.test('a start without a store: the state of before, then unavailable; calls say so', async t => {
  const parts = await options(t)
  const first = await guardStore(await openEmbeddedStore({}), parts)
  await fill(first)
  const before = follow(first, '')
  t.ok(await before.until(() => before.state.size === 33))
  await before.close()
  await first.close()
  const inner = scripted()
  inner.state.reachable = false
  const store = await guarded(t, inner.store, parts)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length === 2))
  t.match(watch.events[0], { kind: 'snapshot' })
  t.match(last(watch), { kind: 'unavailable', error: { code: 'STORE_UNAVAILABLE' } })
  t.same(watch.state, before.state)
  await t.rejects(store.commit([], [put('x')], { timeoutMs: 1000 }), { code: 'STORE_UNAVAILABLE' })
  await watch.close()
})

t.test('a kill loses nothing of what was believed, also while a snapshot is being made', async t => {
  const parts = await options(t)
  const first = await guarded(t, await openEmbeddedStore({}), parts)
  const states = async (name: string): Promise<ReadonlyMap<string, string>> => {
    const { dir } = await options(t)
    // what a kill leaves is one moment's: copied again when something moved meanwhile
    const listing = () => {
      const names = readdirSync(parts.dir, { withFileTypes: true })
      return names
        .map(({ name }) => [name, statSync(join(parts.dir, name), { bigint: true, throwIfNoEntry: false })?.mtimeNs])
        .join()
    }
    for (;;) {
      const before = listing()
      await rm(dir, { recursive: true })
      const copied = await cp(parts.dir, dir, { recursive: true }).then(
        () => true,
        () => false,
      )
      if (copied && listing() === before) break
    }
    const second = await guarded(t, await openEmbeddedStore({}), { ...parts, dir })
    const watch = follow(second, '')
    t.ok(await doubted(watch), `${name}: not believed`)
    await watch.close()
    await second.close()
    return watch.state
  }
  await fill(first)
  const watch = follow(first, '')
  t.ok(await watch.until(() => watch.state.size === 33))
  t.same(await states('filled'), watch.state)
  await first.commit([], [{ kind: 'delete', key: 'endpoints/n/1' }, put('endpoints/n/2', 'changed')])
  t.ok(await watch.until(() => watch.state.size === 32))
  t.same(await states('changed'), watch.state)
  // larger than what makes a new snapshot
  const large = 'x'.repeat(300_000)
  for (let i = 0; i < 5; i++) await first.commit([], [put(`endpoints/n/large${i}`, large)])
  t.ok(await watch.until(() => watch.state.size === 37))
  t.same(await states('folding'), watch.state)
  while (readFileSync(join(parts.dir, 'believed'), 'utf8').split('\n').length > 3) await sleep(10)
  t.same(await states('folded'), watch.state)
  appendFileSync(join(parts.dir, 'believed'), '[{"engine":"torn')
  t.same(await states('torn'), watch.state)
  await watch.close()
})

t.test('damaged pins are an error with a remedy, damaged records are left out', async t => {
  const parts = await options(t)
  const first = await guardStore(await openEmbeddedStore({}), parts)
  await fill(first)
  const before = follow(first, '')
  t.ok(await before.until(() => before.state.size === 33))
  await before.close()
  await first.close()
  const path = join(parts.dir, 'believed')
  const [pins, records, ...rest] = readFileSync(path, 'utf8').split('\n')
  t.match(JSON.parse(pins!)[0], { cluster: 'c1', engine: /./, revision: /^\d+$/ })
  t.same(rest, [''], 'folded at the end')
  writeFileSync(path, `${pins}\n${records!.replace('[', '')}\n`)
  const second = await guarded(t, await openEmbeddedStore({}), parts)
  const watch = follow(second, '')
  t.ok(await doubted(watch), 'still pinned')
  t.equal(watch.state.size, 0)
  await watch.close()
  await second.close()
  for (const damaged of ['', 'no\n']) {
    writeFileSync(path, damaged)
    await t.rejects(guardStore(await openEmbeddedStore({}), parts), {
      code: 'INTERNAL',
      message: /believed is damaged: remove/,
    })
  }
})

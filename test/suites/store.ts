// SPDX-License-Identifier: Apache-2.0
// What every store must do. Run against each implementation, also behind the guard.
import type { Test } from 'tap'
import { limits, type Store, type WatchEvent, type Write } from '../../src/store/store.ts'

export interface Subject {
  readonly store: Store
  close(): Promise<void>
}

const put = (key: string, value = ''): Write => ({ kind: 'put', key, value })

/** Keeps what a watch says, and what is wrong with how it says it. */
export const follow = (store: Store, prefix: string) => {
  const stop = new AbortController()
  const state = new Map<string, string>()
  const events: WatchEvent[] = []
  /** Breaches of the contract: an event out of order, a key outside, something said twice. */
  const breaches: string[] = []
  const revisions = new Map<string, bigint>()
  let waiting: (() => void)[] = []
  const check = (event: WatchEvent): void => {
    const before = events.at(-1)
    if (event.kind === 'snapshot' && events.some(({ kind }) => kind === 'snapshot')) breaches.push('two snapshots')
    if (event.kind === 'changes' && !events.some(({ kind }) => kind === 'snapshot')) breaches.push('no snapshot')
    if (event.kind === 'changes' && event.changes.length === 0) breaches.push('an empty event')
    if (event.kind === 'available' && !events.some(({ kind }) => kind === 'unavailable')) breaches.push('up, not down')
    if (event.kind === 'available' && before?.kind === 'available') breaches.push('up twice')
  }
  const take = (key: string, entry: { value: string; revision: bigint } | undefined): void => {
    if (!key.startsWith(prefix)) breaches.push(`${key} is outside of ${prefix}`)
    if (!entry) {
      state.delete(key)
      return
    }
    if ((revisions.get(key) ?? -1n) >= entry.revision) breaches.push(`${key} again at ${entry.revision}`)
    revisions.set(key, entry.revision)
    state.set(key, entry.value)
  }
  const running = (async () => {
    for await (const event of store.watch(prefix, stop.signal)) {
      check(event)
      events.push(event)
      if (event.kind === 'snapshot') for (const entry of event.entries) take(entry.key, entry)
      if (event.kind === 'changes') for (const { key, entry } of event.changes) take(key, entry)
      for (const wake of waiting.splice(0)) wake()
    }
  })()
  return {
    state,
    events,
    breaches,
    /** false: not within the time. */
    async until(test: () => boolean, ms = 10_000): Promise<boolean> {
      const end = Date.now() + ms
      while (!test()) {
        const left = end - Date.now()
        if (left <= 0) return false
        await new Promise<void>(resolve => {
          const timer = setTimeout(resolve, left)
          waiting.push(() => {
            clearTimeout(timer)
            resolve()
          })
        })
      }
      return true
    },
    async close() {
      stop.abort(new Error('done'))
      await running
      for (const wake of waiting) wake()
      waiting = []
    },
  }
}

/** The watch says what the list says: waits for it, then compares all. */
export const converges = async (
  t: Test,
  watch: ReturnType<typeof follow>,
  store: Store,
  prefix: string,
  ms?: number,
) => {
  const { entries } = await store.list(prefix, { timeoutMs: 15_000 })
  const wanted = new Map(entries.map(entry => [entry.key, entry.value]))
  const same = (): boolean =>
    wanted.size === watch.state.size && [...wanted].every(([key, value]) => watch.state.get(key) === value)
  t.ok(await watch.until(same, ms), `the watch has all ${wanted.size} records, as listed (it has ${watch.state.size})`)
  t.same(watch.breaches, [], 'and told them in order, once')
}

export const storeSuite = (t: Test, name: string, open: () => Promise<Subject>): void => {
  const test = (what: string, body: (t: Test, store: Store) => Promise<void>): void => {
    t.test(`${name}: ${what}`, async t => {
      const { store, close } = await open()
      try {
        await body(t, store)
      } finally {
        await close()
      }
    })
  }

  test('put, get, list, delete', async (t, store) => {
    t.equal(await store.get('a/1'), undefined)
    const first = await store.commit([], [put('a/2', 'two'), put('a/1', 'ünö')])
    const second = await store.commit([], [put('ab', 'x')])
    t.ok(second > first, 'revisions grow')
    t.same(await store.get('a/1'), { key: 'a/1', value: 'ünö', revision: first })
    const { entries, revision } = await store.list('a/')
    t.same(
      entries.map(entry => entry.key),
      ['a/1', 'a/2'],
      'ordered, and only below the prefix',
    )
    t.ok(revision >= second)
    await store.commit([], [{ kind: 'delete', key: 'a/1' }])
    t.equal(await store.get('a/1'), undefined)
    await store.commit([], [{ kind: 'delete', key: 'a/1' }])
    t.same(await store.list('none/').then(list => list.entries), [])
    await store.commit([], [put('empty', '')])
    t.equal((await store.get('empty'))?.value, '', 'an empty value is a value')
  })

  test('identity stays, its revision grows', async (t, store) => {
    const before = await store.identity()
    const at = await store.commit([], [put('a')])
    const after = await store.identity()
    t.equal(after.engine, before.engine)
    t.match(after.version, /^(etcd|embedded) \d/)
    t.ok(after.revision >= at && at > before.revision)
  })

  test('a commit whose compare does not hold writes nothing', async (t, store) => {
    const at = await store.commit([{ key: 'k', is: 'absent' }], [put('k', '1')])
    const other = put('other', 'x')
    await t.rejects(store.commit([{ key: 'k', is: 'absent' }], [other]), { code: 'CONFLICT' })
    await t.rejects(store.commit([{ key: 'none', is: 'present' }], [other]), { code: 'CONFLICT' })
    await t.rejects(store.commit([{ key: 'k', is: 'at', revision: at + 1n }], [other]), { code: 'CONFLICT' })
    await t.rejects(store.commit([{ key: 'none', is: 'at', revision: at }], [other]), { code: 'CONFLICT' })
    const mixed = [
      { key: 'k', is: 'present' },
      { key: 'none', is: 'present' },
    ] as const
    await t.rejects(store.commit(mixed, [other, { kind: 'delete', key: 'k' }]), { code: 'CONFLICT' })
    t.equal(await store.get('other'), undefined)
    t.ok(await store.get('k'))
    const all = [
      { key: 'k', is: 'at', revision: at },
      { key: 'k', is: 'present' },
      { key: 'none', is: 'absent' },
    ] as const
    const done = await store.commit(all, [other, { kind: 'delete', key: 'k' }])
    t.equal((await store.get('other'))?.revision, done)
    t.equal(await store.get('k'), undefined)
  })

  test('of fifty that swap one key, one wins', async (t, store) => {
    const at = await store.commit([], [put('k', '0')])
    const tries = Array.from({ length: 50 }, (_, i) =>
      store.commit([{ key: 'k', is: 'at', revision: at }], [put('k', String(i)), put(`won/${i}`)]),
    )
    const results = await Promise.allSettled(tries)
    const winner = results.findIndex(result => result.status === 'fulfilled')
    t.equal(results.filter(result => result.status === 'fulfilled').length, 1)
    for (const result of results) if (result.status === 'rejected') t.match(result.reason, { code: 'CONFLICT' })
    t.equal((await store.get('k'))?.value, String(winner))
    t.equal((await store.list('won/')).entries.length, 1)
  })

  test('limits are said before anything is written', async (t, store) => {
    const many = Array.from({ length: limits.writesPerCommit + 1 }, (_, i) => put(`k${i}`))
    await t.rejects(store.commit([], many), { code: 'INVALID' })
    const value = 'x'.repeat(limits.valueBytes)
    await t.rejects(store.commit([], [put('big', `${value}x`)]), { code: 'INVALID', message: /big/ })
    await t.rejects(store.commit([], [put('a', value), put('b', value), put('c', value)]), { code: 'INVALID' })
    await t.rejects(store.commit([], [put('a'), put('a')]), { code: 'INVALID', message: /a twice/ })
    await t.rejects(store.commit([], [put('a'), { kind: 'delete', key: 'a' }]), { code: 'INVALID' })
    await t.rejects(store.commit([], [put('')]), { code: 'INVALID' })
    await t.rejects(store.lease(999), { code: 'INVALID' })
    t.same((await store.list('')).entries, [])
    await store.commit([], many.slice(1))
    t.equal((await store.list('k')).entries.length, limits.writesPerCommit)
    await store.commit([], [put('big', value)])
    t.equal((await store.get('big'))?.value.length, limits.valueBytes)
  })

  test('lists more than a page, in order, all of one revision', async (t, store) => {
    const names = Array.from({ length: 2500 }, (_, i) => `p/${String((i * 1009) % 2500).padStart(4, '0')}`)
    for (let i = 0; i < 25; i++)
      await store.commit(
        [],
        names.slice(i * 100, i * 100 + 100).map(key => put(key, 'v0')),
      )
    // every commit moves the same value through the first and the last key: a list never sees two of them
    let stop = false
    const moving = (async () => {
      for (let i = 1; !stop; i++) await store.commit([], [put('p/0000', `v${i}`), put('p/2499', `v${i}`)])
    })()
    for (let i = 0; i < 10; i++) {
      const { entries } = await store.list('p/')
      t.equal(entries.length, 2500)
      t.equal(entries[0]?.value, entries.at(-1)?.value, 'first and last page are of one revision')
      if (i === 0)
        t.same(
          entries.map(entry => entry.key),
          [...names].sort(),
        )
    }
    stop = true
    await moving
  })

  test('a watch begins with a snapshot and misses nothing of 5,000 writes', async (t, store) => {
    await store.commit([], [put('w/0', 'before'), put('x', 'elsewhere')])
    const watches = [follow(store, 'w/'), follow(store, 'w/1'), follow(store, '')]
    const [watch, part, all] = watches as [(typeof watches)[0], (typeof watches)[0], (typeof watches)[0]]
    t.ok(await watch.until(() => watch.events.length > 0))
    t.match(watch.events[0], { kind: 'snapshot' })
    t.ok(await watch.until(() => watch.state.get('w/0') === 'before'))
    for (let round = 0; round < 10; round++) {
      const work = Array.from({ length: 250 }, (_, i) =>
        store.commit([], [put(`w/${(round * 31 + i) % 300}`, `${round}.${i}`), put(`x/${i}`, String(round))]),
      )
      await Promise.all(work)
      const gone = Array.from({ length: 10 }, (_, i): Write => ({ kind: 'delete', key: `w/${round * 20 + i}` }))
      await store.commit([], gone)
    }
    await converges(t, watch, store, 'w/')
    await converges(t, part, store, 'w/1')
    await converges(t, all, store, '')
    let last = 0n
    for (const event of all.events) {
      if (!('revision' in event)) continue
      t.ok(event.revision >= last, 'revisions do not go back')
      last = event.revision
    }
    for (const one of watches) await one.close()
  })

  test('a commit is told as one event', async (t, store) => {
    const watch = follow(store, '')
    t.ok(await watch.until(() => watch.events.length > 0))
    for (let i = 0; i < 50; i++) await store.commit([], [put('a', String(i)), put('b', String(i)), put('c', String(i))])
    t.ok(await watch.until(() => watch.state.get('c') === '49'))
    const state = new Map<string, string>()
    for (const event of watch.events) {
      if (event.kind !== 'changes') continue
      for (const { key, entry } of event.changes) state.set(key, entry?.value ?? '')
      t.equal(new Set(state.values()).size, 1, 'all three of one commit')
    }
    await watch.close()
  })

  test('who reads slowly still gets the last state of each key', async (t, store) => {
    const stop = new AbortController()
    const watch = store.watch('', stop.signal)[Symbol.asyncIterator]()
    t.match((await watch.next()).value, { kind: 'snapshot' })
    for (let i = 0; i < 200; i++) await store.commit([], [put(`k${i % 5}`, String(i))])
    await store.commit([], [{ kind: 'delete', key: 'k0' }, put('end')])
    const state = new Map<string, string>()
    while (!state.has('end')) {
      const event = (await watch.next()).value as WatchEvent
      if (event.kind !== 'changes') continue
      for (const { key, entry } of event.changes) {
        if (entry) state.set(key, entry.value)
        else state.delete(key)
      }
    }
    t.same([...state].sort(), Object.entries({ end: '', k1: '196', k2: '197', k3: '198', k4: '199' }))
    stop.abort(new Error('done'))
    t.same(await watch.next(), { done: true, value: undefined })
  })

  test('what hangs on a lease goes with it, and not before', async (t, store) => {
    const [lease, other] = [await store.lease(1000), await store.lease(5000)]
    const watch = follow(store, '')
    await store.commit([], [{ ...put('l'), lease } as Write, { ...put('moved'), lease } as Write, put('stays')])
    await store.commit([], [{ ...put('moved'), lease: other } as Write])
    let lost = false
    void lease.lost.then(() => {
      lost = true
    })
    await new Promise(resolve => setTimeout(resolve, 2000))
    t.ok(await store.get('l'), 'kept alive beyond its TTL')
    t.notOk(lost)
    await lease.close()
    await lease.close()
    t.equal(await store.get('l'), undefined)
    t.ok(await store.get('moved'), 'a later put took it over')
    t.notOk(lost, 'closed is not lost')
    await t.rejects(store.commit([], [{ ...put('late'), lease } as Write]), { code: 'NOT_FOUND' })
    t.ok(await watch.until(() => watch.state.size === 2))
    await store.commit([], [put('moved', 'for good')])
    await other.close()
    t.ok(await store.get('moved'), 'a put without a lease took it over')
    await watch.close()
  })

  test('a lease says how long it surely lasts, and one that is left ends by itself', async (t, store) => {
    const [kept, left] = [await store.lease(1000, { renewMs: 100 }), await store.lease(1000)]
    await store.commit([], [{ ...put('k'), lease: kept } as Write, { ...put('l'), lease: left } as Write])
    const before = kept.expires
    const watch = follow(store, '')
    t.ok(await watch.until(() => watch.state.has('l')))
    await left.leave()
    t.ok(await watch.until(() => !watch.state.has('l')), 'not renewed any more')
    t.ok(kept.expires > before, 'renewed')
    t.ok(await store.get('k'))
    await kept.close()
    await watch.close()
  })

  test('an abort ends a call and a watch', async (t, store) => {
    await t.rejects(store.get('a', { signal: AbortSignal.abort(new Error('no')) }), { message: 'no' })
    const refused = store.commit([], [put('a')], { signal: AbortSignal.abort(new Error('no')) })
    await t.rejects(refused, { message: 'no' })
    t.equal(await store.get('a'), undefined)
    const before = store.watch('', AbortSignal.abort(new Error('no')))[Symbol.asyncIterator]()
    t.same(await before.next(), { done: true, value: undefined })
    const stop = new AbortController()
    const watch = store.watch('', stop.signal)[Symbol.asyncIterator]()
    await watch.next()
    const waiting = watch.next()
    stop.abort(new Error('enough'))
    t.same(await waiting, { done: true, value: undefined })
  })

  test('close settles what is pending, may be called twice, and is the end', async (t, store) => {
    const watch = follow(store, '')
    t.ok(await watch.until(() => watch.events.length > 0))
    const lease = await store.lease(5000)
    const pending = Array.from({ length: 20 }, (_, i) => store.commit([], [put(`k${i}`)]))
    const settled = Promise.allSettled(pending)
    await Promise.all([store.close(), store.close()])
    await store.close()
    t.equal((await settled).length, 20)
    await lease.close()
    await watch.close()
    await t.rejects(store.get('a'), { code: 'CANCELLED' })
    await t.rejects(store.commit([], [put('a')]), { code: 'CANCELLED' })
    await t.rejects(store.lease(5000), { code: 'CANCELLED' })
    const late = store.watch('', new AbortController().signal)[Symbol.asyncIterator]()
    t.same(await late.next(), { done: true, value: undefined })
  })
}

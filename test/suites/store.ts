// SPDX-License-Identifier: Apache-2.0
// What every store must do. Run against each implementation.
import type { Test } from 'tap'
import type { Store, WatchEvent } from '../../src/store/store.ts'

export interface Subject {
  readonly store: Store
  close(): Promise<void>
}

/** Collects a watch until `done` says so of all keys seen. */
export const follow = (store: Store, prefix: string) => {
  const stop = new AbortController()
  const state = new Map<string, string>()
  const events: WatchEvent[] = []
  const waiting = new Set<() => void>()
  const running = (async () => {
    for await (const event of store.watch(prefix, stop.signal)) {
      events.push(event)
      if (event.kind === 'snapshot') for (const entry of event.entries) state.set(entry.key, entry.value)
      if (event.kind === 'changes')
        for (const { key, entry } of event.changes) {
          if (entry) state.set(key, entry.value)
          else state.delete(key)
        }
      for (const wake of waiting) wake()
    }
  })()
  return {
    state,
    events,
    async until(test: () => boolean, ms = 10_000): Promise<boolean> {
      const end = Date.now() + ms
      while (!test()) {
        if (Date.now() > end) return false
        await new Promise<void>(resolve => {
          const timer = setTimeout(resolve, 50)
          waiting.add(() => {
            clearTimeout(timer)
            resolve()
          })
        })
        waiting.clear()
      }
      return true
    },
    async close() {
      stop.abort(new Error('done'))
      await running
    },
  }
}

export const storeSuite = (t: Test, name: string, open: () => Promise<Subject>): void => {
  t.test(`${name}: put, get, list, delete`, async t => {
    const { store, close } = await open()
    t.equal(await store.get('a/1'), undefined)
    const first = await store.commit(
      [],
      [
        { kind: 'put', key: 'a/2', value: 'two' },
        { kind: 'put', key: 'a/1', value: 'ünö' },
      ],
    )
    await store.commit([], [{ kind: 'put', key: 'ab', value: 'x' }])
    t.same(await store.get('a/1'), { key: 'a/1', value: 'ünö', revision: first })
    const { entries, revision } = await store.list('a/')
    t.same(
      entries.map(entry => entry.key),
      ['a/1', 'a/2'],
      'ordered, and only below the prefix',
    )
    t.ok(revision > first)
    await store.commit([], [{ kind: 'delete', key: 'a/1' }])
    t.equal(await store.get('a/1'), undefined)
    await close()
  })

  t.test(`${name}: a commit whose compare does not hold writes nothing`, async t => {
    const { store, close } = await open()
    const at = await store.commit([{ key: 'k', is: 'absent' }], [{ kind: 'put', key: 'k', value: '1' }])
    const put = { kind: 'put', key: 'other', value: 'x' } as const
    await t.rejects(store.commit([{ key: 'k', is: 'absent' }], [put]), { code: 'CONFLICT' })
    await t.rejects(store.commit([{ key: 'none', is: 'present' }], [put]), { code: 'CONFLICT' })
    await t.rejects(store.commit([{ key: 'k', is: 'at', revision: at + 1n }], [put]), { code: 'CONFLICT' })
    t.equal(await store.get('other'), undefined)
    await store.commit(
      [
        { key: 'k', is: 'at', revision: at },
        { key: 'k', is: 'present' },
      ],
      [put],
    )
    t.equal((await store.get('other'))?.value, 'x')
    await close()
  })

  t.test(`${name}: of fifty that swap one key, one wins`, async t => {
    const { store, close } = await open()
    const at = await store.commit([], [{ kind: 'put', key: 'k', value: '0' }])
    const tries = Array.from({ length: 50 }, (_, i) =>
      store.commit([{ key: 'k', is: 'at', revision: at }], [{ kind: 'put', key: 'k', value: String(i) }]),
    )
    const results = await Promise.allSettled(tries)
    t.equal(results.filter(result => result.status === 'fulfilled').length, 1)
    await close()
  })

  t.test(`${name}: limits are said before anything is written`, async t => {
    const { store, close } = await open()
    const many = Array.from({ length: 101 }, (_, i) => ({ kind: 'put' as const, key: `k${i}`, value: '' }))
    await t.rejects(store.commit([], many), { code: 'INVALID' })
    await t.rejects(store.commit([], [{ kind: 'put', key: 'big', value: 'x'.repeat(512 * 1024 + 1) }]), {
      code: 'INVALID',
    })
    await store.commit([], many.slice(0, 100))
    t.equal((await store.list('k')).entries.length, 100)
    await close()
  })

  t.test(`${name}: lists more than a page, all of one revision`, async t => {
    const { store, close } = await open()
    for (let i = 0; i < 25; i++)
      await store.commit(
        [],
        Array.from({ length: 100 }, (_, j) => ({
          kind: 'put' as const,
          key: `p/${String(i * 100 + j).padStart(5, '0')}`,
          value: 'v',
        })),
      )
    const { entries } = await store.list('p/')
    t.equal(entries.length, 2500)
    t.same(
      entries.map(entry => entry.key),
      entries.map(entry => entry.key).sort(),
    )
    await close()
  })

  t.test(`${name}: a watch begins with a snapshot and misses nothing`, async t => {
    const { store, close } = await open()
    await store.commit(
      [],
      [
        { kind: 'put', key: 'w/0', value: 'before' },
        { kind: 'put', key: 'x', value: 'elsewhere' },
      ],
    )
    const watch = follow(store, 'w/')
    t.ok(await watch.until(() => watch.events.length > 0))
    t.equal(watch.events[0]?.kind, 'snapshot')
    const work = Array.from({ length: 1000 }, (_, i) =>
      store.commit(
        [],
        [
          { kind: 'put', key: `w/${i % 100}`, value: String(i) },
          { kind: 'put', key: `x/${i}`, value: '' },
        ],
      ),
    )
    await Promise.all(work)
    await store.commit([], [{ kind: 'delete', key: 'w/0' }])
    const { entries } = await store.list('w/')
    t.ok(await watch.until(() => watch.state.size === entries.length && !watch.state.has('w/0')))
    t.same(new Map(entries.map(entry => [entry.key, entry.value])), watch.state)
    let last = 0n
    for (const event of watch.events)
      if ('revision' in event) {
        t.ok(event.revision >= last)
        last = event.revision
      }
    await watch.close()
    await close()
  })

  t.test(`${name}: what hangs on a lease goes with it`, async t => {
    const { store, close } = await open()
    const lease = await store.lease(2000)
    await store.commit([], [{ kind: 'put', key: 'l', value: 'x', lease }])
    await new Promise(resolve => setTimeout(resolve, 3500))
    t.ok(await store.get('l'), 'kept alive beyond its TTL')
    await lease.close()
    await lease.close()
    t.equal(await store.get('l'), undefined)
    await close()
  })

  t.test(`${name}: an aborted call rejects, a closed store too, twice closed is closed`, async t => {
    const { store, close } = await open()
    await t.rejects(store.get('a', { signal: AbortSignal.abort(new Error('no')) }))
    const watch = follow(store, '')
    await watch.until(() => watch.events.length > 0)
    await store.close()
    await store.close()
    await watch.close()
    await t.rejects(store.get('a'))
    await close()
  })
}

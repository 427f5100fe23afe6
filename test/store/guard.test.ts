// SPDX-License-Identifier: Apache-2.0
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { guardStore } from '../../src/store/guard.ts'
import type { Store, Write } from '../../src/store/store.ts'
import { follow } from '../suites/store.ts'

const fill = async (store: Store, cluster = 'c1'): Promise<void> => {
  const writes: Write[] = [
    { kind: 'put', key: 'cluster', value: JSON.stringify({ id: cluster }) },
    { kind: 'put', key: 'nodes/a', value: '{}' },
    { kind: 'put', key: 'nodes/b', value: '{}' },
  ]
  for (let i = 0; i < 30; i++) writes.push({ kind: 'put', key: `endpoints/n/${i}`, value: String(i) })
  await store.commit([], writes)
}
const parts = async () => ({ dir: await mkdtemp(join(tmpdir(), 'weft-guard-')), log: silentLog, clock: systemClock })

t.test('a store emptied while we run is not believed, nothing goes, until it is accepted', async t => {
  const inner = await openEmbeddedStore({})
  const store = await guardStore(inner, await parts())
  await fill(store)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 33))
  const { entries } = await inner.list('')
  await inner.commit(
    [],
    entries.map(({ key }): Write => ({ kind: 'delete', key })),
  )
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'))
  t.equal(watch.state.size, 33)
  await t.rejects(store.commit([], [{ kind: 'put', key: 'x', value: '' }]), {
    code: 'STORE_SUSPECT',
    message: /weft store accept/,
  })
  await store.accept()
  t.ok(await watch.until(() => watch.state.size === 0))
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'available'), 'available after what was missed')
  await watch.close()
  await store.close()
})

t.test('the right store coming back is believed by itself', async t => {
  const inner = await openEmbeddedStore({})
  const store = await guardStore(inner, await parts())
  await fill(store)
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.state.size === 33))
  await inner.commit([], [{ kind: 'delete', key: 'cluster' }])
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'))
  await inner.commit([], [{ kind: 'put', key: 'cluster', value: JSON.stringify({ id: 'c1' }) }])
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'changes', 8000))
  t.equal(watch.state.size, 33)
  await watch.close()
  await store.close()
})

t.test('a change of ordinary size is believed', async t => {
  const store = await guardStore(await openEmbeddedStore({}), await parts())
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
  t.ok(await watch.until(() => watch.state.size === 31, 8000))
  await watch.close()
  await store.close()
})

for (const [what, prepare] of [
  ['another cluster', (store: Store) => fill(store, 'c2')],
  ['an empty store', async () => {}],
  ['another engine with the same cluster', (store: Store) => fill(store)],
] as const)
  t.test(`${what} found at a start is not believed; the start is from the disk`, async t => {
    const options = await parts()
    const first = await guardStore(await openEmbeddedStore({}), options)
    await fill(first)
    const before = follow(first, '')
    t.ok(await before.until(() => before.state.size === 33))
    await before.close()
    await first.close()
    const inner = await openEmbeddedStore({})
    await prepare(inner)
    const store = await guardStore(inner, options)
    const watch = follow(store, '')
    t.ok(
      await watch.until(() =>
        watch.events.some(event => event.kind === 'unavailable' && /not believed/.test(event.error.message)),
      ),
    )
    t.equal(watch.events[0]?.kind, 'snapshot')
    t.equal(watch.state.size, 33)
    await watch.close()
    await store.close()
  })

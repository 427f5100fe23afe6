// SPDX-License-Identifier: Apache-2.0
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { openHub } from '../../src/store/hub.ts'
import type { Entry } from '../../src/store/store.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

t.test('a watch lets go of where it began', async t => {
  const hub = openHub()
  const stop = new AbortController()
  t.teardown(() => stop.abort())
  const entry = (): Entry => ({ key: 'a', value: 'x', revision: 1n })
  let first: WeakRef<Entry> | undefined
  const watch = hub.watch('', stop.signal, () => {
    const begin = entry()
    first = new WeakRef(begin)
    return { entries: [begin], revision: 1n }
  })
  t.equal((await watch.next()).value.kind, 'snapshot')
  hub.tell([{ key: 'a', entry: entry() }], 2n, false)
  t.equal((await watch.next()).value.kind, 'changes')
  const waiting = watch.next()
  await new Promise(resolve => setTimeout(resolve, 10)) // what a WeakRef gives lives until its task ends
  collect()
  t.equal(first?.deref(), undefined)
  stop.abort()
  await waiting
})

// SPDX-License-Identifier: Apache-2.0
// Another host's mirror, as weftd reads its store: says when it had what. A process of its own.
import { systemClock as clock } from '../../src/base/clock.ts'
import { silentLog as log } from '../../src/base/log.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { guardStore } from '../../src/store/guard.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { answering } from '../frame/child.ts'

/** First what to look for, answered at once, then written by whoever asks; then whether it came, answered when it did. */
export type Await =
  | { readonly kind: 'expect'; readonly network: string; readonly endpoints: readonly string[] }
  | { readonly kind: 'had' }

export interface Had {
  /** ns of the machine's monotonic clock, which all processes share. */
  readonly at: string
}

const [endpoint, prefix, dir] = process.argv.slice(2) as [string, string, string]
const etcd = await openEtcdStore({ endpoints: [endpoint], prefix, log, clock })
const store = await guardStore(etcd, { dir, log, clock })
const mirror = openMirror(store, log)
await mirror.ready()
const now = (): Had => ({ at: String(process.hrtime.bigint()) })

let had = Promise.resolve(now())

const expect = (network: string, endpoints: readonly string[]): Promise<Had> => {
  const missing = new Set(endpoints)
  return new Promise(resolve => {
    const stop = mirror.subscribe(changed => {
      if (changed === 'all') return
      for (const [table, within, endpoint] of changed)
        if (table === 'endpoints' && within === network) missing.delete(endpoint!)
      if (missing.size > 0) return
      stop()
      resolve(now())
    })
  })
}

answering(async (question: Await): Promise<Had> => {
  if (question.kind === 'had') return had
  had = expect(question.network, question.endpoints)
  return now()
})
process.send!(now())

// SPDX-License-Identifier: Apache-2.0
// The watch on a member that answers as etcd since 3.4.25 and 3.5.8 does: where it stands is told only to a watch that
// begins no later than that, so one that waits for the next revision is told nothing until it comes.
import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Members } from '../../src/store/etcd-client.ts'
import { watchPrefix } from '../../src/store/watch.ts'

const head = { engine: '7', revision: 5n }
const answer = (fields: object) => ({
  ...{ header: { cluster_id: head.engine, revision: String(head.revision) }, watch_id: '0', created: false },
  ...{ canceled: false, compact_revision: '0', cancel_reason: '', fragment: false, events: [], ...fields },
})

t.test('a store in which nothing happens is there', async t => {
  let begins = 0n
  const raw = Object.assign(new EventEmitter(), {
    cancel: () => {},
    write(request: { create_request?: { start_revision: string } }) {
      if (request.create_request) {
        begins = BigInt(request.create_request.start_revision)
        setImmediate(() => raw.emit('data', answer({ created: true })))
      } else if (head.revision >= begins) setImmediate(() => raw.emit('data', answer({ watch_id: '-1' })))
    },
  })
  const member = { endpoint: 'one', client: { watchClient: { watch: async () => raw } } }
  const stop = new AbortController()
  let heard = 0
  const events = watchPrefix({
    members: { current: () => member, passOver: () => {} } as unknown as Members,
    ...{ prefix: '/t/', part: '', clock: systemClock, log: silentLog, signal: stop.signal, auditEveryMs: 60_000 },
    list: async () => ({ ...head, entries: [] }),
    head: async () => head,
    unavailable: cause => cause as Error,
    onAuditRepair: () => {},
    onHeard: () => heard++,
  })
  t.match((await events.next()).value, { kind: 'snapshot' })
  const next = events.next()
  for (let i = 0; i < 200 && heard === 0; i++) await sleep(10)
  t.ok(heard > 0, 'it has shown that it has everything')
  t.equal(await Promise.race([next, sleep(100, 'nothing')]), 'nothing', 'and is not taken for silent')
  stop.abort(new Error('done'))
  await next
})

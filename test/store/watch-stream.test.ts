// SPDX-License-Identifier: Apache-2.0
import { EventEmitter } from 'node:events'
import type { Etcd3 } from 'etcd3'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { openWatchStream } from '../../src/store/watch-stream.ts'

/** As etcd's answers come out of the package: all fields there, 64-bit numbers as text. */
const answer = (fields: object) => ({
  header: { cluster_id: '7', revision: '9007199254740995' },
  watch_id: '0',
  created: false,
  canceled: false,
  compact_revision: '0',
  cancel_reason: '',
  fragment: false,
  events: [],
  ...fields,
})
const event = (revision: string) => ({ type: 'Put', kv: { mod_revision: revision } })

const opened = async (t: Test, signal = new AbortController().signal) => {
  const raw = Object.assign(new EventEmitter(), {
    written: [] as object[],
    ended: false,
    cancelled: false,
    write: (request: object) => void raw.written.push(request),
    end: () => {
      raw.ended = true
    },
    cancel: () => {
      raw.cancelled = raw.ended
    },
  })
  const client = { watchClient: { watch: async () => raw } } as unknown as Etcd3
  const stream = await openWatchStream(client, Buffer.from('/t/'), 9007199254740993n, systemClock, signal)
  t.teardown(() => stream.close())
  return { raw, stream }
}

t.test('asks for everything below the prefix from the revision on, to the last digit', async t => {
  const { raw, stream } = await opened(t)
  t.match(raw.written, [
    {
      create_request: {
        key: Buffer.from('/t/'),
        range_end: Buffer.from('/t0'),
        start_revision: '9007199254740993',
        progress_notify: true,
        fragment: true,
      },
    },
  ])
  stream.ask()
  t.same(raw.written[1], { progress_request: {} })
  stream.close()
  t.ok(raw.cancelled, 'ended first')
})

t.test('joins the fragments of an answer, also past what comes in between', async t => {
  const { raw, stream } = await opened(t)
  raw.emit('data', answer({ created: true }))
  raw.emit('data', answer({ fragment: true, events: [event('5'), event('6')] }))
  raw.emit('data', answer({ watch_id: '-1' }))
  raw.emit('data', answer({ fragment: true, events: [event('6')] }))
  raw.emit('data', answer({ events: [event('7')] }))
  raw.emit('data', answer({ events: [event('8')] }))
  t.same(await stream.next(10), { kind: 'created', engine: '7' })
  t.same(await stream.next(10), { kind: 'member', revision: 9007199254740995n })
  t.same(await stream.next(10), { kind: 'events', events: ['5', '6', '6', '7'].map(event) })
  t.same(await stream.next(10), { kind: 'events', events: [event('8')] })
})

t.test("tells the watch's own progress from the member's, and why it ended", async t => {
  const { raw, stream } = await opened(t)
  raw.emit('data', answer({}))
  raw.emit('data', answer({ canceled: true, compact_revision: '12' }))
  raw.emit('data', answer({ canceled: true, cancel_reason: 'permission denied' }))
  raw.emit('data', answer({ canceled: true }))
  t.same(await stream.next(10), { kind: 'progress', revision: 9007199254740995n })
  t.same(await stream.next(10), { kind: 'compacted' })
  t.same(await stream.next(10), { kind: 'cancelled', reason: 'permission denied' })
  t.same(await stream.next(10), { kind: 'cancelled', reason: 'no reason given' })
})

t.test('waits no longer than asked; what had arrived is read before the end is thrown', async t => {
  const { raw, stream } = await opened(t)
  t.equal(await stream.next(1), undefined)
  const waiting = stream.next(10_000)
  raw.emit('data', answer({ events: [event('5')] }))
  raw.emit('data', answer({ events: [event('6')] }))
  raw.emit('error', new Error('14 UNAVAILABLE'))
  t.match(await waiting, { events: [event('5')] })
  t.match(await stream.next(10_000), { events: [event('6')] })
  await t.rejects(stream.next(10_000), { message: '14 UNAVAILABLE' })
  const ended = await opened(t)
  ended.raw.emit('end')
  await t.rejects(ended.stream.next(10_000), { message: 'the stream ended' })
})

t.test('an abort wakes who waits', async t => {
  const stop = new AbortController()
  const { stream } = await opened(t, stop.signal)
  const waiting = stream.next(10_000)
  stop.abort(new Error('enough'))
  await t.rejects(waiting, { message: 'enough' })
})

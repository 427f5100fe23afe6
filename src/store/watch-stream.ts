// SPDX-License-Identifier: Apache-2.0
// One raw watch stream of etcd, as a queue of messages with whole revisions: fragments are joined. It breaks off by
// throwing, once what had arrived before has been read.
import type { Etcd3, IEvent, IWatchResponse } from 'etcd3'
import type { Clock } from '../base/clock.ts'
import { endOf, endStream } from './etcd-client.ts'

export type WatchMessage =
  /** `engine`: the cluster that the member belongs to. */
  | { readonly kind: 'created'; readonly engine: string }
  /** Events of one or more whole revisions, in order. */
  | { readonly kind: 'events'; readonly events: readonly IEvent[] }
  /** The server says that the watch has everything up to here. */
  | { readonly kind: 'progress'; readonly revision: bigint }
  /**
   * Where the member's data are, asked by `ask`. Says nothing about the watch: up to 3.4.24 and 3.5.7 the answer
   * overtakes events that are still to come.
   */
  | { readonly kind: 'member'; readonly revision: bigint }
  | { readonly kind: 'compacted' }
  | { readonly kind: 'cancelled'; readonly reason: string }

export interface WatchStream {
  /** The next message; undefined when none came for so long. Throws when the stream broke off. */
  next(waitMs: number): Promise<WatchMessage | undefined>
  /** Asks for a message `member`. */
  ask(): void
  close(): void
}

export const openWatchStream = async (
  client: Etcd3,
  key: Buffer,
  from: bigint,
  clock: Clock,
  signal: AbortSignal,
): Promise<WatchStream> => {
  const stream = await client.watchClient.watch()
  const queue: WatchMessage[] = []
  let parts: IEvent[] = [] // of a fragmented answer
  let failed: Error | undefined
  let wake = (): void => {}

  const fail = (error: Error): void => {
    failed ??= error
    wake()
  }
  const onAbort = (): void => fail(signal.reason as Error)
  stream.on('data', answer => {
    const message = read(answer)
    if (!message) return
    queue.push(message)
    wake()
  })
  stream.on('error', fail) // stays: a cancelled stream has a last word
  stream.on('end', () => fail(new Error('the stream ended')))
  signal.addEventListener('abort', onAbort, { once: true })

  const read = (answer: IWatchResponse): WatchMessage | undefined => {
    if (answer.canceled)
      return BigInt(answer.compact_revision) > 0n
        ? { kind: 'compacted' }
        : { kind: 'cancelled', reason: answer.cancel_reason || 'no reason given' }
    if (answer.created) return { kind: 'created', engine: answer.header.cluster_id }
    if (BigInt(answer.watch_id) < 0n) return { kind: 'member', revision: BigInt(answer.header.revision) }
    if (answer.fragment || parts.length > 0) {
      for (const event of answer.events) parts.push(event)
      if (answer.fragment) return undefined
      const events = parts
      parts = []
      return { kind: 'events', events }
    }
    if (answer.events.length > 0) return { kind: 'events', events: answer.events }
    return { kind: 'progress', revision: BigInt(answer.header.revision) }
  }

  stream.write({
    create_request: {
      key,
      range_end: endOf(key),
      start_revision: String(from),
      progress_notify: true,
      fragment: true,
    },
  })
  return {
    async next(waitMs) {
      if (queue.length === 0 && !failed)
        await new Promise<void>(resolve => {
          const timer = clock.after(waitMs, resolve)
          wake = () => {
            timer.cancel()
            resolve()
          }
        })
      if (signal.aborted) throw signal.reason
      const message = queue.shift()
      if (!message && failed) throw failed
      return message
    },
    ask() {
      stream.write({ progress_request: {} })
    },
    close() {
      signal.removeEventListener('abort', onAbort)
      endStream(stream)
    },
  }
}

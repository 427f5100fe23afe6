// SPDX-License-Identifier: Apache-2.0
// The connections to etcd (package etcd3, for get, put, transaction and lease; its Watcher is forbidden, see watch.ts).
// The rules of a connection: one TCP connection per kind of call, so that big reads cannot starve a watch; pings,
// because a dead path stays unnoticed otherwise; no limit on the size of an answer. One client per endpoint, and
// neither the package's retries nor its breaker: it would send a commit again whose answer got lost, and take its own
// first attempt for somebody else's.
import { Etcd3, type IKeyValue } from 'etcd3'
import type { TlsContent, TlsReader } from './etcd-tls.ts'
import type { Entry } from './store.ts'

export interface Member {
  readonly endpoint: string
  /** Another one after certificate files were replaced: not to be kept. */
  readonly client: Etcd3
}

export interface Members {
  readonly count: number
  /** The one in use. */
  current(): Member
  /**
   * It does not answer, or not with the truth: the next takes over, unless one has already. The next connections are
   * made with the certificate files as they are now.
   */
  passOver(member: Member): void
  close(): void
}

/** `onRenewed`: replaced certificate files were taken. */
export const openMembers = (endpoints: readonly string[], tls?: TlsReader, onRenewed = (): void => {}): Members => {
  const members = endpoints.map(endpoint => ({ endpoint, client: openClient(endpoint, tls?.content) }))
  const renew = (): void => {
    const content = tls?.renewed()
    if (!content) return
    for (const member of members) {
      member.client.close() // what it is at goes on to its end
      member.client = openClient(member.endpoint, content)
    }
    onRenewed()
  }
  let at = Math.floor(Math.random() * members.length) // not all nodes at the first
  return {
    count: members.length,
    current: () => members[at]!,
    passOver(member) {
      renew()
      if (members[at] === member) at = (at + 1) % members.length
    },
    close() {
      for (const { client } of members) client.close()
    },
  }
}

type ClientOptions = NonNullable<ConstructorParameters<typeof Etcd3>[0]>
type Policy = NonNullable<NonNullable<ClientOptions['faultHandling']>['global']>

/** The package asks a policy only to execute. */
const once = { execute: async (work: (context: unknown) => unknown) => work({}) } as unknown as Policy

const openClient = (endpoint: string, tls: TlsContent | undefined): Etcd3 =>
  new Etcd3({
    hosts: [endpoint],
    ...(tls ? { credentials: tls } : {}),
    faultHandling: { global: once, host: () => once },
    grpcOptions: {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    },
  })

/** A stream that is over. One cancelled with its half open is to the package a broken host: it closes every connection there. */
export const endStream = (stream: { end(): void; cancel(): void }): void => {
  stream.end()
  stream.cancel()
}

export const entryOf = (prefix: string, kv: IKeyValue): Entry => ({
  key: kv.key.toString('utf8', Buffer.byteLength(prefix)), // a slice of the text would hold the whole
  value: kv.value.toString('utf8'),
  revision: BigInt(kv.mod_revision),
})

/** First key after all that begin with `prefix`. */
export const endOf = (prefix: Buffer): Buffer => {
  const end = Buffer.from(prefix)
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 0xff) {
      end[i]!++
      return end.subarray(0, i + 1)
    }
  }
  return Buffer.from([0])
}

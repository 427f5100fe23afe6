// SPDX-License-Identifier: Apache-2.0
// A lease in etcd, kept alive by unary-like rounds on the keep-alive stream of our own. The package's lease says `lost`
// only at 2.7 times the TTL; here our monotonic clock decides.
import type { Etcd3 } from 'etcd3'
import { type Clock, sleep } from '../base/clock.ts'
import type { Lease } from './store.ts'

export const openLease = async (
  client: Etcd3,
  ttlMs: number,
  clock: Clock,
  limit: <T>(work: () => Promise<T>) => Promise<T>,
): Promise<Lease> => {
  const ttl = Math.max(1, Math.ceil(ttlMs / 1000))
  const { ID: id } = await limit(() => client.leaseClient.leaseGrant({ TTL: ttl, ID: 0 }))
  const stop = new AbortController()
  const lost = Promise.withResolvers<void>()
  let renewed = clock.monotonic()

  /** One renewal on a stream of its own; true: the server still has the lease. */
  const renew = async (): Promise<boolean> => {
    const stream = await client.leaseClient.leaseKeepAlive()
    try {
      return await new Promise<boolean>((resolve, reject) => {
        stream.on('data', answer => resolve(Number(answer.TTL) > 0))
        stream.on('error', reject)
        stream.on('end', () => reject(new Error('the stream ended')))
        stream.write({ ID: id })
      })
    } finally {
      stream.on('error', () => {})
      stream.end()
    }
  }

  const keep = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await sleep(clock, (ttl * 1000) / 3, stop.signal)
      const asked = clock.monotonic()
      const answer = await Promise.race([
        renew().catch(() => undefined),
        sleep(clock, (ttl * 1000) / 3, stop.signal).then(() => undefined),
      ])
      if (answer === true) renewed = asked
      else if (answer === false || clock.monotonic() - renewed > ttl * 1000) return lost.resolve()
    }
  }
  const keeping = keep().catch(() => {})

  return {
    id,
    lost: lost.promise,
    async close() {
      if (stop.signal.aborted) return
      stop.abort(new Error('closed'))
      await keeping
      await limit(() => client.leaseClient.leaseRevoke({ ID: id })).catch(() => {})
    },
  }
}

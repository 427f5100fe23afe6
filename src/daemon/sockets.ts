// SPDX-License-Identifier: Apache-2.0
// Sockets that weftd opens in the namespaces of the data path, and in the host's.
import { closeSync } from 'node:fs'
import { pathOf } from '../kernel/namespaces.ts'
import type { HeldPort } from '../mesh/holder.ts'
import { familyOf } from '../model/address.ts'
import { netnsSocket } from '../netlink/netns.ts'

/**
 * Bound to nothing yet: to connect from. A port that was chosen here would have to be free towards everybody, and closed
 * connections keep theirs for a minute (TIME_WAIT): a thousand probes a second would have them all.
 */
export const dialSocket = (ns: string, to: string): Promise<number> =>
  netnsSocket(pathOf(ns), { type: 'tcp', address: familyOf(to) === 4 ? '0.0.0.0' : '::', port: 0, unbound: true })

/** Connections of a process that is gone (TIME_WAIT) do not stand in the way. */
export const holdSocket = async ({ proto, port, address }: HeldPort & { address: string }): Promise<() => void> => {
  const want = { type: proto === 'tcp' ? 'tcp' : 'udp', address, port, held: true } as const
  const fd = await netnsSocket(undefined, want).catch(error => {
    if (proto !== 'tcp' || (error as { errnoName?: string }).errnoName !== 'EADDRINUSE') throw error
    return netnsSocket(undefined, { ...want, reuseAddr: true })
  })
  return () => closeSync(fd)
}

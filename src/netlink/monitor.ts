// SPDX-License-Identifier: Apache-2.0
// What the kernel tells unasked: changes of links, addresses, routes, neighbours, nf_tables, conntrack. A thread reads
// ahead of the event loop; a blocked loop gets everything gathered meanwhile in one call. Open the monitor first,
// then dump: nothing falls between.
import { WeftError } from '../base/errors.ts'
import { native } from './addon.ts'
import { NetlinkError } from './errors.ts'
import { type Message, messages } from './message.ts'

export interface MonitorOptions {
  readonly protocol: number
  readonly netns?: string | undefined
  /** Multicast groups: RTNLGRP.LINK, ... ; at least one. */
  readonly groups: readonly number[]
  /** Our own changes come back too: compare Message.port with Netlink.port, or be idempotent. What it refuses (KERNEL) is lost. */
  onMessages(messages: Message[]): void
  /** Events were lost: dump everything. Comes after the messages read before and, perhaps, some from after. */
  onLost(): void
  /** Kernel's buffer in bytes; default 16 MB, which held 100,000 FDB events in 0.4 s. */
  readonly rcvbuf?: number
  /** Bytes kept by the thread for a blocked loop; default 32 MB. */
  readonly backlog?: number
}

export interface Monitor {
  /** No call back after this; resolves when the thread is gone. May be repeated. */
  close(): Promise<void>
}

/** Throws NetlinkError. Keeps the process alive until closed. */
export const openMonitor = async (options: MonitorOptions): Promise<Monitor> => {
  const op = `open netlink monitor in ${options.netns ?? 'own namespace'}`
  if (options.groups.length === 0) throw new NetlinkError({ op, errno: 22, detail: 'no groups' })
  const onEvents = (data: Buffer, lost: boolean): void => {
    let broken = false
    const found: Message[] = []
    try {
      for (const message of messages(data)) found.push(message)
    } catch {
      broken = true // never seen; what cannot be read is lost
    }
    try {
      if (found.length > 0) options.onMessages(found)
    } catch (error) {
      if (!(error instanceof WeftError && error.code === 'KERNEL')) throw error
      broken = true // one message makes no sense: nobody knows what it told, or those behind it
    }
    if (lost || broken) options.onLost()
  }
  const opened = await native().openSocket(
    {
      protocol: options.protocol,
      netns: options.netns ?? '',
      rcvbuf: options.rcvbuf ?? 16 << 20,
      sndbuf: 0,
      deadlineMs: 0,
      backlog: options.backlog ?? 32 << 20,
      groups: options.groups,
    },
    onEvents,
  )
  if (opened.errno !== 0) throw new NetlinkError({ op, errno: opened.errno, detail: opened.syscall })
  return { close: () => native().closeSocket(opened.id) }
}

// SPDX-License-Identifier: Apache-2.0
// The only file that loads the native part (native/addon.cc). It moves bytes and enters namespaces; it knows no
// attributes. Nothing here throws for what the system refuses: the outcome carries errno and the system call.
import { createRequire } from 'node:module'
import { WeftError } from '../base/errors.ts'

export interface NativeOutcome {
  /** 0 is success. */
  readonly errno: number
  readonly syscall: string
}

export interface NativeSocketOptions {
  readonly protocol: number
  readonly netns: string
  readonly rcvbuf: number
  readonly sndbuf: number
  readonly deadlineMs: number
  readonly backlog: number
  readonly groups: readonly number[]
}

export interface NativeResult extends NativeOutcome {
  /** Whole messages, each on a 4-byte boundary; the sequence number is the index of the request. */
  readonly replies: Buffer
  readonly covered: number
  readonly interrupted: boolean
}

export const jobKind = { chunked: 0, atomic: 1, dump: 2 } as const
export type JobKind = (typeof jobKind)[keyof typeof jobKind]

interface TaskOutcome extends NativeOutcome {
  readonly text: string
  readonly number: number
}

export interface Native {
  openSocket(
    options: NativeSocketOptions,
    onEvents?: (data: Buffer, lost: boolean) => void,
  ): Promise<NativeOutcome & { readonly id: number; readonly port: number }>
  /** The buffer belongs to the native side until the promise settles. */
  submit(id: number, kind: JobKind, buffer: Buffer, length: number): Promise<NativeResult>
  closeSocket(id: number): Promise<void>
  netnsCreate(path: string): Promise<TaskOutcome>
  netnsDelete(path: string): Promise<TaskOutcome>
  netnsOpenFd(path: string): Promise<TaskOutcome>
  netnsInode(path: string): Promise<TaskOutcome>
  netnsRead(netns: string, file: string): Promise<TaskOutcome>
  netnsWrite(netns: string, file: string, text: string): Promise<TaskOutcome>
  netnsPacket(netns: string, ifindex: number, protocol: number, filter: Buffer): Promise<TaskOutcome>
  netnsSocket(netns: string, address: string, port: number, bits: number): Promise<TaskOutcome>
}

const require = createRequire(import.meta.url)
const file = '../../native/build/Release/weft_netlink.node' // the same from src/netlink and from dist/netlink

/** Loaded at the first use (Node keeps it), so that pure code can be imported where the addon was not built. */
export const native = (): Native => {
  try {
    return require(file) as Native
  } catch (cause) {
    throw new WeftError('NOT_SUPPORTED', 'load the native netlink part: build it with "node native/build.mjs"', {
      cause,
    })
  }
}

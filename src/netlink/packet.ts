// SPDX-License-Identifier: Apache-2.0
// Whole Ethernet frames on one link (packet(7)), for what no other socket can say: ARP, and ND without an address.
import { closeSync, readSync, writeSync } from 'node:fs'
import { native } from './addon.ts'
import { NetlinkError } from './errors.ts'

/** One instruction of a classic BPF program, as struct sock_filter. */
export type BpfStep = readonly [code: number, jt: number, jf: number, k: number]

/** linux/bpf_common.h, the few that comparing fields takes: load a byte or a word, compare, return. */
export const BPF = { LDB: 0x30, LDW: 0x20, JEQ: 0x15, RET: 0x06 } as const

export interface PacketOptions {
  readonly netns?: string
  readonly ifindex: number
  /** EtherType of what is received. */
  readonly protocol: number
  /** Absent: every frame of that type. */
  readonly filter?: readonly BpfStep[]
}

export interface PacketSocket {
  /** From the destination MAC on. Throws where the link is down or gone. */
  send(frame: Uint8Array): void
  /** The next that came, at most its first 2,048 bytes; undefined: none yet. */
  receive(): Buffer | undefined
  /** May be repeated. */
  close(): void
}

/** Throws NetlinkError: ENODEV without the link, EPERM without CAP_NET_RAW. */
export const openPacketSocket = async (options: PacketOptions): Promise<PacketSocket> => {
  const { netns, ifindex, protocol, filter = [] } = options
  const opened = await native().netnsPacket(netns ?? '', ifindex, protocol, programOf(filter))
  const op = `open packet socket on link ${ifindex} in ${netns ?? 'own namespace'}`
  if (opened.errno !== 0) throw new NetlinkError({ op, errno: opened.errno, detail: opened.syscall })
  let fd: number | undefined = opened.number
  const open = (): number => {
    if (fd === undefined) throw new NetlinkError({ op, errno: 9, detail: 'closed' })
    return fd
  }
  return {
    send(frame) {
      try {
        writeSync(open(), frame)
      } catch (error) {
        const { errno, syscall } = error as NodeJS.ErrnoException
        if (errno === undefined || error instanceof NetlinkError) throw error
        // ENOBUFS: it has no carrier
        throw new NetlinkError({ op: `send a frame on link ${ifindex}`, errno: -errno, detail: syscall ?? '' })
      }
    },
    receive() {
      const frame = Buffer.allocUnsafe(2048)
      try {
        return frame.subarray(0, readSync(open(), frame))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
        throw error
      }
    },
    close() {
      if (fd !== undefined) closeSync(fd)
      fd = undefined
    },
  }
}

/** In the byte order of this machine, as the kernel wants it. */
const programOf = (steps: readonly BpfStep[]): Buffer => {
  const data = new DataView(new ArrayBuffer(steps.length * 8))
  const little = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1
  for (const [i, [code, jt, jf, k]] of steps.entries()) {
    data.setUint16(i * 8, code, little)
    data.setUint8(i * 8 + 2, jt)
    data.setUint8(i * 8 + 3, jf)
    data.setUint32(i * 8 + 4, k, little)
  }
  return Buffer.from(data.buffer)
}

// SPDX-License-Identifier: Apache-2.0
// Network namespaces by path (/run/netns/weft-n5); undefined is the process's own. Everything runs on a thread that
// is thrown away afterwards, never on ours. All reject with NetlinkError (errnoName ENOENT, EEXIST, EINVAL, ...).
import { type NativeOutcome, native } from './addon.ts'
import { NetlinkError } from './errors.ts'
import { ipLength } from './text.ts'

const check = <T extends NativeOutcome>(op: string, outcome: T): T => {
  if (outcome.errno !== 0) throw new NetlinkError({ op, errno: outcome.errno, detail: outcome.syscall })
  return outcome
}

/** `ip netns add`: also makes the directory, as a shared mount. EEXIST if the file exists. lo is down. */
export const netnsCreate = async (path: string): Promise<void> => {
  check(`create namespace ${path}`, await native().netnsCreate(path))
}

/** `ip netns delete`. ENOENT if there is none; EINVAL, and nothing is touched, if the file is something else. */
export const netnsDelete = async (path: string): Promise<void> => {
  check(`delete namespace ${path}`, await native().netnsDelete(path))
}

/** A descriptor for netnsFd of a link request. The caller closes it (fs.closeSync). */
export const netnsOpenFd = async (path: string): Promise<number> =>
  check(`open namespace ${path}`, await native().netnsOpenFd(path)).number

/** Identity: equal for two paths exactly if they name the same living namespace. */
export const netnsInode = async (path?: string): Promise<string> =>
  check(`identify namespace ${path ?? '(own)'}`, await native().netnsInode(path ?? '')).text

/** Read a file as seen from inside: /proc/sys/net/..., /proc/thread-self/net/... */
export const netnsRead = async (netns: string | undefined, file: string): Promise<string> =>
  check(`read ${file} in ${netns ?? 'own namespace'}`, await native().netnsRead(netns ?? '', file)).text

/** `ip netns exec NS sysctl -w`: one write to an existing file. */
export const netnsWrite = async (netns: string | undefined, file: string, text: string): Promise<void> => {
  check(`write ${file} in ${netns ?? 'own namespace'}`, await native().netnsWrite(netns ?? '', file, text))
}

export interface NetnsSocket {
  readonly type: 'udp' | 'tcp'
  /** "127.0.0.11", "::"; tells the family. IPv6 sockets take IPv6 only. */
  readonly address: string
  readonly port: number
  /** IP_TRANSPARENT. */
  readonly transparent?: boolean
  readonly reuseAddr?: boolean
  /** Bind although the address is not (yet) there. */
  readonly freebind?: boolean
  /** Only bound: nobody else gets the port, and who connects is refused. */
  readonly held?: boolean
  /** Held, but without a port: connecting finds one that is free towards there. */
  readonly unbound?: boolean
}

/**
 * A socket of that namespace: bound, TCP also listening (backlog 512). For dgram's `bind({ fd })` and net's
 * `listen({ fd })`, which take the descriptor over; otherwise the caller closes it.
 */
export const netnsSocket = async (netns: string | undefined, want: NetnsSocket): Promise<number> => {
  const bits =
    (ipLength(want.address) === 16 ? 1 : 0) |
    (want.type === 'tcp' ? 2 : 0) |
    (want.transparent ? 4 : 0) |
    (want.reuseAddr ? 8 : 0) |
    (want.freebind ? 16 : 0) |
    (want.held || want.unbound ? 32 : 0) |
    (want.unbound ? 128 : 0)
  const op = `bind ${want.type} ${want.address} port ${want.port} in ${netns ?? 'own namespace'}`
  return check(op, await native().netnsSocket(netns ?? '', want.address, want.port, bits)).number
}

/**
 * A socket for ICMPv6 echo (type 128) in that namespace, connected to the address ("fe80::1%gw0", a device of that
 * namespace); non-blocking. What is written is an echo request with its header of 8 bytes; the kernel puts in checksum
 * and identifier, and gives only the answers of this identifier to read, not necessarily from that address. The caller
 * closes it. EACCES: net.ipv4.ping_group_range there does not hold our group.
 */
export const netnsPingSocket = async (netns: string | undefined, address: string): Promise<number> => {
  const op = `open echo socket to ${address} in ${netns ?? 'own namespace'}`
  return check(op, await native().netnsSocket(netns ?? '', address, 0, 1 | 64)).number
}

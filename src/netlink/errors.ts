// SPDX-License-Identifier: Apache-2.0
// What the kernel refused, in its own words: the operation in ours, the errno, the text of the extended ack, and the
// attribute it points at. Decide on `errnoName`, never on the text.
import { constants } from 'node:os'
import { WeftError } from '../base/errors.ts'

export interface NetlinkFailure {
  /** What was tried, as a person would say it: "add fdb entry 02:.. via 192.0.2.7". */
  readonly op: string
  readonly errno: number
  /** The kernel's text, or the system call that failed; empty if there is none. */
  readonly detail?: string
  /** Path of the attribute the kernel complains about, such as "IFLA_LINKINFO.IFLA_INFO_DATA.IFLA_VXLAN_ID". */
  readonly attribute?: string
  /** Position in the batch. */
  readonly index?: number
}

// The kernel's spelling where two names share a number. ERESTART and ENOTSUPP are internal to the kernel, but nf_tables
// and some drivers let them out.
const names = new Map<number, string>([
  ...Object.entries(constants.errno).map(([name, errno]) => [errno, name] as const),
  [11, 'EAGAIN'],
  [54, 'EXFULL'],
  [85, 'ERESTART'],
  [95, 'EOPNOTSUPP'],
  [524, 'ENOTSUPP'],
])

export const errnoName = (errno: number): string => names.get(errno) ?? `errno ${errno}`

// Busy, or the outcome is unknown: the same request may well pass later. 7 is what an fdb insert answers while the
// kernel's table grows.
const retryableNames: ReadonlySet<string> = new Set([
  ...['EBUSY', 'EAGAIN', 'EINTR', 'ENOMEM', 'ENOSPC', 'E2BIG'],
  ...['ENOBUFS', 'ETIMEDOUT', 'ERESTART', 'ECANCELED', 'EADDRINUSE'],
])
const absentNames: ReadonlySet<string> = new Set(['ENOENT', 'ESRCH', 'ENODEV', 'EADDRNOTAVAIL'])

export class NetlinkError extends WeftError {
  readonly op: string
  readonly errno: number
  readonly errnoName: string
  readonly detail: string
  readonly attribute: string
  readonly index: number
  readonly retryable: boolean

  constructor(failure: NetlinkFailure, options?: { cause?: unknown }) {
    const name = errnoName(failure.errno)
    const detail = failure.detail ?? ''
    const attribute = failure.attribute ?? ''
    const where = attribute === '' ? '' : ` (attribute ${attribute})`
    super('KERNEL', `${failure.op}: ${name}${detail === '' ? '' : `: ${detail}`}${where}`, options)
    this.name = 'NetlinkError'
    this.op = failure.op
    this.errno = failure.errno
    this.errnoName = name
    this.detail = detail
    this.attribute = attribute
    this.index = failure.index ?? 0
    this.retryable = retryableNames.has(name)
  }

  /** The thing does not exist: on a removal, success. Which thing, says the operation. */
  get absent(): boolean {
    return absentNames.has(this.errnoName)
  }
}

/** First three failures and the count per errno, for one log line. */
export const summarize = (errors: readonly NetlinkError[]): string => {
  const counts = new Map<string, number>()
  for (const error of errors) counts.set(error.errnoName, (counts.get(error.errnoName) ?? 0) + 1)
  const shown = errors.slice(0, 3).map(error => error.message)
  const totals = [...counts].map(([name, count]) => `${count} ${name}`)
  return errors.length <= 3 ? shown.join('; ') : `${shown.join('; ')}; in all ${totals.join(', ')}`
}

// SPDX-License-Identifier: Apache-2.0
// Every error of weft has a stable code. Decide on the code, never on the text; the table says what a code means to
// each of our edges. docs/errors.md documents every row, and a test keeps the two together.

export interface ErrorMeaning {
  /** May the same call succeed later without anybody changing anything? */
  readonly retryable: boolean
  /** Status of an HTTP answer (Docker's plugin socket). */
  readonly http: number
  /** grpc status number, https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
  readonly grpc: number
  /** Exit code of the command line: 1 error, 2 usage, 3 denied, 4 unknown, 5 behind. */
  readonly exit: number
}

const row = (retryable: boolean, http: number, grpc: number, exit: number): ErrorMeaning => ({
  retryable,
  http,
  grpc,
  exit,
})

export const errorTable = {
  /** The request names something malformed: field and remedy are in the message. */
  INVALID: row(false, 400, 3, 2),
  /** An unknown option, with the nearest known name. */
  UNKNOWN_OPTION: row(false, 400, 3, 2),
  NOT_FOUND: row(false, 500, 5, 4),
  EXISTS: row(false, 500, 6, 1),
  /** Something else of the cluster owns it: address, pool, VNI, name, port. */
  TAKEN: row(false, 500, 6, 1),
  /** A pool, number range or device is exhausted. */
  FULL: row(false, 500, 8, 1),
  /** Still used, so it cannot go. */
  IN_USE: row(false, 500, 9, 1),
  /** The operator drained this node. */
  DRAINED: row(false, 500, 9, 1),
  /** A lost compare-and-swap: look again and repeat. */
  CONFLICT: row(true, 500, 10, 1),
  /** The store does not answer, or is not the one we know. */
  STORE_UNAVAILABLE: row(true, 500, 14, 1),
  /** The store answers, but its content is not to be believed until an operator says so. */
  STORE_SUSPECT: row(false, 500, 9, 1),
  /** Docker's API does not answer, or fails. */
  DOCKER_UNAVAILABLE: row(true, 500, 14, 1),
  /** Done in the store, not yet real in the kernel within the deadline. */
  NOT_REACHED: row(true, 500, 4, 5),
  TIMEOUT: row(true, 500, 4, 1),
  CANCELLED: row(true, 500, 1, 1),
  /** This kernel, engine or build lacks a feature. */
  NOT_SUPPORTED: row(false, 500, 12, 1),
  /** The kernel refused an operation; see NetlinkError. */
  KERNEL: row(true, 500, 13, 1),
  PERMISSION: row(false, 500, 7, 3),
  /** A broken invariant of ours. */
  INTERNAL: row(false, 500, 13, 1),
} as const satisfies Record<string, ErrorMeaning>

export type ErrorCode = keyof typeof errorTable

export class WeftError extends Error {
  readonly code: ErrorCode
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'WeftError'
    this.code = code
  }
}

/** A transaction lost against somebody else's. */
export class ConflictError extends WeftError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('CONFLICT', message, options)
    this.name = 'ConflictError'
  }
}

/** This machine lacks something: says what, and how to get it. */
export class NotSupportedError extends WeftError {
  readonly feature: string
  readonly remedy: string
  constructor(feature: string, remedy: string, options?: { cause?: unknown }) {
    super('NOT_SUPPORTED', `${feature} is not supported here: ${remedy}`, options)
    this.name = 'NotSupportedError'
    this.feature = feature
    this.remedy = remedy
  }
}

/** Exit code of weftd: 2 where its flags, or what they name, are wrong. */
export const daemonExitOf = (error: unknown): number =>
  error instanceof WeftError && errorTable[error.code].exit === 2 ? 2 : 1

/** Code of anything thrown; foreign errors are INTERNAL. */
export const codeOf = (error: unknown): ErrorCode => (error instanceof WeftError ? error.code : 'INTERNAL')

/** One line for people: message and the chain of causes, without stacks. */
export const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : describe(error.cause)
  return cause === '' || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`
}

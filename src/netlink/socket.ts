// SPDX-License-Identifier: Apache-2.0
// Sockets of one protocol in one namespace. Requests are encoded here and sent by a thread of the native part, one
// job at a time in the order of the calls. A socket keeps its namespace and every device in it alive until closed.
import { setTimeout as sleep } from 'node:timers/promises'
import { type JobKind, jobKind, type NativeResult, native } from './addon.ts'
import { NetlinkError } from './errors.ts'
import { type AttributeNames, attributePath } from './explain.ts'
import { attributes, type Message, messages, Writer } from './message.ts'
import { RTM } from './rtnl/uapi.ts'
import {
  NETLINK_ROUTE,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_HDRLEN,
  NLMSGERR_ATTR_MISS_TYPE,
  NLMSGERR_ATTR_MSG,
  NLMSGERR_ATTR_OFFS,
} from './uapi.ts'

export interface Request {
  /** For error messages: verb, object, identity, such as "add fdb entry 02:.. via 192.0.2.7". */
  readonly op: string
  readonly type: number
  /** NLM_F_REQUEST is added. */
  readonly flags: number
  /** Size of the family's header, and names of its attributes: to say which attribute the kernel means. */
  readonly names?: AttributeNames
  /** Writes the family's header and the attributes. */
  encode(writer: Writer): void
}

/** undefined: done. */
export type Outcome = NetlinkError | undefined

export interface NetlinkOptions {
  readonly protocol: number
  /** Path of a namespace file; the process's own if left out. */
  readonly netns?: string | undefined
  /** Bytes; the kernel's default if left out. nf_tables batches need 16 to 64 MB to send. */
  readonly rcvbuf?: number
  readonly sndbuf?: number
  /** Longest wait for one reply. Then the job fails with ETIMEDOUT, and the socket is reopened underneath. */
  readonly deadlineMs?: number
}

export interface AtomicResult {
  /** Replies other than acks, such as echoes and answers to GET; `sequence` is the index of the message. */
  readonly replies: readonly Message[]
  /** In the order the kernel reported them; `index` is the index of the message. Not empty: nothing was done. */
  readonly errors: readonly NetlinkError[]
}

export interface Netlink {
  readonly netns: string | undefined
  /** Our port id in the namespace: events caused by our own requests carry it. */
  readonly port: number
  /**
   * Independent requests, in order; a failure does not stop those behind it. One outcome per request. Sent in chunks
   * (128 messages or 16 KB), so that 100,000 are no more trouble than one. Never rejects.
   */
  batch(requests: readonly Request[]): Promise<Outcome[]>
  /** One request; rejects with its NetlinkError. Resolves to its replies, if any (GET, ECHO). */
  run(request: Request): Promise<Message[]>
  /**
   * Messages in one single send, for nf_tables batches. `build` calls writer.begin/end per message; `op` names the
   * whole. Rejects if the batch could not be sent; what the kernel refused is in the result.
   */
  atomic(op: string, build: (writer: Writer) => void, names?: AttributeNames): Promise<AtomicResult>
  /**
   * Every object of a table. `decode` returns undefined for what is not wanted. A dump that the kernel calls
   * interrupted is repeated up to five times, then rejects with EINTR. An FDB dump is never called so: see neigh.ts.
   */
  dump<T>(request: Request, decode: (message: Message) => T | undefined): Promise<T[]>
  /** Running and queued jobs fail with ECANCELED. Resolves when thread and descriptor are gone. May be repeated. */
  close(): Promise<void>
}

const dumpAttempts = 6
const retryAttempts = 5
const retryDelayMs = 5
const spareLimit = 1 << 20
const partLength = 4096

/** Throws NetlinkError: no such namespace (ENOENT), not a namespace (EINVAL), protocol not in this kernel. */
export const openNetlink = async (options: NetlinkOptions): Promise<Netlink> => {
  const opened = await native().openSocket({
    protocol: options.protocol,
    netns: options.netns ?? '',
    rcvbuf: options.rcvbuf ?? 0,
    sndbuf: options.sndbuf ?? 0,
    deadlineMs: options.deadlineMs ?? 5000,
    backlog: 0,
    groups: [],
  })
  if (opened.errno !== 0) {
    const op = `open netlink socket in ${options.netns ?? 'own namespace'}`
    throw new NetlinkError({ op, errno: opened.errno, detail: opened.syscall })
  }
  return new NativeNetlink(options.protocol, options.netns, opened.id, opened.port)
}

interface Failure {
  readonly index: number
  readonly errno: number
  readonly detail: string
  readonly attribute: string
}

// Payload of NLMSG_ERROR: -errno, our header (all of our request unless CAPPED), then attributes.
// Payload of NLMSG_DONE: -errno, then attributes.
const readFailure = (reply: Message, request: Buffer | undefined, names: AttributeNames | undefined): Failure => {
  const errno = -reply.i32()
  let detail = ''
  let attribute = ''
  if ((reply.flags & NLM_F_ACK_TLVS) !== 0) {
    let offset = 4
    if (reply.type === NLMSG_ERROR)
      offset += (reply.flags & NLM_F_CAPPED) !== 0 ? NLMSG_HDRLEN : (reply.u32(4) + 3) & ~3
    for (const attr of attributes(reply, offset)) {
      if (attr.type === NLMSGERR_ATTR_MSG) detail = attr.text()
      else if (attr.type === NLMSGERR_ATTR_OFFS && request) attribute = attributePath(request, attr.u32(), names)
      else if (attr.type === NLMSGERR_ATTR_MISS_TYPE) attribute = `missing ${attr.u32()}`
    }
  }
  return { index: reply.sequence, errno, detail, attribute }
}

interface Answers {
  readonly outcomes: Outcome[]
  readonly replies: Message[]
}

class NativeNetlink implements Netlink {
  readonly netns: string | undefined
  readonly port: number
  readonly #protocol: number
  readonly #id: number
  #spare: Writer | undefined // the writer of the last finished job; taken by the next

  constructor(protocol: number, netns: string | undefined, id: number, port: number) {
    this.#protocol = protocol
    this.netns = netns
    this.#id = id
    this.port = port
  }

  #takeWriter(): Writer {
    const writer = this.#spare ?? new Writer()
    this.#spare = undefined
    writer.length = 0
    return writer
  }

  #giveBack(writer: Writer): void {
    if (writer.buffer.length <= spareLimit) this.#spare = writer
  }

  #submit(kind: JobKind, writer: Writer): Promise<NativeResult> {
    return native().submit(this.#id, kind, writer.buffer, writer.length)
  }

  async batch(requests: readonly Request[]): Promise<Outcome[]> {
    const parts: Promise<Answers>[] = []
    // the kernel is at work on one part while the next is encoded
    for (let from = 0; from < requests.length; from += partLength)
      parts.push(this.#chunked(requests.slice(from, from + partLength), from))
    const outcomes = (await Promise.all(parts)).flatMap(part => part.outcomes)
    for (let attempt = 1; attempt <= retryAttempts; attempt++) {
      // An fdb table that grows behind a fast writer refuses some rows; a moment later it takes them.
      const again = outcomes.flatMap((error, index) =>
        error && growing(this.#protocol, requests[index]!, error) ? [index] : [],
      )
      if (again.length === 0) break
      await sleep(retryDelayMs)
      const second = await this.#chunked(again.map(index => requests[index]!))
      again.forEach((index, i) => {
        const error = second.outcomes[i]
        outcomes[index] = error && new NetlinkError({ ...error, index })
      })
    }
    return outcomes
  }

  async run(request: Request): Promise<Message[]> {
    const { outcomes, replies } = await this.#chunked([request])
    if (outcomes[0]) throw outcomes[0]
    return replies
  }

  /** Errors count from `base`. Encodes and submits before it returns. */
  async #chunked(requests: readonly Request[], base = 0): Promise<Answers> {
    const outcomes: Outcome[] = new Array(requests.length).fill(undefined)
    const replies: Message[] = []
    const writer = this.#takeWriter()
    const sent: number[] = [] // index of the request behind each message
    const starts: number[] = []
    requests.forEach((request, index) => {
      const start = writer.length
      try {
        encodeRequest(writer, request)
        sent.push(index)
        starts.push(start)
      } catch (cause) {
        writer.truncate(start)
        outcomes[index] = refused(request, base + index, cause)
      }
    })
    if (sent.length === 0) {
      this.#giveBack(writer)
      return { outcomes, replies }
    }
    const result = await this.#submit(jobKind.chunked, writer)
    for (const reply of messages(result.replies)) {
      const index = sent[reply.sequence]!
      const request = requests[index]!
      if (reply.type === NLMSG_ERROR) {
        const bytes = writer.buffer.subarray(starts[reply.sequence], starts[reply.sequence + 1] ?? writer.length)
        const failure = readFailure(reply, bytes, request.names)
        outcomes[index] = new NetlinkError({ ...failure, op: request.op, index: base + index })
      } else {
        replies.push(reply)
      }
    }
    if (result.errno !== 0) {
      // The job broke off: nobody knows what became of the requests that no ack covers.
      for (const index of sent.slice(result.covered)) {
        outcomes[index] ??= new NetlinkError({
          op: requests[index]!.op,
          errno: result.errno,
          detail: `${result.syscall}, outcome unknown`,
          index: base + index,
        })
      }
    }
    this.#giveBack(writer)
    return { outcomes, replies }
  }

  async atomic(op: string, build: (writer: Writer) => void, names?: AttributeNames): Promise<AtomicResult> {
    const writer = this.#takeWriter()
    build(writer)
    const starts = [...messageStarts(writer)]
    const result = await this.#submit(jobKind.atomic, writer)
    const replies: Message[] = []
    const errors: NetlinkError[] = []
    for (const reply of messages(result.replies)) {
      if (reply.type === NLMSG_ERROR) {
        const bytes = writer.buffer.subarray(starts[reply.sequence], starts[reply.sequence + 1] ?? writer.length)
        errors.push(new NetlinkError({ ...readFailure(reply, bytes, names), op }))
      } else {
        replies.push(reply)
      }
    }
    this.#giveBack(writer)
    if (result.errno !== 0) {
      const cause = errors[0]
      throw new NetlinkError({ op, errno: result.errno, detail: `${result.syscall}, outcome unknown` }, { cause })
    }
    return { replies, errors }
  }

  async dump<T>(request: Request, decode: (message: Message) => T | undefined): Promise<T[]> {
    for (let attempt = 1; ; attempt++) {
      const writer = this.#takeWriter()
      encodeRequest(writer, { ...request, flags: request.flags | NLM_F_DUMP, encode: w => request.encode(w) })
      const result = await this.#submit(jobKind.dump, writer)
      const bytes = writer.buffer.subarray(0, writer.length)
      if (result.errno !== 0) {
        throw new NetlinkError({ op: request.op, errno: result.errno, detail: result.syscall })
      }
      const found: T[] = []
      for (const message of messages(result.replies)) {
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          const failure = message.length < 4 ? undefined : readFailure(message, bytes, request.names)
          if (failure && failure.errno !== 0) throw new NetlinkError({ ...failure, op: request.op })
          continue
        }
        const value = decode(message)
        if (value !== undefined) found.push(value)
      }
      this.#giveBack(writer)
      if (!result.interrupted) return found
      if (attempt === dumpAttempts) {
        throw new NetlinkError({ op: request.op, errno: 4, detail: `the table changed during ${attempt} dumps` })
      }
    }
  }

  close(): Promise<void> {
    return native().closeSocket(this.#id)
  }
}

const encodeRequest = (writer: Writer, request: Request): void => {
  writer.begin(request.type, request.flags | NLM_F_REQUEST)
  request.encode(writer)
  writer.end()
}

const refused = (request: Request, index: number, cause: unknown): NetlinkError =>
  new NetlinkError(
    { op: request.op, errno: 22, detail: cause instanceof Error ? cause.message : String(cause), index },
    { cause },
  )

const growing = (protocol: number, request: Request, error: NetlinkError): boolean =>
  protocol === NETLINK_ROUTE && request.type === RTM.NEWNEIGH && ['ENOMEM', 'EBUSY', 'E2BIG'].includes(error.errnoName)

function* messageStarts(writer: Writer): Generator<number> {
  for (const message of messages(writer.buffer.subarray(0, writer.length))) yield message.start - NLMSG_HDRLEN
}

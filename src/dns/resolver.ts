// SPDX-License-Identifier: Apache-2.0
// One query in, one answer out: our own names from the snapshot, for everything else what others say.
import {
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  type OptAnswer,
  type Packet,
  type Answer as PacketAnswer,
  type Question,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet'
import { familyOf } from '../model/address.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Directory } from './directory.ts'
import { type Answer, lookup, ttl } from './records.ts'

export interface Asker {
  readonly network: NetworkId
  readonly address: string
  readonly transport: 'udp' | 'tcp'
}

/** Asks others. undefined: no answer came, or the asker has too many questions on their way. */
export type Forward = (query: Buffer, asker: Asker) => Promise<Buffer | undefined>

export interface Resolver {
  /** undefined: drop it, the asker's next resolver answers. */
  answer(query: Buffer, asker: Asker): Promise<Buffer | undefined>
}

const headerBytes = 12
/** After the name in a question. */
const typeAndClass = 4
const nameOfQuestion = Buffer.from([0xc0, headerBytes])
const udpPlain = 512 // RFC 1035, 4.2.1: Docker's server reads no more for a client that does not ask for more
const udpExtended = 1232 // https://www.dnsflagday.net/2020/
/** Who says how much he takes is told the same (RFC 6891, 6.1.1). */
const extended: OptAnswer = {
  ...{ type: 'OPT', name: '.', udpPayloadSize: udpExtended, extendedRcode: 0 },
  ...{ ednsVersion: 0, flags: 0, flag_do: false, options: [] },
}
/** Of a query: its bytes, and its records beside the question (EDNS, a signature, the SOA of IXFR). */
const longest = 4096
const besides = 4
const tcpLimit = 0xffff // two bytes before it say how long it is (RFC 1035, 4.2.2)
/** refused: nobody else knows, or too much was asked; the asker's next resolver may know. */
const rcode = { ok: 0, absent: 3, refused: 5 } as const

export const openResolver = (directory: Directory, forward: Forward): Resolver => ({
  async answer(query, asker) {
    const asked = parse(query)
    if (!asked) return undefined
    const networks = directory.networksOf(asker.network, asker.address)
    const found = isText(asked) ? lookup(directory, networks, asked.question) : undefined
    if (found) return respond(asked, found, asker.transport)
    const isInternal = (id: NetworkId): boolean => directory.snapshot.networks.get(id)?.record.internal ?? false
    // --internal is no way out: neither for packets nor for what a name can say
    const isShut = networks.length > 0 && networks.every(isInternal)
    return (isShut ? undefined : await forward(query, asker)) ?? headOf(asked, rcode.refused)
  },
})

/** One question and what belongs to it: thousands of names that point into each other are decoded for a quarter second. */
const isPlain = (query: Buffer): boolean =>
  query.length >= headerBytes &&
  query.length <= longest &&
  query.readUInt16BE(4) === 1 &&
  query.readUInt16BE(6) + query.readUInt16BE(8) + query.readUInt16BE(10) <= besides

interface Asked {
  readonly packet: Packet
  readonly question: Question
  /** The question's bytes: a name may hold what no text says, such as a dot within a label. */
  readonly bytes: Buffer
}

const parse = (query: Buffer): Asked | undefined => {
  if (!isPlain(query)) return undefined
  try {
    const packet = decode(query)
    const question = packet.questions?.[0]
    const isQuery = packet.type === 'query' && ((packet.flags ?? 0) & 0x7800) === 0
    let end = headerBytes
    while (query[end]! > 0 && query[end]! < 64) end += 1 + query[end]!
    // a pointer there leads into the header, which is another one in the answer
    if (!isQuery || !question || query[end] !== 0) return undefined
    return { packet, question, bytes: query.subarray(headerBytes, end + 1 + typeAndClass) }
  } catch {
    return undefined
  }
}

/** Is the name what its text says? */
const isText = ({ question, bytes }: Asked): boolean =>
  isWritable(question.name) &&
  encode({ questions: [question] })
    .subarray(headerBytes, -typeAndClass)
    .equals(bytes.subarray(0, -typeAndClass))

/** An answer without records. */
const headOf = ({ packet, bytes }: Asked, flags: number): Buffer => {
  const head = encode({ type: 'response', id: packet.id ?? 0, flags })
  head.writeUInt16BE(1, 4)
  return Buffer.concat([head, bytes])
}

const respond = (query: Asked, answer: Answer, transport: Asker['transport']): Buffer => {
  const { packet, question } = query
  const code = answer.kind === 'absent' ? rcode.absent : rcode.ok
  const head = headOf(
    query,
    AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | ((packet.flags ?? 0) & RECURSION_DESIRED) | code,
  )
  const asked = packet.additionals?.find(one => one.type === 'OPT')
  const tail = asked ? encode({ type: 'response', additionals: [extended] }).subarray(headerBytes) : Buffer.alloc(0)
  const room = transport === 'tcp' ? tcpLimit : Math.min(Math.max(asked?.udpPayloadSize ?? 0, udpPlain), udpExtended)
  const records: Buffer[] = []
  let left = room - head.length - tail.length
  const all = recordsOf(question.name, answer)
  for (const record of all) {
    const bytes = pointing(record, head.length - headerBytes - typeAndClass)
    left -= bytes.length
    if (left < 0) break
    records.push(bytes)
  }
  // as many as there is room for: who needs all asks again by TCP, and nobody needs all of thousands of containers
  if (records.length < all.length && transport === 'udp')
    head.writeUInt16BE(head.readUInt16BE(2) | TRUNCATED_RESPONSE, 2)
  head.writeUInt16BE(records.length, 6)
  head.writeUInt16BE(asked ? 1 : 0, 10)
  return Buffer.concat([head, ...records, tail])
}

/** A record without its owner, for which a pointer to the name in the question stands (RFC 1035, 4.1.4). */
const pointing = (record: PacketAnswer, owner: number): Buffer =>
  Buffer.concat([nameOfQuestion, encode({ type: 'response', answers: [record] }).subarray(headerBytes + owner)])

/** Names of services are labels of containers, which may say anything: labels of 63 bytes, 253 in all (RFC 1035, 2.3.4). */
const isWritable = (name: string): boolean =>
  Buffer.byteLength(name) <= 253 && name.split('.').every(label => label !== '' && Buffer.byteLength(label) <= 63)

const recordsOf = (name: string, answer: Answer): PacketAnswer[] => {
  switch (answer.kind) {
    case 'address':
      return shuffled(answer.addresses).map(data => ({ name, type: familyOf(data) === 4 ? 'A' : 'AAAA', ttl, data }))
    case 'srv':
      return answer.targets
        .filter(({ target }) => isWritable(target))
        .map(data => ({ name, type: 'SRV', ttl, data: { priority: 0, weight: 0, ...data } }))
    case 'ptr':
      return answer.names.filter(isWritable).map(data => ({ name, type: 'PTR', ttl, data }))
    case 'empty':
    case 'absent':
      return []
  }
}

/** Clients take the first. */
const shuffled = <T>(items: readonly T[]): T[] => {
  const copy = [...items]
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[copy[i], copy[j]] = [copy[j]!, copy[i]!]
  }
  return copy
}

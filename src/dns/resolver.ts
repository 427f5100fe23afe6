// SPDX-License-Identifier: Apache-2.0
// One query in, one answer out: our own names from the snapshot, everything else handed on untouched, byte for byte,
// to the resolvers of the host.
import { createSocket } from 'node:dgram'
import { connect } from 'node:net'
import {
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  type Packet,
  type Answer as PacketAnswer,
  RECURSION_AVAILABLE,
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

export interface Resolver {
  /** undefined: drop it, the asker's next resolver answers. */
  answer(query: Buffer, asker: Asker): Promise<Buffer | undefined>
}

const upstreamMs = 2000
const udpLimit = 1232 // https://www.dnsflagday.net/2020/
const rcode = { ok: 0, format: 1, absent: 3, refused: 5 } as const

export const openResolver = (directory: Directory, upstreams: () => readonly string[]): Resolver => ({
  async answer(query, asker) {
    const packet = parse(query)
    const question = packet?.questions?.[0]
    if (packet?.type !== 'query' || ((packet.flags ?? 0) & 0x7800) !== 0 || packet.questions?.length !== 1 || !question)
      return undefined
    const found = lookup(directory, directory.networksOf(asker.network, asker.address), question)
    if (!found) return forward(query, packet, upstreams(), asker.transport)
    return respond(packet, found, asker.transport)
  },
})

const parse = (query: Buffer): Packet | undefined => {
  try {
    return decode(query)
  } catch {
    return undefined
  }
}

const respond = (query: Packet, answer: Answer, transport: Asker['transport']): Buffer => {
  const { name, type } = query.questions![0]!
  const answers = recordsOf(name, answer)
  const flags = AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | ((query.flags ?? 0) & 0x0100)
  const packet: Packet = {
    type: 'response',
    id: query.id ?? 0,
    flags: flags | (answer.kind === 'absent' ? rcode.absent : rcode.ok),
    questions: [{ name, type, class: 'IN' }],
    answers,
  }
  const bytes = encode(packet)
  if (transport === 'tcp' || bytes.length <= udpLimit) return bytes
  return encode({ ...packet, flags: flags | 0x0200, answers: [] }) // truncated: ask again by TCP
}

const recordsOf = (name: string, answer: Answer): PacketAnswer[] => {
  switch (answer.kind) {
    case 'address':
      return shuffled(answer.addresses).map(data => ({ name, type: familyOf(data) === 4 ? 'A' : 'AAAA', ttl, data }))
    case 'srv':
      return answer.targets.map(data => ({ name, type: 'SRV', ttl, data: { priority: 0, weight: 0, ...data } }))
    case 'ptr':
      return answer.names.map(data => ({ name, type: 'PTR', ttl, data }))
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

const forward = async (
  query: Buffer,
  packet: Packet,
  servers: readonly string[],
  transport: Asker['transport'],
): Promise<Buffer> => {
  for (const server of servers) {
    const answer = await (transport === 'udp' ? askUdp(query, server) : askTcp(query, server))
    if (answer) return answer
  }
  return encode({ type: 'response', id: packet.id ?? 0, flags: rcode.refused, questions: packet.questions ?? [] })
}

const askUdp = (query: Buffer, server: string): Promise<Buffer | undefined> =>
  new Promise(resolve => {
    const socket = createSocket(familyOf(server) === 4 ? 'udp4' : 'udp6')
    const done = (answer?: Buffer): void => {
      clearTimeout(timer)
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => done(), upstreamMs)
    socket.once('error', () => done())
    socket.on('message', message => {
      if (message.length >= 12 && message.readUInt16BE(0) === query.readUInt16BE(0)) done(message)
    })
    socket.connect(53, server, () => socket.send(query)) // connected: answers of others do not reach us
  })

const askTcp = (query: Buffer, server: string): Promise<Buffer | undefined> =>
  new Promise(resolve => {
    const socket = connect({ host: server, port: 53 })
    const chunks: Buffer[] = []
    const done = (answer?: Buffer): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(upstreamMs, () => done())
    socket.once('error', () => done())
    socket.once('end', () => done())
    socket.once('connect', () => socket.write(framed(query)))
    socket.on('data', chunk => {
      chunks.push(chunk)
      const bytes = Buffer.concat(chunks)
      if (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0))
        done(bytes.subarray(2, 2 + bytes.readUInt16BE(0)))
    })
  })

/** RFC 1035 4.2.2: two bytes of length before each message. */
export const framed = (message: Buffer): Buffer => {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(message.length)
  return Buffer.concat([length, message])
}

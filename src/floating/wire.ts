// SPDX-License-Identifier: Apache-2.0
// What is asked of the link and told to it: who has this address, and that we have it now.
import { type Clock, sleep } from '../base/clock.ts'
import { type Address, parseAddress } from '../model/address.ts'
import { BPF, type BpfStep, openPacketSocket, type PacketSocket } from '../netlink/packet.ts'
import { announcementFrames, answererOf, answerPattern, etherTypes, probeFrame } from './frames.ts'

/** A link of this host. */
export interface WireLink {
  readonly index: number
  readonly mac: string
}

export interface Wire {
  /**
   * The MAC of another machine that has the address; undefined: nobody answered in time. Three questions, RFC 5227 2.1.1
   * and RFC 4862 5.4, but closer together: who waits here is a service.
   */
  probe(link: WireLink, address: string, signal: AbortSignal): Promise<string | undefined>
  /** Tells every neighbour, now and a few times more, as frames get lost. Ends early when the signal aborts. */
  announce(link: WireLink, address: string, signal: AbortSignal): Promise<void>
}

const questions = 3
const questionMs = 80
const lookMs = 10
const announceAfterMs = [0, 100, 300, 1000, 2000] as const

/** `netns`: absent, the process's own. */
export const openWire = (clock: Clock, netns?: string): Wire => {
  const on = async <T>(link: WireLink, address: Address, work: (socket: PacketSocket) => Promise<T>): Promise<T> => {
    const { family } = address
    const filter = filterOf(address)
    const where = netns === undefined ? {} : { netns }
    const socket = await openPacketSocket({ ...where, ifindex: link.index, protocol: etherTypes[family], filter })
    try {
      return await work(socket)
    } finally {
      socket.close()
    }
  }
  return {
    probe(link, text, signal) {
      const address = parseAddress(text)
      return on(link, address, async socket => {
        for (let question = 0; question < questions; question++) {
          socket.send(probeFrame(link.mac, address))
          for (let waited = 0; waited < questionMs; waited += lookMs) {
            await sleep(clock, lookMs, signal)
            for (let frame = socket.receive(); frame; frame = socket.receive()) {
              const mac = answererOf(frame, address)
              if (mac !== undefined && mac !== link.mac) return mac
            }
          }
        }
        return undefined
      })
    },
    announce(link, text, signal) {
      const address = parseAddress(text)
      return on(link, address, async socket => {
        for (const afterMs of announceAfterMs) {
          await sleep(clock, afterMs, signal)
          for (const frame of announcementFrames(link.mac, address)) socket.send(frame)
        }
      })
    },
  }
}

/** Only what may be an answer comes up: the link may be a busy one. */
const filterOf = (address: Address): readonly BpfStep[] => {
  const pattern = answerPattern(address)
  const toDrop = (i: number): number => 2 * (pattern.length - 1 - i) + 1
  return [
    ...pattern.flatMap(({ at, size, value }, i): BpfStep[] => [
      [size === 1 ? BPF.LDB : BPF.LDW, 0, 0, at],
      [BPF.JEQ, 0, toDrop(i), value],
    ]),
    [BPF.RET, 0, 0, 2048],
    [BPF.RET, 0, 0, 0],
  ]
}

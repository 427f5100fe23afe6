// SPDX-License-Identifier: Apache-2.0
// Asks every target each 200 ms and reports whom its verdict has changed for. Runs on a thread of its own
// (peer-worker): a busy event loop would make everybody silent.
import type { Clock, Timer } from '../base/clock.ts'
import { count, everyMs, judge, type Row, secondOf, type Verdict } from './peer-verdict.ts'

export interface Target {
  /** Never given again. */
  readonly id: number
  readonly node: string
  /** Path of our gateway's namespace. */
  readonly netns: string
  /** Of the gateway over there, with our device: fe80::1%gw0. */
  readonly address: string
}

/** One socket: may be kept for the life of its namespace only. */
export interface Echo {
  /** Throws when it cannot be sent from here. */
  send(): void
  /** Something has come that was not there before. */
  answered(): boolean
  close(): void
}

/** The first for a target is 'unasked' when it cannot be asked from here yet. */
export type Report = readonly (readonly [id: number, verdict: Verdict])[]

export interface PeerProbes {
  add(targets: readonly Target[]): void
  drop(ids: readonly number[]): void
  /** At once; sockets in the making are closed as soon as they are made. */
  close(): void
}

export interface PeerProbesParts {
  readonly open: (netns: string, address: string) => Promise<Echo>
  /** Which life of a namespace this is; rejects when there is none. */
  readonly identity: (netns: string) => Promise<string>
  readonly report: (report: Report) => void
  readonly clock: Clock
}

interface Asked {
  readonly target: Target
  echo: Echo | undefined
  identity: string | undefined
  row: Row
  verdict: Verdict
  reported: Verdict | undefined
}

/** How soon a gateway is asked from that was not there before, or was made anew. */
const lookEveryMs = 2000
const noRow: Row = { missed: 0, answered: 0 }

export const openPeerProbes = ({ open, identity, report, clock }: PeerProbesParts): PeerProbes => {
  const all = new Map<number, Asked>()
  let timer: Timer | undefined
  let looking = false
  let lookAt = 0
  let closed = false

  const shut = (asked: Asked): void => {
    asked.echo?.close()
    asked.echo = undefined
    asked.row = noRow
  }
  const gone = (asked: Asked): boolean => closed || all.get(asked.target.id) !== asked

  const connect = async (asked: Asked, life: string): Promise<void> => {
    const echo = await open(asked.target.netns, asked.target.address)
    if (gone(asked)) return echo.close()
    asked.identity = life
    asked.echo = echo
    ask(asked)
  }
  const ask = (asked: Asked): void => {
    try {
      asked.echo?.send()
    } catch {
      shut(asked) // our own end is not there, which says nothing of the other
      lookAt = 0
    }
  }
  const tell = (changed: readonly Asked[]): void => {
    for (const asked of changed) asked.reported = asked.verdict
    if (!closed && changed.length > 0) report(changed.map(({ target, verdict }) => [target.id, verdict]))
  }

  /** Opens what is not open, one after the other: each takes a thread for a moment. */
  const look = async (): Promise<void> => {
    const lives = new Map<string, string | undefined>()
    for (const asked of [...all.values()]) {
      if (gone(asked)) continue
      const { netns } = asked.target
      if (!lives.has(netns)) lives.set(netns, await identity(netns).catch(() => undefined))
      const life = lives.get(netns)
      if (asked.identity !== life) shut(asked)
      if (asked.echo || gone(asked)) continue
      if (life !== undefined) await connect(asked, life).catch(() => {})
      if (!asked.echo && asked.reported === undefined) tell([asked])
    }
  }

  const startLook = (): void => {
    if (looking || closed) return
    looking = true
    lookAt = clock.monotonic() + lookEveryMs
    void look().finally(() => {
      looking = false
    })
  }

  const tick = (): void => {
    for (const asked of all.values()) if (asked.echo) asked.row = count(asked.row, asked.echo.answered())
    const steady = new Set<string>()
    for (const { row, target } of all.values()) if (row.answered >= secondOf) steady.add(target.node)
    const changed: Asked[] = []
    for (const asked of all.values()) {
      if (!asked.echo) continue
      const elsewhere = steady.size > (steady.has(asked.target.node) ? 1 : 0)
      asked.verdict = judge(asked.verdict, asked.row, elsewhere)
      if (asked.verdict !== 'unasked' && asked.verdict !== asked.reported) changed.push(asked)
      ask(asked)
    }
    tell(changed)
    if (clock.monotonic() >= lookAt) startLook()
    timer = clock.after(everyMs, tick)
  }

  return {
    add(targets) {
      if (closed) return
      const fresh = { echo: undefined, identity: undefined, row: noRow, reported: undefined }
      for (const target of targets) all.set(target.id, { ...fresh, target, verdict: 'unasked' })
      lookAt = 0
      startLook()
      timer ??= clock.after(everyMs, tick)
    },
    drop(ids) {
      for (const id of ids) {
        const asked = all.get(id)
        all.delete(id)
        if (asked) shut(asked)
      }
    },
    close() {
      closed = true
      timer?.cancel()
      for (const asked of all.values()) shut(asked)
      all.clear()
    },
  }
}

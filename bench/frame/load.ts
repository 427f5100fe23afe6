// SPDX-License-Identifier: Apache-2.0
// What else the machine did meanwhile: from /proc/stat, less what the processes of this bench used. It says how much a
// number may be believed; no number is corrected by it.
import { readdirSync, readFileSync } from 'node:fs'

export interface Load {
  /** Shares of the machine's CPU time in percent: others' processes and the kernel's own threads; the hypervisor's. */
  readonly others: number
  readonly steal: number
  /** Load average of one minute at the end: processes, ours among them. */
  readonly average: number
}

interface Ticks {
  readonly all: number
  readonly busy: number
  readonly steal: number
  readonly ours: number
}

/** utime, stime and those of children that were waited for, of every process of our PID namespace. */
const ownTicks = (): number => {
  let sum = 0
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
      for (const field of fields.slice(11, 15)) sum += Number(field)
    } catch {
      // it ended meanwhile: its parent has its time
    }
  }
  return sum
}

const read = (): Ticks => {
  const line = readFileSync('/proc/stat', 'utf8').split('\n')[0]!
  const [user, nice, system, idle, iowait, irq, softirq, steal] = line.split(/ +/).slice(1).map(Number) as number[]
  const busy = user! + nice! + system! + irq! + softirq!
  return { all: busy + idle! + iowait! + steal!, busy, steal: steal!, ours: ownTicks() }
}

/** From now on; the answer tells of the time since. Only where the PID namespace is the bench's own. */
export const watchLoad = (): (() => Load) => {
  const from = read()
  return () => {
    const to = read()
    const all = Math.max(1, to.all - from.all)
    const share = (ticks: number): number => Math.max(0, Math.round((ticks / all) * 100))
    return {
      others: share(to.busy - from.busy - (to.ours - from.ours)),
      steal: share(to.steal - from.steal),
      average: Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[0]),
    }
  }
}

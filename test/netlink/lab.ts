// SPDX-License-Identifier: Apache-2.0
// Namespaces for the kernel tests: made by our own code under a unique name, gone at the end of the test.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { netnsCreate, netnsDelete } from '../../src/netlink/netns.ts'
import { type Netlink, type Outcome, openNetlink } from '../../src/netlink/socket.ts'
import { NETLINK_ROUTE } from '../../src/netlink/uapi.ts'

// biome-ignore lint/suspicious/noExplicitAny: whatever iproute2 prints
export type Printed = any

export interface Lab {
  readonly name: string
  readonly path: string
  readonly netlink: Netlink
  /** `ip -j -n NS ...` */
  ip(...args: string[]): Printed[]
  /** `bridge -j -n NS ...` */
  bridge(...args: string[]): Printed[]
}

export const freshNetns = async (t: Test, suffix = 'a'): Promise<{ name: string; path: string }> => {
  const name = `wft-${process.pid}-${suffix}`
  const path = `/run/netns/${name}`
  await netnsCreate(path)
  t.teardown(() => netnsDelete(path))
  return { name, path }
}

export const openLab = async (t: Test, suffix?: string): Promise<Lab> => {
  const { name, path } = await freshNetns(t, suffix)
  const netlink = await openNetlink({ protocol: NETLINK_ROUTE, netns: path })
  t.teardown(() => netlink.close())
  const json =
    (tool: string) =>
    (...args: string[]) => {
      const out = execFileSync(tool, ['-j', '-d', '-n', name, ...args], { encoding: 'utf8' })
      return out.trim() === '' ? [] : JSON.parse(out).filter((entry: object) => Object.keys(entry).length > 0)
    }
  return { name, path, netlink, ip: json('ip'), bridge: json('bridge') }
}

/** All done, or the test fails with the first refusal. */
export const ok = (t: Test, outcomes: readonly Outcome[]): void => {
  for (const error of outcomes) if (error) t.fail(error.message)
  t.ok(outcomes.length > 0, 'outcomes')
}

export const descriptors = (): number => readdirSync('/proc/self/fd').length

/** The addon's own threads: Node's come and go. */
export const threads = (): number =>
  readdirSync('/proc/self/task').filter(id => {
    try {
      return readFileSync(`/proc/self/task/${id}/comm`, 'utf8') === 'weft-native\n'
    } catch {
      return false // ended between the two
    }
  }).length

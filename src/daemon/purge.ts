// SPDX-License-Identifier: Apache-2.0
// weftd --purge: everything of ours goes from this host's kernel, and nothing of anybody else's.
import { existsSync, readFileSync } from 'node:fs'
import { lockDir } from '../base/dir-lock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { silentLog } from '../base/log.ts'
import { answers } from '../base/socket-file.ts'
import { openHostAddresses } from '../kernel/host-addresses.ts'
import { bootId } from '../kernel/host-facts.ts'
import { forwards6, restoreSettings } from '../kernel/host-settings.ts'
import type { Operation } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux.ts'
import { format } from '../kernel/objects.ts'
import { inOrder } from '../reconcile/order.ts'
import { forgetBoot, settingsBefore } from './identity.ts'

const forwardsNow = (): string => readFileSync(`/proc/sys/${forwards6}`, 'utf8').trim()

const goesWithTable: ReadonlySet<string> = new Set(['nft-set', 'nft-timeout', 'nft-chain', 'nft-element'])

export interface PurgeOptions {
  /** Of a weftd of this host, if there is one: it may run with another data directory. */
  readonly sockets?: readonly string[]
  /** Hears what is left to whoever purges. */
  readonly warn?: (text: string) => void
}

/** What was removed, in the words of ip and nft. Throws when something could not be, TAKEN while weftd runs. */
export const purge = async (
  dataDir: string,
  { sockets = [], warn = () => {} }: PurgeOptions = {},
): Promise<readonly string[]> => {
  for (const path of sockets)
    if (await answers(path))
      throw new WeftError('TAKEN', `${path} is served by another process: stop weftd first, it would make all anew`)
  const lock = existsSync(dataDir) ? await lockDir(dataDir) : undefined
  const kernel = openLinuxKernel(silentLog)
  const addresses = openHostAddresses()
  try {
    // first, or the host would forward for strangers when the rules against it are gone
    const before = await settingsBefore(dataDir, await bootId())
    const settings = await restoreSettings(before)
    const objects = await kernel.observe('')
    const namespaces = (await kernel.namespaces()).filter(ns => ns !== '')
    const operations: Operation[] = [
      ...objects.map((object): Operation => ({ kind: 'remove', object })),
      ...namespaces.map((ns): Operation => ({ kind: 'remove', object: { kind: 'netns', ns } })),
    ].filter(({ object }) => !goesWithTable.has(object.kind))
    const failed = (await kernel.apply(inOrder(operations))).filter(result => result.error)
    if (failed.length > 0)
      throw new Error(
        `${failed.length} objects stay: ${failed.map(({ operation, error }) => `${format(operation.object)}: ${describe(error)}`).join('; ')}`,
      )
    const floating = await addresses.ours()
    for (const one of floating) await addresses.remove(one)
    await forgetBoot(dataDir)
    if (operations.length > 0 && Object.keys(before).length === 0 && forwardsNow() === '1')
      warn(
        `${dataDir} does not say how this host was before weft: ${forwards6} stays 1, and nothing of weft's guards it any more. Give weftd --purge the --data-dir of that weftd, or set it yourself`,
      )
    return [
      ...Object.entries(settings).map(([path, value]) => `H: sysctl ${path}=${value}, as before weft`),
      ...operations.map(({ object }) => format(object)),
      ...floating.map(({ dev, address }) => `H: address ${address} dev ${dev}`),
    ]
  } finally {
    await addresses.close()
    await kernel.close()
    await lock?.close()
  }
}

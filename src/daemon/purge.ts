// SPDX-License-Identifier: Apache-2.0
// weftd --purge: everything of ours goes from this host's kernel, and nothing of anybody else's.
import { existsSync } from 'node:fs'
import { describe } from '../base/errors.ts'
import { silentLog } from '../base/log.ts'
import { openHostAddresses } from '../kernel/host-addresses.ts'
import { bootId } from '../kernel/host-facts.ts'
import { restoreSettings } from '../kernel/host-settings.ts'
import type { Operation } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux.ts'
import { format } from '../kernel/objects.ts'
import { inOrder } from '../reconcile/order.ts'
import { forgetBoot, settingsBefore } from './identity.ts'
import { lockDataDir } from './lock.ts'

const goesWithTable: ReadonlySet<string> = new Set(['nft-set', 'nft-timeout', 'nft-chain', 'nft-element'])

/** What was removed, in the words of ip and nft. Throws when something could not be, TAKEN while weftd runs. */
export const purge = async (dataDir: string): Promise<readonly string[]> => {
  const lock = existsSync(dataDir) ? await lockDataDir(dataDir) : undefined
  const kernel = openLinuxKernel(silentLog)
  const addresses = openHostAddresses()
  try {
    // first, or the host would forward for strangers when the rules against it are gone
    const settings = await restoreSettings(await settingsBefore(dataDir, await bootId()))
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

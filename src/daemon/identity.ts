// SPDX-License-Identifier: Apache-2.0
// Who this host is, over restarts of weftd: kept in a file of the data directory.
import { readState, writeDurably } from '../base/file.ts'
import type { HostFacts } from '../kernel/host-facts.ts'
import { newId } from '../model/ids.ts'

export interface Identity {
  readonly instance: string
  readonly boot: string
  /** Did the host not forward IPv6, before weft switched it on in this boot? */
  readonly closed6: boolean
}

/** Made at the first start, and anew for each boot. */
export const readIdentity = async (path: string, boot: string, facts: HostFacts): Promise<Identity> => {
  const known = await readState(
    path,
    'restore it, or remove it and reboot this host: it joins as a new one',
    isIdentity,
  )
  if (known?.boot === boot) return known
  const identity = { instance: known?.instance ?? newId(), boot, closed6: !facts.forwards6 }
  await writeDurably(path, JSON.stringify(identity))
  return identity
}

const isIdentity = (json: unknown): json is Identity => {
  const { instance, boot, closed6 } = Object(json) as Record<keyof Identity, unknown>
  return typeof instance === 'string' && typeof boot === 'string' && typeof closed6 === 'boolean'
}

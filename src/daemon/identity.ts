// SPDX-License-Identifier: Apache-2.0
// Who this host is, over restarts of weftd: kept in a file of the data directory.
import { join } from 'node:path'
import { readState, writeDurably } from '../base/file.ts'
import { forwards6, type Settings } from '../kernel/host-settings.ts'
import { newId } from '../model/ids.ts'

export interface Identity {
  readonly instance: string
  /** Empty after --purge: nothing of this boot is known any more. */
  readonly boot: string
  /** Did the host not forward IPv6 before weft switched it on in this boot, or did others switch it off since? */
  readonly closed6: boolean
  /** What weft changes of the host's settings, as it was before in this boot. */
  readonly before: Settings
  /** The address of the last start. */
  readonly vtep: string
}

type Known = Omit<Identity, 'before' | 'vtep'> & Partial<Identity>

const pathIn = (dataDir: string): string => join(dataDir, 'identity.json')

/**
 * Made at the first start, and anew for each boot. What weft switched on and finds off again, others have switched off:
 * that is how the host is without weft.
 */
export const readIdentity = async (
  dataDir: string,
  boot: string,
  settings: Settings,
  vtep: string,
): Promise<Identity> => {
  const known = await knownIn(dataDir)
  const here = known?.boot === boot ? known : undefined
  const closed6 = here?.closed6 === true || settings[forwards6] === '0'
  const off = Object.entries(settings).filter(([path, value]) => path.endsWith('/forwarding') && value === '0')
  const identity = {
    instance: known?.instance ?? newId(),
    boot,
    closed6,
    // the underlay may have another device by now
    before: { ...settings, [forwards6]: closed6 ? '0' : '1', ...here?.before, ...Object.fromEntries(off) },
    vtep,
  }
  if (vtep !== known?.vtep || JSON.stringify(identity.before) !== JSON.stringify(here?.before))
    await writeDurably(pathIn(dataDir), JSON.stringify(identity))
  return identity
}

/** undefined: there was no start yet. */
export const lastVtep = async (dataDir: string): Promise<string | undefined> => (await knownIn(dataDir))?.vtep

/** The host's settings before weft, if it changed them in this boot. */
export const settingsBefore = async (dataDir: string, boot: string): Promise<Settings> => {
  const known = await knownIn(dataDir)
  if (known?.boot !== boot) return {}
  return known.before ?? { [forwards6]: known.closed6 ? '0' : '1' }
}

/** The next start looks at the host as after a boot. */
export const forgetBoot = async (dataDir: string): Promise<void> => {
  const known = await knownIn(dataDir)
  if (known) await writeDurably(pathIn(dataDir), JSON.stringify({ ...known, boot: '', before: {} }))
}

const knownIn = (dataDir: string): Promise<Known | undefined> =>
  readState(pathIn(dataDir), 'restore it, or remove it and reboot this host: it joins as a new one', isKnown)

const isKnown = (json: unknown): json is Known => {
  const { instance, boot, closed6, before, vtep = '' } = Object(json) as Record<keyof Identity, unknown>
  const whole = [instance, boot, vtep].every(text => typeof text === 'string') && typeof closed6 === 'boolean'
  return whole && (before === undefined || Object.values(Object(before)).every(value => typeof value === 'string'))
}

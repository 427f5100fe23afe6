// SPDX-License-Identifier: Apache-2.0
// Settings of the host that weft changes for its links: as they were before, and back to that.
import { readdir } from 'node:fs/promises'
import { NetlinkError } from '../netlink/errors.ts'
import { netnsRead, netnsWrite } from '../netlink/netns.ts'

/** Values by path below /proc/sys. */
export type Settings = Readonly<Record<string, string>>

const six = 'net/ipv6/conf'
export const forwards6 = `${six}/all/forwarding`
/** Of IPv4 we switch it on for one device alone. */
export const forwards4 = (dev: string): string => `net/ipv4/conf/${dev}/forwarding`

/**
 * As they are now; with IPv6 forwarding off, also the devices that forward nevertheless. `advertised`: what came to these
 * by router advertisements would go when the host begins to forward, accept_ra 2 keeps it.
 */
export const readSettings = async (dev: string, advertised: readonly string[]): Promise<Settings> => {
  const paths = [forwards6, forwards4(dev)]
  for (const name of new Set([dev, ...advertised])) {
    const listens =
      (await read(`${six}/${name}/accept_ra`)) === '1' && (await read(`${six}/${name}/forwarding`)) === '0'
    if (listens) paths.push(`${six}/${name}/accept_ra`)
  }
  if ((await read(forwards6)) === '0')
    for (const name of await readdir(`/proc/sys/${six}`))
      if ((await read(`${six}/${name}/forwarding`)) === '1') paths.push(`${six}/${name}/forwarding`)
  const settings: Record<string, string> = {}
  for (const path of paths) {
    const value = await read(path)
    if (value !== undefined) settings[path] = value
  }
  return settings
}

/** Devices that listened to router advertisements before weft. */
export const listening = (before: Settings): string[] =>
  Object.entries(before).flatMap(([path, value]) =>
    path.startsWith(six) && path.endsWith('/accept_ra') && value === '1'
      ? [path.slice(six.length + 1, -'/accept_ra'.length)]
      : [],
  )

/** Puts back what weft changed and nobody has changed since; answers what it wrote. */
export const restoreSettings = async (before: Settings): Promise<Settings> => {
  const written: Record<string, string> = {}
  const put = async (path: string, value: string): Promise<void> => {
    if ([undefined, value].includes(await read(path))) return
    await netnsWrite(undefined, `/proc/sys/${path}`, value)
    written[path] = value
  }
  // this one changes all devices: first
  const closes = before[forwards6] === '0' && (await read(forwards6)) === '1'
  if (closes) await put(forwards6, '0')
  for (const [path, value] of Object.entries(before)) {
    if (path.endsWith('/accept_ra') && value === '1' && (await read(path)) === '2') await put(path, value)
    if (path.startsWith(six) && path.endsWith('/forwarding') && path !== forwards6 && closes) await put(path, value)
    // switched on for all since, the device's own is no longer ours
    if (path.startsWith('net/ipv4') && (await read('net/ipv4/ip_forward')) === '0') await put(path, value)
  }
  return written
}

const read = async (path: string): Promise<string | undefined> => {
  try {
    return (await netnsRead(undefined, `/proc/sys/${path}`)).trim()
  } catch (error) {
    if (error instanceof NetlinkError && error.absent) return undefined
    throw error
  }
}

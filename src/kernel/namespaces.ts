// SPDX-License-Identifier: Apache-2.0
// Network namespaces on this host that can be ours, as `ip netns` sees them: files under /run/netns called weft-n<vni>
// and weft-m<vni>. Which of them are, `own-namespaces` knows.
import { readdir, stat } from 'node:fs/promises'
import { NetlinkError } from '../netlink/errors.ts'
import { netnsCreate, netnsDelete, netnsInode, netnsOpenFd } from '../netlink/netns.ts'
import type { Ns } from './objects.ts'

const folder = '/run/netns'
const named = /^weft-[nm]\d+$/
/** M, gateways: their links are the far ends of others' and no objects of their own. */
const gatewayPrefix = 'weft-m'

/** undefined: the process's own. */
export const pathOf = (ns: Ns): string | undefined => (ns === '' ? undefined : `${folder}/${ns}`)

export const isGateway = (ns: Ns): boolean => ns.startsWith(gatewayPrefix)

/**
 * Where the far ends of a namespace's veths can be. Interface numbers repeat from namespace to namespace, so a mutual
 * reference alone may fit the pair of another network: a switch (weft-n5) is only ever paired with its own gateway.
 */
export const peersOf = (ns: Ns, all: Iterable<Ns>): readonly Ns[] => {
  const others = [...all].filter(other => other !== ns)
  return ns.startsWith('weft-n') ? others.filter(other => other === ns.replace('weft-n', gatewayPrefix)) : others
}

/** Whose veths end in this one: a gateway's links belong to its switch and to H. */
export const pairedWith = (ns: Ns): readonly Ns[] => (isGateway(ns) ? ['', ns.replace(gatewayPrefix, 'weft-n')] : [])

/** Files of such a name: `isNamespace` knows better. */
export const listNamespaces = async (): Promise<Ns[]> => {
  try {
    return (await readdir(folder)).filter(name => named.test(name)).sort()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Gone, or a file that is none: so ends a creation that was cut short, and an unmount. */
export const isNoNamespace = (error: unknown): boolean =>
  error instanceof NetlinkError && (error.absent || error.errnoName === 'EINVAL')

/** Which namespace has this name now; undefined: none. */
export const identify = async (ns: Ns): Promise<string | undefined> => {
  try {
    return await netnsInode(pathOf(ns))
  } catch (error) {
    if (isNoNamespace(error)) return undefined
    throw error
  }
}

export const isNamespace = async (ns: Ns): Promise<boolean> => (await identify(ns)) !== undefined

/** Of one that is no namespace: an empty file, as stands there before the namespace is put on it. */
export const isCutShort = async (ns: Ns): Promise<boolean> => {
  const file = await stat(pathOf(ns)!).catch(() => undefined)
  return file?.isFile() === true && file.size === 0
}

/** Success if it is there. */
export const createNamespace = async (ns: Ns): Promise<void> => {
  try {
    await netnsCreate(pathOf(ns)!)
  } catch (error) {
    if (!(error instanceof NetlinkError && error.errnoName === 'EEXIST')) throw error
    if (await isNamespace(ns)) return
    await removeNamespace(ns) // refuses what is not an empty file
    await netnsCreate(pathOf(ns)!)
  }
}

/** Success if it is gone. */
export const removeNamespace = async (ns: Ns): Promise<void> => {
  try {
    await netnsDelete(pathOf(ns)!)
  } catch (error) {
    if (!(error instanceof NetlinkError && error.absent)) throw error
  }
}

/** A descriptor of a namespace for IFLA_NET_NS_FD; the caller closes it. */
export const openNamespace = (ns: Ns): Promise<number> => netnsOpenFd(pathOf(ns) ?? '/proc/self/ns/net')

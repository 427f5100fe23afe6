// SPDX-License-Identifier: Apache-2.0
// Network namespaces on this host that can be ours, as `ip netns` sees them: files under /run/netns called weft-n<vni>
// and weft-m<vni>. Which of them are, `own-namespaces` knows.
import { readdir } from 'node:fs/promises'
import { NetlinkError } from '../netlink/errors.ts'
import { netnsCreate, netnsDelete, netnsOpenFd } from '../netlink/netns.ts'
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

export const listNamespaces = async (): Promise<Ns[]> => {
  try {
    return (await readdir(folder)).filter(name => named.test(name)).sort()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Success if it is there. */
export const createNamespace = async (ns: Ns): Promise<void> => {
  try {
    await netnsCreate(pathOf(ns)!)
  } catch (error) {
    if (!(error instanceof NetlinkError && error.errnoName === 'EEXIST')) throw error
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

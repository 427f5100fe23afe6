// SPDX-License-Identifier: Apache-2.0
// Which namespaces are ours, whatever has happened to them: the name alone is no proof, others choose names too.
import { listObjects } from '../netlink/nft/dump.ts'
import { isCutShort, isGateway, isNoNamespace, listNamespaces } from './namespaces.ts'
import { isOurTable } from './nft.ts'
import type { LinkObject, Ns } from './objects.ts'
import { openSockets, type Sockets } from './sockets.ts'

/** Any one that is left proves it. */
const links: Readonly<Record<'switch' | 'gateway', Readonly<Record<string, LinkObject['kind']>>>> = {
  switch: { br0: 'bridge', vx0: 'vxlan', gw: 'veth' },
  gateway: { gw0: 'veth', up0: 'veth' },
}

/**
 * Those with a link or a table of ours inside. An empty one may be ours, cut short in its making, or anybody's: it stays,
 * and serves when its network is wanted. A file that is empty and no namespace serves nobody: it is of a creation that was
 * cut short sooner.
 */
export const ownNamespaces = async (): Promise<Ns[]> => {
  const own: Ns[] = []
  for (const ns of await listNamespaces()) {
    const sockets = openSockets()
    try {
      if (await isOwn(sockets, ns)) own.push(ns)
    } catch (error) {
      if (!isNoNamespace(error)) throw error
      if (await isCutShort(ns)) own.push(ns)
    } finally {
      await sockets.close()
    }
  }
  return own
}

const isOwn = async (sockets: Sockets, ns: Ns): Promise<boolean> => {
  const { byName } = await sockets.links(ns)
  const wanted = links[isGateway(ns) ? 'gateway' : 'switch']
  if (Object.entries(wanted).some(([name, kind]) => byName.get(name)?.kind === kind)) return true
  const { tables } = await listObjects(await sockets.netfilter(ns), { table: () => false })
  return tables.some(isOurTable)
}

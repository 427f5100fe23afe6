// SPDX-License-Identifier: Apache-2.0
// In which order the kernel takes things: what is referred to comes first. Removals go in the opposite order, after
// the additions, so that policy is last in and last out.

import type { Operation } from '../kernel/kernel.ts'
import { type KernelObject, nsOf, type ObjectKey } from '../kernel/objects.ts'

const place = (o: KernelObject): number => {
  switch (o.kind) {
    case 'netns':
      return 0
    case 'sysctl':
      // what the host forwards is guarded by then, and its devices go on listening to their routers (accept_ra)
      if (o.ns === '' && o.path.endsWith('/forwarding')) return 26
      // defaults must be there before the devices that take them over
      return /\/(default|all)\/|ip_forward$|nf_conntrack|bridge-nf/.test(o.path) ? 1 : 5
    case 'bridge':
      return 2
    case 'vxlan':
      return 3
    case 'veth':
      return 4
    case 'port':
      return 6
    case 'address':
      return 7
    case 'nexthop':
      return 'via' in o.to ? 8 : 9
    case 'route':
      return 10
    case 'neighbour':
      return 11
    case 'fdb-port':
      return 12
    case 'fdb-remote':
      return 13
    case 'ipvs-timeout':
      return 14
    case 'ipvs-service':
      return 15
    case 'ipvs-destination':
      return 16
    case 'nft-table':
      return 20
    case 'nft-set':
    case 'nft-timeout':
      return 21
    case 'nft-chain':
      return o.hook ? 23 : 22
    case 'nft-element':
      return 24
    case 'nft-guest':
      return 25
  }
}

export const inOrder = (operations: readonly Operation[]): Operation[] => {
  const removal = (operation: Operation): boolean => operation.kind === 'remove'
  const additions = operations.filter(operation => !removal(operation))
  const removals = operations.filter(removal)
  return [
    ...additions.sort((a, b) => place(a.object) - place(b.object)),
    ...removals.sort((a, b) => place(b.object) - place(a.object)),
  ]
}

/** Objects on a port that is lost cannot be; they wait for the port. */
export const withoutOrphans = (operations: Operation[], lost: ReadonlySet<ObjectKey>): Operation[] => {
  if (lost.size === 0) return operations
  const gone = new Set([...lost].map(key => key.slice('link '.length)))
  return operations.filter(({ kind, object }) => {
    if (kind === 'remove') return true
    const dev = object.kind === 'nft-chain' ? object.hook?.device : 'dev' in object ? object.dev : undefined
    return dev === undefined || !gone.has(`${nsOf(object)} ${dev}`)
  })
}

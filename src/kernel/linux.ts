// SPDX-License-Identifier: Apache-2.0
// The real kernel behind the contract. Namespaces are followed from the moment they are there; whoever deletes one of
// ours is noticed by its file.
import { mkdirSync } from 'node:fs'
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { NetlinkError } from '../netlink/errors.ts'
import type { Monitor } from '../netlink/monitor.ts'
import type { Link } from '../netlink/rtnl/link.ts'
import { applyOperations } from './apply.ts'
import { countBalanced } from './counters.ts'
import { linkObject, type PeerOf } from './decode.ts'
import { forgetFlows } from './flows.ts'
import { type FolderWatch, watchFolder } from './folder-watch.ts'
import { follow } from './follow.ts'
import { isIpvs } from './ipvs.ts'
import { openIpvsWatch } from './ipvs-watch.ts'
import type { Kernel, KernelEvent, Operation, OperationResult } from './kernel.ts'
import { identify, isGateway, isNamespace, pairedWith, peersOf } from './namespaces.ts'
import type { LinkObject, Ns } from './objects.ts'
import { observeNamespace } from './observe.ts'
import { ownNamespaces } from './own-namespaces.ts'
import { type LinkTable, openSockets, type Sockets } from './sockets.ts'

const folder = '/run/netns'

export const openLinuxKernel = (log: Log): Kernel => {
  const monitors = new Map<Ns, { monitor: Promise<Monitor>; links: LinkTable; identity: Promise<string | undefined> }>()
  const ownPorts = new Set<number>() // netfilter sockets of ours, the last ones
  const ipvs = openIpvsWatch(log, observations => {
    if (observations.length > 0) listener?.({ kind: 'changed', observations })
  })
  let listener: ((event: KernelEvent) => void) | undefined
  let watcher: FolderWatch | undefined
  let closed = false

  const peerOf: PeerOf = (ns: Ns, link: Link) => {
    for (const other of peersOf(ns, monitors.keys())) {
      const far = monitors.get(other)?.links.byIndex.get(link.link ?? -1)
      if (far?.kind === 'veth' && far.link === link.index) return { ns: other, link: far }
    }
    return undefined
  }

  const pairsOf = (ns: Ns, link: Link): LinkObject[] =>
    pairedWith(ns).flatMap(near => {
      const links = monitors.get(near)?.links
      const end = links?.byIndex.get(link.link ?? -1)
      if (!links || end?.kind !== 'veth' || end.link !== link.index) return []
      return linkObject(near, end, index => links.byIndex.get(index)?.name, peerOf) ?? []
    })

  const startFollowing = async (ns: Ns): Promise<void> => {
    if (monitors.has(ns) || !listener || closed) return
    const tell = listener
    const identity = identify(ns)
    const links: LinkTable = { byName: new Map(), byIndex: new Map() }
    const monitor = follow({
      ns,
      links,
      peerOf,
      pairsOf,
      onObserved: observations => tell({ kind: 'changed', observations }),
      onLost: () => tell({ kind: 'lost', ns }),
      // the look begins anew, also where the other ends are
      onOverrun: () =>
        void stopFollowing(ns).then(() => {
          for (const concerned of [ns, ...pairedWith(ns)]) tell({ kind: 'lost', ns: concerned })
        }),
      onDevice: name => tell({ kind: 'device', ns, name }),
      ownNetfilterPort: port => ownPorts.has(port),
    })
    monitors.set(ns, { monitor, links, identity })
    try {
      await Promise.all([monitor, identity])
      const sockets = openSockets()
      try {
        const now = await sockets.links(ns) // after the subscription: nothing falls between
        for (const [index, link] of now.byIndex) {
          links.byIndex.set(index, link)
          links.byName.set(link.name, link)
        }
      } finally {
        await sockets.close()
      }
    } catch (error) {
      await stopFollowing(ns)
      if (!(error instanceof NetlinkError && error.absent))
        log.error({ ns, err: describe(error) }, 'namespace not followed')
    }
  }

  const stopFollowing = async (ns: Ns): Promise<void> => {
    const held = monitors.get(ns)
    monitors.delete(ns)
    await held?.monitor.then(
      monitor => monitor.close(),
      () => {},
    )
  }

  /** What is followed by this name is there, and is it still. */
  const isFollowed = async (ns: Ns): Promise<boolean> => {
    const identity = await monitors.get(ns)?.identity
    return identity !== undefined && identity === (await identify(ns))
  }

  /** A file in /run/netns came or went. */
  const onFile = async (name: string): Promise<void> => {
    if (closed || !monitors.has(name) || (await isFollowed(name))) return
    await stopFollowing(name)
    listener?.({ kind: 'lost', ns: name })
  }

  return {
    async namespaces() {
      return ['', ...(await ownNamespaces())]
    },
    async observe(ns, hints = []) {
      if (!(await isFollowed(ns))) await stopFollowing(ns) // or it would live on, without its name
      if (!(await isNamespace(ns))) return []
      await startFollowing(ns)
      const sockets = openSockets()
      try {
        const found = await observeNamespace(sockets, ns, hints)
        if (listener && isGateway(ns)) ipvs.found(ns, found)
        return found
      } finally {
        await sockets.close()
      }
    },
    async apply(operations: readonly Operation[]): Promise<readonly OperationResult[]> {
      const sockets = openSockets()
      const results: OperationResult[] = []
      try {
        for (const part of byNamespaces(operations)) {
          for (const { kind, object } of part)
            if (object.kind === 'netns' && kind === 'remove') await stopFollowing(object.ns)
          const work = () => applyOperations(sockets, part, port => remember(ownPorts, port))
          results.push(...(await (part.some(({ object }) => isIpvs(object)) ? ipvs.change(work) : work())))
          for (const { kind, object } of part)
            if (object.kind === 'netns' && kind !== 'remove') {
              await startFollowing(object.ns)
              if (listener && isGateway(object.ns)) ipvs.found(object.ns, [])
            }
        }
        return results
      } finally {
        await sockets.close()
      }
    },
    forgetFlows: (ns, which) => inside(ns, 0, async sockets => forgetFlows(await sockets.netfilter(ns), which)),
    counters: ns => inside(ns, [], sockets => countBalanced(sockets, ns)),
    follow(tell) {
      listener = tell
      mkdirSync(folder, { recursive: true })
      const look = (name: string): void =>
        void onFile(name).catch(error => log.error({ err: describe(error) }, 'namespaces not looked at'))
      watcher = watchFolder(folder, () => monitors.keys(), look, log)
    },
    async close() {
      closed = true
      watcher?.close()
      await ipvs.close()
      for (const ns of [...monitors.keys()]) await stopFollowing(ns)
    },
  }
}

/** With sockets for it, if the namespace is there. */
const inside = async <T>(ns: Ns, absent: T, work: (sockets: Sockets) => Promise<T>): Promise<T> => {
  if (!(await isNamespace(ns))) return absent
  const sockets = openSockets()
  try {
    return await work(sockets)
  } finally {
    await sockets.close()
  }
}

/** Operations on namespaces themselves stand apart, so that a new one is followed before anything is put into it. */
const byNamespaces = (operations: readonly Operation[]): readonly Operation[][] => {
  const parts: Operation[][] = []
  let last: boolean | undefined
  for (const operation of operations) {
    const own = operation.object.kind === 'netns'
    if (own !== last) parts.push([])
    parts.at(-1)!.push(operation)
    last = own
  }
  return parts
}

const remember = (ports: Set<number>, port: number): void => {
  ports.add(port)
  if (ports.size > 256) ports.delete(ports.values().next().value!)
}

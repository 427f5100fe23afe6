// SPDX-License-Identifier: Apache-2.0
// Which Docker network of this engine is which cluster network. Docker never repeats CreateNetwork, so this is kept on
// disk and written before the answer. A binding also holds the slot of the network's link to the host.

import { WeftError } from '../base/errors.ts'
import { readState, writeDurably } from '../base/file.ts'
import { keyedQueue } from '../base/queue.ts'
import type { NetworkId } from '../model/ids.ts'

export interface Binding {
  /** Docker's NetworkID. */
  readonly docker: string
  readonly network: NetworkId
  readonly slot: number
  /** Whose wish it is that this engine has it no more: of somebody who typed a command, or ours. */
  readonly removal?: 'user' | 'weft'
}

export interface Bindings {
  byDocker(docker: string): Binding | undefined
  /** The first of them: an engine may show a cluster network under further names (`weft.network`). */
  byNetwork(network: NetworkId): Binding | undefined
  all(): Iterable<Binding>
  /** Live view for planners. */
  readonly bound: ReadonlyMap<NetworkId, Binding>
  bind(docker: string, network: NetworkId): Promise<Binding>
  /** From now on it is this cluster network. One that is not bound, or so already: nothing happens. */
  rebind(docker: string, network: NetworkId): Promise<void>
  /** Kept, as who asked for the removal is not asked again. One that is not bound: nothing happens. */
  mark(docker: string, removal: 'user' | 'weft' | undefined): Promise<void>
  unbind(docker: string): Promise<void>
}

export const openBindings = async (
  path: string,
  slots: number,
  changed: (network: NetworkId) => void,
  /** Others of this host use what the slot stands for. */
  inTheWay: (slot: number) => boolean = () => false,
): Promise<Bindings> => {
  const remedy = "restore it, or remove it and recreate this host's weft networks"
  const known = await readState(path, remedy, isBindings)
  const bound = new Map<NetworkId, Binding>()
  const byDocker = new Map<string, Binding>()
  const put = (binding: Binding): void => {
    if (!bound.has(binding.network)) bound.set(binding.network, binding)
    byDocker.set(binding.docker, binding)
  }
  const take = ({ docker, network }: Binding): void => {
    byDocker.delete(docker)
    if (bound.get(network)?.docker !== docker) return
    const next = [...byDocker.values()].find(other => other.network === network)
    if (next) bound.set(network, next)
    else bound.delete(network)
  }
  for (const binding of known?.bindings ?? []) put(binding)
  const queue = keyedQueue()
  const save = (): Promise<void> =>
    queue.run('file', () => writeDurably(path, JSON.stringify({ v: 1, bindings: [...byDocker.values()] })))
  /** `last`: only if no other is free, its link may still be there. */
  const freeSlot = (last?: number): number => {
    const used = new Set([...bound.values()].map(binding => binding.slot))
    for (let slot = 0; slot < slots; slot++) if (!used.has(slot) && slot !== last && !inTheWay(slot)) return slot
    if (last !== undefined && !used.has(last)) return last
    throw new WeftError(
      'FULL',
      `of ${slots} link networks of this host ${used.size} are weft's and others use the rest: no more networks fit`,
    )
  }
  return {
    byDocker: docker => byDocker.get(docker),
    byNetwork: network => bound.get(network),
    all: () => byDocker.values(),
    bound,
    async bind(docker, network) {
      const known = byDocker.get(docker)
      if (known) return known
      const binding = { docker, network, slot: bound.get(network)?.slot ?? freeSlot() }
      put(binding)
      try {
        await save()
      } catch (error) {
        take(binding)
        throw error
      }
      changed(network)
      return binding
    },
    async rebind(docker, network) {
      const known = byDocker.get(docker)
      if (!known || known.network === network) return
      take(known)
      try {
        put({ docker, network, slot: bound.get(network)?.slot ?? freeSlot(known.slot) })
        await save()
      } catch (error) {
        const half = byDocker.get(docker)
        if (half) take(half)
        put(known)
        throw error
      }
      changed(known.network)
      changed(network)
    },
    async mark(docker, removal) {
      const known = byDocker.get(docker)
      if (!known || known.removal === removal) return
      const { removal: _, ...bare } = known
      const marked: Binding = removal === undefined ? bare : { ...bare, removal }
      byDocker.set(docker, marked)
      if (bound.get(known.network) === known) bound.set(known.network, marked)
      await save()
    },
    async unbind(docker) {
      const binding = byDocker.get(docker)
      if (!binding) return
      take(binding)
      await save()
      changed(binding.network)
    },
  }
}

const isBindings = (json: unknown): json is { v: 1; bindings: Binding[] } => {
  const { v, bindings } = Object(json) as { v?: unknown; bindings?: unknown }
  return v === 1 && Array.isArray(bindings)
}

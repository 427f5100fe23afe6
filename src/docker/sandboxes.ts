// SPDX-License-Identifier: Apache-2.0
// Which endpoint brought its sandbox the route to the resolver: that fits a routing table only once. Kept on disk: a
// container joins its next network perhaps under the next weftd.
import { readIfPresent, writeDurably } from '../base/file.ts'
import { keyedQueue } from '../base/queue.ts'
import type { EndpointId } from '../model/ids.ts'

export interface Sandboxes {
  /** True for the first of a sandbox, however often it asks. */
  first(sandbox: string, endpoint: EndpointId): Promise<boolean>
  left(endpoint: EndpointId): Promise<void>
}

export const openSandboxes = async (path: string): Promise<Sandboxes> => {
  const routed = new Map<string, EndpointId>(JSON.parse((await readIfPresent(path)) ?? '[]') as [string, EndpointId][])
  const queue = keyedQueue()
  const save = (): Promise<void> => queue.run('file', () => writeDurably(path, JSON.stringify([...routed])))
  return {
    async first(sandbox, endpoint) {
      const known = routed.get(sandbox)
      if (known !== undefined) return known === endpoint
      routed.set(sandbox, endpoint)
      await save()
      return true
    },
    async left(endpoint) {
      const held = [...routed].filter(([, other]) => other === endpoint)
      for (const [sandbox] of held) routed.delete(sandbox)
      if (held.length > 0) await save()
    },
  }
}

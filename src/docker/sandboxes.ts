// SPDX-License-Identifier: Apache-2.0
// Numbers the endpoints of a sandbox: each brings it a route to the resolver, and a routing table holds a prefix only
// once, so each needs its own. Kept on disk: a container joins its next network perhaps under the next weftd.
import { readIfPresent, writeDurably } from '../base/file.ts'
import { keyedQueue } from '../base/queue.ts'
import type { EndpointId } from '../model/ids.ts'

export interface Sandboxes {
  /** The lowest number that no other endpoint of the sandbox has; the same however often it asks. */
  number(sandbox: string, endpoint: EndpointId): Promise<number>
  left(endpoint: EndpointId): Promise<void>
}

export const openSandboxes = async (path: string): Promise<Sandboxes> => {
  const sandboxes = new Map(parse((await readIfPresent(path)) ?? '[]'))
  const queue = keyedQueue()
  const save = (): Promise<void> => queue.run('file', () => writeDurably(path, JSON.stringify([...sandboxes])))
  return {
    async number(sandbox, endpoint) {
      const endpoints = sandboxes.get(sandbox) ?? []
      const known = endpoints.indexOf(endpoint)
      if (known >= 0) return known
      const free = endpoints.indexOf(null)
      const number = free >= 0 ? free : endpoints.length
      sandboxes.set(sandbox, Object.assign([...endpoints], { [number]: endpoint }))
      await save()
      return number
    },
    async left(endpoint) {
      const held = [...sandboxes].filter(([, endpoints]) => endpoints.includes(endpoint))
      for (const [sandbox, endpoints] of held) {
        const rest = endpoints.map(other => (other === endpoint ? null : other))
        if (rest.every(other => other === null)) sandboxes.delete(sandbox)
        else sandboxes.set(sandbox, rest)
      }
      if (held.length > 0) await save()
    },
  }
}

/** Endpoints by number; null: free. */
type Numbered = [sandbox: string, endpoints: readonly (EndpointId | null)[]]

/** Before there were numbers, only the first endpoint stood there. */
const parse = (text: string): Numbered[] =>
  (JSON.parse(text) as [string, Numbered[1] | EndpointId][]).map(([sandbox, endpoints]) => [
    sandbox,
    typeof endpoints === 'string' ? [endpoints] : endpoints,
  ])

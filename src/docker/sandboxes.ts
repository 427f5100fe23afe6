// SPDX-License-Identifier: Apache-2.0
// Numbers the endpoints of a sandbox: each brings it a route to the resolver, and a routing table holds a prefix only
// once, so each needs its own. Kept on disk: a container joins its next network perhaps under the next weftd.
import { describe } from '../base/errors.ts'
import { readState, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import type { EndpointId } from '../model/ids.ts'

export interface Sandboxes {
  /** The lowest number that no other endpoint of the sandbox has; the same however often it asks. */
  number(sandbox: string, endpoint: EndpointId): Promise<number>
  left(endpoint: EndpointId): Promise<void>
  /** All of its sandbox, itself too. */
  beside(endpoint: EndpointId): readonly EndpointId[]
}

/**
 * A damaged file is started without: all that it can cost is that Docker refuses to connect a container which runs now
 * to a further network (a route of this number is there already), until that container is restarted.
 */
export const openSandboxes = async (path: string, log: Log): Promise<Sandboxes> => {
  const remedy = 'restart a container that cannot be connected to a further network'
  const known = await readState(path, remedy, isNumbered).catch(error => {
    log.error({ err: describe(error) }, 'started without')
    return []
  })
  const sandboxes = new Map((known ?? []).map(numbered))
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
    beside(endpoint) {
      for (const endpoints of sandboxes.values())
        if (endpoints.includes(endpoint)) return endpoints.filter(other => other !== null)
      return []
    },
  }
}

/** Endpoints by number; null: free. */
type Numbered = [sandbox: string, endpoints: readonly (EndpointId | null)[]]

/** Before there were numbers, only the first endpoint stood there. */
type Written = readonly [sandbox: string, endpoints: Numbered[1] | EndpointId]

const numbered = ([sandbox, endpoints]: Written): Numbered => [
  sandbox,
  typeof endpoints === 'string' ? [endpoints] : endpoints,
]

const isNumbered = (json: unknown): json is Written[] =>
  Array.isArray(json) &&
  json.every(
    one => Array.isArray(one) && typeof one[0] === 'string' && (typeof one[1] === 'string' || Array.isArray(one[1])),
  )

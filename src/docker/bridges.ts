// SPDX-License-Identifier: Apache-2.0
// What only Docker tells of its own bridges. Names of a user's choice: nothing in the kernel tells whose they are; kept on
// disk, so that a start knows them before Docker answers. And which addresses coming ones are given.
import { describe } from '../base/errors.ts'
import { readState, writeDurably } from '../base/file.ts'
import type { Log } from '../base/log.ts'
import { parseInterface } from '../model/address.ts'
import type { Engine } from './engine.ts'

export interface Bridges {
  /** Sorted. */
  readonly names: readonly string[]
  /** CIDRs that Docker is told to cut them from; undefined: not known yet. */
  readonly pools: readonly string[] | undefined
  /** Asks Docker; what was known stays where it does not answer. */
  look(): Promise<void>
}

/** https://docs.docker.com/engine/network/drivers/bridge/#options; docker0 has it too. */
const option = 'com.docker.network.bridge.name'

export const openBridges = async (
  path: string,
  engine: Pick<Engine, 'networks' | 'addressPools'>,
  log: Log,
): Promise<Bridges> => {
  const known = await readState(path, 'it is made anew when Docker answers', isNames).catch(error => {
    log.error({ err: describe(error) }, 'started without')
    return []
  })
  let names: readonly string[] = known ?? []
  let pools: readonly string[] | undefined
  const look = async (): Promise<void> => {
    const own = (await engine.networks()).filter(({ Driver }) => Driver === 'bridge')
    const found = own.flatMap(({ Options }) => Options?.[option] ?? []).sort()
    if (found.join(' ') !== names.join(' ')) {
      names = found
      await writeDurably(path, JSON.stringify(names))
    }
    pools = (await engine.addressPools()).filter(isCidr)
  }
  return {
    get names() {
      return names
    },
    get pools() {
      return pools
    },
    look: () => look().catch(error => log.warn({ err: describe(error) }, "Docker's bridges are not known")),
  }
}

const isCidr = (text: string): boolean => {
  try {
    parseInterface(text)
    return true
  } catch {
    return false
  }
}

const isNames = (json: unknown): json is string[] => Array.isArray(json) && json.every(name => typeof name === 'string')

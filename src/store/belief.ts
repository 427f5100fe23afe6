// SPDX-License-Identifier: Apache-2.0
// When a store is not to be believed: pure judgement on what was believed and what a look at the store shows
// (`docs/architecture.md`, Failure: "store empty, restored, or another one").
import { describe } from '../base/errors.ts'
import { decode, recordKinds } from './codec.ts'
import { keys, splitKey } from './keys.ts'
import type { Change, Entry } from './store.ts'

/** Which store this node belongs to. */
export interface Pins {
  readonly engine: string
  /** Id in the `cluster` record. */
  readonly cluster: string
  /** Highest seen. */
  readonly revision: bigint
}

/** What a linearizable list shows. */
export interface Look {
  readonly engine: string
  readonly revision: bigint
  readonly entries: readonly Entry[]
}

export type Believed = ReadonlyMap<string, Entry>

/**
 * Share of the records that a list may take away, and the least number of records that the share applies to: of a small
 * cluster one network more or less is a third, and somebody removes it while we are down.
 */
const share = 0.3
const few = 50

/** Why not to believe the look; undefined: believe it. Nothing pinned, nothing doubted. */
export const doubt = (pins: Pins | undefined, believed: Believed, look: Look): string | undefined => {
  if (!pins) return undefined
  const record = look.entries.find(entry => entry.key === keys.cluster)
  const cluster = clusterId(record)
  if (look.entries.length === 0) return `it is empty, it held cluster ${short(pins.cluster)}`
  if (cluster === undefined) return `it has no readable cluster record, it held cluster ${short(pins.cluster)}`
  if (cluster !== pins.cluster) return `it holds cluster ${short(cluster)} instead of ${short(pins.cluster)}`
  if (worse(believed.get(keys.cluster), record)) return `it cannot be read here: ${unreadable(record!)}`
  if (look.engine !== pins.engine)
    return `it is engine ${look.engine} instead of ${pins.engine}, perhaps restored from a copy`
  if (look.revision < pins.revision)
    return `its revision went back from ${pins.revision} to ${look.revision}, perhaps restored from an older copy`
  return tooMuchGone(believed, look.entries)
}

const tooMuchGone = (believed: Believed, entries: readonly Entry[]): string | undefined => {
  const there = new Set(entries.map(entry => entry.key))
  const before = [...believed.values()].filter(lasts).map(({ key }) => key)
  const nodes = before.filter(isNode)
  if (nodes.length > 0 && !nodes.some(key => there.has(key))) return 'all nodes are gone from it'
  const gone = before.filter(key => !there.has(key)).length
  if (before.length >= few && gone > before.length * share)
    return `${gone} of ${before.length} records are gone from it`
  return undefined
}

/**
 * Changes of the stream are what somebody did, one by one, and are believed, whatever their number: only one that takes
 * the cluster record (or makes it unreadable), or the last node, is looked at like a list.
 */
export const sweeping = (believed: Believed, changes: readonly Change[]): boolean => {
  const gone = new Set<string>()
  for (const { key, entry } of changes) {
    if (key === keys.cluster && believed.has(key)) {
      const before = believed.get(key)
      if (clusterId(entry) !== clusterId(before) || worse(before, entry)) return true
    } else if (!entry && isNode(key)) gone.add(key)
  }
  if (gone.size === 0) return false
  for (const key of believed.keys()) if (isNode(key) && !gone.has(key)) return false
  return true
}

const isNode = (key: string): boolean => key.startsWith('nodes/')
/**
 * Presence and floating addresses come and go with leases, addresses and MACs that rest or are spare by themselves: after
 * an hour without us all of them are others.
 */
const lasts = ({ key, value }: Entry): boolean =>
  !/^(presence|floating)\//.test(key) && !(/^(addresses|macs)\//.test(key) && passing.test(value))
const passing = /"kind":"(resting|spare|reserved)"/
const short = (id: string): string => id.slice(0, 8)

/** undefined: there is none, or it cannot be read. */
export const clusterId = (entry: Entry | undefined): string | undefined => {
  try {
    const { id } = JSON.parse(entry?.value ?? '{}') as { id?: unknown }
    return typeof id === 'string' ? id : undefined
  } catch {
    return undefined
  }
}

/** Why this weft cannot read the record; undefined: it can. A newer one may have written it. */
const unreadable = ({ key, value }: Entry): string | undefined => {
  try {
    const kind = recordKinds[splitKey(key)[0]!]
    if (kind) decode(kind, key, value)
    return undefined
  } catch (error) {
    return describe(error)
  }
}

/** Does an unreadable record come in the place of a readable one? */
export const worse = (before: Entry | undefined, after: Entry | undefined): boolean =>
  before !== undefined &&
  after !== undefined &&
  before.value !== after.value &&
  unreadable(after) !== undefined &&
  unreadable(before) === undefined

export const afterChanges = (believed: Believed, changes: readonly Change[]): Entry[] => {
  const next = new Map(believed)
  for (const { key, entry } of changes) {
    if (entry) next.set(key, entry)
    else next.delete(key)
  }
  return [...next.values()]
}

/** From what is believed to the entries. */
export const differencesTo = (believed: Believed, entries: readonly Entry[]): Change[] => {
  const gone = new Set(believed.keys())
  const changes: Change[] = []
  for (const entry of entries) {
    gone.delete(entry.key)
    const before = believed.get(entry.key)
    // another store may have used the same revision for something else
    if (before?.revision !== entry.revision || before.value !== entry.value) changes.push({ key: entry.key, entry })
  }
  for (const key of gone) changes.push({ key, entry: undefined })
  return changes
}

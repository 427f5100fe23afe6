// SPDX-License-Identifier: Apache-2.0
// The plan of every unit, and who wants which kernel object. A key that two units want belongs to both until the older
// is gone: the higher rank wins, then the newer record.
import { type KernelObject, keyOf, type Ns, type ObjectKey } from '../kernel/objects.ts'
import type { Planned, UnitKey } from '../plan/unit.ts'
import { objectTable } from './object-table.ts'

interface Claim {
  readonly unit: UnitKey
  readonly object: KernelObject
  readonly rank: number
  readonly revision: bigint
}

export interface WantedObjects {
  /** Puts a unit's plan in the place of its last one; gives the keys whose object may have changed. */
  update(unit: UnitKey, planned: Planned): Set<ObjectKey>
  get(key: ObjectKey): KernelObject | undefined
  /** Of one namespace, or all. */
  keys(ns?: Ns): readonly ObjectKey[]
  keysOf(unit: UnitKey): readonly ObjectKey[]
  readonly size: number
}

const beats = (a: Claim, b: Claim): boolean =>
  a.rank !== b.rank ? a.rank > b.rank : a.revision !== b.revision ? a.revision > b.revision : a.unit > b.unit

const best = (claims: readonly Claim[]): Claim => claims.reduce((one, next) => (beats(next, one) ? next : one))

export const wantedObjects = (): WantedObjects => {
  const keysByUnit = new Map<UnitKey, readonly ObjectKey[]>()
  /** Nearly every key has one claim: kept bare, an array only where units disagree. */
  const claims = objectTable<Claim | readonly Claim[]>()
  const list = (key: ObjectKey): readonly Claim[] => {
    const held = claims.get(key)
    return held === undefined ? [] : Array.isArray(held) ? held : [held as Claim]
  }
  const put = (key: ObjectKey, next: readonly Claim[]): void => {
    if (next.length === 0) claims.delete(key)
    else claims.set(key, next.length === 1 ? next[0]! : next)
  }
  return {
    update(unit, planned) {
      const touched = new Set(keysByUnit.get(unit))
      for (const key of touched)
        put(
          key,
          list(key).filter(claim => claim.unit !== unit),
        )
      const keys: ObjectKey[] = []
      for (const { object, rank } of planned.wanted) {
        const key = keyOf(object)
        keys.push(key)
        touched.add(key)
        const claim: Claim = { unit, object, rank, revision: planned.revision }
        claims.set(key, claims.has(key) ? [...list(key), claim] : claim)
      }
      if (keys.length === 0) keysByUnit.delete(unit)
      else keysByUnit.set(unit, keys)
      return touched
    },
    get(key) {
      const held = claims.get(key)
      if (held === undefined) return undefined
      return (Array.isArray(held) ? best(held) : (held as Claim)).object
    },
    keys: ns => claims.keys(ns),
    keysOf: unit => keysByUnit.get(unit) ?? [],
    get size() {
      return claims.size
    },
  }
}

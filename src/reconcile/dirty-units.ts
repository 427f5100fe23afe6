// SPDX-License-Identifier: Apache-2.0
// Which units have to be planned again: those that a change touches, and of what is gone those that were planned before.
import type { NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type { Host } from '../plan/host.ts'
import { allUnits, type Unit, type UnitKey, unitKey, unitsOfChange, unitsOfNetwork } from '../plan/unit.ts'

export interface DirtyUnits {
  mark(units: Iterable<Unit>): void
  all(): void
  network(id: NetworkId): void
  /** Records, as the mirror names them (store/mirror, ChangedKey). */
  changed(keys: readonly (readonly string[])[]): void
  readonly units: ReadonlyMap<UnitKey, Unit>
  clear(): void
}

/** `planned`: units that want something. */
export const openDirtyUnits = (
  snapshot: Snapshot,
  host: () => Host,
  planned: ReadonlyMap<UnitKey, Unit>,
): DirtyUnits => {
  const dirty = new Map<UnitKey, Unit>()
  const mark = (units: Iterable<Unit>): void => {
    for (const unit of units) dirty.set(unitKey(unit), unit)
  }
  const all = (): void => {
    mark(planned.values())
    mark(allUnits(snapshot, host()))
  }
  const network = (id: NetworkId): void => {
    for (const [key, unit] of planned) if ('network' in unit && unit.network === id) dirty.set(key, unit)
    mark(unitsOfNetwork(id, snapshot))
  }
  return {
    mark,
    all,
    network,
    changed(keys) {
      for (const key of keys) {
        if (key[0] === 'networks') network(key[1]!)
        const units = unitsOfChange(key, snapshot, host())
        if (units === 'all') all()
        else mark(units)
      }
    },
    units: dirty,
    clear: () => dirty.clear(),
  }
}

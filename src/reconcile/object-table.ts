// SPDX-License-Identifier: Apache-2.0
// Something for each kernel object, by its key; what concerns one namespace costs no look at the others.
import { type Ns, nsOfKey, type ObjectKey } from '../kernel/objects.ts'

export interface ObjectTable<T> {
  get(key: ObjectKey): T | undefined
  has(key: ObjectKey): boolean
  set(key: ObjectKey, value: T): void
  /** A key that is there, by this text and with this value from now on: what another table has too is held once. */
  adopt(key: ObjectKey, value: T): void
  delete(key: ObjectKey): void
  /** Of one namespace, or all. A copy: the table may be changed meanwhile. */
  keys(ns?: Ns): ObjectKey[]
  /** That have any. */
  namespaces(): Ns[]
  readonly size: number
}

export const objectTable = <T>(): ObjectTable<T> => {
  const byNs = new Map<Ns, Map<ObjectKey, T>>()
  return {
    get: key => byNs.get(nsOfKey(key))?.get(key),
    has: key => byNs.get(nsOfKey(key))?.has(key) ?? false,
    set(key, value) {
      const ns = nsOfKey(key)
      const table = byNs.get(ns)
      if (table) table.set(key, value)
      else byNs.set(ns, new Map([[key, value]]))
    },
    adopt(key, value) {
      const table = byNs.get(nsOfKey(key))
      if (table && table.get(key) !== value && table.delete(key)) table.set(key, value)
    },
    delete(key) {
      const ns = nsOfKey(key)
      const table = byNs.get(ns)
      if (table?.delete(key) && table.size === 0) byNs.delete(ns)
    },
    keys: ns =>
      ns === undefined ? [...byNs.values()].flatMap(table => [...table.keys()]) : [...(byNs.get(ns)?.keys() ?? [])],
    namespaces: () => [...byNs.keys()],
    get size() {
      let sum = 0
      for (const { size } of byNs.values()) sum += size
      return sum
    },
  }
}

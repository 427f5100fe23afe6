// SPDX-License-Identifier: Apache-2.0
// What may be written into a store from a file: records that this weft reads, all or nothing.
import { WeftError } from '../base/errors.ts'
import { decode, recordKinds } from '../store/codec.ts'
import { keys, splitKey } from '../store/keys.ts'
import type { StoredRecord } from '../store/store.ts'

/** Throws INVALID naming the key and what is wrong with it. */
export const checkCopy = (records: readonly StoredRecord[]): void => {
  for (const { key, value } of records) {
    const kind = recordKinds[partsOf(key)[0]!]
    if (kind) decode(kind, key, value)
    else if (key !== keys.poolsEpoch && key !== keys.nodesEpoch)
      throw new WeftError('INVALID', `store key ${key}: no record of this weft`)
  }
  if (new Set(records.map(({ key }) => key)).size < records.length)
    throw new WeftError('INVALID', 'the copy has one key twice: it is damaged')
  if (!records.some(({ key }) => key === keys.cluster))
    throw new WeftError('INVALID', 'the copy has no record of the cluster: it was not made by weft store export')
}

const partsOf = (key: string): readonly string[] => {
  try {
    return splitKey(key)
  } catch {
    throw new WeftError('INVALID', `store key ${JSON.stringify(key)}: no record of this weft`)
  }
}

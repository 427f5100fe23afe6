// SPDX-License-Identifier: Apache-2.0
// Many writes that need not be one transaction: as many at a time as every store takes.
import { limits, type Write } from './store.ts'

const sizeOf = (write: Write): number =>
  Buffer.byteLength(write.key) + (write.kind === 'put' ? Buffer.byteLength(write.value) : 0)

/** In order; none is empty. `most` leaves room in a commit for further compares. */
export const batches = function* (writes: Iterable<Write>, most: number = limits.writesPerCommit): Generator<Write[]> {
  let batch: Write[] = []
  let bytes = 0
  for (const write of writes) {
    const size = sizeOf(write)
    if (batch.length === most || (batch.length > 0 && bytes + size > limits.commitBytes)) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(write)
    bytes += size
  }
  if (batch.length > 0) yield batch
}

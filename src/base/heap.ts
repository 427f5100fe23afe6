// SPDX-License-Identifier: Apache-2.0
// What a long-running program does when its start is over: the first list of a large cluster makes V8 take several times
// the memory that is used later, and V8 gives little of it back by itself.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Collects everything once and keeps the young generation small from then on (1 MiB a half instead of up to 16: what
 * changes little needs no more). Takes some 20 ms, and up to a second for hundreds of MiB.
 */
export const settleHeap = (): void => {
  setFlagsFromString('--semi-space-growth-factor=1')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as NodeJS.GCFunction
  collect({ execution: 'sync', flavor: 'last-resort', type: 'major' })
}

// SPDX-License-Identifier: Apache-2.0
// What every verb needs: the store, its mirror, and who we are.
import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { NodeName } from '../model/ids.ts'
import type { Mirror } from '../store/mirror.ts'
import type { Store } from '../store/store.ts'

export interface Context {
  readonly store: Store
  readonly mirror: Mirror
  readonly node: NodeName
  readonly boot: string
  readonly clock: Clock
  readonly log: Log
}

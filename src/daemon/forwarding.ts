// SPDX-License-Identifier: Apache-2.0
// What others switch of the host's forwarding while weftd runs is their wish. Forwarding for our links goes on, guarded
// from that moment, and --purge leaves the host as they want it.
import { describe } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { keyedQueue } from '../base/queue.ts'
import { forwards4, forwards6 } from '../kernel/host-settings.ts'
import type { Family } from '../model/address.ts'
import { type Identity, readIdentity } from './identity.ts'

export interface Forwarding extends Closeable {
  /** Plans are to guard against strangers (plan/host). */
  readonly closed6: boolean
  switched(family: Family, on: boolean): void
  /** What was switched is noted on disk. */
  close(): Promise<void>
}

export interface ForwardingParts {
  readonly dataDir: string
  readonly identity: Identity
  readonly dev: string
  readonly changed: (family: Family, on: boolean) => void
  readonly log: Log
}

export const openForwarding = ({ dataDir, identity, dev, changed, log }: ForwardingParts): Forwarding => {
  let { closed6 } = identity
  const queue = keyedQueue()
  const note = async (path: string): Promise<void> => {
    await readIdentity(dataDir, identity.boot, { [path]: '0' }, identity.vtep)
  }
  return {
    get closed6() {
      return closed6
    },
    switched(family, on) {
      if (family === 6 && (on || closed6)) return // on: mostly our own doing
      if (family === 6) closed6 = true
      changed(family, on)
      if (on) return
      queue
        .run('identity', () => note(family === 6 ? forwards6 : forwards4(dev)))
        .catch(error => log.error({ err: describe(error) }, 'forwarding of this host not noted for --purge'))
    },
    close: () => queue.idle(),
  }
}

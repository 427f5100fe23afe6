// SPDX-License-Identifier: Apache-2.0
// "Wait until this is real on this host": what the verbs need of the reconciler, and nothing more.
import type { EndpointId, NetworkId } from '../model/ids.ts'

export interface Converger {
  /**
   * Allows the endpoint's port to be made (once: drift repair never makes one), waits until everything of it is in
   * the kernel. Rejects with NOT_REACHED saying what is missing when the signal aborts, and at once with what the
   * kernel says where no second try would help (NOT_SUPPORTED, FULL).
   */
  attach(network: NetworkId, endpoint: EndpointId, signal: AbortSignal): Promise<void>
  /** Waits until the unit's objects are as wanted. */
  endpointReached(network: NetworkId, endpoint: EndpointId, signal: AbortSignal): Promise<void>
  networkReached(network: NetworkId, signal: AbortSignal): Promise<void>
  /** The set of bound networks, or another fact of this host, changed. */
  hostChanged(): void
}

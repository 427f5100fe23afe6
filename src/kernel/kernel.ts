// SPDX-License-Identifier: Apache-2.0
// The contract of "the kernel of this host": observe it, follow it, change it. `linux` is the real one, `memory` the
// double that refuses what the real one refuses. Only objects of ours are reported (`design.md` 4): what carries our
// prefix in H, and everything inside our namespaces.
import type { Closeable } from '../base/lifecycle.ts'
import type { FlowsOf, KernelObject, Ns, ObjectKey } from './objects.ts'

export type Operation =
  | { readonly kind: 'add'; readonly object: KernelObject }
  /** The kernel has another object under this key (given as it was observed). */
  | { readonly kind: 'replace'; readonly object: KernelObject; readonly old: KernelObject }
  | { readonly kind: 'remove'; readonly object: KernelObject }

export interface OperationResult {
  readonly operation: Operation
  /** Absent: reached. */
  readonly error?: Error
}

/** What the kernel says now of one key; absent: it is not there. */
export interface Observation {
  readonly key: ObjectKey
  readonly object: KernelObject | undefined
}

/** What went to one destination of a balancer. */
export interface BalanceCount {
  readonly proto: 'tcp' | 'udp' | 'sctp'
  readonly port: number
  /** Plain. */
  readonly to: string
  /** Connections now; TCP: established. */
  readonly active: number
  /** Since the destination is there; only IPVS counts. Bytes as on the wire of the gateway. */
  readonly all?: { readonly connections: bigint; readonly bytesIn: bigint; readonly bytesOut: bigint }
}

/** Something changed in the kernel, by us or by others. */
export type KernelEvent =
  | { readonly kind: 'changed'; readonly observations: readonly Observation[] }
  /** Notifications of a namespace were lost, or it went away or came: observe it again. */
  | { readonly kind: 'lost'; readonly ns: Ns }
  /** A device that is not ours has this name from now on: its settings are new. */
  | { readonly kind: 'device'; readonly ns: Ns; readonly name: string }

export interface Kernel extends Closeable {
  /** Our namespaces that exist now, H ('') first: what has something of ours inside, or was cut short in its making. */
  namespaces(): Promise<readonly Ns[]>
  /**
   * Everything of ours in one namespace, links through nft elements. A namespace that is
   * gone gives nothing. Settings cannot be listed: those among the hints are looked for.
   */
  observe(ns: Ns, hints?: readonly KernelObject[]): Promise<readonly KernelObject[]>
  /** Do all operations in the order given, batched; goes on after failures; one result per operation. */
  apply(operations: readonly Operation[]): Promise<readonly OperationResult[]>
  /**
   * Deletes the connections that a namespace tracks as translated to these addresses or marked so, or as all others that
   * are translated or marked, or to these ports as they are not led now; answers how many.
   */
  forgetFlows(ns: Ns, which: FlowsOf): Promise<number>
  /** What the balancer in a namespace has done; nothing where there is none. */
  counters(ns: Ns): Promise<readonly BalanceCount[]>
  /** Follow our namespaces; those that apply creates are followed from their creation. */
  follow(listener: (event: KernelEvent) => void): void
  close(): Promise<void>
}

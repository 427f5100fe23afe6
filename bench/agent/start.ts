// SPDX-License-Identifier: Apache-2.0
// What agents are asked, and how they are started.
import { type Child, startChild } from '../frame/child.ts'

export type Ask =
  /** Make the ports of these containers, as their driver calls would. */
  | { readonly kind: 'attach'; readonly endpoints: readonly { readonly network: string; readonly endpoint: string }[] }
  /** Answered when the kernel has everything up to this revision of the store. */
  | { readonly kind: 'reached'; readonly revision: string }
  | { readonly kind: 'usage' }

export interface Usage {
  /** Since the process began: ms of wall time, ms of CPU. */
  readonly wallMs: number
  readonly cpuMs: number
  readonly rssMiB: number
  readonly peakRssMiB: number
  /** Written to the kernel. */
  readonly operations: number
  readonly failing: number
  /** Container ports that are not there. */
  readonly lost: number
  /** Of the mirror. */
  readonly records: number
}

export interface AgentOptions {
  /** Folder of the compiled sources. */
  readonly js: string
  /** Of etcd. */
  readonly endpoint: string
  readonly prefix: string
  /** The guard's, kept from life to life. */
  readonly dir: string
}

/** Resolves after its first pass: `first` is what it had used by then. */
export const startAgent = ({ js, endpoint, prefix, dir }: AgentOptions): Promise<Child<Ask, Usage>> =>
  startChild(`${js}/bench/agent/agent.js`, [endpoint, prefix, dir])

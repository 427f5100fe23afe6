// SPDX-License-Identifier: Apache-2.0
// Identifiers and the numbers the cluster hands out (`docs/architecture.md`, Numbers).
import { randomBytes } from 'node:crypto'

/** 128-bit random hex; ours, never Docker's. */
export type NetworkId = string
/** Docker's: 64 hex digits, or 25 characters on swarm nodes. Opaque. */
export type EndpointId = string
export type NodeName = string

export const newId = (): string => randomBytes(16).toString('hex')

export const vniRange = { first: 0x100000, last: 0xfffffe } as const
export const nodeNumbers = { first: 1, last: 65535 } as const

/** Identities of section 2 of the data path: what a packet's mark says of its sender. */
export const identity = {
  unknown: 0,
  world: 1,
  host: 2,
  probe: 3,
  unlabelled: 4,
  firstOwn: 256,
} as const

export const mark = {
  identityMask: 0xffff,
  /** Entered by a container port. */
  fromPort: 0x01000000,
  /** Entered by the gateway port. */
  fromGateway: 0x02000000,
} as const

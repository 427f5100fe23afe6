// SPDX-License-Identifier: Apache-2.0
// The kernel's expressions as plain data, as many as our rules use. A rule is a list of them: loads into registers,
// comparisons that end the rule where they fail, and statements. Registers: 0 is the verdict, 1 to 4 have 16 bytes,
// 8 to 23 are the same memory in pieces of 4. Numbers are those of linux/netfilter/nf_tables.h; encode.ts writes them.
import type { Verdict } from './verdict.ts'

export interface AnonymousElement {
  readonly key: Uint8Array
  /** Of a map. */
  readonly value?: Uint8Array | Verdict
  /** The end, exclusive, of the interval that the element before began. */
  readonly end?: true
}

/** `{ a, b }`: a constant set without a name, which lives and dies with its rule. */
export interface AnonymousSet {
  readonly keyType: number
  readonly keyLength: number
  /** Present: a map; 'verdict' or nft's number of the type. */
  readonly value?: { readonly type: number; readonly length: number } | 'verdict'
  readonly interval: boolean
  /** Byte order: `nft list` cannot know it otherwise. */
  readonly hostKey: boolean
  /** The key is `@th,64,128`: for nft, which else shows decimal numbers. Base of the payload, bytes. */
  readonly rawKey?: { readonly base: number; readonly offset: number; readonly length: number }
  readonly hostValue: boolean
  readonly elements: readonly AnonymousElement[]
}

export type Expression =
  | {
      readonly kind: 'payload'
      readonly dreg: number
      readonly base: number
      readonly offset: number
      readonly length: number
    }
  | {
      readonly kind: 'payload-write'
      readonly sreg: number
      readonly base: number
      readonly offset: number
      readonly length: number
      readonly checksumType: number
      readonly checksumOffset: number
      readonly checksumFlags: number
    }
  | { readonly kind: 'meta'; readonly key: number; readonly dreg: number }
  | { readonly kind: 'meta-set'; readonly key: number; readonly sreg: number }
  | { readonly kind: 'ct'; readonly key: number; readonly dreg: number; readonly direction?: number }
  | { readonly kind: 'ct-set'; readonly key: number; readonly sreg: number; readonly direction?: number }
  | { readonly kind: 'fib'; readonly dreg: number; readonly result: number; readonly flags: number }
  | {
      readonly kind: 'numgen'
      readonly dreg: number
      readonly modulus: number
      readonly type: number
      readonly offset: number
    }
  | {
      readonly kind: 'jhash'
      readonly sreg: number
      readonly dreg: number
      readonly length: number
      readonly modulus: number
      readonly seed: number
      readonly offset: number
    }
  /** An object of the table (NFT_OBJECT), by its name. */
  | { readonly kind: 'objref'; readonly type: number; readonly name: string }
  | { readonly kind: 'cmp'; readonly sreg: number; readonly op: number; readonly data: Uint8Array }
  | {
      readonly kind: 'range'
      readonly sreg: number
      readonly low: Uint8Array
      readonly high: Uint8Array
      readonly inverted: boolean
    }
  | { readonly kind: 'bitwise'; readonly reg: number; readonly mask: Uint8Array; readonly xor: Uint8Array }
  | {
      readonly kind: 'lookup'
      readonly set: string | AnonymousSet
      readonly sreg: number
      /** Of a map; 0 is the verdict. */
      readonly dreg?: number
      readonly inverted: boolean
    }
  | { readonly kind: 'immediate'; readonly dreg: number; readonly data: Uint8Array }
  /** The index of a device, which only the namespace of the commit knows. */
  | { readonly kind: 'device'; readonly dreg: number; readonly name: string }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | { readonly kind: 'counter' }
  | { readonly kind: 'notrack' }
  | {
      readonly kind: 'limit'
      readonly rate: bigint
      /** Seconds. */
      readonly unit: bigint
      readonly burst: number
      readonly bytes: boolean
      readonly over: boolean
    }
  | {
      readonly kind: 'log'
      readonly prefix?: string
      readonly group?: number
      readonly level?: number
      readonly snaplen?: number
      readonly threshold?: number
    }
  | { readonly kind: 'reject'; readonly type: number; readonly code: number }
  | {
      readonly kind: 'nat'
      readonly type: number
      readonly family: number
      readonly address?: number
      readonly port?: number
      readonly flags: number
    }
  | { readonly kind: 'masquerade'; readonly flags: number }
  | { readonly kind: 'redirect'; readonly port?: number; readonly flags: number }
  | { readonly kind: 'fwd'; readonly sreg: number }
  | { readonly kind: 'tproxy'; readonly family: number; readonly address?: number; readonly port?: number }

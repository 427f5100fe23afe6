// SPDX-License-Identifier: Apache-2.0
// Addresses as numbers of many bytes, in network order.

/** Mask with the first `length` bits. */
export const prefixMask = (bytes: number, length: number): Buffer =>
  Buffer.from(Array.from({ length: bytes }, (_, i) => (0xff00 >> Math.max(0, Math.min(8, length - i * 8))) & 255))

/** The number behind; undefined behind the last. */
export const successor = (bytes: Uint8Array): Buffer | undefined => {
  const next = Buffer.from(bytes)
  for (let i = next.length - 1; i >= 0; i--) {
    next[i] = (next[i]! + 1) & 255
    if (next[i] !== 0) return next
  }
  return undefined
}

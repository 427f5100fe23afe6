// SPDX-License-Identifier: Apache-2.0
// Comparisons with neighbouring fields of a header become one, as nft makes them: `arp saddr ether A arp saddr ip B`
// is one load of ten bytes. Inequalities stay apart, whatever old versions of nft do: not (A and B) is another rule.
import type { Expression } from './expression.ts'
import { NFT_CMP, NFT_PAYLOAD } from './uapi.ts'

const registerBytes = 16
// The kernel loads and compares up to four bytes above the link layer without calling anybody.
const fastBytes = 4

const pays = (base: number, a: number, b: number): boolean =>
  a + b <= registerBytes && (a + b <= fastBytes || base === NFT_PAYLOAD.LL_HEADER || a > fastBytes || b > fastBytes)

export const mergePayloads = (expressions: readonly Expression[]): readonly Expression[] => {
  const out: Expression[] = []
  for (let i = 0; i < expressions.length; i++) {
    const load = expressions[i]!
    const compare = expressions[i + 1]
    if (load.kind !== 'payload' || compare?.kind !== 'cmp' || compare.op !== NFT_CMP.EQ) {
      out.push(load)
      continue
    }
    i++
    const before = out.at(-2)
    const data = out.at(-1)
    const touches =
      before?.kind === 'payload' &&
      data?.kind === 'cmp' &&
      data.op === NFT_CMP.EQ &&
      before.base === load.base &&
      before.offset + before.length === load.offset &&
      pays(load.base, before.length, load.length)
    if (touches) {
      out.splice(-2)
      out.push({ ...before, length: before.length + load.length })
      out.push({ ...data, data: Buffer.concat([data.data, compare.data]) })
    } else {
      out.push(load, compare)
    }
  }
  return out
}

// SPDX-License-Identifier: Apache-2.0
// One table, two namespaces: ours and nft's.
import { execFileSync } from 'node:child_process'
import type { Test } from 'tap'
import { nftBatch } from '../../../src/netlink/nft/batch.ts'
import { type Netlink, openNetlink } from '../../../src/netlink/socket.ts'
import { NETLINK_NETFILTER } from '../../../src/netlink/uapi.ts'
import { freshNetns } from '../lab.ts'
import { fill, nft, nftText, type TableText } from './rules.ts'

export interface NftLab {
  readonly name: string
  readonly path: string
  readonly netlink: Netlink
  /** `nft ARGS` there. */
  nft(args: readonly string[], input?: string): string
  ip(...args: string[]): void
}

export const openNft = async (t: Test, suffix: string): Promise<NftLab> => {
  const { name, path } = await freshNetns(t, suffix)
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, netns: path, sndbuf: 64 << 20, rcvbuf: 8 << 20 })
  t.teardown(() => netlink.close())
  return {
    name,
    path,
    netlink,
    nft: (args, input) => nft(name, args, input),
    ip: (...args) => void execFileSync('ip', ['-n', name, ...args]),
  }
}

/** `nft list ruleset` without the comments by which we know our declarations. */
export const listed = (lab: NftLab): string => lab.nft(['list', 'ruleset']).replaceAll(/\n?\s+comment "[^"]*"/g, '')

/** Expressions as the kernel gives them back; in the words of nft 1.0 where later ones have others for the same. */
export const expressions = (lab: NftLab): string[] =>
  lab
    .nft(['--debug=netlink', 'list', 'ruleset'])
    .replaceAll(/\[ range eq (reg \d+) ((?:0x\S+ )+)\]/g, (_, register: string, ends: string) => {
      const words = ends.trim().split(' ')
      const [first, last] = [words.slice(0, words.length / 2), words.slice(words.length / 2)]
      return `[ cmp gte ${register} ${first.join(' ')} ]\n  [ cmp lte ${register} ${last.join(' ')} ]`
    })
    .replaceAll('csum_type 0 csum_off 0 csum_flags 0x1 ]', 'csum_type 1 csum_off 6 csum_flags 0x0 ]') // of UDP
    .split('\n')
    .filter(line => /^ {2}\[|^\w+ \w+ \w+ \d+/.test(line))
    .map(line => line.replaceAll(/__(set|map)\d+/g, '__$1').replace(/^(\w+ \w+ \w+) .*/, '$1'))

/** What a promise is rejected with. */
export const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    error => error,
  )

export const compare = async (
  t: Test,
  tables: readonly TableText[],
  { links = [] }: { readonly links?: readonly string[] } = {},
): Promise<void> => {
  const id = Math.random().toString(36).slice(2, 7)
  const [ours, theirs] = [await openNft(t, `${id}o`), await openNft(t, `${id}t`)]
  for (const lab of [ours, theirs]) {
    for (const [i, link] of links.entries()) {
      lab.ip('link', 'add', link, 'index', String(100 + i), 'type', 'bridge')
    }
  }
  const batch = nftBatch()
  for (const table of tables) fill(batch, table)
  await batch.commit(ours.netlink, 'load')
  theirs.nft(['-f', '-'], tables.map(nftText).join('\n'))
  t.match(listed(ours), /chain/)
  t.equal(listed(ours), listed(theirs))
  t.ok(expressions(ours).length > 0, `${expressions(ours).length} expressions`)
  t.strictSame(expressions(ours), expressions(theirs))
}

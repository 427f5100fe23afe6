// SPDX-License-Identifier: Apache-2.0
// A large verdict map of nf_tables, of the shape that a policy has: all of it in one transaction, and one element more.
import { silentLog } from '../../src/base/log.ts'
import { openLinuxKernel } from '../../src/kernel/linux.ts'
import type { NftSetObject } from '../../src/kernel/objects.ts'
import { Writer } from '../../src/netlink/message.ts'
import { type NftBatch, nftBatch } from '../../src/netlink/nft/batch.ts'
import { listObjects } from '../../src/netlink/nft/dump.ts'
import type { SetElement } from '../../src/netlink/nft/element.ts'
import { type Netlink, openNetlink } from '../../src/netlink/socket.ts'
import { NETLINK_NETFILTER } from '../../src/netlink/uapi.ts'
import { interleave, timed } from '../frame/interleave.ts'
import type { Options, Report } from '../frame/section.ts'
import { fileOf, quote, sh, timedScript } from '../frame/tool.ts'

const table = 'bench'
const map: NftSetObject = {
  kind: 'nft-set',
  ns: '',
  family: 'inet',
  table,
  set: 'verdicts',
  key: ['mark', 'ipv4_addr', 'inet_proto', 'inet_service'],
  value: ['verdict'],
}
const declaration = { name: map.set, ...map }

/** Number n of as many as there are: identity, address, port. */
const element = (n: number): SetElement => ({
  key: [String(n % 50), `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`, 'tcp', String(80 + (n % 7))],
  value: ['accept'],
})
const words = ({ key, value }: SetElement): string => `${key.join(' . ')} : ${value}`

/** At the peers' side of one run, and at ours: this many elements, one after the other. */
const singles = 20

export const measureMap = async ({ runs, quick }: Options, report: Report): Promise<void> => {
  const count = quick ? 2000 : 100_000
  const elements = Array.from({ length: count }, (_, n) => element(n))
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, sndbuf: 32 << 20, rcvbuf: 8 << 20 })
  const fill = async (through: Netlink): Promise<void> => {
    const batch = nftBatch()
    batch.addTable('inet', table)
    batch.addSet('inet', table, declaration)
    for (const one of elements) batch.addElement('inet', table, declaration, one)
    await batch.commit(through, 'fill the map')
  }
  const filled = (): Promise<void> => fill(netlink)
  const encoded = new Writer()
  await fill({
    ...netlink,
    async atomic(_op, build) {
      build(encoded)
      return { replies: [], errors: [] }
    },
  })
  const sent = async (): Promise<void> => {
    const bytes = encoded.buffer.subarray(0, encoded.length)
    const { errors } = await netlink.atomic('fill the map', w => w.bytes(bytes))
    if (errors[0]) throw errors[0]
  }
  const script = fileOf([
    `add table inet ${table}`,
    `add map inet ${table} ${map.set} { type ${map.key.join(' . ')} : verdict; }`,
    `add element inet ${table} ${map.set} { ${elements.map(words).join(', ')} }`,
  ])
  const nft = fileOf([`exec nft -f ${quote(script)}`])
  const whole = (write: () => Promise<number>) => async (): Promise<number> => {
    const ms = await write()
    await expect(netlink, count)
    await sh(`nft delete table inet ${table}`)
    return ms
  }
  const all = await interleave(runs, {
    ours: whole(() => timed(filled)),
    sent: whole(() => timed(sent)),
    nft: whole(() => timedScript(nft)),
  })
  const row = { section: 'netlink', unit: 'ms', better: 'less' } as const
  const size = count.toLocaleString('en-US')
  report.row({
    ...row,
    name: `nft map of ${size} elements`,
    ours: all.ours,
    peer: { name: 'nft -f', values: all.nft },
    goal: { kind: 'ratio', atLeast: 5 },
  })
  report.row({
    ...row,
    name: `the kernel's part of it: the same octets, made before`,
    ours: all.sent,
    peer: { name: 'nft -f', values: all.nft },
    note: 'no encoder is faster than this',
  })

  await filled()
  const kernel = openLinuxKernel(silentLog)
  let next = count
  const some = (): SetElement[] => Array.from({ length: singles }, () => element(next++))
  const commit = async (change: (batch: NftBatch) => void): Promise<void> => {
    const batch = nftBatch()
    change(batch)
    await batch.commit(netlink, 'one element')
  }
  const one = await interleave(runs, {
    ours: async () => {
      const added = some()
      const work = async (): Promise<void> => {
        for (const each of added) await commit(batch => batch.addElement('inet', table, declaration, each))
      }
      return (await timed(work)) / singles
    },
    nft: async () => {
      const command = (each: SetElement): string =>
        `nft add element inet ${table} ${map.set} ${quote(`{ ${words(each)} }`)}`
      return (await timedScript(fileOf(some().map(command)))) / singles
    },
    apply: async () => {
      const added = some()
      const work = async (): Promise<void> => {
        for (const { key, value } of added) {
          const object = { kind: 'nft-element', set: map, key, value: value! } as const
          for (const { error } of await kernel.apply([{ kind: 'add', object }])) if (error) throw error
        }
      }
      return (await timed(work)) / singles
    },
  })
  await expect(netlink, next)
  const peer = { name: 'nft add element', values: one.nft }
  report.row({
    ...row,
    name: `one element into it, on an open socket`,
    ours: one.ours,
    peer,
    goal: { kind: 'ratio', atLeast: 100 },
    note: `mean of ${singles} transactions a run; nft is started for each, which is what a program that calls it pays`,
  })
  report.row({
    ...row,
    name: 'one element into it, as the agent applies it (a socket of its own)',
    ours: one.apply,
    peer,
  })
  await kernel.close()
  await netlink.close()
  await sh(`nft delete table inet ${table}`)
}

const expect = async (netlink: Netlink, count: number): Promise<void> => {
  const { elements } = await listObjects(netlink, { table: one => one.table === table })
  if (elements.length !== count) throw new Error(`the map has ${elements.length} elements instead of ${count}`)
}

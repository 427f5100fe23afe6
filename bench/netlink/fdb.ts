// SPDX-License-Identifier: Apache-2.0
// FDB rows of a VXLAN device, from text to the kernel: all at once, each to an address or to a nexthop id.

import { Writer } from '../../src/netlink/message.ts'
import { addFdb, decodeFdb, type FdbKey, listFdb, type NewFdb } from '../../src/netlink/rtnl/fdb.ts'
import { decodeLink, getLink } from '../../src/netlink/rtnl/link.ts'
import { openNetlink, type Request } from '../../src/netlink/socket.ts'
import { NETLINK_ROUTE } from '../../src/netlink/uapi.ts'
import { interleave, timed } from '../frame/interleave.ts'
import { underlay } from '../frame/own-host.ts'
import type { Options, Report } from '../frame/section.ts'
import { fileOf, quote, sh, timedScript } from '../frame/tool.ts'

const device = 'vx'
const nexthop = 2
const hex = (byte: number): string => byte.toString(16).padStart(2, '0')

type Destination = Pick<NewFdb, 'nhid'> & Pick<FdbKey, 'dst'>

export const measureFdb = async ({ runs, quick }: Options, report: Report): Promise<void> => {
  const count = quick ? 2000 : 100_000
  const macs = Array.from(
    { length: count },
    (_, i) => `02:77:00:${hex(i >> 16)}:${hex((i >> 8) & 255)}:${hex(i & 255)}`,
  )
  const hosts = Array.from({ length: 200 }, (_, i) => `192.0.2.${i + 10}`)
  await sh(`ip nexthop add id 1 via ${hosts[0]} fdb && ip nexthop add id ${nexthop} group 1 fdb`)
  const toAddress = (i: number): Destination => ({ dst: hosts[i % hosts.length]! })
  const toNexthop = (): Destination => ({ nhid: nexthop })
  const netlink = await openNetlink({ protocol: NETLINK_ROUTE })

  /** On a new device, whose rows are counted afterwards. */
  const onDevice = async (write: (ifindex: number) => Promise<number>): Promise<number> => {
    await sh(`ip link add ${device} type vxlan id 7 local ${underlay} dstport 8473 nolearning`)
    const ifindex = decodeLink((await netlink.run(getLink({ name: device })))[0]!)!.index
    const ms = await write(ifindex)
    const rows = await netlink.dump(listFdb({ ifindex }), message => decodeFdb(message)?.mac)
    if (new Set(rows).size !== count) throw new Error(`${new Set(rows).size} fdb rows instead of ${count}`)
    await sh(`ip link del ${device}`)
    return ms
  }
  const ours = (to: (i: number) => Destination) => () =>
    onDevice(ifindex =>
      timed(async () => {
        const requests = macs.map((mac, i) => addFdb({ ifindex, mac, table: 'self', ...to(i) }))
        for (const error of await netlink.batch(requests)) if (error) throw error
      }),
    )
  /** The same octets, made before. */
  const sent = (to: (i: number) => Destination) => () =>
    onDevice(async ifindex => {
      const writer = new Writer()
      const requests = macs.map((mac, i): Request => {
        const request = addFdb({ ifindex, mac, table: 'self', ...to(i) })
        const from = writer.length
        request.encode(writer)
        const { op, type, flags } = request
        const [start, end] = [from, writer.length]
        return { op, type, flags, encode: w => w.bytes(writer.buffer.subarray(start, end)) }
      })
      return timed(async () => {
        for (const error of await netlink.batch(requests)) if (error) throw error
      })
    })
  const bridge = (to: (i: number) => Destination) => {
    const words = ({ dst, nhid }: Destination): string => (dst === undefined ? `nhid ${nhid}` : `dst ${dst}`)
    const batch = fileOf(macs.map((mac, i) => `fdb add ${mac} dev ${device} ${words(to(i))} self static extern_learn`))
    const script = fileOf([`exec bridge -batch ${quote(batch)}`])
    return () => onDevice(() => timedScript(script))
  }
  const values = await interleave(runs, {
    address: ours(toAddress),
    addressSent: sent(toAddress),
    bridgeAddress: bridge(toAddress),
    nexthop: ours(toNexthop),
    bridgeNexthop: bridge(toNexthop),
  })
  const row = { section: 'netlink', unit: 'ms', better: 'less' } as const
  const rows = count.toLocaleString('en-US')
  report.row({
    ...row,
    name: `${rows} FDB rows to addresses`,
    ours: values.address,
    peer: { name: 'bridge -batch', values: values.bridgeAddress },
    goal: { kind: 'ratio', atLeast: 3 },
  })
  report.row({
    ...row,
    name: `the kernel's part of it: the same octets, made before`,
    ours: values.addressSent,
    peer: { name: 'bridge -batch', values: values.bridgeAddress },
    note: 'no encoder is faster than this',
  })
  report.row({
    ...row,
    name: `${rows} FDB rows to a nexthop id, as weft writes them`,
    ours: values.nexthop,
    peer: { name: 'bridge -batch, to addresses', values: values.bridgeAddress },
  })
  report.row({
    ...row,
    name: `the same by both`,
    ours: values.nexthop,
    peer: { name: 'bridge -batch, to a nexthop id', values: values.bridgeNexthop },
  })
  await netlink.close()
}

// SPDX-License-Identifier: Apache-2.0
// Links against the live kernel, read back by our dump and by iproute2.
import { closeSync } from 'node:fs'
import t from 'tap'
import { netnsOpenFd } from '../../src/netlink/netns.ts'
import {
  addLink,
  decodeLink,
  getLink,
  type Link,
  listLinks,
  removeLink,
  setBridgePort,
  setLink,
  setLinkKind,
} from '../../src/netlink/rtnl/link.ts'
import { type Lab, ok, openLab } from './lab.ts'

const find = async (lab: Lab, name: string): Promise<Link> => {
  const link = (await lab.netlink.dump(listLinks(), decodeLink)).find(each => each.name === name)
  if (!link) throw new Error(`no link ${name}`)
  return link
}

t.test('bridge, vxlan and veth in one batch by chosen index', async t => {
  const lab = await openLab(t, 'l1')
  const { netlink, ip } = lab
  ok(
    t,
    await netlink.batch([
      addLink({
        name: 'br0',
        index: 100_000,
        up: true,
        mtu: 1450,
        mac: '02:77:00:00:00:01',
        type: {
          kind: 'bridge',
          ageingTime: 12_300,
          multicastSnooping: false,
          nfCallIptables: false,
          groupForwardMask: 8,
        },
      }),
      addLink({
        name: 'vx0',
        index: 100_001,
        up: true,
        mtu: 1450,
        master: 100_000,
        type: {
          kind: 'vxlan',
          vni: 4097,
          port: 4789,
          local: '192.0.2.1',
          gbp: true,
          ttl: 64,
          df: 1,
          portRange: [40_000, 50_000],
          udpChecksum: true,
          l2miss: true,
        },
      }),
      addLink({
        name: 'host0',
        index: 100_002,
        up: true,
        master: 100_000,
        txQueueLength: 500,
        queues: 1,
        type: { kind: 'veth', peer: { name: 'eth0', index: 100_003, mtu: 1400, mac: '02:77:00:00:00:02' } },
      }),
      setLink({ index: 100_000 }, { addrGenMode: 'none' }),
      setLink({ index: 100_002 }, { alias: 'port of c1' }),
      setBridgePort(100_001, { learning: false, neighSuppress: true, unicastFlood: false, broadcastFlood: true }),
      setBridgePort(100_002, {
        learning: false,
        isolated: true,
        hairpin: true,
        multicastFlood: false,
      }),
    ]),
  )
  const br = await find(lab, 'br0')
  t.match(br, { index: 100_000, up: true, mtu: 1450, mac: '02:77:00:00:00:01', kind: 'bridge', addrGenMode: 'none' })
  t.match(br.bridge, { ageingTime: 12_300, multicastSnooping: false, nfCallIptables: false, groupForwardMask: 8 })
  const [ipBr] = ip('link', 'show', 'br0')
  t.match(ipBr, { ifindex: 100_000, mtu: 1450, address: '02:77:00:00:00:01', inet6_addr_gen_mode: 'none' })
  t.match(ipBr.linkinfo, { info_kind: 'bridge', info_data: { ageing_time: 12_300, mcast_snooping: 0 } })

  const vx = await find(lab, 'vx0')
  t.match(vx, { index: 100_001, kind: 'vxlan', master: 100_000, slaveKind: 'bridge' })
  t.match(vx.vxlan, {
    ...{ vni: 4097, port: 4789, local: '192.0.2.1', gbp: true, ttl: 64, df: 1, learning: false, l2miss: true },
    ...{ portRange: [40_000, 50_000], udpChecksum: true, external: false },
  })
  t.match(vx.port, { learning: false, neighSuppress: true, unicastFlood: false, broadcastFlood: true, isolated: false })
  const [ipVx] = ip('link', 'show', 'vx0')
  t.match(ipVx.linkinfo.info_data, { id: 4097, port: 4789, local: '192.0.2.1', learning: false, ttl: 64 })
  t.ok('gbp' in ipVx.linkinfo.info_data, 'true, or null since iproute2 6.13')
  t.match(ipVx.linkinfo.info_slave_data, { learning: false, neigh_suppress: true, flood: false, bcast_flood: true })

  const host = await find(lab, 'host0')
  t.match(host, { kind: 'veth', link: 100_003, linkNetnsId: undefined, alias: 'port of c1', txQueueLength: 500 })
  t.match(host.port, { isolated: true, hairpin: true, learning: false, multicastFlood: false })
  const [ipPort] = lab.bridge('link', 'show', 'dev', 'host0')
  t.match(ipPort, { isolated: true, hairpin: true, learning: false, mcast_flood: false })
  t.match(await find(lab, 'eth0'), { index: 100_003, mtu: 1400, mac: '02:77:00:00:00:02', up: false, link: 100_002 })

  t.equal((await netlink.dump(listLinks({ master: 100_000 }), decodeLink)).length, 2, 'filter by master')
  t.equal((await netlink.dump(listLinks({ kind: 'veth' }), decodeLink)).length, 2, 'filter by kind')
  const [reply] = await netlink.run(getLink({ name: 'vx0' }))
  t.match(decodeLink(reply!), { index: 100_001 })

  ok(
    t,
    await netlink.batch([
      setLink({ index: 100_002 }, { master: 0, mtu: 1300, up: false }),
      setLink({ name: 'eth0' }, { mac: '02:77:00:00:00:03', up: true }),
      setLinkKind({ index: 100_000 }, { kind: 'bridge', ageingTime: 45_600 }),
      setLinkKind({ index: 100_001 }, { kind: 'vxlan', ttl: 32, learning: true }),
      setLink({ index: 100_002 }, { name: 'renamed' }),
    ]),
  )
  t.match(await find(lab, 'renamed'), { index: 100_002, master: undefined, mtu: 1300, up: false, port: undefined })
  t.match(await find(lab, 'eth0'), { mac: '02:77:00:00:00:03', up: true })
  t.match((await find(lab, 'br0')).bridge, { ageingTime: 45_600 })
  t.match((await find(lab, 'vx0')).vxlan, { ttl: 32, gbp: true, vni: 4097, learning: true, local: '192.0.2.1' })

  ok(t, await netlink.batch([removeLink({ name: 'renamed' }), removeLink({ index: 100_001 })]))
  t.strictSame(
    ip('link')
      .map(link => link.ifname)
      .sort(),
    ['br0', 'lo'],
    'both veth ends and the vxlan are gone',
  )
})

t.test('an IPv6 vxlan, and one with external VNIs and a filter', async t => {
  const lab = await openLab(t, 'l2')
  ok(
    t,
    await lab.netlink.batch([
      addLink({
        name: 'vx6',
        type: { kind: 'vxlan', vni: 7, port: 4790, local: 'fd77::1', group: 'fd77::2', udpZeroChecksum6Rx: true },
      }),
      addLink({ name: 'vxe', type: { kind: 'vxlan', port: 4791, external: true, vniFilter: true } }),
    ]),
  )
  t.match((await find(lab, 'vx6')).vxlan, { local: 'fd77::1', group: 'fd77::2', udpZeroChecksum6Rx: true, gbp: false })
  t.match(lab.ip('link', 'show', 'vx6')[0].linkinfo.info_data, { id: 7, local6: 'fd77::1', remote6: 'fd77::2' })
  t.match((await find(lab, 'vxe')).vxlan, { external: true, vniFilter: true, port: 4791 })
})

t.test('a veth end is born in, and a link moved to, another namespace', async t => {
  const lab = await openLab(t, 'l3')
  const other = await openLab(t, 'l4')
  const netnsFd = await netnsOpenFd(other.path)
  t.teardown(() => closeSync(netnsFd))
  ok(
    t,
    await lab.netlink.batch([
      addLink({ name: 'out', type: { kind: 'veth', peer: { name: 'in', netnsFd, mtu: 1400 } } }),
      addLink({ name: 'vx0', type: { kind: 'vxlan', vni: 9, port: 4789 } }),
      setLink({ name: 'vx0' }, { netnsFd }),
    ]),
  )
  const out = await find(lab, 'out')
  const inside = await find(other, 'in')
  t.equal(out.link, inside.index)
  t.type(out.linkNetnsId, 'number')
  t.equal(inside.mtu, 1400)
  t.match(await find(other, 'vx0'), { kind: 'vxlan', vxlan: { vni: 9 } })
  t.match(
    other.ip('link').map(link => link.ifname),
    ['lo', 'in', 'vx0'],
  )
})

t.test('refusals carry the kernel text, the attribute and the errno', async t => {
  const { netlink } = await openLab(t, 'l5')
  const [tooLarge, twice, first, second] = await netlink.batch([
    addLink({ name: 'vx0', type: { kind: 'vxlan', vni: 16_777_216, port: 4789 } }),
    addLink({ name: 'lo', type: { kind: 'bridge' } }),
    addLink({ name: 'b0', index: 4242, type: { kind: 'bridge' } }),
    addLink({ name: 'b1', index: 4242, type: { kind: 'bridge' } }),
  ])
  t.match(tooLarge, {
    code: 'KERNEL',
    errnoName: 'ERANGE',
    detail: /VXLAN ID must be lower than 16777216/,
    attribute: 'IFLA_LINKINFO.IFLA_INFO_DATA.IFLA_VXLAN_ID',
    op: 'add vxlan "vx0"',
    index: 0,
    retryable: false,
  })
  t.match(twice, { errnoName: 'EEXIST', index: 1 })
  t.equal(first, undefined)
  t.match(second, { errnoName: 'EEXIST', index: 3 }, 'an index in use is refused, the other device untouched')
  const [gone, kind] = await netlink.batch([
    removeLink({ index: 77 }),
    addLink({ name: 'x', type: { kind: 'plain', name: 'nosuchkind' } }),
  ])
  t.match(gone, { errnoName: 'ENODEV', absent: true })
  t.match(kind, { errnoName: 'EOPNOTSUPP', detail: /Unknown device type/ })
  t.match(await netlink.run(getLink({ name: 'nothere' })).catch(error => error), { errnoName: 'ENODEV' })
})

t.test('names of 15 bytes pass, of 16 are refused before the kernel sees them', async t => {
  const { netlink, ip } = await openLab(t, 'l6')
  const [fifteen, sixteen, after] = await netlink.batch([
    addLink({ name: 'a23456789012345', type: { kind: 'bridge' } }),
    addLink({ name: 'a234567890123456', type: { kind: 'bridge' } }),
    addLink({ name: 'after', type: { kind: 'bridge' } }),
  ])
  t.equal(fifteen, undefined)
  t.match(sixteen, { errnoName: 'EINVAL', detail: /at most 15/, index: 1 })
  t.equal(after, undefined, 'the others are sent')
  t.strictSame(
    ip('link').map(link => link.ifname),
    ['lo', 'a23456789012345', 'after'],
  )
})

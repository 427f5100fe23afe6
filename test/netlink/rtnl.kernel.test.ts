// SPDX-License-Identifier: Apache-2.0
// Addresses, routes, rules, neighbours, FDB and nexthops against the live kernel, read back by our dump and iproute2.
import t from 'tap'
import { getFamily } from '../../src/netlink/genl/ctrl.ts'
import { addAddress, decodeAddress, listAddresses, removeAddress, replaceAddress } from '../../src/netlink/rtnl/addr.ts'
import {
  addFdb,
  appendFdb,
  decodeFdb,
  fdbKey,
  floodMac,
  flushFdb,
  listFdb,
  removeFdb,
  replaceFdb,
} from '../../src/netlink/rtnl/fdb.ts'
import { addLink, setLink } from '../../src/netlink/rtnl/link.ts'
import {
  addNeighbour,
  decodeNeighbour,
  listNeighbours,
  removeNeighbour,
  replaceNeighbour,
} from '../../src/netlink/rtnl/neigh.ts'
import {
  addNexthop,
  decodeNexthop,
  listNexthops,
  removeNexthop,
  replaceNexthop,
} from '../../src/netlink/rtnl/nexthop.ts'
import {
  addRoute,
  appendRoute,
  decodeRoute,
  listRoutes,
  removeRoute,
  replaceRoute,
} from '../../src/netlink/rtnl/route.ts'
import { addRule, decodeRule, listRules, removeRule } from '../../src/netlink/rtnl/rule.ts'
import { openNetlink } from '../../src/netlink/socket.ts'
import { AF_INET, AF_INET6, NETLINK_GENERIC } from '../../src/netlink/uapi.ts'
import { type Lab, ok, openLab, type Printed } from './lab.ts'

const br = 1000
const vx = 1001
const port = 1002
const peer = 1003

const wire = async (lab: Lab): Promise<void> => {
  const outcomes = await lab.netlink.batch([
    setLink({ index: 1 }, { up: true }),
    addLink({ name: 'br0', index: br, up: true, type: { kind: 'bridge' } }),
    addLink({ name: 'vx0', index: vx, up: true, master: br, type: { kind: 'vxlan', vni: 7, port: 4789 } }),
    addLink({
      name: 'p0',
      index: port,
      up: true,
      master: br,
      type: { kind: 'veth', peer: { name: 'p1', index: peer } },
    }),
    setLink({ index: peer }, { up: true }),
  ])
  for (const error of outcomes) if (error) throw error
}

t.test('addresses', async t => {
  const lab = await openLab(t, 'r1')
  await wire(lab)
  const { netlink, ip } = lab
  ok(
    t,
    await netlink.batch([
      addAddress({ ifindex: br, prefix: '10.1.0.1/16', broadcast: '10.1.255.255', label: 'br0:x' }),
      addAddress({ ifindex: br, prefix: 'fd77::1/64', noPrefixRoute: true }),
      addAddress({ ifindex: br, prefix: '10.2.0.1/24', validSeconds: 600, preferredSeconds: 300, scope: 253 }),
    ]),
  )
  const [twice] = await netlink.batch([addAddress({ ifindex: br, prefix: '10.1.0.1/16' })])
  t.match(twice, { errnoName: 'EEXIST' })
  const found = await netlink.dump(listAddresses({ ifindex: br }), decodeAddress)
  t.match(
    found.find(a => a.address === '10.1.0.1'),
    {
      prefixLength: 16,
      ifindex: br,
      family: AF_INET,
      broadcast: '10.1.255.255',
      label: 'br0:x',
      scope: 0,
      validSeconds: undefined,
    },
  )
  t.match(
    found.find(a => a.address === 'fd77::1'),
    { prefixLength: 64, family: AF_INET6, flags: 0x282 },
    'nodad, permanent, noprefixroute',
  )
  t.match(
    found.find(a => a.address === '10.2.0.1'),
    { validSeconds: Number, preferredSeconds: Number, scope: 253 },
  )
  const printed = ip('address', 'show', 'br0')[0].addr_info as Printed[]
  t.match(
    printed.find(a => a.local === 'fd77::1'),
    { prefixlen: 64, nodad: true, noprefixroute: true },
  )
  t.match(
    printed.find(a => a.local === '10.2.0.1'),
    { scope: 'link', preferred_life_time: Number },
  )
  ok(
    t,
    await netlink.batch([
      replaceAddress({ ifindex: br, prefix: '10.2.0.1/24', validSeconds: 1000, scope: 253 }),
      removeAddress({ ifindex: br, prefix: '10.1.0.1/16' }),
      removeAddress({ ifindex: br, prefix: 'fd77::1/64' }),
    ]),
  )
  const [absent] = await netlink.batch([removeAddress({ ifindex: br, prefix: '10.1.0.1/16' })])
  t.match(absent, { errnoName: 'EADDRNOTAVAIL', absent: true })
  const left = (await netlink.dump(listAddresses({ ifindex: br }), decodeAddress)).filter(
    a => a.scope !== 253 || a.family === AF_INET,
  )
  t.strictSame(
    left.map(a => a.address),
    ['10.2.0.1'],
  )
  t.ok((left[0]?.validSeconds ?? 0) > 900)
})

t.test('routes', async t => {
  const lab = await openLab(t, 'r2')
  await wire(lab)
  const { netlink, ip } = lab
  ok(
    t,
    await netlink.batch([
      addAddress({ ifindex: br, prefix: '10.1.0.1/16' }),
      addAddress({ ifindex: br, prefix: 'fd77::1/64' }),
      addRoute({ dst: '0.0.0.0/0', gateway: '10.1.0.2', protocol: 44 }),
      addRoute({ dst: '::/0', gateway: 'fd77::2', protocol: 44, metric: 99 }),
      addRoute({ dst: '10.9.0.0/16', oif: br, protocol: 44, mtu: 1300, prefSrc: '10.1.0.1' }),
      addRoute({ dst: '10.8.0.0/16', gateway: '192.0.2.9', oif: br, onlink: true, table: 1234, protocol: 44 }),
      addRoute({ dst: '10.7.0.0/16', type: 'blackhole', protocol: 44 }),
      addRoute({ dst: 'fd78::/64', type: 'unreachable', protocol: 44 }),
      addRoute({ dst: '10.66.0.0/16', type: 'local', oif: 1, table: 300, protocol: 44 }),
      addRoute({
        dst: '10.6.0.0/16',
        protocol: 44,
        hops: [
          { gateway: '10.1.0.3', oif: br, weight: 2 },
          { gateway: '10.1.0.4', oif: br, weight: 3 },
        ],
      }),
      addNexthop({ id: 50, gateway: '10.1.0.7', oif: br }),
      addRoute({ dst: '10.5.0.0/16', nhid: 50, protocol: 44 }),
    ]),
  )
  const found = await netlink.dump(listRoutes({ protocol: 44 }), decodeRoute)
  const by = (dst: string) => found.find(r => r.dst === dst)
  t.match(by('0.0.0.0/0'), { gateway: '10.1.0.2', oif: br, table: 254, type: 'unicast', scope: 0, protocol: 44 })
  t.match(by('::/0'), { gateway: 'fd77::2', oif: br, metric: 99, family: AF_INET6 })
  t.match(by('10.9.0.0/16'), { oif: br, mtu: 1300, prefSrc: '10.1.0.1', scope: 253 })
  t.match(by('10.8.0.0/16'), { gateway: '192.0.2.9', onlink: true, table: 1234 })
  t.match(by('10.7.0.0/16'), { type: 'blackhole' })
  t.match(by('fd78::/64'), { type: 'unreachable' })
  t.match(by('10.66.0.0/16'), { type: 'local', table: 300, scope: 254 })
  t.match(by('10.6.0.0/16')?.hops, [
    { gateway: '10.1.0.3', oif: br, weight: 2 },
    { gateway: '10.1.0.4', oif: br, weight: 3 },
  ])
  t.match(by('10.5.0.0/16'), { nhid: 50 })
  t.match(ip('route', 'show', 'table', '1234'), [{ dst: '10.8.0.0/16', gateway: '192.0.2.9', flags: ['onlink'] }])
  t.match(ip('route', 'show', '10.6.0.0/16')[0].nexthops, [{ weight: 2 }, { weight: 3 }])
  t.match(ip('route', 'show', '10.9.0.0/16'), [{ scope: 'link', metrics: [{ mtu: 1300 }], prefsrc: '10.1.0.1' }])
  t.equal((await netlink.dump(listRoutes({ table: 1234 }), decodeRoute)).length, 1)

  const [twice, gateway, hostBits] = await netlink.batch([
    addRoute({ dst: '10.7.0.0/16', type: 'blackhole' }),
    addRoute({ dst: '10.44.0.0/16', gateway: '203.0.113.1' }),
    addRoute({ dst: '10.44.0.1/16', oif: br }),
  ])
  t.match(twice, { errnoName: 'EEXIST' })
  t.match(gateway, { errnoName: 'ENETUNREACH', detail: /invalid gateway/ })
  t.match(hostBits, { errnoName: 'EINVAL', op: /10.44.0.1\/16/ })

  ok(
    t,
    await netlink.batch([
      replaceRoute({ dst: '0.0.0.0/0', gateway: '10.1.0.5', protocol: 44 }),
      appendRoute({ dst: '10.9.0.0/16', gateway: '10.1.0.6', protocol: 44 }),
      removeRoute({ dst: '10.8.0.0/16', table: 1234 }),
      removeRoute({ dst: '::/0' }),
      removeRoute({ dst: '10.6.0.0/16' }),
      removeRoute({ dst: '10.66.0.0/16', table: 300, type: 'local' }),
    ]),
  )
  const after = await netlink.dump(listRoutes({ protocol: 44 }), decodeRoute)
  t.match(
    after.filter(r => r.dst === '0.0.0.0/0'),
    [{ gateway: '10.1.0.5' }],
  )
  t.equal(after.filter(r => r.dst === '10.9.0.0/16').length, 2)
  t.equal(
    after.find(r => r.table !== 254),
    undefined,
  )
  const [absent] = await netlink.batch([removeRoute({ dst: '10.8.0.0/16', table: 1234 })])
  t.match(absent, { errnoName: 'ESRCH', absent: true })
  t.match(
    await netlink.dump(listRoutes({ family: AF_INET, table: 4321 }), decodeRoute).catch(error => error),
    { errnoName: 'ENOENT', detail: /table does not exist/ },
    'an error inside DONE',
  )
})

t.test('rules', async t => {
  const { netlink, ip } = await openLab(t, 'r3')
  const v4 = {
    ...{ family: AF_INET, priority: 100, table: 1000, src: '10.1.0.0/16', dst: '10.2.0.0/24', mark: 0x77, mask: 0xff },
    ...{ iif: 'br0', protocol: 44, ipProtocol: 6, destinationPorts: [80, 90] as const, suppressPrefixLength: 0 },
  }
  const v6 = {
    family: AF_INET6,
    priority: 101,
    action: 'unreachable' as const,
    src: 'fd77::/64',
    invert: true,
    protocol: 44,
  }
  ok(t, await netlink.batch([addRule(v4), addRule(v6)]))
  const [twice] = await netlink.batch([addRule(v4)])
  t.match(twice, { errnoName: 'EEXIST' })
  const ours = (await netlink.dump(listRules(), decodeRule)).filter(rule => rule.protocol === 44)
  t.strictSame(
    ours,
    [{ ...v4, action: 'lookup' }, v6].map(rule => ({ ...ours.find(o => o.family === rule.family), ...rule })),
  )
  t.match(ip('rule', 'show', 'priority', '100'), [
    { src: '10.1.0.0', srclen: 16, table: '1000', fwmark: '0x77', iif: 'br0' },
  ])
  t.match(ip('-6', 'rule', 'show', 'priority', '101'), [{ src: 'fd77::', action: 'unreachable' }])
  ok(t, await netlink.batch([removeRule(v4), removeRule(v6)]))
  t.equal((await netlink.dump(listRules(AF_INET), decodeRule)).filter(rule => rule.protocol === 44).length, 0)
  const [absent] = await netlink.batch([removeRule(v4)])
  t.match(absent, { errnoName: 'ENOENT', absent: true })
})

t.test('neighbours', async t => {
  const lab = await openLab(t, 'r4')
  await wire(lab)
  const { netlink, ip } = lab
  const mac = '02:77:00:00:00:05'
  ok(
    t,
    await netlink.batch([
      addNeighbour({ ifindex: br, ip: '10.1.0.5', mac, protocol: 44 }),
      addNeighbour({ ifindex: br, ip: 'fd77::5', mac, state: 0x40, extLearned: true }),
      addNeighbour({ ifindex: br, ip: '10.1.0.99', proxy: true }),
    ]),
  )
  const list = async (proxy = false) =>
    (await netlink.dump(listNeighbours({ ifindex: br, proxy }), decodeNeighbour)).filter(
      n => !/^(ff02|224\.)/.test(n.ip),
    )
  t.match(
    (await list()).find(n => n.family === AF_INET),
    { ip: '10.1.0.5', mac, state: 0x80, protocol: 44, ifindex: br, proxy: false },
  )
  t.match(
    (await list()).find(n => n.family === AF_INET6),
    { ip: 'fd77::5', mac, state: 0x40, flags: 0x10 },
  )
  t.match(await list(true), [{ ip: '10.1.0.99', proxy: true, mac: undefined }])
  t.match(ip('neigh', 'show', '10.1.0.5'), [{ dst: '10.1.0.5', lladdr: mac, state: ['PERMANENT'] }])
  const other = '02:77:00:00:00:06'
  ok(t, await netlink.batch([replaceNeighbour({ ifindex: br, ip: '10.1.0.5', mac: other, protocol: 44 })]))
  t.match(
    (await list()).find(n => n.ip === '10.1.0.5'),
    { mac: other },
  )
  ok(
    t,
    await netlink.batch([
      removeNeighbour({ ifindex: br, ip: '10.1.0.5' }),
      removeNeighbour({ ifindex: br, ip: 'fd77::5' }),
      removeNeighbour({ ifindex: br, ip: '10.1.0.99', proxy: true }),
    ]),
  )
  t.strictSame(await list(true), [])
  const [absent] = await netlink.batch([removeNeighbour({ ifindex: br, ip: '10.1.0.5' })])
  t.match(absent, { absent: true })
})

t.test('fdb of vxlan and bridge, and nexthop groups', async t => {
  const lab = await openLab(t, 'r5')
  await wire(lab)
  const { netlink, bridge, ip } = lab
  const mac = (n: number) => `02:77:00:00:01:0${n}`
  ok(
    t,
    await netlink.batch([
      addNexthop({ id: 0x7700_0001, gateway: '192.0.2.1', fdb: true, protocol: 44 }),
      addNexthop({ id: 0x7700_0002, gateway: '192.0.2.2', fdb: true, protocol: 44 }),
      addNexthop({
        id: 0x7700_0009,
        group: [{ id: 0x7700_0001 }, { id: 0x7700_0002, weight: 3 }],
        fdb: true,
        protocol: 44,
      }),
      addFdb({ ifindex: vx, mac: mac(1), table: 'self', dst: '192.0.2.1', vni: 8, port: 4790 }),
      addFdb({ ifindex: vx, mac: mac(2), table: 'both', dst: '192.0.2.2' }),
      addFdb({ ifindex: vx, mac: mac(3), table: 'self', nhid: 0x7700_0009 }),
      addFdb({ ifindex: vx, mac: mac(3), table: 'master' }),
      addFdb({ ifindex: port, mac: mac(4), table: 'master', sticky: true, extLearned: false }),
      appendFdb({ ifindex: vx, mac: floodMac, table: 'self', dst: '192.0.2.1' }),
      appendFdb({ ifindex: vx, mac: floodMac, table: 'self', dst: '192.0.2.2' }),
    ]),
  )
  const list = async () =>
    (await netlink.dump(listFdb({ ifindex: vx }), decodeFdb)).filter(
      e => e.mac.startsWith('02:77') || e.mac === floodMac,
    )
  const found = await list()
  t.equal(new Set(found.map(fdbKey)).size, found.length)
  const self = (n: number) => found.find(e => e.mac === mac(n) && e.table === 'self')
  const master = (n: number) => found.find(e => e.mac === mac(n) && e.table === 'master')
  t.match(self(1), { dst: '192.0.2.1', vni: 8, port: 4790, extLearned: true, state: 0x42, ifindex: vx })
  t.match(self(2), { dst: '192.0.2.2' })
  t.match(master(2), { master: br, extLearned: true })
  t.match(self(3), { nhid: 0x7700_0009, dst: undefined })
  t.match(master(3), { master: br })
  t.equal(found.filter(e => e.mac === floodMac).length, 2)
  const ofBridge = await netlink.dump(listFdb({ master: br }), decodeFdb)
  t.match(
    ofBridge.find(e => e.mac === mac(4)),
    { ifindex: port, table: 'master', flags: 0x40, extLearned: false },
  )
  const printed = bridge('fdb', 'show', 'dev', 'vx0')
  t.match(
    printed.find((e: Printed) => e.mac === mac(1)),
    { dst: '192.0.2.1', vni: 8, port: 4790, flags: ['self', 'extern_learn'] },
  )
  t.match(
    printed.find((e: Printed) => e.mac === mac(3) && e.nhid !== undefined),
    { nhid: 0x7700_0009 },
  )
  const hops = await netlink.dump(listNexthops({ fdb: true }), decodeNexthop)
  t.match(
    hops.find(n => n.id === 0x7700_0009),
    { fdb: true, protocol: 44, group: [{ weight: 1 }, { id: 0x7700_0002, weight: 3 }] },
  )
  t.match(ip('nexthop', 'show', 'id', String(0x7700_0001)), [{ gateway: '192.0.2.1', protocol: '44' }])
  t.equal((await netlink.dump(listNexthops({ groups: true }), decodeNexthop)).length, 1)

  ok(
    t,
    await netlink.batch([
      replaceNexthop({ id: 0x7700_0001, gateway: '192.0.2.77', fdb: true, protocol: 44 }),
      replaceFdb({ ifindex: vx, mac: mac(1), table: 'self', dst: '192.0.2.50' }),
      removeFdb({ ifindex: vx, mac: mac(2), table: 'both' }),
      removeFdb({ ifindex: vx, mac: floodMac, table: 'self', dst: '192.0.2.1' }),
    ]),
  )
  const after = await list()
  t.match(
    after.filter(e => e.mac === mac(1)),
    [{ dst: '192.0.2.50' }],
  )
  t.equal(after.filter(e => e.mac === mac(2)).length, 0)
  t.match(
    after.filter(e => e.mac === floodMac),
    [{ dst: '192.0.2.2' }],
  )
  const [twice, absent, refused] = await netlink.batch([
    addFdb({ ifindex: vx, mac: mac(1), table: 'self', dst: '192.0.2.50' }),
    removeFdb({ ifindex: vx, mac: mac(7), table: 'self' }),
    addFdb({ ifindex: vx, mac: mac(8), table: 'self', dst: '192.0.2.1', state: 0x40 }),
  ])
  t.match(twice, {
    errnoName: 'EEXIST',
    message: /^add fdb entry 02:77:00:00:01:01 via 192.0.2.50 on 1001 self: EEXIST/,
  })
  t.match(absent, { errnoName: 'ENOENT', absent: true })
  t.match(refused, { errnoName: 'EINVAL' }, 'NOARP alone on a vxlan')
  const flushed = await netlink.batch([flushFdb({ ifindex: vx, table: 'self', nhid: 0x7700_0009 })])
  if (flushed[0]?.detail === 'Unsupported attribute')
    // vxlan flushes by filter since 6.7: before, the rows go one by one
    ok(
      t,
      await netlink.batch(
        (await list())
          .filter(e => e.nhid !== undefined)
          .map(e => removeFdb({ ifindex: vx, mac: e.mac, table: 'self' })),
      ),
    )
  else ok(t, flushed)
  t.equal((await list()).filter(e => e.nhid !== undefined).length, 0)
  ok(t, await netlink.batch([removeNexthop(0x7700_0009), removeNexthop(0x7700_0001)]))
  t.equal((await netlink.dump(listNexthops(), decodeNexthop)).length, 1)
})

t.test('20,000 entries: one outcome each, failures at their own index', async t => {
  const lab = await openLab(t, 'r6')
  await wire(lab)
  const hex = (n: number) => n.toString(16).padStart(2, '0')
  const requests = Array.from({ length: 20_000 }, (_, i) =>
    replaceFdb({
      ifindex: i % 5000 === 4999 ? 99_999 : vx,
      mac: `02:42:00:00:${hex(i >> 8)}:${hex(i & 255)}`,
      table: 'self',
      dst: '192.0.2.1',
    }),
  )
  const outcomes = await lab.netlink.batch(requests)
  t.equal(outcomes.length, 20_000)
  const failed = outcomes.flatMap((error, i) => (error ? [[i, error.errnoName, error.index]] : []))
  t.strictSame(
    failed,
    [4999, 9999, 14_999, 19_999].map(i => [i, 'ENODEV', i]),
  )
  const found = await lab.netlink.dump(listFdb({ ifindex: vx }), decodeFdb)
  t.equal(new Set(found.filter(e => e.mac.startsWith('02:42')).map(fdbKey)).size, 19_996)
})

t.test('generic netlink families by name', async t => {
  const netlink = await openNetlink({ protocol: NETLINK_GENERIC })
  t.teardown(() => netlink.close())
  t.match(await getFamily(netlink, 'nlctrl'), { id: 16, version: 2 })
  t.type((await getFamily(netlink, 'nlctrl'))?.groups.get('notify'), 'number')
  t.equal(await getFamily(netlink, 'nosuchfamily'), undefined)
})

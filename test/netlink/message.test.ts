// SPDX-License-Identifier: Apache-2.0
// Writer and readers: bytes by hand, lengths at their limits, damaged input.
import fc from 'fast-check'
import t from 'tap'
import { attributePath } from '../../src/netlink/explain.ts'
import { decodeFamily } from '../../src/netlink/genl/ctrl.ts'
import { attributes, Bytes, type Message, messages, Writer } from '../../src/netlink/message.ts'
import { addAddress, decodeAddress } from '../../src/netlink/rtnl/addr.ts'
import { addFdb, appendFdb, decodeFdb, floodMac } from '../../src/netlink/rtnl/fdb.ts'
import { addLink, decodeLink, linkNames, setBridgePort } from '../../src/netlink/rtnl/link.ts'
import { decodeNeighbour, replaceNeighbour } from '../../src/netlink/rtnl/neigh.ts'
import { decodeNetconf } from '../../src/netlink/rtnl/netconf.ts'
import { addNexthop, decodeNexthop } from '../../src/netlink/rtnl/nexthop.ts'
import { decodePort } from '../../src/netlink/rtnl/port.ts'
import { addRoute, decodeRoute } from '../../src/netlink/rtnl/route.ts'
import { addRule, decodeRule } from '../../src/netlink/rtnl/rule.ts'
import { IFLA, NETCONFA, NETCONFA_IFINDEX, RTM } from '../../src/netlink/rtnl/uapi.ts'
import type { Request } from '../../src/netlink/socket.ts'
import { AF_INET6 } from '../../src/netlink/uapi.ts'
import { bytes, encode, only, survivesDamage, tame } from './bytes.ts'

t.test('a vxlan fdb entry, byte for byte', async t => {
  const request = addFdb({
    ifindex: 0x1234,
    mac: '02:42:0a:00:00:02',
    table: 'self',
    dst: '192.0.2.7',
    vni: 9,
    port: 4789,
  })
  t.equal(request.op, 'add fdb entry 02:42:0a:00:00:02 via 192.0.2.7 on 4660 self')
  t.equal(
    encode(request).toString('hex'),
    bytes(`
      40000000 1c00 0106 00000000 00000000 // length 64, RTM_NEWNEIGH, REQUEST|EXCL|CREATE
      07 00 0000 34120000 4200 12 00       // AF_BRIDGE, ifindex, REACHABLE|NOARP, SELF|EXT_LEARNED
      0a00 0200 02420a000002 0000          // NDA_LLADDR, padded
      0800 0100 c0000207                   // NDA_DST
      0800 0700 09000000                   // NDA_VNI
      0600 0600 12b5 0000                  // NDA_PORT, network order
    `),
  )
  t.match(decodeFdb(only(encode(request))), { ifindex: 0x1234, dst: '192.0.2.7', vni: 9, port: 4789, table: 'self' })
})

t.test('a flood entry is permanent and not learned', async t => {
  t.equal(
    encode(appendFdb({ ifindex: 1, mac: floodMac, table: 'self', dst: 'fd77::7' })).toString('hex'),
    bytes(`
      3c000000 1c00 010c 00000000 00000000 // REQUEST|CREATE|APPEND
      07 00 0000 01000000 8000 02 00       // PERMANENT, SELF
      0a00 0200 000000000000 0000
      1400 0100 fd770000000000000000000000000007
    `),
  )
})

t.test('a veth pair: nested bits, padding, the peer header', async t => {
  t.equal(
    encode(addLink({ name: 'a', up: true, type: { kind: 'veth', peer: { name: 'eth0', index: 3 } } })).toString('hex'),
    bytes(`
      5c000000 1000 0106 00000000 00000000
      00 00 0000 00000000 01000000 01000000 // IFF_UP in flags and change
      0600 0300 6100 0000                   // IFLA_IFNAME "a"
      3400 1280                             // IFLA_LINKINFO, nested
        0900 0100 7665746800 000000         // IFLA_INFO_KIND "veth"
        2400 0280                           // IFLA_INFO_DATA, nested
          2000 0180                         // VETH_INFO_PEER, nested
            00 00 0000 03000000 00000000 00000000
            0900 0300 6574683000 000000     // "eth0"
    `),
  )
})

t.test('a bridge port', async t => {
  t.equal(
    encode(setBridgePort(5, { learning: false, isolated: true })).toString('hex'),
    bytes(`
      34000000 1300 0100 00000000 00000000
      07 00 0000 05000000 00000000 00000000
      1400 0c80            // IFLA_PROTINFO, nested
        0500 0800 00000000 // LEARNING
        0500 2100 01000000 // ISOLATED
    `),
  )
})

/** Only the kernel sends it. */
const netconf: Request = {
  op: 'netconf',
  type: RTM.NEWNETCONF,
  flags: 0,
  encode(w) {
    w.u32(AF_INET6) // u8, and its padding
    w.attrI32(NETCONFA.IFINDEX, NETCONFA_IFINDEX.ALL)
    w.attrI32(NETCONFA.FORWARDING, 1)
  },
}

t.test('a setting of all devices', async t => {
  t.same(decodeNetconf(only(encode(netconf))), { family: 6, device: 'all', forwarding: 1, rpFilter: undefined })
})

const samples: [string, Request, (message: Message) => unknown][] = [
  [
    'link',
    addLink({
      name: 'vx',
      mtu: 1450,
      mac: '02:00:00:00:00:01',
      master: 4,
      type: { kind: 'vxlan', vni: 7, port: 4789, local: 'fd77::1', portRange: [1, 2], gbp: true },
    }),
    decodeLink,
  ],
  [
    'bridge',
    addLink({
      name: 'br',
      type: { kind: 'bridge', ageingTime: 1, groupForwardMask: 8, stp: true, vlanFiltering: true },
    }),
    decodeLink,
  ],
  [
    'address',
    addAddress({ ifindex: 1, prefix: '10.1.0.1/16', broadcast: '10.1.255.255', label: 'x', validSeconds: 9 }),
    decodeAddress,
  ],
  [
    'route',
    addRoute({
      dst: '10.1.0.0/16',
      hops: [
        { gateway: '10.0.0.1', oif: 3 },
        { gateway: '10.0.0.2', oif: 4 },
      ],
      mtu: 1300,
      nhid: 4,
    }),
    decodeRoute,
  ],
  [
    'rule',
    addRule({ family: 10, src: 'fd77::/64', iif: 'eth0', table: 1000, mark: 1, mask: 3, destinationPorts: [1, 2] }),
    decodeRule,
  ],
  [
    'neighbour',
    replaceNeighbour({ ifindex: 1, ip: 'fd77::1', mac: '02:00:00:00:00:01', protocol: 44 }),
    decodeNeighbour,
  ],
  [
    'fdb',
    addFdb({ ifindex: 1, mac: '02:00:00:00:00:01', table: 'both', dst: '10.0.0.1', vlan: 4, srcVni: 3, underlay: 2 }),
    decodeFdb,
  ],
  [
    'port of a bridge',
    setBridgePort(5, { state: 3, priority: 32, cost: 100, learning: false, neighVlanSuppress: true }),
    message => [...attributes(message, 16)].flatMap(one => (one.type === IFLA.PROTINFO ? decodePort(one) : [])),
  ],
  ['netconf', netconf, decodeNetconf],
  ['nexthop', addNexthop({ id: 9, group: [{ id: 1 }, { id: 2, weight: 9 }], fdb: true, protocol: 44 }), decodeNexthop],
]

for (const [name, request, decode] of samples) {
  t.test(`${name}: decodes its own bytes, cut anywhere, damaged anywhere`, async t => {
    survivesDamage(t, encode(request), decode)
  })
}

t.test('random bytes neither hang nor read outside', async () => {
  const decoders = [...samples.map(([, , decode]) => decode), decodeFamily]
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(16, 20, 24, 28, 32, 80, 104), (noise, type) => {
      const guarded = Buffer.alloc(noise.length + 16 + 64, 0xff) // a read outside would see 0xff, or throw a RangeError
      guarded.writeUInt32LE(noise.length + 16, 0)
      guarded.writeUInt16LE(type, 4)
      guarded.set(noise, 16)
      const buffer = guarded.subarray(0, (noise.length + 16 + 3) & ~3)
      for (const decode of decoders) tame(() => [...messages(buffer)].map(decode))
      attributePath(buffer, noise[0] ?? 0, linkNames)
    }),
    { numRuns: 2000 },
  )
})

t.test('a length of zero ends the reading', async t => {
  t.throws(() => [...messages(Buffer.alloc(16))], { code: 'KERNEL' })
  t.throws(() => [...attributes(new Bytes(Buffer.alloc(8), 0, 8), 0)], { code: 'KERNEL' })
  t.throws(() => new Bytes(Buffer.alloc(8), 0, 9), { code: 'KERNEL' })
  t.strictSame([...messages(Buffer.alloc(0))], [])
})

t.test('attributes up to 65,535 bytes, and not one more', async t => {
  const w = new Writer()
  w.attrBytes(1, new Uint8Array(65_531))
  t.throws(() => w.attrBytes(1, new Uint8Array(65_532)), { code: 'INVALID' })
  t.throws(() => w.attrString(1, 'x'.repeat(65_531)), { code: 'INVALID' })
  t.throws(() => w.nest(2, () => [1, 2].map(type => w.attrBytes(type, new Uint8Array(40_000)))), { code: 'INVALID' })
  t.throws(() => w.attrString(3, 'a\0b'), { code: 'INVALID' })
})

t.test('growth at any moment keeps the bytes', async t => {
  const fill = (capacity: number): string => {
    const w = new Writer(capacity)
    w.begin(1, 2)
    w.u8(1)
    w.u16(2)
    w.u32(3)
    w.i32(-4)
    w.u64(5n)
    w.be16(6)
    w.be32(7)
    w.be64(8n)
    w.pad()
    w.attrU8(1, 1)
    w.attrU16(2, 2)
    w.attrU32(3, 3)
    w.attrI32(4, -4)
    w.attrU64(5, 5n)
    w.attrBe16(6, 6)
    w.attrBe32(7, 7)
    w.attrBe64(8, 8n)
    w.attrIp(9, '10.0.0.1')
    w.attrMac(10, '02:00:00:00:00:01')
    w.attrString(11, 'text')
    w.attrFlag(12)
    w.nest(13, () => w.attrU8(1, 1))
    w.end()
    return w.buffer.subarray(0, w.length).toString('hex')
  }
  const expected = fill(4096)
  for (let capacity = 1; capacity < 200; capacity++) t.equal(fill(capacity), expected)
})

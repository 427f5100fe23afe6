// SPDX-License-Identifier: Apache-2.0
// IPVS: our bytes by hand from linux/ip_vs.h, ipvsadm's and the kernel's as recorded on Linux 6.1, damaged input.
import fc from 'fast-check'
import t from 'tap'
import { attributePath } from '../../../src/netlink/explain.ts'
import {
  addDestination,
  addService,
  getService,
  getTimeouts,
  listDestinations,
  listServices,
  removeDestination,
  removeService,
  setDestination,
  setService,
  setTimeouts,
} from '../../../src/netlink/genl/ipvs.ts'
import { decodeDestination, decodeService, decodeTimeouts } from '../../../src/netlink/genl/ipvs-decode.ts'
import type { NewDestination, NewVirtualService } from '../../../src/netlink/genl/ipvs-types.ts'
import { formatIp, ipFamily } from '../../../src/netlink/text.ts'
import { AF_INET, AF_INET6, IPPROTO } from '../../../src/netlink/uapi.ts'
import { bytes, encode, message, only, survivesDamage, tame } from '../bytes.ts'

const family = { id: 32, version: 1, maxAttribute: 6, groups: new Map() }
const web = { kind: 'address', protocol: IPPROTO.TCP, address: '192.0.2.1', port: 80 } as const
const names6 = { kind: 'address', protocol: IPPROTO.UDP, address: 'fd00::1', port: 53 } as const
const mark = { kind: 'mark', mark: 7, family: AF_INET } as const
const backend = { address: '10.0.0.2', port: 8080 } as const

t.test('a service, byte for byte', async t => {
  const request = addService(family, { ...web, scheduler: 'rr' })
  t.equal(request.op, 'add virtual service tcp 192.0.2.1:80')
  t.equal(
    encode(request).toString('hex'),
    bytes(`
      5c000000 2000 0100 00000000 00000000 // length 92, the family, REQUEST
      01 01 0000                           // IPVS_CMD_NEW_SERVICE, version 1
      4800 0180                            // IPVS_CMD_ATTR_SERVICE, nested
        0600 0100 0200 0000                // AF_INET
        0600 0200 0600 0000                // TCP
        0800 0300 c0000201                 // ADDR
        0600 0400 0050 0000                // PORT, network order
        0700 0600 727200 00                // SCHED_NAME "rr"
        0c00 0700 00000000 ffffffff        // FLAGS: none, mask: all
        0800 0800 00000000                 // TIMEOUT
        0800 0900 ffffffff                 // NETMASK
    `),
  )
})

t.test('a service of IPv6 with everything', async t => {
  const request = setService(family, {
    ...names6,
    scheduler: 'mh',
    persistence: { timeoutSeconds: 300, prefixLength: 64 },
    hashFallback: true,
    hashPort: true,
  })
  t.equal(request.op, 'set virtual service udp [fd00::1]:53')
  t.equal(
    encode(request).subarray(16).toString('hex'),
    bytes(`
      02 01 0000
      5400 0180
        0600 0100 0a00 0000
        0600 0200 1100 0000
        1400 0300 fd000000000000000000000000000001
        0600 0400 0035 0000
        0700 0600 6d6800 00
        0c00 0700 19000000 ffffffff // PERSISTENT|SCHED1|SCHED2
        0800 0800 2c010000          // 300 s
        0800 0900 40000000          // of IPv6 the prefix length, host order
    `),
  )
  const mask = (prefixLength: number): string =>
    encode(addService(family, { ...web, scheduler: 'rr', persistence: { timeoutSeconds: 1, prefixLength } }))
      .subarray(-4)
      .toString('hex')
  t.strictSame([0, 1, 24, 32].map(mask), ['00000000', '80000000', 'ffffff00', 'ffffffff'])
})

t.test('keys: by address, by mark', async t => {
  t.equal(
    encode(removeService(family, { ...mark, family: AF_INET6 }))
      .subarray(16)
      .toString('hex'),
    bytes('03 01 0000 1400 0180 0600 0100 0a00 0000 0800 0500 07000000'),
  )
  t.equal(removeService(family, { ...mark, family: AF_INET6 }).op, 'remove virtual service fwmark 7 of IPv6')
  // what ipvsadm sends before it lists, but for the address that it fills up to 16 bytes
  t.equal(
    encode(listDestinations(family, mark)).subarray(16).toString('hex'),
    bytes('08010000 1400 0180 0600 0100 0200 0000 0800 0500 07000000'),
  )
  t.equal(encode(listServices(family)).subarray(16).toString('hex'), '04010000')
  t.equal(encode(getTimeouts(family)).subarray(16).toString('hex'), '0d010000')
  t.equal(encode(getService(family, mark)).subarray(16, 20).toString('hex'), '04010000')
})

t.test('a destination, byte for byte', async t => {
  const request = setDestination(family, web, {
    ...backend,
    forwarding: 'route',
    weight: 5,
    upperThreshold: 100,
    lowerThreshold: 50,
  })
  t.equal(request.op, 'set destination 10.0.0.2:8080 of virtual service tcp 192.0.2.1:80')
  t.equal(
    encode(request).subarray(16).toString('hex'),
    bytes(`
      06 01 0000                  // IPVS_CMD_SET_DEST
      2400 0180                   // the service's key alone
        0600 0100 0200 0000
        0600 0200 0600 0000
        0800 0300 c0000201
        0600 0400 0050 0000
      3c00 0280                   // IPVS_CMD_ATTR_DEST
        0600 0b00 0200 0000       // ADDR_FAMILY
        0800 0100 0a000002        // ADDR
        0600 0200 1f90 0000       // PORT, network order
        0800 0300 03000000        // FWD_METHOD
        0800 0400 05000000        // WEIGHT
        0800 0500 64000000        // U_THRESH
        0800 0600 32000000        // L_THRESH
    `),
  )
  t.equal(
    encode(removeDestination(family, mark, { address: 'fd00::2', port: 0 }))
      .subarray(40)
      .toString('hex'),
    bytes('2800 0280 0600 0b00 0a00 0000 1400 0100 fd000000000000000000000000000002 0600 0200 0000 0000'),
  )
})

t.test('timeouts: those given', async t => {
  const all = setTimeouts(family, { tcpSeconds: 1000, tcpFinSeconds: 120, udpSeconds: 60 })
  const recorded = '0c01000008000400e80300000800050078000000080006003c000000' // `ipvsadm --set 1000 120 60`
  t.equal(encode(all).subarray(16).toString('hex'), recorded)
  t.equal(
    encode(setTimeouts(family, { udpSeconds: 60 }))
      .subarray(16)
      .toString('hex'),
    '0c010000080006003c000000',
  )
  t.strictSame(decodeTimeouts(only(message(32, recorded))), { tcpSeconds: 1000, tcpFinSeconds: 120, udpSeconds: 60 })
})

t.test('what the kernel would refuse without a word, or cut, is refused in words', async t => {
  const service = (options: object) => () => encode(addService(family, { ...web, scheduler: 'rr', ...options }))
  const destination = (options: object) => () =>
    encode(addDestination(family, web, { ...backend, forwarding: 'masq', weight: 1, ...options }))
  t.throws(service({ port: 65_536 }), { code: 'INVALID', message: /port 65536 is not 0 to 65535/ })
  t.throws(service({ protocol: 256 }), { code: 'INVALID' })
  t.throws(service({ address: '192.0.2' }), { code: 'INVALID' })
  t.throws(service({ scheduler: 'a_scheduler_name' }), { code: 'INVALID', message: /16 bytes, at most 15/ })
  for (const timeoutSeconds of [0, -1, 1.5, 4_294_968, Number.NaN])
    t.throws(service({ persistence: { timeoutSeconds } }), { code: 'INVALID', message: /persistence timeout/ })
  t.throws(service({ persistence: { timeoutSeconds: 1, prefixLength: 33 } }), { code: 'INVALID' })
  t.throws(
    service({ address: 'fd00::1', persistence: { timeoutSeconds: 1, prefixLength: 0 } }),
    { code: 'INVALID' },
    'the kernel takes no 0 of IPv6',
  )
  t.throws(() => encode(removeService(family, { ...mark, mark: 0 })), { code: 'INVALID' })
  t.throws(destination({ weight: -1 }), { code: 'INVALID', message: /weight -1 is not 0 to 2147483647/ })
  t.throws(destination({ upperThreshold: 5, lowerThreshold: 6 }), { code: 'INVALID' })
  t.throws(destination({ port: -1 }), { code: 'INVALID' })
  t.throws(destination({ address: 'fd00::2' }), { code: 'INVALID', message: /only a tunnel can reach/ })
  t.doesNotThrow(destination({ address: 'fd00::2', forwarding: 'tunnel' }))
  t.throws(() => encode(setTimeouts(family, { tcpSeconds: 0 })), { code: 'INVALID' })
})

t.test('the attribute that an error points at', async t => {
  const request = addDestination(family, web, { ...backend, forwarding: 'masq', weight: 1 })
  t.equal(attributePath(encode(request), 60, request.names), 'IPVS_CMD_ATTR_DEST.IPVS_DEST_ATTR_ADDR_FAMILY')
})

// What Linux 6.1 answers to `ipvsadm -Sn` and -Ln: 8-byte counters in STATS64 behind the 4-byte ones in STATS.
const stats = `
  5c00 0a00
    0800 0100 00000000 0800 0200 00000000 0800 0300 00000000 0c00 0400 0000000000000000 0c00 0500 0000000000000000
    0800 0600 00000000 0800 0700 00000000 0800 0800 00000000 0800 0900 00000000 0800 0a00 00000000
  7c00 0c00
    0c00 0100 0100000000000000 0c00 0200 0200000000000000 0c00 0300 0300000000000000 0c00 0400 ffffffffffffffff
    0c00 0500 0500000000000000 0c00 0600 0600000000000000 0c00 0700 0700000000000000 0c00 0800 0800000000000000
    0c00 0900 0900000000000000 0c00 0a00 0000000001000000`
const counted = {
  connections: 1n,
  packetsIn: 2n,
  packetsOut: 3n,
  bytesIn: 2n ** 64n - 1n,
  bytesOut: 5n,
  connectionRate: 6n,
  packetRateIn: 7n,
  packetRateOut: 8n,
  byteRateIn: 9n,
  byteRateOut: 2n ** 32n,
}
const service6 = `
  01010000 2c01 0100
    0600 0100 0a00 0000 0600 0200 1100 0000 1400 0300 fd000000000000000000000000000001 0600 0400 0035 0000
    0700 0600 6d6800 00 0c00 0700 1b000000 ffffffff 0800 0800 2c010000 0800 0900 40000000 ${stats}`
const service4 = `
  01010000 2c01 0100
    0600 0100 0200 0000 0600 0200 0600 0000 1400 0300 c0000201000000000000000000000000 0600 0400 0050 0000
    0700 0600 727200 00 0c00 0700 02000000 ffffffff 0800 0800 00000000 0800 0900 ffffffff ${stats}`
const serviceMark = `
  01010000 1001 0100
    0600 0100 0200 0000 0800 0500 07000000
    0800 0600 77727200 0c00 0700 06000000 ffffffff 0800 0800 00000000 0800 0900 ffffffff ${stats}`
const destination4 = `
  05010000 5001 0200
    1400 0100 0a000002000000000000000000000000 0600 0200 1f90 0000 0800 0300 00000000 0800 0400 05000000
    0500 0d00 00000000 0600 0e00 0000 0000 0600 0f00 0000 0000
    0800 0500 64000000 0800 0600 32000000 0800 0700 01000000 0800 0800 02000000 0800 0900 03000000
    0600 0b00 0200 0000 ${stats}`

t.test('what the kernel answers', async t => {
  const off = { onePacket: false, hashFallback: false, hashPort: false, persistence: undefined, engine: undefined }
  const rest = { hashed: true, stats: counted }
  t.strictSame(decodeService(only(message(32, service4))), { ...web, scheduler: 'rr', ...off, flags: 2, ...rest })
  t.strictSame(decodeService(only(message(32, service6))), {
    ...names6,
    scheduler: 'mh',
    ...off,
    persistence: { timeoutSeconds: 300, prefixLength: 64 },
    hashFallback: true,
    hashPort: true,
    flags: 0x1b,
    ...rest,
  })
  t.strictSame(decodeService(only(message(32, serviceMark))), {
    ...mark,
    scheduler: 'wrr',
    ...off,
    onePacket: true,
    flags: 6,
    ...rest,
  })
  t.strictSame(decodeDestination(only(message(32, destination4))), {
    ...backend,
    family: AF_INET,
    forwarding: 'masq',
    weight: 5,
    upperThreshold: 100,
    lowerThreshold: 50,
    activeConnections: 1,
    inactiveConnections: 2,
    persistentConnections: 3,
    stats: counted,
  })
  t.equal(decodeDestination(only(message(32, service4))), undefined, 'another command')
  t.equal(decodeTimeouts(only(message(32, service4))), undefined, 'another command')
})

t.test('masks of ipvsadm that are no prefix', async t => {
  const masked = service4.replace('02000000 ffffffff 0800 0800 00000000', '03000000 ffffffff 0800 0800 05000000')
  const of = (mask: string) => decodeService(only(message(32, masked.replace('0900 ffffffff', `0900 ${mask}`))))
  t.match(of('ffffff00'), { persistence: { timeoutSeconds: 5, prefixLength: 24 } })
  t.match(of('00000000'), { persistence: { prefixLength: 0 } })
  t.strictSame(of('ff00ff00')?.persistence, { timeoutSeconds: 5, prefixLength: undefined })
})

t.test('ipvsadm asks for the same as we do', async t => {
  // `ipvsadm -A -u [fd00::1]:53 -s mh -b mh-fallback,mh-port -p 300 -M 64`
  const asked = `01010000 5400 0180 0600 0100 0a00 0000 0600 0200 1100 0000 1400 0300 fd000000000000000000000000000001
    0600 0400 0035 0000 0700 0600 6d6800 00 0c00 0700 19000000 ffffffff 0800 0800 2c010000 0800 0900 40000000`
  const ours = addService(family, {
    ...names6,
    scheduler: 'mh',
    persistence: { timeoutSeconds: 300, prefixLength: 64 },
    hashFallback: true,
    hashPort: true,
  })
  t.equal(encode(ours).subarray(16).toString('hex'), bytes(asked))
  // `ipvsadm -A -f 7 -s wrr -o`
  t.equal(
    encode(addService(family, { ...mark, scheduler: 'wrr', onePacket: true }))
      .subarray(16)
      .toString('hex'),
    bytes(`01010000 3800 0180 0600 0100 0200 0000 0800 0500 07000000 0800 0600 77727200
      0c00 0700 04000000 ffffffff 0800 0800 00000000 0800 0900 ffffffff`),
  )
})

t.test('what the kernel would never send is refused', async t => {
  const refused = (name: string, decode: typeof decodeService | typeof decodeDestination, body: string) =>
    t.throws(() => decode(only(message(32, body))), { code: 'KERNEL' }, name)
  refused('no service', decodeService, '01010000')
  refused('an empty one', decodeService, '01010000 0400 0180')
  refused('a family that is none', decodeService, service4.replace('0100 0200', '0100 0300'))
  refused('a short address', decodeService, service6.replace(/1400 0300 \w+/, '0800 0300 fd000000'))
  refused('no destination', decodeDestination, '05010000')
  refused('a method that is none', decodeDestination, destination4.replace('0300 00000000', '0300 05000000'))
})

const recorded: [string, string, (m: ReturnType<typeof only>) => unknown][] = [
  ['service', service4, decodeService],
  ['service of IPv6', service6, decodeService],
  ['service of a mark', serviceMark, decodeService],
  ['destination', destination4, decodeDestination],
  ['timeouts', '0c01000008000400e80300000800050078000000080006003c000000', decodeTimeouts],
]
for (const [name, body, decode] of recorded)
  t.test(`${name}: cut anywhere, damaged anywhere`, async t => survivesDamage(t, message(32, body), decode))

t.test('random bytes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(1, 5, 12), (noise, command) => {
      const whole = message(
        32,
        `${Buffer.from([command, 1, 0, 0]).toString('hex')}${Buffer.from(noise).toString('hex')}`,
      )
      for (const decode of [decodeService, decodeDestination, decodeTimeouts]) tame(() => decode(only(whole)))
    }),
    { numRuns: 2000 },
  )
})

const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map(a => formatIp(a, 0, 4)!),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map(a => formatIp(a, 0, 16)!),
)
const u16 = fc.nat(65_535)
const u32 = fc.nat(0xffff_ffff)

t.test('every service and destination comes back as it went', async t => {
  const key = fc.oneof(
    fc.record({ kind: fc.constant('address' as const), protocol: fc.nat(255), address, port: u16 }),
    fc.record({
      kind: fc.constant('mark' as const),
      mark: fc.integer({ min: 1, max: 0xffff_ffff }),
      family: fc.constantFrom(AF_INET, AF_INET6),
    }),
  )
  const options = fc.record({
    scheduler: fc.constantFrom('rr', 'mh', 'fifteen_letters'),
    persistence: fc.option(
      fc.record({
        timeoutSeconds: fc.integer({ min: 1, max: 4_294_967 }),
        prefixLength: fc.integer({ min: 1, max: 32 }),
      }),
      { nil: undefined },
    ),
    onePacket: fc.boolean(),
    hashFallback: fc.boolean(),
    hashPort: fc.boolean(),
  })
  fc.assert(
    fc.property(key, options, (k, o) => {
      const service: NewVirtualService = { ...k, ...o }
      t.match(decodeService(only(encode(addService(family, service)))), service)
    }),
    { numRuns: 300 },
  )
  const destination = fc.record({
    address,
    port: u16,
    forwarding: fc.constantFrom('masq' as const, 'tunnel' as const, 'route' as const),
    weight: fc.nat(0x7fff_ffff),
    upperThreshold: u32,
  })
  fc.assert(
    fc.property(destination, fc.double({ min: 0, max: 1, noNaN: true }), (d, part) => {
      const wanted: NewDestination = { ...d, lowerThreshold: Math.floor(d.upperThreshold * part) }
      const service = { kind: 'mark', mark: 1, family: ipFamily(d.address) } as const
      t.match(decodeDestination(only(encode(addDestination(family, service, wanted)))), wanted)
    }),
    { numRuns: 300 },
  )
})

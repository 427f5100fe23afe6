// SPDX-License-Identifier: Apache-2.0
// IPVS against the live kernel, in a namespace of its own: what we set is read by ipvsadm, what ipvsadm sets by us.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { GenlFamily } from '../../src/netlink/genl/ctrl.ts'
import {
  addDestination,
  addService,
  findIpvs,
  getService,
  getTimeouts,
  listDestinations,
  listServices,
  removeDestination,
  removeService,
  setDestination,
  setService,
  setTimeouts,
} from '../../src/netlink/genl/ipvs.ts'
import { decodeDestination, decodeService, decodeTimeouts } from '../../src/netlink/genl/ipvs-decode.ts'
import { serviceText, type VirtualServiceKey } from '../../src/netlink/genl/ipvs-types.ts'
import { type Netlink, openNetlink } from '../../src/netlink/socket.ts'
import { AF_INET, AF_INET6, IPPROTO, NETLINK_GENERIC } from '../../src/netlink/uapi.ts'
import { freshNetns, ok } from './lab.ts'

const { TCP, UDP, SCTP } = IPPROTO
const service = (protocol: number, address: string, port: number) =>
  ({ kind: 'address', protocol, address, port }) as const
const web = service(TCP, '192.0.2.1', 80)
const web6 = service(TCP, 'fd77::1', 80)

const probe = await openNetlink({ protocol: NETLINK_GENERIC })
t.after(() => probe.close())
const reason = await findIpvs(probe).then(
  () => '',
  error => (error as Error).message,
)
// the emulated machine has everything: there it is an error
const skip = reason === '' || process.env['WEFT_VM'] ? false : reason

const modules = (): string => (existsSync('/proc/modules') ? readFileSync('/proc/modules', 'utf8') : '')
t.test(
  'the question for the family loads the module; without one the answer says what to do',
  { skip: skip || (/^ip_vs \d+ 0 /m.test(modules()) ? false : 'ip_vs is built in, or in use') },
  async t => {
    execFileSync('rmmod', ['ip_vs'])
    const loader = '/proc/sys/kernel/modprobe'
    const before = readFileSync(loader, 'utf8')
    writeFileSync(loader, '/bin/false')
    t.teardown(() => writeFileSync(loader, before))
    await t.rejects(findIpvs(probe), { code: 'NOT_SUPPORTED', feature: 'ip_vs', message: /modprobe ip_vs/ })
    writeFileSync(loader, before)
    const { path } = await freshNetns(t, 'load')
    const inside = await openNetlink({ protocol: NETLINK_GENERIC, netns: path })
    t.teardown(() => inside.close())
    t.match(await findIpvs(inside), { version: 1, maxAttribute: 6 }, 'from inside a namespace, too')
    t.match(modules(), /^ip_vs /m)
  },
)

interface Host {
  readonly name: string
  readonly netlink: Netlink
  readonly family: GenlFamily
  /** Standard output of `ipvsadm` in there. */
  ipvsadm(...args: string[]): string
  /** Lines of `ipvsadm -Sn`, sorted. */
  saved(): string[]
}

const open = async (t: Test, suffix: string): Promise<Host> => {
  const { name, path } = await freshNetns(t, suffix)
  const netlink = await openNetlink({ protocol: NETLINK_GENERIC, netns: path })
  t.teardown(() => netlink.close())
  const run = (...args: string[]) => execFileSync('ip', ['netns', 'exec', name, ...args], { encoding: 'utf8' })
  run('ip', 'link', 'set', 'lo', 'up')
  const ipvsadm = (...args: string[]) => run('ipvsadm', ...args)
  const saved = () => ipvsadm('-Sn').trim().split('\n').sort()
  return { name, netlink, family: await findIpvs(netlink), ipvsadm, saved }
}

t.test('services of ours, read by ipvsadm and by us', { skip }, async t => {
  const { netlink, family, saved } = await open(t, 'i1')
  const wanted = [
    { ...web, scheduler: 'rr' },
    { ...service(UDP, '192.0.2.1', 53), scheduler: 'wrr', onePacket: true },
    { ...service(SCTP, '192.0.2.1', 99), scheduler: 'lc', persistence: { timeoutSeconds: 77, prefixLength: 24 } },
    { ...web6, scheduler: 'mh', hashFallback: true, hashPort: true },
    { ...service(UDP, 'fd77::1', 53), scheduler: 'sh', persistence: { timeoutSeconds: 300, prefixLength: 64 } },
    { kind: 'mark', mark: 7, family: AF_INET, scheduler: 'wlc', persistence: { timeoutSeconds: 60, prefixLength: 32 } },
    { kind: 'mark', mark: 0xffff_ffff, family: AF_INET6, scheduler: 'sed' },
  ] as const
  ok(t, await netlink.batch(wanted.map(one => addService(family, one))))
  t.strictSame(
    saved(),
    [
      '-A -f -1 -6 -s sed', // ipvsadm prints marks with a sign
      '-A -f 7 -s wlc -p 60',
      '-A -t 192.0.2.1:80 -s rr',
      '-A -t [fd77::1]:80 -s mh -b mh-fallback,mh-port',
      '-A -u 192.0.2.1:53 -s wrr -o',
      '-A -u [fd77::1]:53 -s sh -p 300 -M 64',
      '-A --sctp-service 192.0.2.1:99 -s lc -p 77 -M 255.255.255.0',
    ].sort(),
  )
  const listed = await netlink.dump(listServices(family), decodeService)
  t.equal(listed.length, wanted.length)
  const none = { onePacket: false, hashFallback: false, hashPort: false, hashed: true }
  for (const one of wanted) {
    const same = listed.find(other => serviceText(other) === serviceText(one))
    t.match(same, { ...none, ...one }, serviceText(one))
    const [reply] = await netlink.run(getService(family, one))
    t.strictSame(reply && decodeService(reply), same)
  }

  ok(
    t,
    await netlink.batch([
      setService(family, { ...web, scheduler: 'lc', persistence: { timeoutSeconds: 9 } }),
      setService(family, { ...web6, scheduler: 'rr' }),
      removeService(family, service(UDP, '192.0.2.1', 53)),
      removeService(family, { kind: 'mark', mark: 7, family: AF_INET }),
    ]),
  )
  t.match(saved().join('\n'), /-t 192.0.2.1:80 -s lc -p 9\n.*-t \[fd77::1\]:80 -s rr\n/)
  const rest = await netlink.dump(listServices(family), decodeService)
  t.equal(rest.length, wanted.length - 2)
  t.match(
    rest.find(one => serviceText(one) === serviceText(web6)),
    { ...none, flags: 2, persistence: undefined },
    'what is left out is off',
  )
})

t.test('services and destinations of ipvsadm, read by us', { skip }, async t => {
  const { netlink, family, ipvsadm } = await open(t, 'i2')
  const adm = (line: string) => ipvsadm(...line.split(' '))
  adm('-A -t 192.0.2.1:80 -s wrr -p 120 -M 255.255.0.0')
  adm('-a -t 192.0.2.1:80 -r 10.1.0.2:8080 -m -w 5 -x 100 -y 50')
  adm('-a -t 192.0.2.1:80 -r 10.1.0.3:80 -g -w 0')
  adm('-a -t 192.0.2.1:80 -r 10.1.0.4:80 -i')
  adm('-A -u [fd77::1]:53 -s mh -b mh-port')
  adm('-a -u [fd77::1]:53 -r [fd77::2]:5353 -m')
  adm('-A -f 9 -6 -s rr -o')
  adm('-A -t 192.0.2.9:80 -s rr -p 5 -M 255.0.255.0')
  const services = await netlink.dump(listServices(family), decodeService)
  const of = (text: string) => services.find(one => serviceText(one) === text)
  t.match(of('tcp 192.0.2.1:80'), {
    ...web,
    scheduler: 'wrr',
    persistence: { timeoutSeconds: 120, prefixLength: 16 },
    flags: 3,
  })
  t.match(of('udp [fd77::1]:53'), { scheduler: 'mh', hashPort: true, hashFallback: false, persistence: undefined })
  t.match(of('fwmark 9 of IPv6'), { kind: 'mark', mark: 9, family: AF_INET6, onePacket: true })
  t.strictSame(of('tcp 192.0.2.9:80')?.persistence, { timeoutSeconds: 5, prefixLength: undefined }, 'a mask with holes')
  t.equal(services.length, 4)
  const destinations = async (key: VirtualServiceKey) =>
    (await netlink.dump(listDestinations(family, key), decodeDestination)).sort((a, b) =>
      a.address < b.address ? -1 : 1,
    )
  t.match(await destinations(web), [
    { address: '10.1.0.2', port: 8080, forwarding: 'masq', weight: 5, upperThreshold: 100, lowerThreshold: 50 },
    { address: '10.1.0.3', port: 80, forwarding: 'route', weight: 0, upperThreshold: 0, lowerThreshold: 0 },
    { address: '10.1.0.4', port: 80, forwarding: 'tunnel', weight: 1, family: AF_INET, activeConnections: 0 },
  ])
  t.match(await destinations(service(UDP, 'fd77::1', 53)), [
    { address: 'fd77::2', port: 5353, forwarding: 'masq', family: AF_INET6 },
  ])
  t.strictSame(await destinations({ kind: 'mark', mark: 9, family: AF_INET6 }), [])
  t.strictSame(await destinations(service(TCP, '192.0.2.77', 80)), [], 'none of a service that is not there')
})

t.test('destinations of ours', { skip }, async t => {
  const { netlink, family, saved, ipvsadm } = await open(t, 'i3')
  const fwm = { kind: 'mark', mark: 3, family: AF_INET } as const
  ok(
    t,
    await netlink.batch([
      addService(family, { ...web, scheduler: 'wrr' }),
      addService(family, { ...web6, scheduler: 'wrr' }),
      addService(family, { ...fwm, scheduler: 'wrr' }),
      addDestination(family, web, { address: '10.1.0.2', port: 8080, forwarding: 'masq', weight: 5 }),
      addDestination(family, web, {
        ...{ address: '10.1.0.3', port: 80, forwarding: 'route', weight: 0 },
        ...{ upperThreshold: 100, lowerThreshold: 50 },
      }),
      addDestination(family, web, { address: 'fd77::4', port: 80, forwarding: 'tunnel', weight: 1 }),
      addDestination(family, web, { address: '127.0.0.1', port: 80, forwarding: 'masq', weight: 1 }),
      addDestination(family, web6, { address: 'fd77::2', port: 80, forwarding: 'masq', weight: 65_536 }),
      addDestination(family, fwm, { address: '10.1.0.2', port: 0, forwarding: 'route', weight: 1 }),
    ]),
  )
  t.strictSame(
    saved().filter(line => line.startsWith('-a')),
    [
      '-a -f 3 -r 10.1.0.2:0 -g -w 1',
      '-a -t 192.0.2.1:80 -r 10.1.0.2:8080 -m -w 5',
      '-a -t 192.0.2.1:80 -r 10.1.0.3:80 -g -w 0',
      '-a -t 192.0.2.1:80 -r 127.0.0.1:80 -m -w 1',
      '-a -t 192.0.2.1:80 -r [fd77::4]:80 -i -w 1 --tun-type ipip',
      '-a -t [fd77::1]:80 -r [fd77::2]:80 -m -w 65536',
    ].sort(),
  )
  t.match(ipvsadm('-Ln', '--exact', '--thresholds'), /10\.1\.0\.3:80 +100 +50 /)
  t.match(await netlink.dump(listDestinations(family, web6), decodeDestination), [
    { address: 'fd77::2', port: 80, weight: 65_536, forwarding: 'masq', activeConnections: 0 },
  ])

  ok(
    t,
    await netlink.batch([
      setDestination(family, web, { address: '10.1.0.2', port: 8080, forwarding: 'masq', weight: 0 }),
      setDestination(family, web, { address: '10.1.0.3', port: 80, forwarding: 'route', weight: 7 }),
      removeDestination(family, web, { address: 'fd77::4', port: 80 }),
      removeDestination(family, fwm, { address: '10.1.0.2', port: 0 }),
    ]),
  )
  const after = saved()
  t.match(after, ['-A -f 3 -s wrr'])
  for (const line of ['10.1.0.2:8080 -m -w 0', '10.1.0.3:80 -g -w 7'])
    t.ok(after.includes(`-a -t 192.0.2.1:80 -r ${line}`), line)
  t.equal(after.filter(line => line.startsWith('-a')).length, 4)
  t.ok(await netlink.batch([removeService(family, web)]))
  t.notMatch(saved().join('\n'), /192\.0\.2\.1/, 'the destinations went with it')
})

t.test('what the kernel refuses, and by which number', { skip }, async t => {
  const { netlink, family } = await open(t, 'i4')
  const d = { address: '10.1.0.2', port: 80, forwarding: 'masq', weight: 1 } as const
  const absent = service(TCP, '192.0.2.77', 80)
  const outcomes = await netlink.batch([
    addService(family, { ...web, scheduler: 'rr' }),
    addService(family, { ...web, scheduler: 'rr' }),
    setService(family, { ...absent, scheduler: 'rr' }),
    removeService(family, absent),
    getService(family, absent),
    addService(family, { ...absent, scheduler: 'nosuch' }),
    setService(family, { ...web, scheduler: 'nosuch' }),
    addDestination(family, absent, d),
    addDestination(family, web, d),
    addDestination(family, web, d),
    addDestination(family, web, { ...d, address: '10.1.0.2', forwarding: 'route' }),
    setDestination(family, web, { ...d, port: 81 }),
    removeDestination(family, web, { ...d, port: 81 }),
    removeDestination(family, web, { address: 'fd77::2', port: 80 }),
    addDestination(family, web, { ...d, address: '224.0.0.1' }),
    addDestination(family, web, { ...d, address: '255.255.255.255' }),
    addDestination(family, web, { ...d, address: 'fd77::2' }),
    addService(family, { ...web6, scheduler: 'rr' }),
    addDestination(family, web6, { ...d, address: 'fe80::1' }),
    setTimeouts(family, { tcpSeconds: 0x7fff_ffff }),
    removeService({ ...family, id: 0x3ff }, web),
  ])
  t.strictSame(
    outcomes.map(error => error?.errnoName),
    [
      ...[undefined, 'EEXIST', 'ESRCH', 'ESRCH', 'ESRCH', 'ENOENT', 'ENOENT'],
      ...['ESRCH', undefined, 'EEXIST', 'EEXIST', 'ENOENT', 'ENOENT', 'ENOENT', 'EINVAL', 'EINVAL', 'EINVAL'],
      ...[undefined, 'EINVAL', 'EINVAL', 'ENOENT'],
    ],
  )
  t.match(outcomes[1], { index: 1, message: 'add virtual service tcp 192.0.2.1:80: EEXIST' })
  t.match(outcomes[16]?.message, /only a tunnel can reach/)
  t.match(outcomes[20], { absent: true }, 'a number of another family')
})

t.test('timeouts', { skip }, async t => {
  const { netlink, family, ipvsadm } = await open(t, 'i5')
  const read = async () => {
    const [reply] = await netlink.run(getTimeouts(family))
    return reply && decodeTimeouts(reply)
  }
  t.strictSame(await read(), { tcpSeconds: 900, tcpFinSeconds: 120, udpSeconds: 300 }, 'the defaults')
  await netlink.run(setTimeouts(family, { tcpSeconds: 432_000 }))
  t.strictSame(await read(), { tcpSeconds: 432_000, tcpFinSeconds: 120, udpSeconds: 300 })
  t.match(ipvsadm('-Ln', '--timeout'), /432000 120 300/)
  ipvsadm('--set', '1', '2', '3')
  t.strictSame(await read(), { tcpSeconds: 1, tcpFinSeconds: 2, udpSeconds: 3 })
})

t.test('counters of packets that were balanced', { skip }, async t => {
  const { name, netlink, family, ipvsadm } = await open(t, 'i6')
  const dns = service(UDP, '192.0.2.1', 53)
  const run = (...args: string[]) => execFileSync('ip', ['netns', 'exec', name, ...args], { encoding: 'utf8' })
  run('ip', 'addr', 'add', '192.0.2.1/32', 'dev', 'lo')
  ok(
    t,
    await netlink.batch([
      addService(family, { ...dns, scheduler: 'rr' }),
      addDestination(family, dns, { address: '127.0.0.1', port: 5353, forwarding: 'masq', weight: 1 }),
    ]),
  )
  // 5 bytes behind 28 of headers; nobody is there, so that these come back in an ICMP error of 28 bytes more
  run('bash', '--norc', '-c', 'printf hello > /dev/udp/192.0.2.1/53')
  const counts = { connections: 1n, packetsIn: 1n, bytesIn: 33n, packetsOut: 1n, bytesOut: 61n }
  const look = async () => {
    const [s] = await netlink.dump(listServices(family), decodeService)
    const [d] = await netlink.dump(listDestinations(family, dns), decodeDestination)
    return { s, d }
  }
  t.match((await look()).d, { inactiveConnections: 1, activeConnections: 0 }, 'at once')
  // the kernel sums its counters up every two seconds
  for (let i = 0; i < 50 && (await look()).d?.stats.packetsIn !== 1n; i++) await sleep(200)
  const { s, d } = await look()
  t.match(s?.stats, counts)
  t.match(d?.stats, counts)
  t.match(ipvsadm('-Ln', '--stats', '--exact'), /127\.0\.0\.1:5353 +1 +1 +1 +33 +61/)
})

t.test('300 services of 10 destinations in one batch each, failures at their own index', { skip }, async t => {
  const { netlink, family } = await open(t, 'i7')
  const keys = Array.from({ length: 300 }, (_, i) => service(TCP, `198.51.100.${1 + (i % 100)}`, 1000 + i))
  const added = await netlink.batch(keys.map(key => addService(family, { ...key, scheduler: 'rr' })))
  ok(t, added)
  const destinations = keys.flatMap((key, i) =>
    Array.from({ length: 10 }, (_, k) =>
      addDestination(family, i % 100 === 99 ? { ...key, port: 1 } : key, {
        ...{ address: `10.1.0.${k + 2}`, port: 80, forwarding: 'masq', weight: 1 },
      }),
    ),
  )
  const outcomes = await netlink.batch(destinations)
  const failed = outcomes.flatMap((error, i) => (error ? [[i, error.errnoName, error.index]] : []))
  t.strictSame(
    failed,
    [99, 199, 299].flatMap(i => Array.from({ length: 10 }, (_, k) => [i * 10 + k, 'ESRCH', i * 10 + k])),
  )
  const listed = await netlink.dump(listServices(family), decodeService)
  t.equal(new Set(listed.map(serviceText)).size, 300)
  t.equal((await netlink.dump(listDestinations(family, keys[298]!), decodeDestination)).length, 10)
})

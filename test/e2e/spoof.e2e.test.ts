// SPDX-License-Identifier: Apache-2.0
// What a container with raw sockets may not say: frames made byte by byte leave its own network namespace, and packet
// sockets look for them where they would do harm. Every row ends with honest pings that the same sockets have to see,
// and the last test takes the filters away: then the lies arrive, so the other tests can fail.
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { linkLocalOf, parseAddress } from '../../src/model/address.ts'
import { idle, openLab } from './lab.ts'

type Container = Readonly<Record<'host' | 'name' | 'pid' | 'mac' | 'v4' | 'v6', string>>
/** A packet socket; frames are told apart by the bytes that they carry. */
interface Eye {
  readonly name: string
  sees(mark: string): boolean
}
/** Something that has to be dropped before the eye. */
interface Lie {
  readonly what: string
  readonly eye: Eye
  readonly frames: (mark: string) => string[]
}

const u16 = (value: number): string => value.toString(16).padStart(4, '0')
const hexOf = (address: string): string => {
  if (/^(..:){5}..$/.test(address)) return address.replaceAll(':', '')
  const { family, value } = parseAddress(address)
  return value.toString(16).padStart(family === 4 ? 8 : 32, '0')
}
const size = (hex: string): number => hex.length / 2
const checksum = (hex: string): string => {
  let sum = 0
  for (let i = 0; i < hex.length; i += 4) sum += Number.parseInt(hex.slice(i, i + 4).padEnd(4, '0'), 16)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return u16(sum ^ 0xffff)
}
const ether = (from: string, to: string, type: string, payload: string): string =>
  (hexOf(to) + hexOf(from) + type + payload).padEnd(120, '0')
/** IPv4 or IPv6 by the addresses; `fragment`: flag and offset of IPv4. */
const ip = (from: string, to: string, protocol: number, payload: string, fragment = '0000'): string => {
  const proto = protocol.toString(16).padStart(2, '0')
  const addresses = hexOf(from) + hexOf(to)
  if (from.includes(':')) return `60000000${u16(size(payload))}${proto}ff${addresses}${payload}`
  const start = `4500${u16(20 + size(payload))}7777${fragment}40${proto}`
  return start + checksum(start + addresses) + addresses + payload
}
/** What has a checksum after `before` that covers the addresses too. */
const checked = (from: string, to: string, protocol: number, before: string, after: string): string =>
  before + checksum(hexOf(from) + hexOf(to) + u16(protocol) + u16(size(before + after) + 2) + before + after) + after
const udp = (from: string, to: string, port: number, data: string): string =>
  checked(from, to, 17, u16(7777) + u16(port) + u16(8 + size(data)), data)
const typeOf = (from: string): string => (from.includes(':') ? '86dd' : '0800')
const datagram = (from: string, to: string, data: string): string => ip(from, to, 17, udp(from, to, 9, data))
/** Sends each frame as it is; perl-base is on every Debian. */
const sender = [
  'perl',
  '-e',
  `socket(S, 17, 3, 0) or die "socket: $!";
   my $ifreq = pack("a16 x24", "eth0");
   ioctl(S, 0x8933, $ifreq) or die "ioctl: $!";
   my $to = pack("S S i S C C a8", 17, 0, unpack("x16 i", $ifreq), 0, 0, 0, "");
   for (@ARGV) { defined send(S, pack("H*", $_), 0, $to) or die "send $_: $!" }`,
]

/** Answers to nobody's echo request, to the outside. */
const unasked = `use Socket qw(:all);
sub sum { my $s = 0; $s += $_ for unpack('n*', shift); $s = ($s & 0xffff) + ($s >> 16) while $s >> 16; ~$s & 0xffff }
socket(my $six, AF_INET6, SOCK_RAW, 58) or die; socket(my $four, AF_INET, SOCK_RAW, 1) or die;
for (1 .. 5) {
  send($six, pack('CCnnn', 129, 0, 0, 7, $_), 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, '2001:db8::10'))) or die $!;
  my $reply = pack('CCnnn', 0, 0, 0, 7, $_); substr($reply, 2, 2) = pack('n', sum($reply));
  send($four, $reply, 0, pack_sockaddr_in(0, inet_aton('192.0.2.10'))) or die $!;
}
sleep 1`

const lab = await openLab('spoof', 2)
t.teardown(() => lab.close())
const pools = '--subnet 10.80.0.0/24 --subnet fd80::/64'
await lab.docker('h1', ...`network create -d weft --ipam-driver weft --ipv6 ${pools} app`.split(' '))
await lab.shows('h2', 'app')
const run = async (host: string, name: string, ...options: string[]): Promise<Container> => {
  await lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, ...options, 'busybox', ...idle)
  const of = '.NetworkSettings.Networks.app'
  const facts = `{{.State.Pid}} {{${of}.MacAddress}} {{${of}.IPAddress}} {{${of}.GlobalIPv6Address}}`
  const [pid = '', mac = '', v4 = '', v6 = ''] = (await lab.docker(host, 'inspect', '-f', facts, name)).split(' ')
  return { host, name, pid, mac, v4, v6 }
}
const service = ['--label', 'weft.service=web']
const [bad, near, far] = await Promise.all([run('h1', 'bad'), run('h1', 'near', ...service), run('h2', 'far')])
/** Virtual addresses of the service. */
const vips = async (): Promise<string[]> =>
  (JSON.parse(await lab.weft('h2', 'service', 'ls', '-o', 'json')) as { vips: string[] }[])[0]?.vips ?? []
await lab.until(async () => (await vips()).length === 2, 30_000)
const [vip4, vip6] = (await vips()) as [string, string]
const [resolver4, resolver6] = ['169.254.77.53', 'fd69:7765:6674:ffff::53']
const vni = await lab.vni('h1', 'app')
const within = ({ pid }: Container): string[] => ['nsenter', '-t', pid, '-n']
const link = async (host: string, which: 'n' | 'm', dev: string) => {
  const text = await lab.inside(host, which, vni, 'ip', '-d', '-j', 'link', 'show', dev)
  return (JSON.parse(text) as [{ address: string; linkinfo: { info_data: { port?: number } } }])[0]
}
const gateway1 = (await link('h1', 'm', 'gw0')).address
const gateway2 = (await link('h2', 'm', 'gw0')).address
const switch1 = (await link('h1', 'n', 'br0')).address
const switch2 = (await link('h2', 'n', 'br0')).address
const vxlanPort = (await link('h1', 'n', 'vx0')).linkinfo.info_data.port!

const look = async (name: string, host: string, dev: string, ...namespace: string[]): Promise<Eye> => {
  // a short snapshot, or the ring holds a handful of frames
  const flags = '-nn -l -xx -s 512 -B 16384 --immediate-mode -Z root not tcp'.split(' ')
  const capture = lab.background('exec', host, ...namespace, 'tcpdump', '-i', dev, ...flags)
  if (!(await lab.until(async () => capture.out().includes('listening on')))) throw new Error(capture.out())
  let read = 0
  let seen = ''
  const sees = (mark: string): boolean => {
    const out = capture.out()
    const end = out.lastIndexOf('\n') + 1
    for (const line of out.slice(read, end).split('\n').slice(0, -1))
      seen += line.startsWith('\t0x') ? line.slice(line.indexOf(':') + 1).replaceAll(' ', '') : '\n'
    read = end
    return seen.includes(mark)
  }
  return { name, sees }
}
const inside = (which: 'n' | 'm'): string[] => ['ip', 'netns', 'exec', `weft-${which}${vni}`]
const eyes = {
  near: await look('near, on the same host', 'h1', 'eth0', ...within(near)),
  far: await look('far, on the other host', 'h2', 'eth0', ...within(far)),
  host1: await look('its own host', 'h1', 'any'),
  host2: await look('the other host', 'h2', 'any'),
  gateway2: await look("the other host's gateway", 'h2', 'gw0', ...inside('m')),
  switch1: await look('its own switch', 'h1', 'br0', ...inside('n')),
}

type Frame = (to: Container, mark: string, other: Container) => string
const mark = (): string => randomBytes(6).toString('hex')
/** One lie to the container beside it, and one to the other host's; `other` is the other of the two. */
const toBoth = (what: string, frame: Frame): Lie[] => [
  { what, eye: eyes.near, frames: mark => [frame(near, mark, far)] },
  { what, eye: eyes.far, frames: mark => [frame(far, mark, near)] },
]
/** And one to all, which stays on the host. */
const toAll = (what: string, mac: string, frame: Frame): Lie[] => {
  const all = { ...near, mac, v6: 'ff02::1' }
  return [...toBoth(what, frame), { what: `${what}, to all`, eye: eyes.near, frames: mark => [frame(all, mark, far)] }]
}
const broadcast = 'ff:ff:ff:ff:ff:ff'
const allNodes = '33:33:00:00:00:01'
const badLocal = linkLocalOf(bad.mac)
const packet = (to: Container, from: string, data: string, mac = bad.mac, type = typeOf(from)): string =>
  ether(mac, to.mac, type, datagram(from, from.includes(':') ? to.v6 : to.v4, data))
const arp = (to: Container, kind: number, mac: string, address: string, mark: string): string => {
  const claim = `${u16(kind)}${hexOf(mac)}${hexOf(address)}`
  return ether(bad.mac, to.mac, '0806', `000108000604${claim}${hexOf(to.mac)}${hexOf(to.v4)}${mark}`)
}
const posingAs = (from: string): Lie[] => toBoth(from, (to, mark) => packet(to, from, mark))
const inTheNameOf = (address: (who: Container) => string): Lie[] => [
  ...toBoth(`${address(far)} or ${address(near)}`, (to, mark, other) => packet(to, address(other), mark)),
  ...toBoth("the receiver's", (to, mark) => packet(to, address(to), mark)),
]
/** Who says it, and whether a header of options is before it. */
const ways = [bad.v6, badLocal].flatMap(from => ['', '3a00010400000000'].map(options => ({ from, options })))
const discovery = (to: Container, { from, options }: (typeof ways)[0], kind: string, body: string, mark: string) => {
  const message = checked(from, to.v6, 58, kind, `${body}0e01${mark}`) // a nonce option: all skip it
  return ether(bad.mac, to.mac, '86dd', ip(from, to.v6, options === '' ? 58 : 60, options + message))
}
const toMac = (eye: Eye, mac: string, v4: string): Lie => ({
  what: `${mac} for ${v4}`,
  eye,
  frames: mark => [packet({ ...far, mac, v4 }, bad.v4, mark)],
})
const tunnel = (eye: Eye, from: string, to: string, inFragments = false): Lie => ({
  what: `to ${to}${inFragments ? ' in fragments' : ''}`,
  eye,
  frames: mark => {
    const vxlan = `08000000${vni.toString(16).padStart(6, '0')}00`
    const whole = udp(from, to, vxlanPort, vxlan + packet(far, near.v4, mark, near.mac))
    const packets = inFragments
      ? [ip(from, to, 17, whole.slice(0, 16), '2000'), ip(from, to, 17, whole.slice(16), '0001')]
      : [ip(from, to, 17, whole)]
    return packets.map(packet => ether(bad.mac, gateway1, typeOf(from), packet))
  },
})

const rows: Record<string, Lie[]> = {
  'another source MAC': [
    ...[bad.v4, bad.v6].flatMap(from => [
      ...['02:77:0a:50:00:63', gateway1, gateway2, switch1].flatMap(mac =>
        toBoth(`${mac} ${from}`, (to, mark) => packet(to, from, mark, mac)),
      ),
      ...toBoth(`another container's ${from}`, (to, mark, other) => packet(to, from, mark, other.mac)),
    ]),
    ...toBoth("another container's with its address", (to, mark, other) => packet(to, other.v4, mark, other.mac)),
  ],
  'another IPv4 source address': [
    ...inTheNameOf(who => who.v4),
    ...['10.80.0.99', vip4, resolver4, '10.80.0.1', '10.9.0.1', '192.0.2.10', '127.0.0.1', '0.0.0.0'].flatMap(posingAs),
  ],
  'another IPv6 source address': [
    ...inTheNameOf(who => who.v6),
    ...inTheNameOf(who => linkLocalOf(who.mac)),
    ...['fd80::99', vip6, resolver6, 'fd80::1', 'fd09::1', '2001:db8::10', '::1', '::', badLocal].flatMap(posingAs),
  ],
  'ARP lies': [1, 2].flatMap(kind => [
    ...toAll(`${kind}: another is here`, broadcast, (to, mark, other) => arp(to, kind, bad.mac, other.v4, mark)),
    ...toAll(`${kind}: the gateway is here`, broadcast, (to, mark) => arp(to, kind, bad.mac, '10.80.0.1', mark)),
    ...toAll(`${kind}: the service is here`, broadcast, (to, mark) => arp(to, kind, bad.mac, vip4, mark)),
    ...toAll(`${kind}: the resolver is here`, broadcast, (to, mark) => arp(to, kind, bad.mac, resolver4, mark)),
    ...toAll(`${kind}: it is at another's`, broadcast, (to, mark, other) => arp(to, kind, other.mac, bad.v4, mark)),
  ]),
  'neighbour discovery lies': [
    ...ways.flatMap(way =>
      [
        ({ v6 }: Container) => v6,
        ({ mac }: Container) => linkLocalOf(mac),
        () => 'fd80::1',
        () => vip6,
        () => resolver6,
      ].flatMap(target =>
        toAll(`${JSON.stringify(way)}: here is ${target(far)} or ${target(near)}`, allNodes, (to, mark, other) =>
          discovery(to, way, '8800', `20000000${hexOf(target(other))}0201${hexOf(bad.mac)}`, mark),
        ),
      ),
    ),
    ...['', '3a00010400000000'].flatMap(options =>
      toBoth(`about to have another's address ${options}`, (to, mark, other) =>
        discovery(to, { from: '::', options }, '8700', `00000000${hexOf(other.v6)}`, mark),
      ),
    ),
    ...toBoth('solicitation in the name of another', (to, mark, { v6: from }) =>
      discovery(to, { from, options: '' }, '8700', `00000000${hexOf(to.v6)}0101${hexOf(bad.mac)}`, mark),
    ),
  ],
  'router advertisements and redirects': [...ways, { from: 'fe80::1', options: '' }].flatMap(way => [
    ...toAll(`advertisement ${JSON.stringify(way)}`, allNodes, (to, mark) =>
      discovery(to, way, '8600', '4000ffff0000000000000000', mark),
    ),
    ...toBoth(`redirect ${JSON.stringify(way)}`, (to, mark, other) =>
      discovery(to, way, '8900', `00000000${hexOf(badLocal)}${hexOf(other.v6)}`, mark),
    ),
  ]),
  'VLAN tags': [
    '81000005',
    '81000000',
    '8100000581000006',
    '88a80005',
    '88a80000',
    '88a8000581000006',
    '91000005',
  ].flatMap(tag =>
    [bad.v4, bad.v6].flatMap(from =>
      toBoth(`${tag} ${from}`, (to, mark) => packet(to, from, mark, bad.mac, tag + typeOf(from))),
    ),
  ),
  // experimental, MPLS, PPPoE, SNAP
  'other ethertypes': ['88b5', '884700001140', '88641100000100240021', '002aaaaa030000000800'].flatMap(type =>
    toBoth(type, (to, mark) => packet(to, bad.v4, mark, bad.mac, type)),
  ),
  "to other nodes' MACs, and to switches": [
    ...['10.80.0.1', far.v4, '192.0.2.10'].map(v4 => toMac(eyes.gateway2, gateway2, v4)),
    ...[switch1, switch2].map(mac => toMac(eyes.switch1, mac, far.v4)),
  ],
  'VXLAN through the masquerade': [
    tunnel(eyes.host1, bad.v4, '10.9.0.1'),
    tunnel(eyes.host2, bad.v4, '10.9.0.2'),
    tunnel(eyes.host2, bad.v6, 'fd09::2'),
    tunnel(eyes.far, bad.v4, '10.9.0.2'),
    tunnel(eyes.far, bad.v4, '10.9.0.2', true),
  ],
}

/** Every eye has to see an honest packet, and the attacker has its answers. */
const honest = async (t: Test): Promise<void> => {
  const pings: [Eye, Container, string[]][] = [
    [eyes.near, bad, [near.v4, near.v6]],
    [eyes.far, bad, [far.v4, far.v6]],
    [eyes.switch1, bad, [far.v4]],
    [eyes.host1, bad, ['10.9.0.1']],
    [eyes.host2, bad, ['10.9.0.2', 'fd09::2']],
    [eyes.gateway2, far, ['10.80.0.1']],
  ]
  const ping = async (eye: Eye, from: Container, to: string): Promise<void> => {
    const pattern = mark()
    await lab.exec(from.host, ...within(from), 'ping', '-c', '1', '-W', '10', '-p', pattern, to)
    t.ok(await lab.until(async () => eye.sees(pattern), 30_000), `${from.name} pings ${to}: seen by ${eye.name}`)
  }
  await Promise.all(pings.flatMap(([eye, from, targets]) => targets.map(to => ping(eye, from, to))))
}
const nameOf = ({ what, eye }: Lie): string => `${what}: ${eye.name}`
/** Tells the lies; the answer is which of them have arrived so far. */
const tell = async (lies: Lie[]): Promise<() => string[]> => {
  const told = lies.map(lie => ({ ...lie, mark: mark() }))
  await lab.exec(bad.host, ...within(bad), ...sender, ...told.flatMap(({ frames, mark }) => frames(mark)))
  return () => told.filter(({ eye, mark }) => eye.sees(mark)).map(nameOf)
}

for (const [row, lies] of Object.entries(rows))
  t.test(`${row}: dropped, and the container goes on`, async t => {
    const arrived = await tell(lies)
    await honest(t)
    t.same(arrived(), [])
  })

t.test('VXLAN by who is no node, to any address of a host', async t => {
  await lab.docker('h1', 'run', '-d', '--name', 'plain', 'busybox', ...idle)
  const plain = ['nsenter', '-t', await lab.docker('h1', 'inspect', '-f', '{{.State.Pid}}', 'plain'), '-n']
  await lab.exec('router', 'ip', 'route', 'add', '172.17.0.1/32', 'via', '10.9.0.1')
  const send =
    'use Socket; socket(S, AF_INET, SOCK_DGRAM, 0); ' +
    'send(S, pack("H*", $ARGV[2]), 0, pack_sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die $!'
  // Debian has no rp_filter of its own
  await lab.exec('h1', 'sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=0', 'net.ipv4.conf.docker0.rp_filter=0')
  const [{ address: docker0 }] = JSON.parse(await lab.exec('h1', 'ip', '-j', 'link', 'show', 'docker0')) as [
    { address: string },
  ]
  const tellAll = async (): Promise<() => string[]> => {
    const told: { what: string; mark: string }[] = []
    const posing = mark()
    const inner = `08000000${vni.toString(16).padStart(6, '0')}00${packet(near, far.v4, posing, far.mac)}`
    const outer = ip('10.9.0.2', '10.9.0.1', 17, udp('10.9.0.2', '10.9.0.1', vxlanPort, inner))
    await lab.exec('h1', ...plain, ...sender, ether('02:42:ac:11:00:02', docker0, '0800', outer))
    told.push({ what: 'a container of a bridge that poses as the other host', mark: posing })
    for (const [who, host, ...inside] of [
      ['a container of a bridge', 'h1', ...plain],
      ['the LAN', 'router'],
    ] as [string, string, ...string[]][])
      for (const to of ['172.17.0.1', '10.9.0.1']) {
        const word = mark()
        const payload = `08000000${vni.toString(16).padStart(6, '0')}00${packet(near, far.v4, word, far.mac)}`
        await lab.exec(host, ...inside, 'perl', '-e', send, to, String(vxlanPort), payload)
        told.push({ what: `${who} to ${to}`, mark: word })
      }
    return () => told.filter(({ mark }) => eyes.near.sees(mark)).map(({ what }) => what)
  }
  const arrived = await tellAll()
  await honest(t)
  t.same(arrived(), [])
  await lab.ok('stop', 'h1', 'weftd')
  await lab.exec('h1', 'nft', 'flush chain inet weft input')
  const believed = await tellAll()
  await lab.until(async () => believed().length === 5)
  t.equal(believed().length, 5, 'without the guard they arrive')
  await lab.exec('h1', 'sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.docker0.rp_filter=1')
  await lab.ok('start', 'h1', 'weftd')
  const guarded = async (): Promise<boolean> =>
    (await lab.exec('h1', 'nft', 'list', 'chain', 'inet', 'weft', 'input')).includes(`dport ${vxlanPort}`)
  t.ok(await lab.until(guarded, 60_000))
  await lab.docker('h1', 'rm', '-f', 'plain')
})

t.test('no host sends under another address than its own: the underlay had nothing to drop', async t => {
  const dropped = async (): Promise<number> =>
    Number(/packets (\d+)/.exec(await lab.exec('router', 'nft', 'list', 'counter', 'bridge', 'spoof', 'dropped'))?.[1])
  t.equal(await dropped(), 0)
  const reverse = (value: number) => ['all', 'eth0', 'weft0'].map(dev => `net.ipv4.conf.${dev}.rp_filter=${value}`)
  await lab.exec('h1', 'sysctl', '-qw', ...reverse(0))
  await lab.exec('h1', ...within(bad), 'perl', '-e', unasked)
  t.equal(await dropped(), 0, 'nor what the tracker takes for invalid, and does not masquerade')
  await lab.exec('h1', 'sysctl', '-qw', ...reverse(1))
  await lab.exec('h1', ...sender, packet(far, '10.9.0.2', mark()))
  t.ok(await lab.until(async () => (await dropped()) > 0), 'it does count')
})

t.test('without the filters every one of these lies arrives; weftd puts the filters back', async t => {
  const all = Object.entries(rows).flatMap(([row, lies]) => lies.map(lie => ({ ...lie, what: `${row}: ${lie.what}` })))
  const forward = 'chain inet weft forward'
  const filters = [
    { at: inside('n'), away: 'delete table netdev weft', list: 'list table netdev weft', has: bad.mac },
    { at: inside('m'), away: `flush ${forward}`, list: `list ${forward}`, has: `dport ${vxlanPort}` },
    { at: [], away: `flush ${forward}`, list: `list ${forward}`, has: `dport ${vxlanPort}` },
  ]
  await lab.ok('stop', 'h1', 'weftd')
  for (const { at, away } of filters) await lab.exec('h1', ...at, 'nft', away)
  const believed = await tell(all)
  await lab.until(async () => believed().length === all.length)
  t.same(believed(), all.map(nameOf))
  await lab.ok('start', 'h1', 'weftd')
  for (const { at, list, has } of filters) {
    const there = async (): Promise<boolean> => (await lab.try('exec', 'h1', ...at, 'nft', list)).out.includes(has)
    t.ok(await lab.until(there, 60_000), `${list} has ${has}`)
  }
  // what they made of the lies; the liar heard some itself, by its hairpin port
  const forget = 'ip neigh flush dev eth0; ip -6 route flush proto ra; ip -6 route flush cache'
  for (const who of [bad, near, far]) await lab.exec(who.host, ...within(who), 'sh', '-c', forget)
  const arrived = await tell(all)
  await honest(t)
  t.same(arrived(), [])
})

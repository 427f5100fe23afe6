// SPDX-License-Identifier: Apache-2.0
// What a container with raw sockets may not say: frames made byte by byte leave its own network namespace, and packet
// sockets look for them where they would do harm. Every row ends with honest pings that the same sockets have to see,
// and the last test takes the filters away: then the lies arrive, so the other tests can fail.
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { linkLocalOf, parseAddress } from '../../src/model/address.ts'
import { idle, openLab } from './lab.ts'

interface Container {
  readonly host: string
  readonly name: string
  readonly pid: string
  readonly mac: string
  readonly v4: string
  readonly v6: string
}
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

// --- frames as hex digits

const u16 = (value: number): string => value.toString(16).padStart(4, '0')
const hexOf = (address: string): string => {
  if (!address.includes('.') && address.length === 17) return address.replaceAll(':', '')
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
/** IPv4 or IPv6 by the addresses; `offset` in bytes and `more` make it a fragment. */
const ip = (from: string, to: string, protocol: number, payload: string, offset?: number, more?: boolean): string => {
  const proto = protocol.toString(16).padStart(2, '0')
  if (from.includes(':')) return `60000000${u16(size(payload))}${proto}ff${hexOf(from)}${hexOf(to)}${payload}`
  const fragment = u16((offset ?? 0) / 8 + (more ? 0x2000 : 0))
  const start = `4500${u16(20 + size(payload))}7777${fragment}40${proto}`
  const addresses = hexOf(from) + hexOf(to)
  return start + checksum(start + addresses) + addresses + payload
}
const checked = (from: string, to: string, protocol: number, before: string, after: string): string =>
  before + checksum(hexOf(from) + hexOf(to) + u16(protocol) + u16(size(before + after) + 2) + before + after) + after
const udp = (from: string, to: string, port: number, data: string): string =>
  checked(from, to, 17, u16(7777) + u16(port) + u16(8 + size(data)), data)
const typeOf = (from: string): string => (from.includes(':') ? '86dd' : '0800')
const datagram = (from: string, to: string, data: string): string => ip(from, to, 17, udp(from, to, 9, data))
const arp = (operation: number, mac: string, address: string, toMac: string, to: string, data: string): string =>
  `000108000604${u16(operation)}${hexOf(mac)}${hexOf(address)}${hexOf(toMac)}${hexOf(to)}${data}`
/** The mark is in a nonce option at the end (RFC 3971), which every receiver skips. */
const icmp6 = (from: string, to: string, kind: number, body: string, mark: string): string =>
  checked(from, to, 58, `${kind.toString(16)}00`, `${body}0e01${mark}`)
const advert = (target: string, mac: string): string => `20000000${hexOf(target)}0201${hexOf(mac)}`
const routerAdvert = '4000ffff0000000000000000'
const redirect = (target: string, destination: string): string => `00000000${hexOf(target)}${hexOf(destination)}`
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

// --- the lab

const lab = await openLab('spoof', 2)
t.teardown(() => lab.close())
const pools = '--subnet 10.80.0.0/24 --subnet fd80::/64'
await lab.docker('h1', ...`network create -d weft --ipam-driver weft --ipv6 ${pools} app`.split(' '))
await lab.until(async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=^app$')) !== '')
const run = async (host: string, name: string): Promise<Container> => {
  await lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)
  const [{ State, NetworkSettings }] = JSON.parse(await lab.docker(host, 'inspect', name)) as [
    {
      State: { Pid: number }
      NetworkSettings: { Networks: { app: { MacAddress: string; IPAddress: string; GlobalIPv6Address: string } } }
    },
  ]
  const { MacAddress: mac, IPAddress: v4, GlobalIPv6Address: v6 } = NetworkSettings.Networks.app
  return { host, name, pid: String(State.Pid), mac, v4, v6 }
}
const [bad, near, far] = await Promise.all([run('h1', 'bad'), run('h1', 'near'), run('h2', 'far')])
const vni = await lab.vni('h1', 'app')
const within = ({ pid }: Container): string[] => ['nsenter', '-t', pid, '-n']
const send = (frames: string[]): Promise<string> => lab.exec(bad.host, ...within(bad), ...sender, ...frames)

const macOf = async (host: string, which: 'n' | 'm', dev: string): Promise<string> =>
  (JSON.parse(await lab.inside(host, which, vni, 'ip', '-j', 'link', 'show', dev)) as [{ address: string }])[0].address
const gateway1 = await macOf('h1', 'm', 'gw0')
const gateway2 = await macOf('h2', 'm', 'gw0')
const switch1 = await macOf('h1', 'n', 'br0')
const switch2 = await macOf('h2', 'n', 'br0')
const [vtep] = JSON.parse(await lab.inside('h1', 'n', vni, 'ip', '-d', '-j', 'link', 'show', 'vx0')) as [
  { linkinfo: { info_data: { port: number } } },
]
const vxlanPort = vtep.linkinfo.info_data.port

const look = async (name: string, host: string, dev: string, ...namespace: string[]): Promise<Eye> => {
  // a short snapshot, or the ring holds a handful of frames
  const flags = '-nn -l -xx -s 512 -B 16384 --immediate-mode -Z root not tcp'.split(' ')
  const capture = lab.background('exec', host, ...namespace, 'tcpdump', '-i', dev, ...flags)
  if (!(await lab.until(async () => capture.out().includes('listening on')))) throw new Error(capture.out())
  const bytes = (): string =>
    capture
      .out()
      .split('\n')
      .map(line => (line.startsWith('\t0x') ? line.slice(line.indexOf(':') + 1).replaceAll(' ', '') : '\n'))
      .join('')
  return { name, sees: mark => bytes().includes(mark) }
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

// --- what is tried

const mark = (): string => randomBytes(6).toString('hex')
/** One lie to the container beside it, and one to the other host's, each in the name of the other of the two. */
const toBoth = (what: string, frame: (to: Container, mark: string, other: Container) => string): Lie[] => [
  { what, eye: eyes.near, frames: mark => [frame(near, mark, far)] },
  { what, eye: eyes.far, frames: mark => [frame(far, mark, near)] },
]
const toNear = (what: string, frame: (mark: string) => string): Lie => ({
  what,
  eye: eyes.near,
  frames: mark => [frame(mark)],
})
const allNodes = '33:33:00:00:00:01'
const broadcast = 'ff:ff:ff:ff:ff:ff'
const badLocal = linkLocalOf(bad.mac)
const packet = (to: Container, from: string, data: string, mac = bad.mac): string =>
  ether(mac, to.mac, typeOf(from), datagram(from, from.includes(':') ? to.v6 : to.v4, data))
const tagged = (to: Container, tag: string, data: string, from = bad.v4): string =>
  ether(bad.mac, to.mac, tag, typeOf(from) + datagram(from, from.includes(':') ? to.v6 : to.v4, data))
const ether6 = (to: Container, payload: string): string => ether(bad.mac, to.mac, '86dd', payload)
const message = (from: string, to: string, kind: number, body: string, mark: string, behind = ''): string =>
  ip(from, to, behind === '' ? 58 : 60, behind + icmp6(from, to, kind, body, mark))
const options = '3a00010400000000'
const vxlan = (from: string, to: string, mark: string): string =>
  udp(from, to, vxlanPort, `08000000${vni.toString(16).padStart(6, '0')}00${packet(far, near.v4, mark, near.mac)}`)
const out = (from: string, payload: string): string => ether(bad.mac, gateway1, typeOf(from), payload)
const tunnel = (eye: Eye, from: string, to: string): Lie => ({
  what: `to ${to}`,
  eye,
  frames: mark => [out(from, ip(from, to, 17, vxlan(from, to, mark)))],
})

const rows: Record<string, Lie[]> = {
  'another source MAC': [
    ...toBoth('of nobody', (to, mark) => packet(to, bad.v4, mark, '02:77:0a:50:00:63')),
    ...toBoth('of nobody, IPv6', (to, mark) => packet(to, bad.v6, mark, '02:77:0a:50:00:63')),
    ...toBoth("another container's", (to, mark, other) => packet(to, bad.v4, mark, other.mac)),
    ...toBoth("another container's with its address", (to, mark, other) => packet(to, other.v4, mark, other.mac)),
    ...toBoth("the gateway's", (to, mark) => packet(to, bad.v4, mark, gateway1)),
    ...toBoth("another node's", (to, mark) => packet(to, bad.v4, mark, gateway2)),
  ],
  'another IPv4 source address': [
    ...toBoth("another container's", (to, mark, other) => packet(to, other.v4, mark)),
    ...toBoth("the receiver's", (to, mark) => packet(to, to.v4, mark)),
    ...['10.80.0.99', '10.80.0.1', '10.9.0.1', '192.0.2.10', '127.0.0.1', '0.0.0.0'].flatMap(from =>
      toBoth(from, (to, mark) => packet(to, from, mark)),
    ),
  ],
  'another IPv6 source address': [
    ...toBoth("another container's", (to, mark, other) => packet(to, other.v6, mark)),
    ...toBoth("another container's, link-local", (to, mark, other) => packet(to, linkLocalOf(other.mac), mark)),
    ...toBoth("the receiver's", (to, mark) => packet(to, to.v6, mark)),
    ...['fd80::99', 'fd80::1', 'fd09::1', '2001:db8::10', '::1', '::', badLocal].flatMap(from =>
      toBoth(from, (to, mark) => packet(to, from, mark)),
    ),
  ],
  'ARP lies': [
    ...[1, 2].flatMap(operation => [
      ...toBoth(`operation ${operation}: another container's address is here`, (to, mark, other) =>
        ether(bad.mac, to.mac, '0806', arp(operation, bad.mac, other.v4, to.mac, to.v4, mark)),
      ),
      ...toBoth(`operation ${operation}: the gateway is here`, (to, mark) =>
        ether(bad.mac, to.mac, '0806', arp(operation, bad.mac, '10.80.0.1', to.mac, to.v4, mark)),
      ),
      ...toBoth(`operation ${operation}: its own address is at another's MAC`, (to, mark, other) =>
        ether(bad.mac, to.mac, '0806', arp(operation, other.mac, bad.v4, to.mac, to.v4, mark)),
      ),
      toNear(`operation ${operation}: to all, another container's address is here`, mark =>
        ether(bad.mac, broadcast, '0806', arp(operation, bad.mac, far.v4, broadcast, far.v4, mark)),
      ),
    ]),
  ],
  'neighbour discovery lies': [
    ...[bad.v6, badLocal].flatMap(from =>
      ['', options].flatMap(behind => [
        ...toBoth(`${from} ${behind}: another container's address is here`, (to, mark, other) =>
          ether6(to, message(from, to.v6, 136, advert(other.v6, bad.mac), mark, behind)),
        ),
        ...toBoth(`${from} ${behind}: another container's link-local address is here`, (to, mark, other) =>
          ether6(to, message(from, to.v6, 136, advert(linkLocalOf(other.mac), bad.mac), mark, behind)),
        ),
        ...toBoth(`${from} ${behind}: the gateway is here`, (to, mark) =>
          ether6(to, message(from, to.v6, 136, advert('fd80::1', bad.mac), mark, behind)),
        ),
        toNear(`${from} ${behind}: to all, another container's address is here`, mark =>
          ether(bad.mac, allNodes, '86dd', message(from, 'ff02::1', 136, advert(far.v6, bad.mac), mark, behind)),
        ),
      ]),
    ),
    ...toBoth('solicitation in the name of another', (to, mark, other) =>
      ether6(to, message(other.v6, to.v6, 135, `00000000${hexOf(to.v6)}0101${hexOf(bad.mac)}`, mark)),
    ),
  ],
  'router advertisements and redirects': [bad.v6, badLocal, 'fe80::1'].flatMap(from =>
    ['', options].flatMap(behind => [
      ...toBoth(`advertisement of ${from} ${behind}`, (to, mark) =>
        ether6(to, message(from, 'ff02::1', 134, routerAdvert, mark, behind)),
      ),
      toNear(`advertisement of ${from} ${behind} to all`, mark =>
        ether(bad.mac, allNodes, '86dd', message(from, 'ff02::1', 134, routerAdvert, mark, behind)),
      ),
      ...toBoth(`redirect of ${from} ${behind}`, (to, mark, other) =>
        ether6(to, message(from, to.v6, 137, redirect(badLocal, other.v6), mark, behind)),
      ),
    ]),
  ),
  'VLAN tags': [
    ...['81000005', '81000000', '8100000581000006', '88a8000581000006', '91000005'].flatMap(tag =>
      [bad.v4, bad.v6].flatMap(from => toBoth(`${tag} ${from}`, (to, mark) => tagged(to, tag, mark, from))),
    ),
  ],
  'other ethertypes': [
    ...toBoth('local experimental', (to, mark) => ether(bad.mac, to.mac, '88b5', mark)),
    ...toBoth('MPLS', (to, mark) => ether(bad.mac, to.mac, '884700001140', datagram(bad.v4, to.v4, mark))),
    ...toBoth('PPPoE', (to, mark) =>
      ether(bad.mac, to.mac, '8864110000010024', `0021${datagram(bad.v4, to.v4, mark)}`),
    ),
    ...toBoth('SNAP', (to, mark) => ether(bad.mac, to.mac, '002aaaaa030000000800', datagram(bad.v4, to.v4, mark))),
  ],
  "to other nodes' MACs, and to switches": [
    ...['10.80.0.1', far.v4, '192.0.2.10'].map(to => ({
      what: `the other node's, for ${to}`,
      eye: eyes.gateway2,
      frames: (mark: string) => [ether(bad.mac, gateway2, '0800', datagram(bad.v4, to, mark))],
    })),
    ...[switch1, switch2].map(mac => ({
      what: `switch ${mac}`,
      eye: eyes.switch1,
      frames: (mark: string) => [ether(bad.mac, mac, '0800', datagram(bad.v4, far.v4, mark))],
    })),
  ],
  'VXLAN through the masquerade': [
    tunnel(eyes.host1, bad.v4, '10.9.0.1'),
    tunnel(eyes.host2, bad.v4, '10.9.0.2'),
    tunnel(eyes.host2, bad.v6, 'fd09::2'),
    tunnel(eyes.far, bad.v4, '10.9.0.2'),
    {
      what: 'in fragments',
      eye: eyes.far,
      frames: mark => {
        const whole = vxlan(bad.v4, '10.9.0.2', mark)
        return [
          out(bad.v4, ip(bad.v4, '10.9.0.2', 17, whole.slice(0, 16), 0, true)),
          out(bad.v4, ip(bad.v4, '10.9.0.2', 17, whole.slice(16), 8)),
        ]
      },
    },
  ],
}

/** Every eye has to see an honest packet, and the attacker has its answers. */
const honest = async (t: Test): Promise<void> => {
  const pings: [Eye, Container, string][] = [
    [eyes.near, bad, near.v4],
    [eyes.near, bad, near.v6],
    [eyes.far, bad, far.v4],
    [eyes.far, bad, far.v6],
    [eyes.switch1, bad, far.v4],
    [eyes.host1, bad, '10.9.0.1'],
    [eyes.host2, bad, '10.9.0.2'],
    [eyes.host2, bad, 'fd09::2'],
    [eyes.gateway2, far, '10.80.0.1'],
  ]
  await Promise.all(
    pings.map(async ([eye, from, to]) => {
      const pattern = mark()
      await lab.exec(from.host, ...within(from), 'ping', '-c', '1', '-W', '10', '-p', pattern, to)
      t.ok(await lab.until(async () => eye.sees(pattern)), `${from.name} pings ${to}: seen by ${eye.name}`)
    }),
  )
}
/** Tells the lies; the answer is which of them have arrived so far. */
const tell = async (lies: Lie[]): Promise<() => string[]> => {
  const told = lies.map(lie => ({ ...lie, mark: mark() }))
  await send(told.flatMap(({ frames, mark }) => frames(mark)))
  return () => told.filter(({ eye, mark }) => eye.sees(mark)).map(({ what, eye }) => `${what}: ${eye.name}`)
}

for (const [row, lies] of Object.entries(rows))
  t.test(`${row}: dropped, and the container goes on`, async t => {
    const arrived = await tell(lies)
    await honest(t)
    t.same(arrived(), [])
  })

t.test('without the filters every one of these lies arrives; weftd puts the filters back', async t => {
  const all = Object.entries(rows).flatMap(([row, lies]) => lies.map(lie => ({ ...lie, what: `${row}: ${lie.what}` })))
  await lab.ok('stop', 'h1', 'weftd')
  await lab.inside('h1', 'n', vni, 'nft', 'delete', 'table', 'netdev', 'weft')
  await lab.inside('h1', 'm', vni, 'nft', 'flush', 'chain', 'inet', 'weft', 'forward')
  await lab.exec('h1', 'nft', 'flush', 'chain', 'inet', 'weft', 'forward')
  const believed = await tell(all)
  await lab.until(async () => believed().length === all.length)
  t.same(
    believed(),
    all.map(({ what, eye }) => `${what}: ${eye.name}`),
  )
  await lab.ok('start', 'h1', 'weftd')
  // what they made of the lies; the liar heard some itself, by its hairpin port
  const forget = ['sh', '-c', 'ip neigh flush dev eth0; ip -6 route flush proto ra; ip -6 route flush cache']
  for (const who of [bad, near, far]) await lab.exec(who.host, ...within(who), ...forget)
  const arrived = await tell(all)
  await honest(t)
  t.same(arrived(), [])
})

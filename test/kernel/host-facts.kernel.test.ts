// SPDX-License-Identifier: Apache-2.0
// Which device and address of a host weft takes for the underlay.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { readIdentity, lastVtep } = await import('../../src/daemon/identity.ts')
  const { probeKernel, readHostFacts } = await import('../../src/kernel/host-facts.ts')
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const dir = '/run/weft-data'
  /** As at a start of weftd. */
  const vtep = async (): Promise<string> => {
    const last = await lastVtep(dir)
    const { address } = (await readHostFacts({ dev: 'eth0', ...(last === undefined ? {} : { last }) })).underlay
    await readIdentity(dir, 'boot', {}, address)
    return address
  }
  const at = (host: string): string => `2001:db8:5::${host}`
  const add = (host: string, ...words: string[]): string => sh(`ip addr add ${at(host)}/64 dev eth0 ${words.join(' ')}`)

  t.test('an IPv6 address that lasts, and the same at the next start', async t => {
    sh('ip addr flush dev eth0 && sysctl -qw net.ipv6.conf.eth0.use_tempaddr=2 net.ipv6.conf.eth0.accept_dad=0')
    await t.rejects(vtep(), { message: /^device eth0 has no address, none that lasts: give it one, or --vtep$/ })
    add('d', 'nodad', 'preferred_lft 0')
    await t.rejects(vtep(), { message: /^device eth0 has 2001:db8:5::d, none that lasts/ })
    sh('sysctl -qw net.ipv6.conf.eth0.accept_dad=1 net.ipv6.conf.eth0.dad_transmits=100')
    add('e')
    t.equal((await readHostFacts({ dev: 'eth0' })).underlay.address, at('e'), 'where no other is, one not yet checked')
    sh(`ip addr del ${at('e')}/64 dev eth0`)
    add('1', 'nodad')
    t.equal(await vtep(), at('1'))
    add('2', 'nodad')
    t.equal((await readHostFacts({ dev: 'eth0' })).underlay.address, at('1'), 'the older of two')
    add('3')
    t.match(sh('ip -6 addr show dev eth0'), /::3\/64 scope global tentative/)
    t.equal(await vtep(), at('1'))
    sh(`ip addr del ${at('1')}/64 dev eth0`)
    t.equal(await vtep(), at('2'), 'gone')
    add('1', 'nodad')
    sh(`ip addr del ${at('3')}/64 dev eth0`)
    sh(`ip addr add 2001:db8:5:0:200:ff:fe00:1/64 dev eth0 nodad mngtmpaddr`)
    t.match(sh('ip -6 addr show dev eth0'), /scope global temporary/)
    t.equal(await vtep(), at('2'))
    sh('ip addr add 192.0.2.1/24 dev eth0')
    t.equal(await vtep(), at('2'), 'IPv4 comes first only where nothing was chosen yet')
    t.equal((await readHostFacts({ dev: 'eth0' })).underlay.address, '192.0.2.1')
    t.equal((await readHostFacts({ vtep: at('d') })).underlay.address, at('d'), 'what an operator names is taken')
    await t.rejects(readHostFacts({ dev: 'eth0', vtep: at('9') }), {
      message: /^--vtep 2001:db8:5::9: device eth0 has /,
    })
  })

  t.test('what others have where our links are from', async t => {
    sh('ip link add weft0 type veth peer name weft0x && ip link add idrac type veth peer name bmc')
    for (const dev of ['weft0', 'idrac']) sh(`ip link set ${dev} up`)
    sh('ip addr add 169.254.1.5/30 dev weft0 && ip addr add 169.254.1.2/24 dev idrac scope link')
    sh('ip route add 169.254.9.0/24 dev idrac && ip addr add fd69:7765:6674:3::1/64 dev idrac nodad')
    const { onLinks } = await readHostFacts({ vtep: '192.0.2.1' })
    const prefixes = ['169.254.1.2/24', '169.254.1.0/24', '169.254.9.0/24', 'fd69:7765:6674:3::1/64']
    t.same(
      onLinks
        .filter(({ prefix }) => prefix !== 'fd69:7765:6674:3::/64')
        .sort((a, b) => a.prefix.localeCompare(b.prefix)),
      prefixes.sort((a, b) => a.localeCompare(b)).map(prefix => ({ dev: 'idrac', prefix })),
    )
  })

  t.test('a VTEP that is lost, and one that leads nowhere', async t => {
    const chosen = (await readHostFacts({ vtep: '192.0.2.1' })).underlay
    t.match(chosen, { dev: 'eth0', address: '192.0.2.1', problem: undefined })
    sh('ip addr del 192.0.2.1/24 dev eth0 && ip link set eth0 mtu 1400 && ip addr add 192.0.2.1/32 dev lo')
    const { underlay, dockerBridges } = await readHostFacts({ chosen })
    t.match(underlay, {
      ...chosen,
      mtu: 1400,
      problem: /^device eth0 has no longer 192\.0\.2\.1, by which other hosts/,
    })
    t.same(dockerBridges, [], 'all else is read')
    await t.rejects(readHostFacts({ vtep: '192.0.2.1' }), { code: 'INVALID', message: /lo leads to no other host/ })
    await t.rejects(readHostFacts({ dev: 'lo' }), { code: 'INVALID', message: /^--underlay-dev lo: lo leads to no/ })
    sh('ip addr del 192.0.2.1/32 dev lo && ip link set eth0 mtu 1500 && ip addr add 192.0.2.1/24 dev eth0')
    t.same((await readHostFacts({ chosen: underlay })).underlay, chosen)
  })

  t.test('which routes are in the way', async t => {
    sh('ip link add tun0 type bridge && ip link set tun0 up && ip addr add 192.0.2.9/32 dev tun0')
    const before = (await readHostFacts({ vtep: '192.0.2.1' })).routes
    for (const to of ['10.76.0.0/16 dev tun0 table 52', '10.75.0.0/16 dev tun0', 'fd00:75::/64 dev tun0 table 52'])
      sh(`ip route add ${to}`)
    // a default in parts; nobody's; an address of the host itself
    const harmless = ['0.0.0.0/1 dev tun0', '128.0.0.0/1 dev tun0', 'fc00::/7 dev tun0', 'default dev tun0 table 52']
    for (const to of [...harmless, 'blackhole 10.73.0.0/16']) sh(`ip route add ${to}`)
    for (const to of ['64.0.0.0/2 via 192.0.2.254', '32.0.0.0/3 dev tun0 table 52']) sh(`ip route add ${to}`)
    const facts = await readHostFacts({ vtep: '192.0.2.1' })
    t.same([...facts.halves].sort(), ['0.0.0.0/1', '128.0.0.0/1'], 'beside which Docker takes no subnet')
    const routes = facts.routes.filter(route => !before.includes(route))
    t.same(routes.sort(), ['10.75.0.0/16', '10.76.0.0/16', 'fd00:75::/64'])
    sh('ip link del tun0 && ip route del blackhole 10.73.0.0/16 && ip route del 64.0.0.0/2')
  })

  t.test("which bridges are Docker's", async t => {
    for (const name of ['docker0', 'br-0123456789ab', 'shop', 'lan', 'other'])
      sh(`ip link add ${name} type bridge && ip link set ${name} up`)
    sh('ip addr add 198.51.100.2/24 dev lan && ip route add 203.0.113.0/24 via 198.51.100.1')
    sh('ip addr add 10.88.0.1/24 dev shop')
    const facts = await readHostFacts({ vtep: '192.0.2.1', bridges: ['docker0', 'shop', 'lan', 'gone', 'eth0'] })
    t.same(facts.dockerBridges, ['br-0123456789ab', 'docker0', 'shop'], 'not the way out, if Docker uses that')
    t.same(facts.otherBridges, ['other'], 'no container is there')
    const devices = facts.addresses.map(({ dev }) => dev)
    t.ok(devices.includes('lan') && !devices.includes('shop'), devices.join())
    for (const name of ['docker0', 'br-0123456789ab', 'shop', 'lan', 'other']) sh(`ip link del ${name}`)
  })

  t.test('whom systemd-resolved asks, where resolv.conf names its stub', async t => {
    const routes = async () =>
      (await readHostFacts({ vtep: '192.0.2.1' })).routes.filter(route => route.endsWith('/32'))
    sh('mkdir -p /run/systemd/resolve && echo nameserver 203.0.113.53 > /run/systemd/resolve/resolv.conf')
    sh('echo "nameserver 203.0.113.1 # of the house" > /run/conf && mount --bind /run/conf /etc/resolv.conf')
    t.same(await routes(), ['203.0.113.1/32'])
    sh('echo nameserver 127.0.0.53 > /run/conf')
    t.same(await routes(), ['203.0.113.53/32'])
    t.same((await readHostFacts({ vtep: '192.0.2.1' })).resolvers, ['127.0.0.53'])
    sh('echo nameserver fe80::1%eth0 > /run/conf')
    t.same((await readHostFacts({ vtep: '192.0.2.1' })).resolvers, ['fe80::1%eth0'], 'with its zone')
    t.same(await routes(), [])
    sh('umount /etc/resolv.conf')
  })

  t.test('a kernel without IPv6 is named, with the remedy', async t => {
    await probeKernel()
    sh('mount -t tmpfs none /proc/sys/net/ipv6')
    await t.rejects(probeKernel(), { code: 'NOT_SUPPORTED', message: /IPv6.*: boot without ipv6\.disable=1/ })
    sh('umount /proc/sys/net/ipv6')
  })

  t.test('the device of the default route, also of one with several hops', async t => {
    sh('ip link set dev eth0 up && ip addr flush dev idrac && ip addr add 198.51.100.1/24 dev idrac')
    const several = (...hops: string[]): string =>
      sh(`ip route replace default ${hops.map(hop => `nexthop via ${hop}`).join(' ')}`)
    several('192.0.2.2', '192.0.2.3')
    t.equal((await readHostFacts({})).underlay.dev, 'eth0')
    several('192.0.2.2', '198.51.100.2')
    const message = 'the default route leads by eth0 and idrac: choose with --underlay-dev or --vtep'
    await t.rejects(readHostFacts({}), { code: 'INVALID', message })
    t.equal((await readHostFacts({ dev: 'idrac' })).underlay.address, '198.51.100.1')
    sh('ip route del default')
    await t.rejects(readHostFacts({}), { message: /^no default route to tell the underlay by: give --underlay-dev/ })
  })
}

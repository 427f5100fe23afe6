// SPDX-License-Identifier: Apache-2.0
// Tracked connections are forgotten by who began them: those that are masqueraded, and no others.
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { forgetFlows } from '../../src/kernel/flows.ts'
import { findConntrack } from '../../src/netlink/ct/conntrack.ts'
import { netnsWrite } from '../../src/netlink/netns.ts'
import { openNetlink } from '../../src/netlink/socket.ts'
import { NETLINK_NETFILTER } from '../../src/netlink/uapi.ts'
import { freshNetns } from '../netlink/lab.ts'

t.test('what a container began', async t => {
  const [gateway, container, outside] = [
    await freshNetns(t, 'f1'),
    await freshNetns(t, 'f2'),
    await freshNetns(t, 'f3'),
  ] as const
  const sh = (netns: { name: string }, command: string): string =>
    execFileSync('ip', ['netns', 'exec', netns.name, 'sh', '-ec', command], { encoding: 'utf8' })
  await netnsWrite(gateway.path, '/proc/sys/net/ipv4/ip_forward', '1')
  for (const [netns, subnet, dev] of [
    [container, '10.98.0', 'c'],
    [outside, '10.97.0', 'o'],
  ] as const) {
    sh(gateway, `ip link add ${dev} type veth peer name eth0 netns ${netns.name}; ip link set ${dev} up`)
    sh(gateway, `ip address add ${subnet}.1/24 dev ${dev}`)
    sh(netns, `ip link set eth0 up; ip address add ${subnet}.2/24 dev eth0; ip address add ${subnet}.3/24 dev eth0`)
    sh(netns, `ip route add default via ${subnet}.1`)
  }
  sh(
    gateway,
    `nft -f - << 'E'
    table ip t {
      chain zones { type filter hook prerouting priority -300; udp dport 10 ct original zone set 5; }
      chain out {
        type nat hook postrouting priority 100;
        udp dport 9 ip saddr 10.98.0.0/24 oifname "o" masquerade
        udp dport 11 ip saddr 10.98.0.3 snat to 10.98.0.3:6000
      }
    }`,
  )
  const send = (netns: { name: string }, from: string, to: string, port = 9): string =>
    sh(
      netns,
      `perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Proto => "udp", LocalAddr => "${from}", LocalPort => 4000, PeerAddr => "${to}", PeerPort => ${port})->send("x")'`,
    )
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, netns: gateway.path })
  t.teardown(() => netlink.close())
  const sources = async (destinationPort = 9): Promise<string[]> =>
    (await findConntrack(netlink, { original: { destinationPort } })).map(({ original }) => original.source).sort()
  const begin = (): void => {
    for (const from of ['10.98.0.2', '10.98.0.3']) send(container, from, '10.97.0.2')
    send(outside, '10.97.0.3', '10.98.0.2')
  }
  begin()
  t.same(await sources(), ['10.97.0.3', '10.98.0.2', '10.98.0.3'])
  t.equal(await forgetFlows(netlink, { to: ['from 10.98.0.2'] }), 1)
  t.same(await sources(), ['10.97.0.3', '10.98.0.3'])
  begin()
  t.equal(await forgetFlows(netlink, { toOthersThan: new Set(['from 10.98.0.2']) }), 1)
  t.same(await sources(), ['10.97.0.3', '10.98.0.2'], 'who came from outside is not translated: left alone')

  // the port of a client changes where another has it too: its address is its own, and it goes on
  send(container, '10.98.0.3', '10.97.0.2', 11)
  t.equal(await forgetFlows(netlink, { toOthersThan: new Set(['from 10.98.0.2']) }), 0)
  t.same(await sources(11), ['10.98.0.3'])

  // led by another node to the very port that is published, so that nothing is translated
  send(outside, '10.97.0.3', '10.98.0.2', 10)
  send(outside, '10.97.0.3', '10.98.0.3', 10)
  t.equal(await forgetFlows(netlink, { to: ['10.98.0.2'] }), 1)
  t.equal(await forgetFlows(netlink, { toOthersThan: new Set(['from 10.98.0.2', '10.98.0.3']) }), 0)
  t.equal(await forgetFlows(netlink, { toOthersThan: new Set(['from 10.98.0.2']) }), 1)
  t.same(await sources(10), [])
})

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
    `nft 'add table ip t; add chain ip t out { type nat hook postrouting priority 100; }; add rule ip t out ip saddr 10.98.0.0/24 oifname "o" masquerade'`,
  )
  const send = (netns: { name: string }, from: string, to: string): string =>
    sh(
      netns,
      `perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Proto => "udp", LocalAddr => "${from}", LocalPort => 4000, PeerAddr => "${to}", PeerPort => 9)->send("x")'`,
    )
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, netns: gateway.path })
  t.teardown(() => netlink.close())
  const sources = async (): Promise<string[]> =>
    (await findConntrack(netlink, { original: { destinationPort: 9 } })).map(({ original }) => original.source).sort()
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
})

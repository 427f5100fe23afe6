// SPDX-License-Identifier: Apache-2.0
// H, the host's own namespace: the map from published ports to gateways, the guards of the VXLAN port, and no more
// forwarding than our links need. `ip_forward` itself is never written.

import { type KernelObject, timeoutName } from '../kernel/objects.ts'
import { familyOf, single } from '../model/address.ts'
import type { Cluster } from '../model/cluster.ts'
import type { Node } from '../model/node.ts'
import { accepting, chains } from '../plan/chains.ts'
import type { Host } from '../plan/host.ts'
import { linkPrefix6 } from '../plan/links.ts'
import { switchMac } from '../plan/macs.ts'
import { hostLinks, resolverLink, resolverPort, table } from '../plan/names.ts'
import { element, heldUdp, hostPorts, hostPortsAt, vteps } from '../plan/sets.ts'
import { idleSeconds, idleTimeout } from '../plan/tracking.ts'

export const planHost = (node: Node, cluster: Cluster, host: Host): KernelObject[] => {
  const ns = ''
  const chain = chains(ns, 'inet')
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', ns, path, value })
  const family = familyOf(node.vtep)
  const ip = family === 4 ? 'ip' : 'ip6'
  const port = cluster.vxlanPort
  // the same question on the way in and from the host itself: is this a published port at one of our addresses?
  const toGateways = (of4: string): string[] => [
    `${of4}fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports_at4`,
    `${of4}fib daddr type local dnat ip to meta l4proto . th dport map @ports4`,
    'fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports_at6',
    // Linux routes no ::1: refused, so that clients go on to 127.0.0.1
    'ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6',
  ]
  // a neighbour may send to 127.0.0.1: translated, it would be no martian any more
  const fromOthers = toGateways('ip daddr != 127.0.0.0/8 ')
  const strangers = strangersTo(host.dockerBridges)
  // whoever publishes port 53, here or by Docker's own rules, does not publish it at these
  const toResolver = host.resolvers.map(
    resolver =>
      `${familyOf(resolver) === 4 ? 'ip' : 'ip6'} daddr ${resolver} meta l4proto { tcp, udp } th dport 53 dnat to :${resolverPort}`,
  )
  const { dev } = host.underlay
  // hosts may have times of their own for others
  const idle = idleTimeout(ns, 'tcp', idleSeconds.tcp)
  return [
    { kind: 'bridge', ns, name: resolverLink, mac: switchMac(node), mtu: 1500 },
    sysctl(`net/ipv6/conf/${resolverLink}/disable_ipv6`, '0'), // hosts may have it off for new devices
    ...host.resolvers.map(
      (resolver): KernelObject => ({ kind: 'address', ns, dev: resolverLink, address: single(resolver) }),
    ),
    { kind: 'nft-table', ns, family: 'inet', table },
    ...[hostPorts[4], hostPorts[6], hostPortsAt[4], hostPortsAt[6], heldUdp, vteps[4], vteps[6]].map(set => set(ns)),
    element(vteps[family](ns), [node.vtep]),
    chain('prerouting', [...toResolver, ...fromOthers], accepting('nat', 'prerouting', -110)),
    chain('output', [...toResolver, ...toGateways('')], accepting('nat', 'output', -110)),
    idle,
    chain(
      'postrouting',
      [
        `oifname ${hostLinks} meta l4proto tcp ct timeout set "${timeoutName(idle)}"`,
        `oifname ${hostLinks} ip saddr 127.0.0.0/8 masquerade`,
        `iifname ${hostLinks} masquerade`,
      ],
      accepting('nat', 'postrouting', 90),
    ),
    chain(
      'input',
      [
        // the socket takes what comes to any address of the host
        `udp dport ${port} ${ip} daddr != ${node.vtep} counter drop`,
        `udp dport ${port} ${ip} saddr != @vteps${family} counter drop`,
        // a container of this host that poses as a node: IPv6 has no rp_filter, and not every host has it for IPv4
        `udp dport ${port} fib saddr . iif oif missing counter drop`,
        `iifname ${hostLinks} ip daddr 127.0.0.0/8 ct status & dnat == 0 counter drop`,
        // nobody reads from the sockets that hold our ports
        'ct direction original ct status & dnat == 0 udp dport @held_udp reject',
        // for containers of this host: names are nobody else's business, and an open resolver serves attacks on others
        ...host.resolvers.flatMap(resolver => {
          const asked = `${familyOf(resolver) === 4 ? 'ip' : 'ip6'} daddr ${resolver}`
          return [
            ...[dev, ...host.otherBridges].map(name => `iifname "${name}" ${asked} counter drop`),
            `meta iifkind "bridge" ${asked} accept`, // Docker's: those of a moment ago too
            `iifname != ${hostLinks} iifname != "lo" ${asked} counter drop`,
          ]
        }),
      ],
      accepting('filter', 'input', -10),
    ),
    chain(
      'forward',
      [
        `udp dport ${port} ${ip} daddr @vteps${family} counter drop`,
        // IPv4 knows these as its own, and takes them for martians
        `iifname != ${hostLinks} oifname ${hostLinks} ip6 saddr ${linkPrefix6} counter drop`,
        // a gateway's own address is no way in, past the address that -p names and the rules that users have for the port
        `oifname ${hostLinks} ct state established,related accept`,
        `oifname ${hostLinks} ct status & dnat == 0 counter drop`,
        // Docker keeps its networks apart, --internal ones too: what they publish is there for ours, and nothing else
        `iifname ${hostLinks} ct state established,related accept`,
        ...host.dockerBridges.map(name => `iifname ${hostLinks} oifname "${name}" ct status & dnat == 0 counter drop`),
        ...(host.closed4 ? [`meta nfproto ipv4 ${strangers} counter drop`] : []),
        ...(host.closed6 ? [`meta nfproto ipv6 ${strangers} counter drop`] : []),
      ],
      accepting('filter', 'forward', -10),
    ),
    ...host.acceptsRa.map(name => sysctl(`net/ipv6/conf/${name}/accept_ra`, '2')),
    sysctl(`net/ipv4/conf/${dev}/forwarding`, '1'),
    sysctl('net/ipv6/conf/all/forwarding', '1'),
    ...guestRulesOf(host.guestChains),
  ]
}

/** Neither ours nor of a bridge of Docker's, which wants forwarding for itself. */
const strangersTo = (dockerBridges: readonly string[]): string =>
  ['iifname', 'oifname']
    .flatMap(name => [hostLinks, ...dockerBridges.map(bridge => `"${bridge}"`)].map(link => `${name} != ${link}`))
    .join(' ')

/** Where FORWARD drops what it does not know, our links are let through, when users have said what they have to say. */
export const guestRulesOf = (chains: Host['guestChains']): KernelObject[] =>
  chains.flatMap(({ to, ...chain }) =>
    ['iifname', 'oifname'].flatMap(name => {
      const guest = { kind: 'nft-guest', ns: '', ...chain } as const
      const ours = `${name} ${hostLinks} counter`
      const led: KernelObject[] = to === undefined ? [] : [{ ...guest, rule: `${ours} jump ${to}`, place: 'head' }]
      return [...led, { ...guest, rule: `${ours} accept`, place: 'behind' }]
    }),
  )

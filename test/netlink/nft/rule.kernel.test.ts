// SPDX-License-Identifier: Apache-2.0
// One of everything the compiler takes, in every family: loaded by us and by nft, the kernel holds the same
// expressions and `nft list ruleset` shows the same rules.
import t from 'tap'
import type { NftHook } from '../../../src/netlink/nft/types.ts'
import { compare } from './compare.ts'
import { set, type TableText } from './rules.ts'

const hook = (
  hook: NftHook['hook'],
  priority: number,
  type: NftHook['type'] = 'filter',
  policy: NftHook['policy'] = 'accept',
): NftHook => ({ type, hook, priority, policy })

const anywhere = [
  'accept',
  'drop',
  'return',
  'continue',
  'jump there',
  'goto there',
  'counter',
  'counter accept',
  'notrack',
  'meta mark 5 accept',
  'meta mark 0x00000005 accept',
  'mark 5 accept',
  'meta mark == 5 accept',
  'meta mark != 5 accept',
  'meta mark & 0xff == 5 accept',
  'meta mark & 0xff != 5 accept',
  'meta mark and 0xff 5 accept',
  'meta mark { 1, 2, 3 } accept',
  'meta mark != { 1, 2, 3 } accept',
  'meta mark & 0x0f { 1, 2 } accept',
  'meta mark @marks accept',
  'meta mark vmap { 1 : accept, 2 : jump there, 3 : goto there, 4 : return, 5 : continue }',
  'meta mark vmap @verdicts',
  'meta mark and 0x03000000 vmap { 0x01000000 : goto there, 0x02000000 : drop }',
  'meta mark set 7',
  'meta mark set numgen inc mod 3 offset 1',
  'meta mark set numgen random mod 3',
  'meta mark set jhash th sport mod 3 seed 7 offset 2',
  'meta mark set meta mark map { 1 : 2, 3 : 4 }',
  'iifname "eth0" accept',
  'meta iifname "eth0" accept',
  'meta iifkind "bridge" accept',
  'iifname eth0 accept',
  'iifname != "eth0" accept',
  'iifname "weft*" accept',
  'iifname != "weft*" accept',
  'iifname { "eth0", "eth1" } accept',
  'iifname @names accept',
  'iifname . meta mark { "eth0" . 1, "eth1" . 2 } accept',
  'iifname . meta mark @pairs accept',
  'meta l4proto tcp accept',
  'meta l4proto 47 accept',
  'meta l4proto { tcp, udp } accept',
  'meta l4proto != { tcp, udp, icmp, ipv6-icmp } accept',
  'meta l4proto tcp th dport 80 accept',
  'meta l4proto { tcp, udp } th dport 53 accept',
  'th dport 80 accept',
  'th sport { 80, 443 } accept',
  'tcp dport 80 accept',
  'tcp dport != 80 accept',
  'tcp dport > 80 accept',
  'tcp dport >= 80 accept',
  'tcp dport < 80 accept',
  'tcp dport <= 80 accept',
  'tcp dport 1024-65535 accept',
  'tcp dport != 1024-2047 accept',
  'tcp dport { 80, 1024-2047, 443 } accept',
  'tcp sport 1 tcp dport 2 accept',
  'udp dport 53 counter drop',
  'udp sport . udp dport { 1 . 2, 3 . 4 } accept',
  'sctp dport 36412 accept',
  'tcp dport vmap { 22 : accept, 80 : jump there }',
  'tcp dport vmap { 0-1023 : accept, 1024-65535 : drop }',
  'tcp dport 80 meta mark set 1 accept',
  '@th,0,16 80 accept',
  '@th,16,16 != 80 accept',
  '@nh,64,8 17 accept',
  '@th,64,128 != fd77::1 accept',
  '@th,64,128 fd77::1 accept',
  'meta l4proto tcp @th,104,8 & 0x17 != 0x02 accept',
  'meta pkttype broadcast drop',
  'meta pkttype { broadcast, multicast } drop',
  'log',
  'log prefix "weft: " counter',
  'log prefix "weft: " group 5',
  'log group 5 snaplen 64 queue-threshold 2',
  'log level info',
  'log prefix "a" level debug',
  'limit rate 10/second accept',
  'limit rate 10/second burst 20 packets accept',
  'limit rate over 10/minute burst 3 packets drop',
  'limit rate 10 mbytes/second accept',
  'limit rate 10 kbytes/second burst 20 kbytes accept',
  'limit rate over 100 bytes/hour drop',
]

const ethernet = [
  'ether saddr 02:77:0a:01:00:0b accept',
  'ether daddr != 02:77:0a:01:00:0b accept',
  'ether daddr & ff:fe:00:00:00:00 == 02:7e:00:00:00:00 ether daddr != 02:7e:00:00:00:01 drop',
  'ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 accept',
  'ether daddr 02:00:00:00:00:01 ether saddr 02:00:00:00:00:02 accept',
  'ether saddr @macs accept',
  'ether saddr != @macs ether daddr != @macs accept',
  'ether saddr { 02:77:0a:01:00:0b, 02:77:0a:01:00:0c } accept',
  'ether daddr set 02:77:0a:01:00:0c',
  'ether saddr set ether daddr map { 02:77:0a:01:00:0b : 02:77:0a:01:00:0c }',
  'meta mark set ether saddr map @mark_of',
]

const addresses4 = [
  'ip saddr 10.0.0.1 accept',
  'ip saddr != 10.0.0.1 accept',
  'ip saddr 10.0.0.0/8 accept',
  'ip saddr 10.0.0.0/12 accept',
  'ip saddr != 10.1.0.0/16 accept',
  'ip saddr 10.1.2.0/24 ip daddr 10.1.2.3 accept',
  'ip saddr 10.0.0.1/32 accept',
  'ip saddr 10.0.0.1-10.0.0.9 accept',
  'ip saddr { 10.0.0.0/8, 192.168.0.1 } accept',
  'ip saddr { 10.0.0.1, 10.0.0.2 } accept',
  'ip saddr { 10.0.0.0-10.0.0.5, 192.168.0.0/16, 255.0.0.0/8 } accept',
  'ip saddr 10.0.0.1 ip daddr 10.0.0.2 accept',
  'ip saddr @addresses4 accept',
  'ip saddr & 255.255.0.0 == 10.1.0.0 accept',
  'ip daddr vmap { 10.0.0.1 : accept, 10.0.0.2 : jump there }',
  'ip protocol tcp accept',
  'ip protocol { tcp, udp } accept',
  'ip protocol udp udp dport 53 accept',
  'ip saddr 10.0.0.1 tcp dport 80 accept',
  'tcp dport 80 ip saddr 10.0.0.1 accept',
  'ip saddr . ip daddr { 10.0.0.1 . 10.0.0.2 } accept',
  'ip saddr . tcp dport { 10.0.0.1 . 80, 10.0.0.2 . 443 } accept',
  'meta mark and 0xffff . ip daddr . meta l4proto . th dport vmap @policy4',
  'icmp type echo-request accept',
  'icmp type { echo-request, echo-reply, destination-unreachable } accept',
  'icmp type echo-request ip saddr 10.0.0.1 accept',
  'icmp code 3 accept',
  'ip daddr set 10.0.0.2',
  'tcp dport set 81',
  'udp dport set 81',
]

const addresses6 = [
  'ip6 saddr fd77::1 accept',
  'ip6 saddr :: accept',
  'ip6 saddr fd77::/64 accept',
  'ip6 saddr fe80::/10 accept',
  'ip6 saddr fd77::/65 accept',
  'ip6 saddr { fe80::/10, :: } drop',
  'ip6 saddr { fe80::/10, :: } icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept',
  'ip6 saddr . ip6 daddr @pairs6 accept',
  'ip6 nexthdr tcp accept',
  'ip6 nexthdr tcp tcp dport 80 accept',
  'ip6 daddr fd77::1 udp dport 53 accept',
  'ip6 saddr fd77::1 ip6 daddr fd77::2 accept',
  'icmpv6 type nd-redirect accept',
  'icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, mld2-listener-report } accept',
  'icmpv6 type nd-neighbor-advert @th,64,128 != fd77::1 @th,64,128 != fe80::1 drop',
  'meta l4proto ipv6-icmp icmpv6 type echo-request accept',
  'ip6 daddr set fd77::2',
]

const connections = [
  'ct state established,related accept',
  'ct state established accept',
  'ct state invalid drop',
  'ct state { established, related } accept',
  'ct state vmap { established : accept, invalid : drop }',
  'ct state == established accept',
  'ct state != established accept',
  'ct state & new == new accept',
  'ct status dnat accept',
  'ct status ! dnat accept',
  'ct state ! established,related accept',
  'ct status snat,dnat accept',
  'ct status & dnat == dnat accept',
  'ct status & dnat == 0 accept',
  'ct status & dnat != 0 accept',
  'ct direction reply accept',
  'ct direction original accept',
  'ct mark 5 accept',
  'ct mark & 0xff == 5 accept',
  'ct mark set 5',
  'ct mark set meta mark',
  'meta mark set ct mark',
  'ct mark 0 ct mark set numgen inc mod 3 offset 1',
  'ct zone 7 accept',
  'ct original zone 7 accept',
  'ct reply zone != 7 accept',
  'ct original zone set 7',
  'ct zone set 7',
  'fib daddr type local accept',
  'fib daddr type != local accept',
  'fib saddr type { unicast, local } accept',
  'fib daddr type vmap { local : accept, broadcast : drop }',
  'udp dport 8473 fib saddr . iif oif missing counter drop',
  'fib saddr . iif oif exists accept',
]

const zones = [
  'ct original zone set ether saddr map @zone_of',
  'ct original zone set ether saddr map { 02:7e:00:00:00:01 : 1, 02:7e:00:00:00:02 : 2 }',
  'ether daddr 02:7e:00:00:00:01 ct direction reply ether daddr set ct original zone map @mac_of_zone',
  'ether daddr @macs ct original zone set 5 accept',
]

const rejects = [
  'reject',
  'tcp dport 80 reject with tcp reset',
  'reject with tcp reset',
  'reject with icmpx type admin-prohibited',
  'reject with icmpx host-unreachable',
]

const sets = [
  set('marks', ['mark']),
  set('names', ['ifname']),
  set('pairs', ['ifname', 'mark']),
  set('verdicts', ['mark'], ['verdict']),
  set('addresses4', ['ipv4_addr']),
  set('policy4', ['mark', 'ipv4_addr', 'inet_proto', 'inet_service'], ['verdict']),
  set('pairs6', ['ipv6_addr', 'ipv6_addr']),
  set('macs', ['ether_addr']),
  set('mark_of', ['ether_addr'], ['mark']),
  set('zone_of', ['ether_addr'], ['ct_zone']),
  set('mac_of_zone', ['ct_zone'], ['ether_addr']),
  set('published', ['ether_addr', 'inet_proto', 'inet_service'], ['inet_service']),
  set('backends4', ['inet_proto', 'inet_service'], ['ipv4_addr']),
  set('backends6', ['inet_proto', 'inet_service'], ['ipv6_addr']),
  set('both4', ['inet_proto', 'inet_service'], ['ipv4_addr', 'inet_service']),
  set('both6', ['inet_proto', 'inet_service'], ['ipv6_addr', 'inet_service']),
  set('vip4', ['ether_addr', 'ipv4_addr'], ['ipv4_addr']),
]

const there = { chain: 'there', rules: [] }

/** The rule alone in its table, so that a difference names it. */
const each = async (
  t: import('tap').Test,
  table: Omit<TableText, 'chains'>,
  hook: NftHook,
  rules: readonly string[],
) => {
  const chains = rules.map((rule, i) => ({ chain: `c${i}`, rules: [rule] }))
  await compare(t, [{ ...table, chains: [there, { chain: 'base', hook, rules: [] }, ...chains] }])
}

t.test('inet', async t => {
  const table = { family: 'inet' as const, table: 'weft', sets }
  const rules = [
    ...anywhere,
    ...ethernet,
    ...addresses4,
    ...addresses6,
    ...connections,
    ...zones,
    ...rejects,
    'ip saddr 10.0.0.1 reject',
    'ip6 saddr fd77::1 reject',
    'reject with icmp type host-unreachable',
    'reject with icmpv6 type no-route',
    'meta nfproto ipv4 accept',
    'meta nfproto ipv4 ip saddr 10.0.0.1 accept',
    'meta nfproto { ipv4, ipv6 } accept',
    'meta protocol ip accept',
    'meta protocol ip ip saddr 10.0.0.1 accept',
    'oifname "up0" accept',
    'ether type ip accept',
    'ether type ip ip saddr 10.0.0.1 accept',
    'ether type 8021q drop',
    'ether type { ip, arp } accept',
    'ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1 accept',
    'ether saddr . ip saddr { 02:00:00:00:00:01 . 10.0.0.1 } accept',
    'ether saddr 02:00:00:00:00:01 ip6 saddr fd77::1 accept',
    'ether saddr 02:00:00:00:00:01 tcp dport 80 accept',
    'ip saddr 10.0.0.1 ether saddr 02:00:00:00:00:01 accept',
  ]
  await each(t, table, hook('prerouting', 0), rules)
})

t.test('inet, nat', async t => {
  const rules = [
    'dnat ip to 10.0.0.1',
    'dnat ip6 to fd77::1',
    'ip daddr 192.0.2.1 dnat to 10.0.0.1',
    'ip6 daddr fd77::9 dnat to fd77::1',
    'ip daddr 192.0.2.1 dnat ip to 10.0.0.1 persistent',
    'tcp dport 80 dnat ip to 10.0.0.1:8080',
    'tcp dport 80 dnat ip6 to [fd77::1]:8080',
    'tcp dport 80 dnat to :8080',
    'meta l4proto { tcp, udp } dnat to :8080',
    'dnat ip to meta l4proto . th dport map @backends4',
    'ip6 daddr fd69::2 dnat ip6 to meta l4proto . th dport map @backends6',
    'fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map { 192.0.2.1 . tcp . 80 : 10.0.0.1 }',
    'meta l4proto { tcp, udp } dnat to :ether daddr . meta l4proto . th dport map @published',
    'dnat ip to ether daddr . ip daddr map @vip4',
    'tcp dport 80 dnat ip addr . port to meta l4proto . th dport map @both4',
    'tcp dport 80 dnat ip6 addr . port to meta l4proto . th dport map @both6',
    'tcp dport 80 dnat ip addr . port to ip daddr . th dport map { 192.0.2.1 . 80 : 10.0.0.1 . 8080 }',
    'dnat ip to ip daddr map { 192.0.2.1 : 10.0.0.1, 192.0.2.2 : 10.0.0.2 }',
    'dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }',
    'dnat ip to jhash ip saddr mod 2 seed 7 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }',
    'meta nfproto ipv4 ct mark set jhash ip saddr mod 2 seed 7 map { 0 : 0x0a500002, 1 : 0x0a500003 }',
    'tcp dport 80 redirect to :8080',
    'redirect',
  ]
  await each(t, { family: 'inet', table: 'weft', sets }, hook('prerouting', -100, 'nat'), rules)
  const out = [
    'snat ip to 10.0.0.1',
    'snat ip6 to fd77::1',
    'ip saddr . ip daddr { 10.0.0.1 . 10.0.0.1 } snat ip to 10.0.0.2',
    'tcp dport 80 snat ip to 10.0.0.1:1024 random',
    'masquerade',
    'masquerade random,persistent',
    'masquerade fully-random',
    'oifname "up0" ip saddr 10.0.0.0/8 ct status & dnat == 0 masquerade',
    'oifname "weft*" ip saddr 127.0.0.0/8 masquerade',
  ]
  await each(t, { family: 'inet', table: 'weft', sets }, hook('postrouting', 100, 'nat', 'drop'), out)
  const proxies = [
    'tcp dport 80 tproxy to :9000',
    'tcp dport 80 tproxy ip to 127.0.0.1:9000',
    'tcp dport 80 tproxy ip to 127.0.0.1',
    'tcp dport 80 tproxy ip6 to [::1]:9000',
    'meta l4proto { tcp, udp } tproxy ip to :9000',
  ]
  await each(t, { family: 'inet', table: 'weft', sets }, hook('prerouting', -150), proxies)
})

t.test('ip and ip6', async t => {
  const four = [
    ...anywhere,
    ...addresses4,
    ...connections,
    ...ethernet,
    ...rejects.slice(0, 3),
    'oifname "up0" accept',
    'ip saddr 10.0.0.1 reject',
    'reject with icmp type port-unreachable',
    'dnat to 10.0.0.1',
    'tcp dport 80 dnat to 10.0.0.1:80',
    'tcp dport 80 dnat to :80',
    'dnat to ip daddr map { 192.0.2.1 : 10.0.0.1 }',
    'tcp dport 80 redirect to :81',
    'snat to 10.0.0.1',
    'masquerade',
    'tcp dport 80 tproxy to :9000',
    'tcp dport 80 tproxy to 127.0.0.1:9000',
  ]
  const six = [
    ...addresses6,
    ...connections,
    ...rejects.slice(0, 3),
    'tcp dport 80 dnat to [fd77::1]:80',
    'dnat to fd77::1',
    'masquerade',
    'reject with icmpv6 type no-route',
    'tcp dport 80 tproxy to [::1]:9000',
    'ether saddr 02:77:0a:01:00:0b accept',
  ]
  const none = (names: readonly string[]) => sets.filter(({ name }) => names.includes(name))
  await each(t, { family: 'ip', table: 'weft', sets }, hook('forward', -10), four)
  await each(t, { family: 'ip6', table: 'weft', sets: none(['pairs6']) }, hook('forward', -10), six)
})

t.test('netdev', async t => {
  const rules = [
    ...anywhere.filter(rule => rule !== 'notrack'),
    ...ethernet,
    ...addresses4,
    ...addresses6,
    'meta protocol ip accept',
    'meta protocol ip ip saddr 10.0.0.1 accept',
    'meta protocol { ip, ip6, arp } accept',
    'ether type ip accept',
    'ether type 8021q drop',
    'ether type vlan drop',
    'ether type { ip, arp } accept',
    'ether type ip ip saddr 10.0.0.1 udp dport 53 accept',
    'ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1 accept',
    'ether saddr . ip saddr { 02:00:00:00:00:01 . 10.0.0.1 } accept',
    'arp operation request accept',
    'arp operation { request, reply } accept',
    'arp saddr ether 02:00:00:00:00:01 arp saddr ip 10.0.0.1 accept',
    'arp saddr ether 02:00:00:00:00:01 arp saddr ip { 10.0.0.1, 0.0.0.0 } accept',
    'arp saddr ip 10.0.0.0/8 accept',
    'arp daddr ether 02:00:00:00:00:01 accept',
    'arp daddr ip != 10.0.0.1 drop',
    'ether saddr 02:00:00:00:00:01 arp saddr ip 10.0.0.1 accept',
    'meta mark set ip saddr map { 10.0.0.1 : 5 }',
    'meta mark set ip6 saddr map { fd77::1 : 5 }',
    'fwd to "gw"',
    'meta mark 0x02000001 ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 fwd to "gw"',
  ]
  const chains = rules.map((rule, i) => ({ chain: `c${i}`, rules: [rule] }))
  const ingress: NftHook = { type: 'filter', hook: 'ingress', device: 'gw', priority: 0, policy: 'drop' }
  const table: TableText = {
    family: 'netdev',
    table: 'weft',
    sets: sets.filter(({ key, value = [] }) => ![...key, ...value].includes('ct_zone')),
    chains: [there, { chain: 'base', hook: ingress, rules: [] }, ...chains],
  }
  await compare(t, [table], { links: ['gw'] })
})

t.test('the prototype', async t => {
  const netdev: TableText = {
    family: 'netdev',
    table: 'weft',
    sets: [set('ipid', ['ipv4_addr'], ['mark']), set('ip6id', ['ipv6_addr'], ['mark'])],
    chains: [
      {
        chain: 'in_gw',
        hook: { type: 'filter', hook: 'ingress', device: 'gw', priority: 0, policy: 'drop' },
        rules: [
          'ether daddr 02:7f:00:00:00:01 drop',
          'meta mark set 0x02000001',
          'meta mark set ip saddr map @ipid',
          'meta mark set ip6 saddr map @ip6id',
          'ether daddr and ff:fe:00:00:00:00 == 02:7e:00:00:00:00 ether daddr != 02:7e:00:00:00:01 drop',
          'icmpv6 type { nd-router-advert, nd-redirect } drop',
          'icmpv6 type nd-neighbor-advert @th,64,128 != { 0xfd77000000000000000000000a01000b, 0xfe80000000000000007700fffe01000b } drop',
          'ip6 saddr { fe80::/10, :: } icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } accept',
          'ip6 saddr { fe80::/10, :: } drop',
          'ip saddr 10.1.0.11 meta mark set 16777226 accept',
          'arp saddr ether 02:77:0a:01:00:0b arp saddr ip { 10.1.0.11, 0.0.0.0 } accept',
        ],
      },
    ],
  }
  const base = (type: NftHook['type'], at: NftHook['hook'], priority: number): NftHook => hook(at, priority, type)
  const inet: TableText = {
    family: 'inet',
    table: 'weft',
    sets: [
      set('local_macs', ['ether_addr']),
      set('vips4', ['ipv4_addr']),
      set('node_mac', ['ct_zone'], ['ether_addr']),
      set('vip4', ['ether_addr', 'ipv4_addr'], ['ipv4_addr']),
      set('vip6', ['ether_addr', 'ipv6_addr'], ['ipv6_addr']),
      set('pub', ['ether_addr', 'inet_service'], ['inet_service']),
      set('pubs', ['inet_service']),
      set('self4', ['ipv4_addr', 'ipv4_addr']),
      set('self6', ['ipv6_addr', 'ipv6_addr']),
      set('pol4', ['mark', 'ipv4_addr', 'inet_proto', 'inet_service'], ['verdict']),
      set('pol6', ['mark', 'ipv6_addr', 'inet_proto', 'inet_service'], ['verdict']),
    ],
    chains: [
      { chain: 'from_ep', rules: ['ether daddr != 02:7e:00:00:00:01 accept', 'ip daddr @vips4 notrack'] },
      {
        chain: 'from_gw',
        rules: ['ether daddr @local_macs ct original zone set 1 accept', 'meta mark and 0xffff != 1 accept', 'notrack'],
      },
      {
        chain: 'raw',
        hook: base('filter', 'prerouting', -300),
        rules: [
          'meta mark and 0x03000000 vmap { 0x01000000 : goto from_ep, 0x02000000 : goto from_gw }',
          'ether daddr 02:7e:00:00:00:01 notrack accept',
          'meta mark and 0xffff 1 ct original zone set ether saddr map { 02:7e:00:00:00:02 : 2,02:7e:00:00:00:03 : 3 }',
          'iifname "up0" ip daddr 169.254.101.2 th dport @pubs notrack',
          'iifname "gw0" th sport @pubs ip daddr != 10.1.0.0/16 notrack',
        ],
      },
      {
        chain: 'lb1',
        rules: [
          'ct mark 0 ct mark set numgen inc mod 3 offset 1',
          'ether daddr set ct mark map { 1 : 02:77:0a:01:00:0b, 2 : 02:77:0a:01:00:0c, }',
        ],
      },
      {
        chain: 'steer',
        hook: base('filter', 'prerouting', -150),
        rules: [
          'ether daddr 02:7e:00:00:00:01 ct direction reply ether daddr set ct original zone map @node_mac',
          'ether daddr 02:7e:00:00:00:01 ip daddr 10.99.0.1 jump lb1',
          'ether daddr 02:7e:00:00:00:01 ip6 daddr fd99::1 jump lb1',
        ],
      },
      {
        chain: 'xlate',
        hook: base('nat', 'prerouting', -100),
        rules: [
          'dnat ip to ether daddr . ip daddr map @vip4',
          'dnat ip6 to ether daddr . ip6 daddr map @vip6',
          'meta mark and 0xffff 1 meta l4proto { tcp, udp } dnat to :ether daddr . th dport map @pub',
        ],
      },
      {
        chain: 'uniq',
        hook: base('nat', 'postrouting', 100),
        rules: ['ip saddr . ip daddr @self4 snat ip to 10.1.0.1', 'ip6 saddr . ip6 daddr @self6 snat ip6 to fd77::1'],
      },
      {
        chain: 'ingresspol',
        hook: base('filter', 'forward', 0),
        rules: [
          'ct state established,related accept',
          'ct state invalid drop',
          'ether daddr != @local_macs accept',
          'meta l4proto ipv6-icmp icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept',
          'meta mark and 0xffff . ip daddr . meta l4proto . th dport vmap @pol4',
          'meta mark and 0xffff . ip6 daddr . meta l4proto . th dport vmap @pol6',
          'counter drop',
        ],
      },
    ],
  }
  const ip: TableText = {
    family: 'ip',
    table: 'other',
    sets: [],
    chains: [
      {
        chain: 'lb',
        hook: base('nat', 'prerouting', -100),
        rules: [
          'ip daddr 169.254.101.2 tcp dport 8080 dnat to numgen inc mod 2 map { 0 : 10.1.0.12,1 : 10.1.0.14, }',
          'fib daddr type local meta l4proto { tcp, udp } dnat to th dport map { 8080 : 169.254.101.2, 8081 : 169.254.101.2, }',
        ],
      },
      {
        chain: 'fromout',
        hook: base('filter', 'forward', 0),
        rules: ['iifname up0 oifname gw0 ct status ! dnat ct state new counter drop'],
      },
      {
        chain: 'egress',
        hook: base('nat', 'postrouting', 100),
        rules: [
          'oifname up0 ip saddr 10.1.0.0/16 ct status ! dnat masquerade',
          'oifname != "m1" ip saddr 169.254.101.0/30 masquerade',
          'oifname "m1" iifname "m1" masquerade',
        ],
      },
    ],
  }
  await compare(t, [netdev, inet, ip], { links: ['gw'] })
})

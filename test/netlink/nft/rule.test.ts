// SPDX-License-Identifier: Apache-2.0
// What the compiler refuses, and where it says the fault is.
import fc from 'fast-check'
import t from 'tap'
import { WeftError } from '../../../src/base/errors.ts'
import { compileRule } from '../../../src/netlink/nft/rule.ts'
import type { NftFamily } from '../../../src/netlink/nft/types.ts'

const wrong: readonly (readonly [NftFamily, string, RegExp])[] = [
  ['inet', '', /an empty rule at the end/],
  ['inet', 'acept', /unknown field or statement at 1, "acept"/],
  ['inet', 'ip saddr', /expected ipv4_addr for ip saddr at the end/],
  ['inet', 'ip source 10.0.0.1 drop', /unknown field or statement at 1, "ip"/],
  ['inet', 'ip saddr fd77::1 drop', /expected ipv4_addr for ip saddr at 10, "fd77::1"/],
  ['inet', 'ip saddr 10.0.0.256 drop', /at 10, "10.0.0.256"/],
  ['inet', 'ip saddr 10.0.0.0/33 drop', /prefix length at 10/],
  ['inet', 'ip saddr 10.0.0.9-10.0.0.1 drop', /a range of ipv4_addr at 10/],
  ['inet', 'ip saddr = 10.0.0.1 drop', /at 10, "="/],
  ['inet', 'ip saddr 10.0.0.1 accept drop', /nothing may follow a verdict: at 26, "drop"/],
  ['inet', 'ip saddr 10.0.0.1 goto', /a chain at the end/],
  ['inet', 'ip saddr 10.0.0.1 ip6 saddr fd77::1 drop', /ip6 in a rule about ip at/],
  ['ip', 'ip6 saddr fd77::1 drop', /ip6 in a rule about ip/],
  ['inet', 'arp operation request drop', /inet tables see no arp/],
  ['inet', 'tcp dport 80 udp dport 80 drop', /udp in a rule about another protocol/],
  ['ip6', 'icmp type echo-request drop', /ip in a rule about ip6/],
  ['inet', 'icmpv6 type nd-nonsense drop', /expected icmpv6_type/],
  ['inet', 'tcp dport 65536 drop', /expected inet_service for tcp dport at 11/],
  ['inet', 'tcp dport http drop', /inet_service/],
  ['inet', 'ct state fresh drop', /ct_state/],
  ['inet', 'ct state new, drop', /ct_state/],
  ['inet', 'meta mark ! 5 drop', /only fields of bits have at 11, "!"/],
  ['inet', 'meta mark < 5 drop', /order is only for fields of the packet/],
  ['inet', 'meta mark 1-5 drop', /ranges are only for fields of the packet/],
  ['inet', 'meta mark & 0xff 10.0.0.0/8 drop', /no prefix here/],
  ['inet', 'iifname "sixteen-bytes-xx" drop', /ifname/],
  ['inet', 'iifname "a*b*" drop', /one "\*" at its end/],
  ['inet', 'iifname { "weft*" } drop', /ifname/],
  ['inet', 'ip saddr { } drop', /empty set/],
  ['inet', 'ip saddr { 10.0.0.1 10.0.0.2 } drop', /expected "," at 21/],
  ['inet', 'ip saddr { 10.0.0.1', /expected ","/],
  ['inet', 'ip saddr . tcp dport { 10.0.0.0/8 . 80 } drop', /no ranges in a set of several fields/],
  ['inet', 'ip saddr . tcp dport 10.0.0.1 drop', /expected "\{", "@set" or "vmap"/],
  ['inet', 'ip saddr > { 10.0.0.1 } drop', /expected a single value/],
  ['inet', 'ip saddr vmap { 10.0.0.1 }', /expected ":"/],
  ['inet', 'ip saddr vmap { 10.0.0.1 : jumble }', /expected a verdict/],
  ['inet', 'ip saddr vmap { 10.0.0.0/8 : accept, 10.1.0.0/16 : drop }', /overlapping intervals/],
  ['inet', 'ip6 saddr . ip6 daddr . ip6 saddr . ip6 daddr . meta mark @x drop', /a key of 68 bytes/],
  ['inet', 'ct state set new', /ct state cannot be set/],
  ['inet', 'meta mark set ip saddr map', /at the end/],
  ['inet', 'meta mark set ether saddr', /cannot be put into meta mark: at 15/],
  ['inet', 'meta mark set ip saddr', /cannot be put into meta mark/],
  ['inet', 'dnat to 10.0.0.1', /say "ip" or "ip6"/],
  ['ip', 'dnat ip6 to fd77::1', /no ip6 in a table of ip/],
  ['inet', 'dnat ip to :80', /a port needs a transport protocol/],
  ['inet', 'dnat ip to 10.0.0.1:80', /a port needs a transport protocol/],
  ['inet', 'tcp dport 80 dnat ip to 10.0.0.1:99999', /expected a port/],
  ['inet', 'tcp dport 80 dnat ip addr . port to 10.0.0.1', /expected a key and "map"/],
  ['inet', 'redirect to 80', /expected ":"/],
  ['inet', 'fwd to "gw"', /fwd is for tables of netdev/],
  ['inet', 'tproxy to :80', /a port needs a transport/],
  ['inet', 'log prefix weft', /in quotes/],
  ['inet', 'log group 1 level info', /a group or a level/],
  ['inet', 'log level loud', /expected a level/],
  ['inet', 'limit 10/second', /expected "rate"/],
  ['inet', 'limit rate 0/second', /expected a rate/],
  ['inet', 'limit rate 10/fortnight', /expected second/],
  ['inet', 'limit rate 10 stones/second', /expected bytes/],
  ['inet', 'limit rate 10/second burst 5 bytes', /expected "packets"/],
  ['inet', 'reject with icmp type no-route', /expected a code of icmp/],
  ['ip', 'reject with icmpx no-route', /icmpx in a table of ip/],
  ['ip', 'meta nfproto ipv4 drop', /only of use in a table of inet/],
  ['inet', '@th,3,8 5 drop', /only whole bytes/],
  ['inet', '@th,0,256 5 drop', /only whole bytes/],
  ['inet', '@th,0,32 fd77::1 drop', /expected integer/],
  ['inet', 'meta mark set numgen up mod 3', /"inc" or "random"/],
  ['inet', 'meta mark set jhash ip saddr mod 3', /seed/],
  ['inet', 'ip saddr 10.0.0.1 ; drop', /unexpected character at 19, ";"/],
  ['inet', 'constructor', /unknown field or statement/],
  ['inet', 'meta toString 5', /unknown field or statement/],
  ['inet', 'ct state constructor drop', /ct_state/],
]

t.test('errors name the place', async t => {
  for (const [family, text, message] of wrong) {
    t.throws(() => compileRule(family, text), { code: 'INVALID', message }, `${family}: ${text}`)
  }
})

t.test('texts of known words never throw anything but INVALID', async () => {
  const words = [
    ...['ip', 'ip6', 'saddr', 'daddr', 'tcp', 'dport', 'meta', 'mark', 'set', 'map', 'vmap', '@x', '{', '}', ',', ':'],
    ...['.', '==', '!=', '&', '10.0.0.1', '10.0.0.0/8', 'fd77::/64', '80', '0x5', '"weft*"', 'iifname', 'ct', 'state'],
    ...[
      'new',
      'accept',
      'goto',
      'dnat',
      'to',
      'log',
      'prefix',
      'limit',
      'rate',
      '5/second',
      '@th,64,128',
      'numgen',
      'jhash',
    ],
    ...['original', 'zone', 'ether', 'arp', 'icmpv6', 'type', 'fib', 'local', '1-5', 'and', 'fwd', '[', ']', '::'],
  ]
  const family = fc.constantFrom<NftFamily>('ip', 'ip6', 'inet', 'netdev')
  const text = fc.array(fc.oneof({ weight: 20, arbitrary: fc.constantFrom(...words) }, fc.string()), { maxLength: 14 })
  fc.assert(
    fc.property(family, text, (family, text) => {
      try {
        compileRule(family, text.join(' '))
      } catch (error) {
        if (!(error instanceof WeftError && error.code === 'INVALID')) throw error
      }
    }),
    { numRuns: 20_000 },
  )
})

t.test('blanks do not matter where marks stand', async t => {
  const pairs: [string, string][] = [
    ['tcp dport {80,443} accept', 'tcp dport { 80 , 443 } accept'],
    ['ct state new,established accept', 'ct state new , established accept'],
    ['meta mark&0xff==5 accept', 'meta mark & 0xff == 5 accept'],
    ['tcp dport vmap {80: accept}', 'tcp dport vmap { 80 : accept }'],
    ['ip6 saddr {::,::1} accept', 'ip6 saddr { ::, ::1 } accept'],
  ]
  for (const [tight, loose] of pairs) t.strictSame(compileRule('inet', tight), compileRule('inet', loose), tight)
})

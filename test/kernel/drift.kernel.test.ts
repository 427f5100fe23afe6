// SPDX-License-Identifier: Apache-2.0
// Whatever of ours somebody takes away or changes in the kernel is repaired, and counted as a repair. By both balancers what
// is theirs; all the rest by the one that weftd would take on this kernel.

import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { inEachBalancer } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) await inEachBalancer(t, fileURLToPath(import.meta.url))
else {
  const balancer = process.env['WEFT_TEST_HOST'] === 'ipvs' ? 'ipvs' : 'nft'
  const { inM, inN, local, openSample, patienceMs, sh } = await import('./sample.ts')
  const sample = await openSample(balancer)
  const emulated = process.env['WEFT_VM'] !== undefined
  const usual = balancer === (emulated ? 'ipvs' : 'nft')
  const can = (command: string): boolean => {
    try {
      sh(`{ ${command}; } 2>/dev/null`)
      return true
    } catch {
      return false
    }
  }
  const hasVlans = can('ip link add vlans type bridge vlan_filtering 1 && ip link del vlans')
  /** True when the link is up. */
  const isUp = (where: string, dev: string): string => `${where} ip -o link show dev ${dev} up | grep ${dev}`
  await sample.running.reconciler.start()
  await sample.running.reconciler.attach('n1', local, AbortSignal.timeout(20_000))

  type Row = readonly [what: string, command: string, check: string]
  const common: readonly Row[] = [
    [
      'an FDB row',
      `${inN} bridge fdb del 02:77:0a:50:00:02 dev vx0 self`,
      `${inN} bridge fdb show dev vx0 | grep '02:77:0a:50:00:02.*self'`,
    ],
    [
      'an FDB row that leads to an address',
      `${inN} sh -c 'bridge fdb del 02:77:0a:50:00:02 dev vx0 self; bridge fdb add 02:77:0a:50:00:02 dev vx0 dst 192.0.2.99 self permanent'`,
      `${inN} bridge fdb show dev vx0 | grep '02:77:0a:50:00:02.*nhid.*self'`,
    ],
    [
      'an FDB row of the bridge, made permanent',
      `${inN} bridge fdb replace 02:77:0a:50:00:02 dev vx0 master permanent`,
      `${inN} bridge fdb show dev vx0 | grep '02:77:0a:50:00:02.*master br0.* static'`,
    ],
    ['a neighbour', `${inN} ip neigh del 10.80.0.2 dev br0`, `${inN} ip neigh show 10.80.0.2 dev br0 | grep PERMANENT`],
    ['a route', `${inN} ip route del 10.80.0.0/24`, `${inN} ip route show 10.80.0.0/24 | grep br0`],
    [
      "another's route in its place",
      `${inM} ip route replace default dev gw0`,
      `${inM} ip route show default | grep up0`,
    ],
    [
      'port flags',
      `${inN} bridge link set dev vx0 learning on flood on`,
      `${inN} bridge -d link show dev vx0 | grep 'learning off flood off'`,
    ],
    ['forwarding', `${inM} sysctl -qw net.ipv4.ip_forward=0`, `${inM} cat /proc/sys/net/ipv4/ip_forward | grep 1`],
    [
      'forwarding of all devices',
      `${inN} sysctl -qw net.ipv4.ip_forward=1`,
      `${inN} sh -c 'cd /proc/sys/net/ipv4 && cat ip_forward conf/br0/forwarding' | paste -s | grep '0.1'`,
    ],
    [
      'forwarding of IPv6',
      `${inM} sysctl -qw net.ipv6.conf.all.forwarding=0`,
      `${inM} cat /proc/sys/net/ipv6/conf/all/forwarding | grep 1`,
    ],
    [
      'forwarding of the devices of a gateway',
      `${inM} sysctl -qw net.ipv4.conf.gw0.forwarding=0 net.ipv6.conf.gw0.forwarding=0 net.ipv4.conf.up0.forwarding=0 net.ipv6.conf.up0.forwarding=0`,
      `${inM} sh -c 'cat /proc/sys/net/ipv[46]/conf/[gu]*0/forwarding' | paste -s | grep '1.1.1.1'`,
    ],
    [
      'the filter of return paths',
      `${inM} sysctl -qw net.ipv4.conf.all.rp_filter=0`,
      `${inM} cat /proc/sys/net/ipv4/conf/all/rp_filter | grep 1`,
    ],
    [
      'the bridge, down',
      `${inN} ip link set br0 down`,
      `${isUp(inN, 'br0')} >/dev/null && ${inN} ip route show 10.80.0.0/24 | grep br0`,
    ],
    [
      'the bridge, down and up',
      `${inN} sh -c 'ip link set br0 down; ip link set br0 up'`,
      `${inN} ip route show 10.80.0.0/24 | grep br0`,
    ],
    ['the tunnel, down', `${inN} ip link set vx0 down`, isUp(inN, 'vx0')],
    ['the port of the gateway, down', `${inN} ip link set gw down`, isUp(inN, 'gw')],
    ['the port of a container, down', `${inN} ip link set clocal0000000 down`, isUp(inN, 'clocal0000000')],
    [
      'the gateway, down',
      `${inM} ip link set gw0 down`,
      `${isUp(inM, 'gw0')} >/dev/null && ${inM} ip neigh show 10.80.0.2 dev gw0 | grep PERMANENT`,
    ],
    [
      'the link to the host, down in M',
      `${inM} ip link set up0 down`,
      `${isUp(inM, 'up0')} >/dev/null && ${inM} ip route show default | grep up0`,
    ],
    [
      'the link to the host, down and up in M',
      `${inM} sh -c 'ip link set up0 down; ip link set up0 up'`,
      `${inM} ip -6 route show default | grep -q up0 && ${inM} ip route show default | grep up0`,
    ],
    ['the link to the host, down in H', 'ip link set weft0 down', isUp('', 'weft0')],
    ['the link of the resolver, down', 'ip link set weftdns down', isUp('', 'weftdns')],
    [
      'the last address of a link',
      `${inM} ip address del 169.254.1.2/30 dev up0`,
      `${inM} ip route show default | grep up0`,
    ],
    [
      'the way from the host to a gateway',
      'ip route del 169.254.1.0/30 dev weft0',
      'ip route show 169.254.1.0/30 | grep "weft0 proto kernel scope link src 169.254.1.1"',
    ],
    [
      'the way from the host to a gateway, IPv6',
      'ip -6 route del fd69:7765:6674::/64 dev weft0',
      'ip -6 route show fd69:7765:6674::/64 | grep "weft0 proto kernel metric 256"',
    ],
    [
      'the way from the gateway to containers',
      `${inM} ip route del 10.80.0.0/24 dev gw0`,
      `${inM} ip route show 10.80.0.0/24 | grep 'gw0 proto kernel scope link src 10.80.0.1'`,
    ],
    [
      'the way from the gateway to containers, IPv6 and by another',
      `${inM} ip -6 route replace $(${inM} ip -6 route show dev gw0 proto kernel | grep -o '^fd[^ ]*/64') dev gw0 proto static metric 256`,
      `${inM} ip -6 route show dev gw0 | grep '^fd.*/64 proto kernel metric 256'`,
    ],
    [
      'all IPv6 addresses of the gateway',
      `${inM} ip -6 address flush dev gw0`,
      `${inM} ip -6 address show dev gw0 | grep -q 'inet6 fe80::.*/64' && ${inM} ip -6 route show | grep 'fe80::/64 dev gw0'`,
    ],
    [
      'all link-local routes of the gateway',
      `${inM} ip -6 route flush fe80::/64`,
      `${inM} ip -6 route show | grep 'fe80::/64 dev gw0'`,
    ],
    [
      'all routes of the gateway',
      `${inM} ip route flush table main`,
      `${inM} ip route show default | grep -q up0 && ${inM} ip route show | grep -c 'proto kernel' | grep 2`,
    ],
    [
      'a nexthop of all rows to a node',
      `ip nexthop del id $(ip nexthop show | sed -n 's/^id \\([0-9]*\\) group .*/\\1/p;T;q')`,
      `${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      "another's nexthop in the place of ours",
      `ip nexthop replace id $(ip nexthop show | sed -n 's/^id \\([0-9]*\\) via 192.0.2.2 .*/\\1/p;T;q') via 192.0.2.99 fdb`,
      `ip nexthop show | grep 'via 192.0.2.2 ' && ! ip nexthop show | grep 192.0.2.99 && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'an isolated port',
      `${inN} bridge link set dev clocal0000000 isolated on`,
      `${inN} bridge -d link show dev clocal0000000 | grep 'isolated off'`,
    ],
    [
      'broadcasts to the gateway',
      `${inN} bridge link set dev gw bcast_flood on`,
      `${inN} bridge -d link show dev gw | grep 'bcast_flood off'`,
    ],
    [
      'multicast to nodes',
      `${inN} bridge link set dev vx0 mcast_flood on`,
      `${inN} bridge -d link show dev vx0 | grep 'mcast_flood off'`,
    ],
    [
      'how far a tunnel leads',
      `${inN} ip link set vx0 type vxlan ttl 1`,
      `! ${inN} ip -d link show vx0 | grep 'ttl 1 ' && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'a tunnel through one device',
      `${inN} ip link set vx0 type vxlan dev lo`,
      `! ${inN} ip -d link show vx0 | grep -w 'dev lo' && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'a tunnel without carrier',
      `${inN} ip link set vx0 protodown on`,
      `! ${inN} ip -d link show vx0 | grep 'protodown on' && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'a link to the host that asks nobody',
      'ip link set weft0 arp off',
      `ip link show weft0 | grep -v NOARP | grep weft0`,
    ],
    [
      'a gateway that asks nobody',
      `${inM} ip link set gw0 arp off`,
      `${inM} ip link show gw0 | grep -v NOARP | grep gw0 && ${inM} ip neigh show 10.80.0.2 dev gw0 | grep PERMANENT`,
    ],
    [
      "the group of a container's port",
      `${inN} ip link set clocal0000000 group default`,
      `${inN} ip -o link show clocal0000000 | grep 'group 119'`,
    ],
    ...(hasVlans
      ? ([
          [
            'VLANs of the bridge',
            `${inN} ip link set br0 type bridge vlan_filtering 1`,
            `${inN} ip -d link show br0 | grep 'vlan_filtering 0'`,
          ],
        ] as const)
      : []),
    [
      'a tunnel that learns',
      `${inN} ip link set vx0 type vxlan learning`,
      `${inN} ip -d link show vx0 | grep -q nolearning && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'the age of rows',
      `${inN} ip link set br0 type bridge ageing_time 30000`,
      `${inN} ip -d link show br0 | grep 'ageing_time 0 '`,
    ],
    [
      'tables that sleep',
      `nft add table inet weft '{ flags dormant; }' && ${inN} nft add table netdev weft '{ flags dormant; }'`,
      `${inN} nft list tables | grep -q netdev && ! { nft list ruleset; ${inN} nft list ruleset; } | grep -q dormant && echo awake`,
    ],
    [
      'a namespace, another by its name',
      'ip netns del weft-n1048576 && ip netns add weft-n1048576',
      `${isUp(inN, 'gw')} >/dev/null && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
    [
      'a gateway, another namespace by its name',
      'ip netns del weft-m1048576 && ip netns add weft-m1048576',
      `${isUp(inN, 'gw')} >/dev/null && ${isUp('', 'weft0')} >/dev/null && ${inM} ip neigh show 10.80.0.2 dev gw0 | grep PERMANENT`,
    ],
    [
      'what was made anew there',
      `${inN} bridge fdb del 02:77:0a:50:00:02 dev vx0 self`,
      `${inN} bridge fdb show dev vx0 | grep '02:77:0a:50:00:02.*self'`,
    ],
    ['the bridge', `${inN} ip link del br0`, `${inN} ip link show master br0 | grep vx0`],
    ['the link to the host', 'ip link del weft0', 'ip netns exec weft-m1048576 ip route show default | grep up0'],
    [
      'the link to the host, renamed',
      'ip link set weft0 name foo 2>/dev/null || { ip link set weft0 down && ip link set weft0 name foo; }',
      `ip -6 address show dev weft0 2>/dev/null | grep -q fd69 && ${isUp('', 'weft0')} >/dev/null && ${inM} ip route show default | grep up0`,
    ],
    [
      'the link to the host, in another namespace',
      'ip netns add other && ip link set weft0 netns other',
      `${isUp('', 'weft0')} >/dev/null && ${inM} ip route show default | grep up0 && ip netns del other`,
    ],
    [
      'the port of the gateway, in another namespace',
      `ip netns add other && ${inN} ip link set gw netns other`,
      `${isUp(inN, 'gw')} >/dev/null && ${inM} ip neigh show 10.80.0.2 dev gw0 | grep PERMANENT && ip netns del other`,
    ],
    [
      'the link to the host, its far end in another namespace',
      `ip netns add other && ${inM} ip link set up0 netns other`,
      `${isUp('', 'weft0')} >/dev/null && ${inM} ip route show default | grep up0 && ip netns del other`,
    ],
    [
      'the gateway, in another namespace',
      `ip netns add other && ${inM} ip link set gw0 netns other`,
      `${isUp(inN, 'gw')} >/dev/null && ${inM} ip neigh show 10.80.0.2 dev gw0 | grep PERMANENT && ip netns del other`,
    ],
    [
      'the device of the underlay, made anew',
      'ip link del eth0 && sysctl -qw net.ipv4.conf.default.forwarding=0 && ip link add eth0 type veth peer name wire && ip link set eth0 up && ip link set wire up && ip address add 192.0.2.1/24 dev eth0',
      "cd /proc/sys/net && cat ipv4/conf/eth0/forwarding ipv6/conf/eth0/accept_ra | paste -s | grep '1.2'",
    ],
    [
      'the device of the underlay, another by its name',
      // by one process: had weftd time to see the host without it, this were another host and not a repair
      'ip link add new type bridge && printf "link set eth0 down\\nlink set eth0 name old\\nlink set new name eth0\\n" | ip -batch -',
      "cd /proc/sys/net && cat ipv4/conf/eth0/forwarding ipv6/conf/eth0/accept_ra | paste -s | grep '1.2'",
    ],
    [
      'IPv6 at the link to the host',
      'sysctl -qw net.ipv6.conf.weft0.disable_ipv6=1',
      `ip -6 address show dev weft0 | grep fd69`,
    ],
    ['the bridge, renamed', `${inN} sh -c 'ip link set br0 down; ip link set br0 name foo'`, isUp(inN, 'br0')],
    [
      'the tunnel, renamed',
      `${inN} sh -c 'ip link set vx0 down; ip link set vx0 name bar'`,
      `${isUp(inN, 'vx0')} >/dev/null && ${inN} bridge fdb show dev vx0 | grep -c nhid | grep 22`,
    ],
  ]
  const rows: readonly Row[] = [
    ['the rules of N', `${inN} nft flush ruleset`, `${inN} nft list map inet weft published | grep 8080`],
    ['one rule of H', 'nft flush chain inet weft prerouting', 'nft list chain inet weft prerouting | grep ports4'],
    ...(balancer === 'nft'
      ? ([
          ['the rules of M', `${inM} nft flush ruleset`, `${inM} nft list chain inet weft tcp_8080 | grep numgen`],
        ] as const)
      : ([
          ['a virtual service', `${inM} ipvsadm -D -t 169.254.1.2:8080`, `${inM} ipvsadm -Sn | grep -e '-r 10.80'`],
          [
            'a weight',
            `${inM} ipvsadm -e -t 169.254.1.2:8080 -r $(${inM} ipvsadm -Sn | sed -n 's/.*-r \\(10[^ ]*\\).*/\\1/p;T;q') -m -w 5`,
            `${inM} ipvsadm -Sn | grep -c -e '-w 1$' | grep 4`,
          ],
          ['all of IPVS', `${inM} ipvsadm -C`, `${inM} ipvsadm -Sn | grep -c -e '-w 1$' | grep 4`],
        ] as const)),
    ...(usual ? common : []),
  ]

  /** Until no pass has come for a while. */
  const rest = async (): Promise<void> => {
    for (let passes = -1; passes !== sample.running.reconciler.status().passes; await sleep(emulated ? 1000 : 150))
      passes = sample.running.reconciler.status().passes
  }
  for (const [what, command, check] of rows)
    t.test(`${what}: repaired when somebody takes it`, async t => {
      await rest() // the repair before may have more to do than its check asks
      const { repairs } = sample.running.reconciler.status()
      const counted = (): boolean => !isDeepStrictEqual(sample.running.reconciler.status().repairs, repairs)
      sh(command)
      for (let i = 0; i < 100 && !counted(); i++) await sleep(50) // before a look, which takes processes
      let found = ''
      for (const end = Date.now() + patienceMs; found === '' && Date.now() < end; ) {
        await sleep(50)
        try {
          found = sh(`${check} || true`).trim()
        } catch {
          found = ''
        }
      }
      t.not(found, '')
      for (let i = 0; i < 100 && sample.running.reconciler.status().failing.length > 0; i++) await sleep(50)
      t.same(sample.running.reconciler.status().failing, [])
      t.ok(counted(), 'counted')
    })

  if (usual && !hasVlans)
    t.test('VLANs of the bridge', { skip: 'this kernel has no BRIDGE_VLAN_FILTERING' }, async () => {})

  t.test('after all repairs a new life writes nothing', async t => {
    await sample.running.reconciler.audit()
    await sample.running.close()
    sample.open()
    await sample.running.reconciler.start()
    const { operations, failing } = sample.running.reconciler.status()
    t.equal(operations, 0)
    t.same(failing, [])
    await sample.running.close()
  })
}

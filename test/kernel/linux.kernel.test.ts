// SPDX-License-Identifier: Apache-2.0
// The whole way from records to this machine's kernel and back, in a host of its own: a network, mount and PID-less
// namespace with an own /run. What was made is found again as wanted, by us and by ip, bridge, nft and ipvsadm. Once for
// each balancer.
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inEachBalancer, openReconciled } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) await inEachBalancer(t, fileURLToPath(import.meta.url))
else {
  const balancer = process.env['WEFT_TEST_HOST'] === 'ipvs' ? 'ipvs' : 'nft'
  const { silentLog } = await import('../../src/base/log.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { probeKernel } = await import('../../src/kernel/host-facts.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')
  const { guestRulesOf } = await import('../../src/overlay/host-plan.ts')
  const { optionsKeyOf } = await import('../../src/model/service-options.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  await probeKernel()
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  snapshot.putNode({ name: 'b', vtep: '192.0.2.2' })
  snapshot.putNode({ name: 'c', vtep: '192.0.2.3' })
  snapshot.putNetwork({ id: 'n1' })
  snapshot.putNetwork({ id: 'n2', internal: true })
  for (let i = 0; i < 20; i++) snapshot.putEndpoint({ id: `remote${i}`, network: 'n1', node: i % 2 ? 'b' : 'c' })
  const local = 'local0000000'
  snapshot.putEndpoint({
    id: local,
    network: 'n1',
    node: 'a',
    gateway: true,
    ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
    service: 'label web',
  })
  // with a container elsewhere, so that the balancer has a choice
  const { record: other } = snapshot.endpoints('n1').get('remote1')!
  snapshot.putEndpoint({
    ...other,
    gateway: true,
    ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
    service: 'label web',
  })
  snapshot.putPort('tcp/8080', {
    cluster: { network: 'n1', service: 'label web', holders: [local, other.id] },
    local: [],
  })
  const bound = new Map([
    ['n1', { slot: 0 }],
    ['n2', { slot: 1 }],
  ])
  const open = () => openReconciled(snapshot, testHost(bound, { balancer, acceptsRa: ['eth0'] }))
  const tell = (keys: readonly (readonly string[])[]): void => running.tell(keys)
  const patienceMs = process.env['WEFT_VM'] ? 180_000 : 10_000
  /** As nft prints seconds, by version: 77, 77s, 1m17s. */
  const span = (s: number): string => `(${s}s?|${Math.floor(s / 60)}m${s % 60}s)`
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const can = (command: string): boolean => {
    try {
      sh(`{ ${command}; } 2>/dev/null`)
      return true
    } catch {
      return false
    }
  }
  const hasVlans = can('ip link add vlans type bridge vlan_filtering 1 && ip link del vlans')
  const inN = 'ip netns exec weft-n1048576'
  const inM = inN.replace('weft-n', 'weft-m')
  /** True when the link is up. */
  const isUp = (where: string, dev: string): string => `${where} ip -o link show dev ${dev} up | grep ${dev}`
  let running = open()

  t.test('everything wanted is reached, and the tools see it', async t => {
    await running.reconciler.start()
    await running.reconciler.attach('n1', local, AbortSignal.timeout(20_000))
    const status = running.reconciler.status()
    t.same(status.failing, [])
    t.same(status.lost, [])
    t.equal(sh(`${inN} bridge fdb show dev vx0 | grep -c self`).trim(), '22', '20 endpoints and 2 gateways')
    t.match(
      sh(`${inN} ip -d link show vx0`),
      /vxlan id 1048576 local 192\.0\.2\.1 (?=.*dstport 8473 )(?=.*nolearning)(?=.*gbp)/s,
    )
    t.match(sh(`${inN} nft list map inet weft published`), /tcp \. 8080 : 80/)
    t.match(sh('nft list map inet weft ports4'), /tcp \. 8080 : 169\.254\.1\.2/)
    if (balancer === 'nft')
      t.match(
        sh(`${inM} nft list chain inet weft tcp_8080`),
        /dnat ip to numgen inc mod 2 map \{ 0 : 10\.80\.0\.\d+, 1 : 10\.80\.0\./,
      )
    else {
      const services = sh(`${inM} ipvsadm -Sn`)
      t.match(services, /^-A -t 169\.254\.1\.2:8080 -s rr$/m)
      t.match(services, /^-A -t \[fd69:7765:6674::2\]:8080 -s rr$/m)
      t.match(services, /^-a -t 169\.254\.1\.2:8080 -r 10\.80\.0\.\d+:8080 -m -w 1$/m)
      t.equal(services.match(/^-a /gm)?.length, 4, 'two containers, two families')
      t.match(sh(`${inM} ipvsadm -Ln --timeout`), /tcp tcpfin udp\): 432000 3600 300/, 'no UDP here')
      t.equal(sh(`${inM} sysctl -n net.ipv4.vs.expire_nodest_conn`).trim(), '1')
    }
    t.match(sh('nft list ct timeout inet weft tcp_432000_3600'), /close_wait ?: ?(3600|1h)/)
    for (const where of [inN, inM])
      t.equal(sh(`${where} sysctl -n net.netfilter.nf_conntrack_tcp_timeout_close_wait`).trim(), '3600')
    t.match(sh(`${inN} nft list chain netdev weft in_clocal0000000`), /policy drop/)
    t.equal(sh(`${inN} sysctl -n net.bridge.bridge-nf-call-iptables`).trim(), '1')
    t.equal(
      sh('ip netns exec weft-n1048577 sysctl -n net.bridge.bridge-nf-call-iptables').trim(),
      '0',
      'nobody tracked, no hooks',
    )
    t.match(sh('ip nexthop show'), /fdb/)
  })

  t.test('a new life finds it as wanted and writes nothing', async t => {
    await running.close()
    running = open()
    await running.reconciler.start()
    const { operations, failing, lost } = running.reconciler.status()
    t.equal(operations, 0)
    t.same(failing, [])
    t.same(lost, [])
  })

  t.test('a change costs its own operations; what is taken away goes', async t => {
    const before = running.reconciler.status().operations
    snapshot.putEndpoint({ id: 'later', network: 'n1', node: 'b' })
    tell([['endpoints', 'n1', 'later']])
    await running.reconciler.endpointReached('n1', 'later', AbortSignal.timeout(10_000))
    t.equal(running.reconciler.status().operations - before, 6)
    snapshot.dropEndpoint('n1', 'later')
    tell([['endpoints', 'n1', 'later']])
    for (let i = 0; i < 100 && running.reconciler.status().operations - before < 12; i++) await sleep(50)
    t.equal(running.reconciler.status().operations - before, 12)
  })

  t.test('a container that takes no more connections keeps those it has', async t => {
    const { record } = snapshot.endpoints('n1').get('remote1')!
    const weights = (): string[] => [...sh(`${inM} ipvsadm -Sn`).matchAll(/-w (\d)$/gm)].map(([, weight]) => weight!)
    const change = async (endpoint: typeof record, expected: string[]): Promise<void> => {
      const before = running.reconciler.status().operations
      snapshot.putEndpoint(endpoint)
      tell([['endpoints', 'n1', endpoint.id]])
      if (balancer === 'nft') {
        const chain = (): string => sh(`${inM} nft list chain inet weft tcp_8080`)
        for (let i = 0; i < 100 && chain().includes('numgen') === endpoint.drained; i++) await sleep(50)
        t.equal(chain().includes('numgen'), !endpoint.drained)
        return
      }
      for (let i = 0; i < 100 && weights().sort().join() !== expected.join(); i++) await sleep(50)
      t.same(weights().sort(), expected)
      for (let i = 0; i < 100 && running.reconciler.status().operations === before; i++) await sleep(20)
      t.equal(running.reconciler.status().operations - before, 2, 'one write for each family')
    }
    await change({ ...record, drained: true }, ['0', '0', '1', '1'])
    await change({ ...record, drained: false } as unknown as typeof record, ['1', '1', '1', '1'])
  })

  t.test('the port of a container, renamed: left as it is, and ours again by its name', async t => {
    const rename = (from: string, to: string): string =>
      sh(`${inN} sh -c 'ip link set ${from} down; ip link set ${from} name ${to}; ip link set ${to} up'`)
    rename('clocal0000000', 'foo')
    await sleep(500)
    await running.reconciler.audit()
    t.match(sh(`${inN} ip -o link show dev foo`), /group 119/)
    rename('foo', 'clocal0000000')
    const row = `${inN} bridge fdb show dev clocal0000000 | grep static || true`
    for (let i = 0; i < 100 && (sh(row) === '' || running.reconciler.status().failing.length > 0); i++) await sleep(50)
    t.not(sh(row), '')
    t.same(running.reconciler.status().failing, [])
  })

  for (const [what, command, check] of [
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
    ['the rules of N', `${inN} nft flush ruleset`, `${inN} nft list map inet weft published | grep 8080`],
    ['one rule of H', 'nft flush chain inet weft prerouting', 'nft list chain inet weft prerouting | grep ports4'],
    ...(balancer === 'nft'
      ? []
      : [
          ['a virtual service', `${inM} ipvsadm -D -t 169.254.1.2:8080`, `${inM} ipvsadm -Sn | grep -e '-r 10.80'`],
          [
            'a weight',
            `${inM} ipvsadm -e -t 169.254.1.2:8080 -r $(${inM} ipvsadm -Sn | sed -n 's/.*-r \\(10[^ ]*\\).*/\\1/p;T;q') -m -w 5`,
            `${inM} ipvsadm -Sn | grep -c -e '-w 1$' | grep 4`,
          ],
          ['all of IPVS', `${inM} ipvsadm -C`, `${inM} ipvsadm -Sn | grep -c -e '-w 1$' | grep 4`],
        ]),
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
      ? [
          [
            'VLANs of the bridge',
            `${inN} ip link set br0 type bridge vlan_filtering 1`,
            `${inN} ip -d link show br0 | grep 'vlan_filtering 0'`,
          ],
        ]
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
      'ip link set eth0 down && ip link set eth0 name old && ip link add new type bridge && ip link set new name eth0',
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
  ] as const satisfies readonly string[][])
    t.test(`${what}: repaired when somebody takes it`, async t => {
      const { repairs } = running.reconciler.status()
      sh(command)
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
      for (let i = 0; i < 100 && running.reconciler.status().failing.length > 0; i++) await sleep(50)
      t.same(running.reconciler.status().failing, [])
      t.notSame(running.reconciler.status().repairs, repairs, 'counted')
    })

  if (!hasVlans) t.test('VLANs of the bridge', { skip: 'this kernel has no BRIDGE_VLAN_FILTERING' }, async () => {})

  t.test('after all repairs a new life writes nothing', async t => {
    await running.reconciler.audit()
    await running.close()
    running = open()
    await running.reconciler.start()
    const { operations, failing } = running.reconciler.status()
    t.equal(operations, 0)
    t.same(failing, [])
  })

  t.test('a way that was taken while nobody looked', async t => {
    await running.close()
    sh(`ip route del 169.254.1.0/30 dev weft0; ${inM} ip -6 route flush dev gw0 proto kernel`)
    running = open()
    await running.reconciler.start()
    t.equal(running.reconciler.status().operations, 3, 'one for each address')
    t.match(sh('ip route show dev weft0'), /^169\.254\.1\.0\/30 proto kernel/m)
    t.match(sh(`${inM} ip -6 route show dev gw0`), /^fd.*\/64 proto kernel/m)
    await sleep(300)
    t.equal(running.reconciler.status().operations, 3, 'once')
  })

  t.test('a service with an idle timeout of its own', async t => {
    const before = running.reconciler.status().operations
    const say = (timeoutTcp: number | undefined): void => {
      const service = optionsKeyOf('web')
      snapshot.putService({ network: 'n1', service, ...(timeoutTcp === undefined ? {} : { timeoutTcp }) })
      tell([['services', 'n1', service]])
    }
    const sees = async (command: string, wanted: RegExp): Promise<void> => {
      let found = ''
      for (let i = 0; i < 100 && !wanted.test(found); i++) {
        found = sh(`${inM} ${command}`)
        await sleep(50)
      }
      t.match(found, wanted)
    }
    const [show, idle] =
      balancer === 'nft'
        ? [
            'nft list ruleset',
            (s: number) =>
              new RegExp(`ct timeout tcp_${s}_${s} {[^}]*established ?: ?${span(s)}.*set "tcp_${s}_${s}"`, 's'),
          ]
        : ['ipvsadm -Ln --timeout', (s: number) => new RegExp(`: ${s} 3600`)]
    say(77)
    await sees(show, idle(77))
    say(78)
    await sees(show, idle(78))
    if (balancer === 'nft') t.notMatch(sh(`${inM} ${show}`), /tcp_77/)
    say(undefined)
    await sees(show, balancer === 'nft' ? /^(?!.*ct timeout)/s : idle(432_000))
    t.same(running.reconciler.status().failing, [])
    t.ok(running.reconciler.status().operations > before)
  })

  t.test('--purge takes all of ours and nothing else', async t => {
    await running.close()
    sh('nft add table inet foreign')
    sh("nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; }'")
    const guests = guestRulesOf([{ family: 'ip', table: 'filter', chain: 'FORWARD' }])
    const kernel = openLinuxKernel(silentLog)
    const made = await kernel.apply(guests.map(object => ({ kind: 'add', object }) as const))
    await kernel.close()
    t.notOk(made.find(({ error }) => error))
    t.match(sh('nft list chain ip filter FORWARD'), /weft/)
    t.ok((await purge('/nonexistent')).length > 0)
    t.equal(sh('ls /run/netns').trim(), '')
    t.notMatch(sh('nft list ruleset'), /weft/)
    t.match(sh('nft list ruleset'), /foreign/)
    // the kernel takes a namespace's devices away a moment after its name
    for (let i = 0; i < 100 && sh('ip -o link').includes('weft'); i++) await sleep(50)
    t.notMatch(sh('ip -o link'), /weft/)
    t.notMatch(sh('ip nexthop show'), /fdb/)
    t.same(await purge('/nonexistent'), [])
  })

  t.test('killed while it made a namespace, or its name unmounted by somebody', async t => {
    const becomes = async (what: string, command: string): Promise<void> => {
      const is = (): string => sh(`{ ${command}; } 2>/dev/null || true`).trim()
      for (const end = Date.now() + patienceMs; is() === '' && Date.now() < end; ) await sleep(50)
      t.not(is(), '', what)
      for (let i = 0; i < 100 && running.reconciler.status().failing.length > 0; i++) await sleep(50)
      t.same(running.reconciler.status().failing, [])
    }
    sh('cd /run/netns && touch weft-n1048576 weft-m1048577 weft-n77')
    running = open()
    await running.reconciler.start()
    await becomes('its own, made anew', `${inN} ip -o link show dev vx0 && ip -n weft-m1048577 -o link show dev up0`)
    sh('touch /run/netns/weft-m78 && nft delete table inet weft')
    await becomes('repaired beside such a file', 'nft list chain inet weft prerouting')
    sh('umount /run/netns/weft-n1048576 /run/netns/weft-m1048577')
    await running.reconciler.audit()
    await becomes(
      'found by the audit',
      `${inN} ip -o link show dev vx0 up && ip -n weft-m1048577 -o link show dev up0 up`,
    )
    await running.close()
    sh('echo mine >/run/netns/weft-n79')
    await purge('/nonexistent')
    t.equal(sh('ls /run/netns').trim(), 'weft-n79', 'a file of somebody')
  })
}

// SPDX-License-Identifier: Apache-2.0
// Names by the whole way from records over this machine's kernel: containers of IPv4, of both families and of IPv6 alone
// ask their resolvers by UDP and TCP, as those of Docker's own bridges do; who comes by the underlay gets no answer. All
// that while port 53 of the host is published.
// Containers are namespaces, set up as Docker does after a Join. In a host of its own, that has IPv6 off for new devices.
import { execFile, execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { decode, encode } from 'dns-packet'
import t from 'tap'
import { inOwnHost } from '../kernel/reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { systemClock } = await import('../../src/base/clock.ts')
  const { silentLog } = await import('../../src/base/log.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { openDirectory } = await import('../../src/dns/directory.ts')
  const { openResolver } = await import('../../src/dns/resolver.ts')
  const { openDnsServer } = await import('../../src/dns/server.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')
  const { pathOf } = await import('../../src/kernel/namespaces.ts')
  const { familyOf, withLength } = await import('../../src/model/address.ts')
  const { netnsInode, netnsSocket } = await import('../../src/netlink/netns.ts')
  const { containerEnd, resolverPort } = await import('../../src/plan/names.ts')
  const { openReconciler } = await import('../../src/reconcile/reconciler.ts')
  const { testCluster, testHost, testMirror } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  sh(`ip netns add outside; ip link set wire netns outside name eth0
ip address add fd02::1/64 dev eth0 nodad; sysctl -wq net.ipv6.conf.default.disable_ipv6=1`)
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  const six = (n: number) => ({ prefix: `fd00:${n}::/64`, gateway: `fd00:${n}::1` })
  snapshot.putNetwork({ id: 'both' })
  snapshot.putNetwork({ id: 'four', pools: [{ prefix: '10.81.0.0/24', gateway: '10.81.0.1' }] })
  snapshot.putNetwork({ id: 'six', pools: [six(82)] })
  snapshot.putNetwork({ id: 'inner', internal: true, pools: [{ prefix: 'fd00:83::/64' }] })
  const networks = ['both', 'four', 'six', 'inner']
  const bound = new Map(networks.map((id, slot) => [id, { slot }]))
  const protos = ['udp', 'tcp'] as const
  const endpointOf = (network: string): string => `${network}0000000000`
  for (const network of networks) {
    const { pools } = snapshot.networks.get(network)!.record
    snapshot.putEndpoint({
      id: endpointOf(network),
      network,
      node: 'a',
      addresses: pools.map(({ prefix }) => prefix.replace(/0?\/.*/, '7')),
      // a container that is a name server itself
      gateway: network === 'both',
      ports: network === 'both' ? protos.map(proto => ({ proto, port: 53, hostPort: 53 })) : [],
      workload: { container: network, name: 'db', aliases: [], labels: {} },
    })
  }
  for (const proto of protos)
    snapshot.putPort(`${proto}/53`, { cluster: { network: 'both', holders: [endpointOf('both')] }, local: [] })
  const { mirror } = testMirror(snapshot)
  const kernel = openLinuxKernel(silentLog)
  const host = testHost(bound, { otherBridges: ['br-lan'] })
  const reconciler = openReconciler({ mirror, kernel, host: () => host, clock: systemClock, log: silentLog })
  const dns = openDnsServer({
    resolver: openResolver(openDirectory(mirror), async () => undefined),
    sockets: {
      open: (ns, type, address, port) => netnsSocket(pathOf(ns), { type, address, port, reuseAddr: true }),
      identity: ns => netnsInode(pathOf(ns)),
    },
    clock: systemClock,
    log: silentLog,
  })
  const [ours4, ours6] = host.resolvers as [string, string]

  /** The emulated machine compiles what a first question needs for seconds. */
  const patienceS = process.env['WEFT_VM'] ? 20 : 2
  /** Run in the namespace of the asker: prints the answer, the error's code, or `silence`. */
  const client = String.raw`
use strict; use Errno; use Socket qw(:all);
my ($server, $proto, $query, $seconds) = @ARGV;
$SIG{ALRM} = sub { print "silence\n"; exit }; alarm $seconds;
sub failed { print +(grep { $!{$_} } qw(ECONNREFUSED ENETUNREACH ECONNRESET))[0] // $!, "\n"; exit }
my ($six, $tcp, $bytes) = (scalar $server =~ /:/, $proto eq 'tcp', pack 'H*', $query);
my $ip = inet_pton($six ? AF_INET6 : AF_INET, $server) or die;
socket(my $s, $six ? AF_INET6 : AF_INET, $tcp ? SOCK_STREAM : SOCK_DGRAM, 0) or failed;
connect($s, $six ? pack_sockaddr_in6(53, $ip) : pack_sockaddr_in(53, $ip)) or failed;
syswrite($s, $tcp ? pack('n/a*', $bytes) : $bytes) or failed;
my $answer = '';
do { sysread($s, $answer, 65535, length $answer) or failed } until !$tcp || length $answer > 2 && length $answer >= 2 + unpack 'n', $answer;
print unpack('H*', $tcp ? substr $answer, 2 : $answer), "\n";`
  const ask = async (
    from: string,
    server: string,
    name: string,
    type: 'A' | 'AAAA',
    proto = 'udp',
  ): Promise<string> => {
    const query = encode({ type: 'query', id: 7, questions: [{ type, name }] }).toString('hex')
    const args = from === '' ? [] : ['ip', 'netns', 'exec', from]
    const [command, ...rest] = [...args, 'perl', '-e', client, server, proto, query, `${patienceS}`]
    const out = await new Promise<string>((resolve, reject) =>
      execFile(command!, rest, (error, stdout) => (error ? reject(error) : resolve(stdout.trim()))),
    )
    if (!/^[0-9a-f]{24,}$/.test(out)) return out
    return (decode(Buffer.from(out, 'hex')).answers ?? []).map(answer => ('data' in answer ? answer.data : '')).join()
  }

  await reconciler.start()
  for (const network of networks) {
    const id = endpointOf(network)
    await reconciler.attach(network, id, AbortSignal.timeout(60_000))
    const { addresses } = snapshot.endpoints(network).get(id)!.record
    const { pools } = snapshot.networks.get(network)!.record
    const inside = `ip -n ${network}`
    sh(`ip netns add ${network}; ip link set ${containerEnd(id)} netns ${network} name eth0`)
    sh(`${inside} link set lo up; ${inside} link set eth0 up`)
    for (const address of addresses) {
      const pool = pools.find(({ prefix }) => familyOf(prefix) === familyOf(address))!
      const nodad = familyOf(address) === 4 ? '' : 'nodad'
      sh(`${inside} address add ${withLength(address, pool.prefix)} dev eth0 ${nodad}`)
      sh(`${inside} route add ${familyOf(address) === 4 ? ours4 : ours6} dev eth0`)
    }
  }
  const places = networks.flatMap(network => {
    const { vni, pools } = snapshot.networks.get(network)!.record
    const families = new Set(pools.map(({ prefix }) => familyOf(prefix)))
    return host.resolvers
      .filter(address => families.has(familyOf(address)))
      .map(address => ({ network, ns: `weft-m${vni}`, address }))
  })
  dns.serve([...places, ...host.resolvers.map(address => ({ network: '', ns: '', address, port: resolverPort }))])
  for (const end = Date.now() + 60_000; dns.listening < 5 && Date.now() < end; ) await sleep(50)

  t.test('every container is answered at the addresses of its families', async t => {
    t.equal(dns.listening, 5, [...dns.problems].join())
    const rows = [
      ['both', ours4, 'A', '10.80.0.7'],
      ['both', ours4, 'AAAA', 'fd00:80::7'],
      ['both', ours6, 'A', '10.80.0.7'],
      ['both', ours6, 'AAAA', 'fd00:80::7'],
      ['four', ours4, 'A', '10.81.0.7'],
      ['six', ours6, 'AAAA', 'fd00:82::7'],
      ['six', ours6, 'A', ''],
      ['inner', ours6, 'AAAA', 'fd00:83::7'],
    ] as const
    for (const [from, server, type, answer] of rows)
      for (const proto of protos)
        t.equal(await ask(from, server, 'db', type, proto), answer, `${from} asks ${server} for ${type} by ${proto}`)
    t.match(sh('ip -n six -6 neigh show dev eth0'), new RegExp(`^${ours6} lladdr 02:7e:00:00:00:01`, 'm'))
    t.equal(await ask('four', ours6, 'db', 'A'), 'ENETUNREACH', 'no way of a family that it has not')
  })

  t.test(
    "a container of Docker's own bridge is answered by the host, whoever comes by the underlay is not",
    async t => {
      const bridge = (name: string, n: number): string => `ip netns add ${name}; ip link add br-${name} type bridge
sysctl -wq net.ipv6.conf.br-${name}.disable_ipv6=0; ip link set br-${name} up
ip address add 172.${n}.0.1/24 dev br-${name}; ip address add fd03:${n}::1/64 dev br-${name} nodad
ip link add v${name} master br-${name} type veth peer name eth0 netns ${name}; ip link set v${name} up; ip -n ${name} link set eth0 up
ip -n ${name} address add 172.${n}.0.2/24 dev eth0; ip -n ${name} address add fd03:${n}::2/64 dev eth0 nodad
ip -n ${name} route add default via 172.${n}.0.1; ip -n ${name} route add default via fd03:${n}::1`
      sh(bridge('plain', 30))
      sh(bridge('lan', 31))
      sh(`ip -n outside link set eth0 up; ip -n outside address add 192.0.2.9/24 dev eth0; ip -n outside address add fd02::9/64 dev eth0 nodad
ip -n outside route add ${ours4} via 192.0.2.1; ip -n outside route add ${ours6} via fd02::1`)
      const dropped = (server: string): number =>
        Number(new RegExp(`daddr ${server} counter packets (\\d+)`).exec(sh('nft list chain inet weft input'))?.[1])
      for (const server of host.resolvers) {
        for (const proto of protos)
          t.equal(
            await ask('', server, 'db.six.weft', 'AAAA', proto),
            'fd00:82::7',
            `the host asks ${server} by ${proto}`,
          )
        for (const proto of protos)
          t.equal(await ask('plain', server, 'db.six.weft', 'AAAA', proto), 'fd00:82::7', `its bridge asks by ${proto}`)
        t.equal(dropped(server), 0, 'nobody is refused so far')
      }
      const strangers = host.resolvers.flatMap(server => ['outside', 'lan'].map(from => [from, server] as const))
      const answers = await Promise.all(
        strangers.map(async ([from, server]) => [from, server, await ask(from, server, 'db.six.weft', 'AAAA')]),
      )
      t.same(
        answers,
        strangers.map(stranger => [...stranger, 'silence']),
        "neither the underlay nor a bridge that is not Docker's",
      )
      for (const server of host.resolvers) t.ok(dropped(server) > 0, 'it is the rule that did it')
    },
  )

  t.test("port 53 of the host is whoever's who binds or publishes it", async t => {
    for (const [type, any] of [
      ['udp4', '0.0.0.0'],
      ['udp6', '::'],
    ] as const) {
      const datagrams = createSocket({ type, ipv6Only: type === 'udp6' })
      await once(datagrams.bind(53, any), 'listening')
      const streams = createServer()
      await once(streams.listen({ port: 53, host: any, ipv6Only: true }), 'listening')
      t.teardown(() => [datagrams, streams].map(socket => socket.close()))
    }
    for (const [family, own] of [
      [4, '192.0.2.1'],
      [6, 'fd02::1'],
    ] as const) {
      t.match(sh(`nft list map inet weft ports${family}`), /udp \. 53 :/)
      // closed: nobody serves it in the container; what matters is that it is not weftd who answers
      t.not(await ask('outside', own, 'db.six.weft', 'AAAA'), 'fd00:82::7')
    }
    for (const server of host.resolvers)
      for (const from of ['', 'plain'])
        for (const proto of protos)
          t.equal(await ask(from, server, 'db.six.weft', 'AAAA', proto), 'fd00:82::7', `${from} asks ${server}`)
  })

  t.test('without weftd they are refused at once, so that the next resolver is asked', async t => {
    await dns.close()
    for (const [from, server] of [
      ['both', ours4],
      ['six', ours6],
      ['inner', ours6],
      ['plain', ours4],
      ['plain', ours6],
      ['', ours4],
      ['', ours6],
    ] as const)
      for (const proto of protos)
        t.equal(await ask(from, server, 'db', 'AAAA', proto), 'ECONNREFUSED', `${from} by ${proto}`)
    t.same(reconciler.status().failing, [])
    await reconciler.close()
    await kernel.close()
  })
}

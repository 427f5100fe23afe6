// SPDX-License-Identifier: Apache-2.0
// The main job: one network over Docker hosts.
import t from 'tap'
import { http, idle, openLab, server } from './lab.ts'

const lab = await openLab('e2e', 3)
t.teardown(() => lab.close())

t.test(
  'a network made on one host is on all, with name, labels and options; containers talk by address and name',
  async t => {
    await lab.docker(
      'h1',
      'network',
      'create',
      '-d',
      'weft',
      '--ipam-driver',
      'weft',
      '--ipv6',
      '--subnet',
      '10.80.0.0/24',
      '--subnet',
      'fd80::/64',
      '--label',
      'owner=me',
      '--opt',
      'weft.publish=cluster',
      'app',
    )
    for (const host of ['h2', 'h3']) {
      t.ok(
        await lab.until(async () => (await lab.docker(host, 'network', 'ls', '-q', '-f', 'name=^app$')) !== ''),
        host,
      )
      const [network] = JSON.parse(await lab.docker(host, 'network', 'inspect', 'app')) as [
        { Labels: object; Options: object; EnableIPv6: boolean; IPAM: { Config: { Subnet: string }[] } },
      ]
      t.same(network.Labels, { owner: 'me' })
      t.same(network.Options, { 'weft.publish': 'cluster' })
      t.equal(network.EnableIPv6, true)
      t.same(
        network.IPAM.Config.map(config => config.Subnet),
        ['10.80.0.0/24', 'fd80::/64'],
      )
    }
    await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'one', 'busybox', ...server)
    await lab.docker('h2', 'run', '-d', '--network', 'app', '--name', 'two', '-p', '8080:80', 'busybox', ...server)
    await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'near', 'busybox', ...idle)
    const address = await lab.docker(
      'h2',
      'inspect',
      '-f',
      '{{.NetworkSettings.Networks.app.IPAddress}} {{.NetworkSettings.Networks.app.GlobalIPv6Address}}',
      'two',
    )
    const [v4, v6] = address.split(' ') as [string, string]
    for (const target of [v4, v6, 'two', 'one'])
      await lab.docker('h1', 'exec', 'near', 'ping', '-c', '1', '-W', '2', target)
    await lab.until(async () => (await lab.tryDocker('h1', 'exec', 'near', 'nslookup', 'two')).code === 0)
    t.match(await lab.docker('h1', 'exec', 'near', ...http('two', 80)), /hello/)
    t.match(await lab.docker('h1', 'exec', 'near', ...http('one', 80)), /hello/)
    t.match(await lab.docker('h1', 'exec', 'near', ...http(v6, 80)), /hello/)
    for (const name of ['two.app.weft', 'tasks.nothing', 'h2.weft'])
      t.equal(
        (await lab.tryDocker('h1', 'exec', 'near', 'nslookup', name)).code,
        name === 'tasks.nothing' ? 1 : 0,
        name,
      )
  },
)

t.test("the largest packet fits, and devices have the network's MTU", async t => {
  t.equal((await lab.tryDocker('h1', 'exec', 'near', 'ping', '-c', '1', '-W', '2', '-s', '1422', 'two')).code, 0)
  const vni = await lab.vni('h1', 'app')
  t.match(await lab.inside('h1', 'n', vni, 'ip', 'link', 'show', 'br0'), /mtu 1450/)
  t.match(await lab.docker('h1', 'exec', 'near', 'ip', 'link', 'show', 'eth0'), /mtu 1450/)
})

t.test('containers reach the outside, masqueraded as their host; the outside reaches published ports only', async t => {
  await lab.docker('h1', 'exec', 'near', 'ping', '-c', '1', '-W', '2', '192.0.2.10')
  await lab.docker('h1', 'exec', 'near', 'ping', '-6', '-c', '1', '-W', '2', '2001:db8::10')
  // published a moment after it listens
  await lab.until(
    async () => (await lab.try('exec', 'client', 'curl', '-s', '-m', '3', 'http://10.9.0.2:8080/')).code === 0,
  )
  t.match(await lab.exec('client', 'curl', '-s', '-m', '3', 'http://10.9.0.2:8080/'), /hello/)
  t.match(await lab.exec('client', 'curl', '-s', '-m', '3', '-g', 'http://[fd09::2]:8080/'), /hello/)
  t.match(await lab.exec('h2', 'curl', '-s', '-m', '3', 'http://127.0.0.1:8080/'), /hello/)
  t.match(await lab.exec('h2', 'curl', '-s', '-m', '3', 'http://10.9.0.2:8080/'), /hello/)
  t.match(await lab.docker('h1', 'exec', 'near', ...http('10.9.0.2', 8080)), /hello/)
  await lab.exec('router', 'ip', 'route', 'add', '10.80.0.0/24', 'via', '10.9.0.2')
  t.not(
    (await lab.try('exec', 'client', 'curl', '-s', '-m', '1', 'http://10.80.0.3/')).code,
    0,
    'an outsider that routes our subnet gets nowhere',
  )
  await lab.exec('router', 'ip', 'route', 'del', '10.80.0.0/24')
  const taken = await lab.tryDocker('h2', 'run', '--rm', '--network', 'app', '-p', '8080:80', 'busybox', 'true')
  t.match(taken.err, /host port 8080\/tcp is not free: container two on host h2 has it/)
})

t.test('beside Docker: FORWARD dropped by its policy, its own bridge and ports go on', async t => {
  await lab.docker('h2', 'run', '-d', '--name', 'plain', '-p', '9090:80', 'busybox', ...server)
  t.match(await lab.exec('client', 'curl', '-s', '-m', '3', 'http://10.9.0.2:9090/'), /hello/)
  t.match(await lab.exec('h2', 'iptables', '-S', 'FORWARD'), /-P FORWARD DROP/)
  t.match(await lab.exec('client', 'curl', '-s', '-m', '3', 'http://10.9.0.2:8080/'), /hello/)
  await lab.docker('h2', 'rm', '-f', 'plain')
  // Docker keeps its own networks apart: ours reach what they publish, and nothing else
  await lab.docker('h1', 'network', 'create', '--internal', 'kept')
  await lab.docker('h1', 'network', 'create', '-o', 'com.docker.network.bridge.name=shop', 'named')
  await lab.docker('h1', 'run', '-d', '--name', 'inside', '--network', 'kept', 'busybox', ...server)
  await lab.docker('h1', 'run', '-d', '--name', 'elsewhere', '--network', 'named', 'busybox', ...server)
  await lab.docker('h1', 'run', '-d', '--name', 'plain', '-p', '9090:80', 'busybox', ...server)
  const near = (address: string, port: number) => lab.tryDocker('h1', 'exec', 'near', ...http(address, port))
  t.match((await near('10.9.0.1', 9090)).out, /hello/)
  for (const name of ['inside', 'elsewhere', 'plain']) {
    const where = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
    const address = await lab.docker('h1', 'inspect', '-f', where, name)
    t.match(await lab.exec('h1', 'curl', '-s', '-m', '3', `http://${address}/`), /hello/)
    t.not((await near(address, 80)).code, 0, `${name} is not reached from a network of ours`)
  }
  await lab.docker('h1', 'rm', '-f', 'inside', 'elsewhere', 'plain')
  await lab.docker('h1', 'network', 'rm', 'kept', 'named')
  // IPv6 of Docker's own bridges, although nobody but weft has switched forwarding on
  await lab.docker('h2', ...'network create --ipv6 --subnet fd55::/64 br6'.split(' '))
  await lab.docker('h2', 'run', '-d', '--name', 'six', '--network', 'br6', 'busybox', ...idle)
  // the lab's underlay lets no host send under an address that is not its own: no answer, but it goes out
  await lab.tryDocker('h2', 'exec', 'six', 'ping', '-6', '-c', '3', '-W', '1', '2001:db8::10')
  const forward = await lab.exec('h2', 'nft', 'list', 'chain', 'inet', 'weft', 'forward')
  t.match(forward, /nfproto ipv6 iifname != .* counter packets 0 bytes 0 drop/)
  await lab.docker('h2', 'rm', '-f', 'six')
  await lab.docker('h2', 'network', 'rm', 'br6')
})

t.test('two networks are apart; a container may be on both; --internal has no way out', async t => {
  const made = ['network', 'create', 'other', '--ipv6', '--label', 'owner=me']
  await lab.weft('h3', ...made, '--opt', 'com.docker.network.driver.mtu=1300')
  await lab.docker('h1', ...'network create -d weft --ipam-driver weft --ipv6 --internal inner'.split(' '))
  for (const host of ['h1', 'h2']) for (const name of ['other', 'inner']) await lab.shows(host, name)
  const said = await lab.docker('h2', 'network', 'inspect', '-f', '{{json .Labels}} {{json .Options}}', 'other')
  t.equal(said, '{"owner":"me"} {"com.docker.network.driver.mtu":"1300"}', "weft's own command carries them too")

  const run = async (host: string, network: string, name: string): Promise<string[]> => {
    // may change its own routes, as a container that wants out would
    await lab.docker(
      host,
      ...`run -d --cap-add NET_ADMIN --network ${network} --name ${name} busybox`.split(' '),
      ...server,
    )
    const format = `{{with .NetworkSettings.Networks.${network}}}{{.IPAddress}} {{.GlobalIPv6Address}} {{.Gateway}} {{.IPv6Gateway}}{{end}}`
    return (await lab.docker(host, 'inspect', '-f', format, name)).split(' ')
  }
  const reaches = async (from: string, to: string): Promise<boolean[]> => [
    (await lab.tryDocker('h1', 'exec', from, 'ping', '-c', '1', '-W', '1', to)).code === 0,
    (await lab.tryDocker('h1', 'exec', from, ...http(to, 80))).out.includes('hello'),
  ]
  // another host knows of a container a moment after its start
  const comes = (from: string, to: string) => lab.until(async () => (await reaches(from, to)).every(Boolean))
  const others = [...(await run('h1', 'other', 'close')).slice(0, 2), ...(await run('h2', 'other', 'far')).slice(0, 2)]
  for (const to of others) t.same(await reaches('near', to), [false, false], `${to} of another network`)
  await lab.docker('h1', 'network', 'connect', 'other', 'near')
  for (const to of others) t.ok(await comes('near', to), `${to}, on both`)
  await lab.docker('h1', 'exec', 'near', 'ping', '-c', '1', '-W', '2', 'two')
  await lab.docker('h1', 'network', 'disconnect', 'other', 'near')
  for (const to of others) t.same(await reaches('near', to), [false, false], `${to}, no longer on both`)
  await lab.docker('h1', 'exec', 'near', 'ping', '-c', '1', '-W', '2', 'two')

  const [, , gateway, gateway6] = await run('h1', 'inner', 'in1')
  const inner = (await run('h2', 'inner', 'in2')).slice(0, 2)
  for (const to of inner) t.ok(await comes('in1', to), `${to}, inside`)
  t.ok(await comes('in1', 'in2'), 'by name')
  const out = ['192.0.2.10', '2001:db8::10', '10.9.0.1', 'fd09::1', '10.9.0.2', 'fd09::2', ...others]
  const shut = async (why: string) => {
    for (const to of out) t.same(await reaches('in1', to), [false, false], `${to}, ${why}`)
  }
  await shut('by its own routes')
  const via = (...ways: (string | undefined)[]) =>
    ways.filter(Boolean).map(way => `ip ${way?.includes(':') ? '-6 ' : ''}route replace default via ${way}`)
  await lab.docker('h1', 'exec', 'in1', 'sh', '-c', via(...inner).join(' && '))
  await shut('by another container')
  await lab.docker('h1', 'exec', 'in1', 'sh', '-c', via(gateway, gateway6).join('; '))
  await shut(`by the gateway ${gateway} ${gateway6}`)
  await lab.docker('h1', 'rm', '-f', 'close')
})

t.test('what cannot be is refused in one sentence with the remedy, nothing half-made', async t => {
  const create = (...args: string[]) => lab.tryDocker('h2', 'network', 'create', '-d', 'weft', ...args)
  const ours = ['--ipam-driver', 'weft']
  const keys = async () => (await lab.exec('store', 'etcdctl', 'get', '--prefix', '', '--keys-only')).split('\n')
  const before = await keys()
  t.match((await create('bad')).err, /docker network create -d weft --ipam-driver weft/)
  t.match(
    (await create(...ours, '--subnet', '10.80.0.0/25', 'bad')).err,
    /overlaps 10\.80\.0\.0\/24 of cluster network "app": to join that network add --opt weft\.network=app/,
  )
  t.match(
    (await create(...ours, '--subnet', '10.80.0.0/24', 'bad')).err,
    /to join that network add --opt weft\.network=app --ipam-opt weft\.network=app/,
  )
  t.match((await create(...ours, '--subnet', '10.9.0.0/16', 'bad')).err, /clashes with route 10\.9\.0\.0\/24 of host h/)
  t.match((await create(...ours, '-o', 'weft.vnii=7', 'bad')).err, /weft\.vnii is unknown, did you mean weft\.vni\?/)
  const weft = (...args: string[]) => lab.try('weft', 'h2', 'network', 'create', 'bad', ...args)
  t.match(await weft('--opt', 'weft.foo=1'), { code: 2, err: /^weft: option weft\.foo is unknown/ })
  t.match(await weft('--subnet', '10.99.0.0/31'), { code: 2, err: /^weft: subnet 10\.99\.0\.0\/31 has no room/ })
  t.match(await weft('--subnet', '10.80.0.0/25'), { code: 1, err: /^weft: subnet .* overlaps 10\.80\.0\.0\/24/ })
  t.match(
    (await create(...ours, '-o', 'com.docker.network.bridge.enable_icc=false', 'bad')).err,
    /enable_icc is unknown, and would do nothing in a network of weft: leave it out/,
  )
  t.match((await create(...ours, '-o', 'weft.encrypted=true', 'bad')).err, /weft\.encrypted=true is not available/)
  t.match((await create(...ours, '-o', 'weft.policy=deny', 'bad')).err, /weft\.policy=deny is not available/)
  t.match((await create(...ours, '-o', 'encrypted', 'bad')).err, /encrypted= is not available: use false/)
  await lab.docker('h2', 'run', '-d', '--name', 'opted', '--network', 'none', 'busybox', 'sleep', '1000')
  await lab.docker('h2', 'network', 'disconnect', 'none', 'opted')
  const connect = (option: string) => lab.tryDocker('h2', 'network', 'connect', '--driver-opt', option, 'app', 'opted')
  t.match((await connect('weft.policy=deny')).err, /weft\.policy is one of networks/)
  t.match((await connect('weft.foo=1')).err, /weft\.foo is unknown/)
  await lab.docker('h2', 'rm', '-f', 'opted')
  t.match(
    (await create(...ours, '-o', `weft.vni=${await lab.vni('h1', 'app')}`, 'bad')).err,
    /VNI \d+ belongs to another network/,
  )
  t.match(
    (await create(...ours, '-o', 'com.docker.network.driver.mtu=9000', 'bad')).err,
    /mtu 9000 does not fit the underlay: at most 1450/,
  )
  const same = await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'one')
  t.match(
    (await lab.tryDocker('h3', 'run', '--rm', '--network', 'app', '--ip', same, 'busybox', 'true')).err,
    /is in use on host h1: choose another --ip/,
  )
  t.match(
    (await lab.tryDocker('h3', 'run', '--rm', '--network', 'app', '--ip', '10.80.0.1', 'busybox', 'true')).err,
    /is the network's gateway/,
  )
  // addresses that rested before may be free by now
  const more = async () => (await keys()).filter(key => !before.includes(key))
  await lab.until(async () => (await more()).length === 0, 90_000)
  t.same(await more(), [], 'nothing is left in the store')
  t.equal(await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=bad'), '')
})

t.test("a host's route and resolver count from the moment it has them, on every host, until it has not", async t => {
  const routes = async () =>
    (JSON.parse(await lab.weft('h1', 'node', 'show', 'h2', '-o', 'json')) as { routes: string[] }).routes
  const has = async (route: string) => (await routes()).includes(route)
  const create = (...args: string[]) =>
    lab.tryDocker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...args)
  await lab.exec('h2', 'ip', 'route', 'add', '10.77.0.0/16', 'via', '10.9.0.254')
  // where the next automatic pool would be
  await lab.exec('h2', 'ip', 'route', 'add', '10.224.0.0/13', 'via', '10.9.0.254')
  t.ok(await lab.until(() => has('10.77.0.0/16')))
  t.match(
    (await create('--subnet', '10.77.1.0/24', 'routed')).err,
    /subnet 10\.77\.1\.0\/24 clashes with route 10\.77\.0\.0\/16 of host h2: choose another --subnet/,
  )
  t.match(await create('routed'), { code: 0 })
  t.match(
    await lab.docker('h1', 'network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'routed'),
    /^10\.232\./,
  )
  await lab.shows('h2', 'routed')
  await lab.docker('h1', 'network', 'rm', 'routed')
  for (const route of ['10.77.0.0/16', '10.224.0.0/13']) await lab.exec('h2', 'ip', 'route', 'del', route)
  t.ok(await lab.until(async () => !(await has('10.77.0.0/16'))))
  const before = await lab.exec('h2', 'cat', '/etc/resolv.conf')
  const write = (text: string) => lab.exec('h2', 'sh', '-c', `echo "${text}" > /etc/resolv.conf`)
  await write('nameserver 10.99.0.53')
  t.ok(await lab.until(() => has('10.99.0.53/32')))
  await write(before)
  t.ok(await lab.until(async () => !(await has('10.99.0.53/32'))))
})

t.test('--subnet, --ip-range, --gateway, --aux-address, --ip, --ip6 and --mac-address as in Docker', async t => {
  await lab.docker(
    'h1',
    'network',
    'create',
    '-d',
    'weft',
    '--ipam-driver',
    'weft',
    '--subnet',
    '10.90.0.0/24',
    '--ip-range',
    '10.90.0.128/25',
    '--gateway',
    '10.90.0.254',
    '--aux-address',
    'router=10.90.0.200',
    'fine',
  )
  await lab.shows('h2', 'fine')
  const show = async (host: string, name: string): Promise<string> =>
    lab.docker(
      host,
      'inspect',
      '-f',
      '{{.NetworkSettings.Networks.fine.IPAddress}} {{.NetworkSettings.Networks.fine.MacAddress}} {{.NetworkSettings.Networks.fine.Gateway}}',
      name,
    )
  await lab.docker('h2', 'run', '-d', '--network', 'fine', '--name', 'auto', 'busybox', ...idle)
  t.match(await show('h2', 'auto'), /^10\.90\.0\.(12[89]|1[3-9]\d|2\d\d) 02:77:0a:5a:00:\w\w 10\.90\.0\.254$/)
  await lab.docker(
    'h3',
    'run',
    '-d',
    '--network',
    'fine',
    '--name',
    'chosen',
    '--ip',
    '10.90.0.7',
    '--mac-address',
    '02:11:22:33:44:55',
    'busybox',
    ...idle,
  )
  t.equal(await show('h3', 'chosen'), '10.90.0.7 02:11:22:33:44:55 10.90.0.254')
  await lab.docker('h2', 'exec', 'auto', 'ping', '-c', '1', '-W', '2', '10.90.0.7')
  t.match(
    (await lab.tryDocker('h2', 'run', '--rm', '--network', 'fine', '--ip', '10.90.0.200', 'busybox', 'true')).err,
    /auxiliary address "router"/,
  )
  const again =
    '--subnet 10.90.0.0/24 --aux-address router=10.90.0.200 --opt weft.network=fine --ipam-opt weft.network=fine'
  await lab.docker('h2', ...`network create -d weft --ipam-driver weft ${again} alias`.split(' '))
  await lab.docker('h2', 'run', '--rm', '--network', 'alias', 'busybox', 'ping', '-c', '1', '-W', '2', '10.90.0.7')
  await lab.docker('h2', 'network', 'rm', 'alias')
  await lab.docker('h2', 'rm', '-f', 'auto')
  await lab.docker('h3', 'rm', '-f', 'chosen')
})

t.test('the same of IPv6: --ip6 and what the network keeps for itself', async t => {
  const options = '--subnet fd92::/64 --ip-range fd92::8000/113 --gateway fd92::fe --aux-address six=fd92::aa'
  await lab.docker('h1', ...`network create -d weft --ipam-driver weft --ipv6 ${options} six`.split(' '))
  await lab.shows('h2', 'six')
  const run = (host: string, name: string, ...its: string[]) =>
    lab.tryDocker(host, 'run', '-d', '--network', 'six', '--name', name, ...its, 'busybox', ...idle)
  const show = (host: string, name: string) => {
    const format = '{{.NetworkSettings.Networks.six.GlobalIPv6Address}} {{.NetworkSettings.Networks.six.IPv6Gateway}}'
    return lab.docker(host, 'inspect', '-f', format, name)
  }
  await run('h1', 'low', '--ip6', 'fd92::7')
  await run('h2', 'ranged')
  t.equal(await show('h1', 'low'), 'fd92::7 fd92::fe')
  t.match(await show('h2', 'ranged'), /^fd92::[89a-f][0-9a-f]{3} fd92::fe$/)
  for (const to of ['fd92::7', '2001:db8::10'])
    await lab.docker('h2', 'exec', 'ranged', 'ping', '-c', '1', '-W', '2', to)
  t.match((await run('h3', 'same', '--ip6', 'fd92::7')).err, /is in use on host h1: choose another --ip/)
  t.match((await run('h3', 'aux', '--ip6', 'fd92::aa')).err, /auxiliary address "six"/)
  await lab.docker('h1', 'rm', '-f', 'low')
  await lab.docker('h2', 'rm', '-f', 'ranged')
  await lab.docker('h3', 'rm', '-f', 'same', 'aux')
  await lab.docker('h3', 'network', 'rm', 'six')
})

t.test('a container more than a bridge has ports for is refused, and fits when there is room', async t => {
  const vni = await lab.vni('h3', 'app')
  const inN = (script: string) => lab.inside('h3', 'n', vni, 'sh', '-c', script)
  const run = () => lab.tryDocker('h3', 'run', '--rm', '--network', 'app', 'busybox', 'true')
  // of a kind that weft has none of, and so leaves alone
  await inN(`for i in $(seq 1024); do echo "link add i$i type ifb"; echo "link set i$i master br0"; done |
    ip -force -batch - 2> /dev/null; ip link show master br0 | grep -c mtu | grep 1023`)
  const { code, err } = await run()
  t.equal(code, 125)
  t.match(
    err,
    /the bridge in weft-n\w+ has 1,023 ports and no more fit: start containers of this network on other hosts/,
  )
  // a last try may be under way
  t.ok(await lab.until(async () => !/: c\w+@/.test(await inN('ip -o link show type veth')), 1000), 'nothing half-made')
  await inN('for i in $(seq 1024); do echo "link del i$i"; done | ip -batch -')
  t.match(await run(), { code: 0 })
})

t.test('an underlay too narrow for IPv6, or for the network, is refused with what it needs', async t => {
  const create = (...args: string[]) =>
    lab.tryDocker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...args, 'narrow')
  t.match((await create('-o', 'com.docker.network.driver.mtu=1200')).err, /driver\.mtu.*1200.*1280/)
  const mtu = (bytes: number) => lab.exec('h3', 'ip', 'link', 'set', 'eth0', 'mtu', String(bytes))
  const run = () => lab.tryDocker('h3', 'run', '--rm', '--network', 'app', 'busybox', 'true')
  await mtu(1300)
  const said = /the underlay device of node h3 with its 1300 has room for 1250: raise that device to 1500/
  t.ok(await lab.until(async () => said.test((await run()).err)))
  t.match(
    (await create()).err,
    /device of node h3 has an MTU of 1300, and a network needs 1330 on every host: raise it/,
  )
  t.equal(await lab.docker('h1', 'network', 'ls', '-q', '-f', 'name=narrow'), '')
  await mtu(1500)
  t.ok(await lab.until(async () => (await run()).code === 0))
})

t.test('removing: refused while used, gone everywhere when not; a vetoed replica comes back', async t => {
  t.not((await lab.tryDocker('h1', 'network', 'rm', 'app')).code, 0)
  t.match((await lab.try('weft', 'h3', 'network', 'rm', 'app')).err, /has containers on h1, h2: stop them first/)
  await lab.docker('h3', 'network', 'rm', 'app')
  t.ok(
    await lab.until(async () => (await lab.docker('h3', 'network', 'ls', '-q', '-f', 'name=^app$')) !== ''),
    'vetoed: the replica is back',
  )
  await lab.docker('h1', 'rm', '-f', 'one', 'near', 'in1')
  await lab.docker('h2', 'rm', '-f', 'two', 'far', 'in2')
  await lab.docker('h2', 'network', 'rm', 'fine')
  await lab.weft('h1', 'network', 'rm', 'other')
  for (const name of ['app', 'inner'])
    t.ok(
      await lab.until(async () => {
        if ((await lab.docker('h1', 'network', 'ls', '-q', '-f', `name=^${name}$`)) !== '')
          await lab.tryDocker('h1', 'network', 'rm', name)
        return !(JSON.parse(await lab.weft('h2', 'network', 'ls', '-o', 'json')) as { name: string }[]).some(
          network => network.name === name,
        )
      }, 30_000),
      name,
    )
  for (const host of ['h1', 'h2', 'h3']) {
    t.ok(
      await lab.until(async () => (await lab.docker(host, 'network', 'ls', '-q', '-f', 'driver=weft')) === '', 20_000),
      `${host} shows none`,
    )
    t.ok(
      await lab.until(async () => !(await lab.exec(host, 'ls', '/run/netns')).includes('weft-')),
      `${host} has no namespace left`,
    )
  }
  const live = async () =>
    (await lab.exec('store', 'etcdctl', 'get', '--prefix', '', '--keys-only'))
      .split('\n')
      .filter(key => /\/(networks|network-names|vnis|pools|endpoints|addresses|macs|ports)\//.test(key)).length === 0
  t.ok(await lab.until(live, 20_000), 'no claim is left in the store')
})

// SPDX-License-Identifier: Apache-2.0
// Several subnets of a family on one network: everybody reaches everybody, on the same host and across. And where an
// automatic one is not.
import t from 'tap'
import { idle, openLab } from './lab.ts'

const lab = await openLab('subn', 2)
t.teardown(() => lab.close())

const places = [
  { host: 'h1', name: 'low', v4: '10.80.0.5', v6: 'fd80::5', gateways: '10.80.0.1 fd80::1' },
  { host: 'h1', name: 'high', v4: '10.81.0.5', v6: 'fd81::5', gateways: '10.81.0.1 fd81::1' },
  { host: 'h2', name: 'mixed', v4: '10.81.0.6', v6: 'fd80::6', gateways: '10.81.0.1 fd80::1' },
  { host: 'h2', name: 'far', v4: '10.80.0.7', v6: 'fd81::7', gateways: '10.80.0.1 fd81::1' },
]
for (const kind of ['open', 'internal'])
  t.test(`several subnets of a family, ${kind}`, async t => {
    const subnets = '--subnet 10.80.0.0/24 --subnet 10.81.0.0/24 --subnet fd80::/64 --subnet fd81::/64'
    const flags = kind === 'internal' ? ['--internal'] : []
    await lab.docker('h1', ...`network create -d weft --ipam-driver weft --ipv6 ${subnets}`.split(' '), ...flags, kind)
    await lab.until(async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', `name=${kind}`)) !== '')
    const pings = async (host: string, from: string, to: string): Promise<boolean> =>
      (await lab.tryDocker(host, 'exec', from, 'ping', '-c', '1', '-W', '2', to)).code === 0
    for (const { host, name, v4, v6, gateways } of places) {
      const its = ['--name', name, '--ip', v4, '--ip6', v6]
      await lab.docker(host, 'run', '-d', '--network', kind, ...its, 'busybox', ...idle)
      const of = `.NetworkSettings.Networks.${kind}`
      const shown = await lab.docker(host, 'inspect', '-f', `{{${of}.Gateway}} {{${of}.IPv6Gateway}}`, name)
      t.equal(shown, kind === 'open' ? gateways : '', name)
    }
    for (const { host, name } of places) {
      for (const { name: peer, v4, v6 } of places)
        for (const to of [v4, v6, peer]) t.ok(await pings(host, name, to), `${name} to ${to}`)
      for (const to of ['192.0.2.10', '2001:db8::10'])
        t.equal(await pings(host, name, to), kind === 'open', `${name} ${to}`)
    }
    for (const { host, name } of places) await lab.docker(host, 'rm', '-f', name)
    await lab.weft('h1', 'network', 'rm', kind)
  })

t.test('what an engine is told to cut its own networks from, weft leaves to it', async t => {
  const add = `sed -i '1s#{#{"default-address-pools":[{"base":"10.224.0.0/14","size":24}],#' /etc/docker/daemon.json`
  await lab.exec('h2', 'sh', '-c', add)
  await lab.ok('stop', 'h2', 'dockerd')
  await lab.ok('start', 'h2', 'dockerd')
  const node = (): Promise<string> => lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/nodes/h2')
  t.ok(await lab.until(async () => (await node()).includes('10.224.0.0/14')))
  // and where one of its resolvers is
  await lab.exec('h2', 'sh', '-c', 'echo nameserver 10.228.0.77 >> /etc/resolv.conf')
  t.ok(await lab.until(async () => (await node()).includes('10.228.0.77')))
  await lab.docker('h1', ...'network create -d weft --ipam-driver weft beside'.split(' '))
  const subnet = ['network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'beside']
  t.equal(await lab.docker('h1', ...subnet), '10.228.16.0/20')
  await lab.weft('h1', 'network', 'rm', 'beside')
})

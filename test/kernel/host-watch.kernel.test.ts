// SPDX-License-Identifier: Apache-2.0
// Which changes of a host make it read its facts again.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { protocol } from '../../src/kernel/decode.ts'
import { openHostWatch } from '../../src/kernel/host-watch.ts'
import { addAddress } from '../../src/netlink/rtnl/addr.ts'
import { descriptors, openLab } from '../netlink/lab.ts'

const patienceMs = process.env['WEFT_VM'] ? 60_000 : 10_000

/** A host with eth0; `looks` counts. */
const open = async (t: Test, look: () => Promise<void> = async () => {}) => {
  const switched: string[] = []
  const host = await openLab(t)
  const dir = mkdtempSync(join(tmpdir(), 'weft-host-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const resolvConf = join(dir, 'resolv.conf')
  writeFileSync(resolvConf, 'nameserver 192.0.2.53\n')
  const pair = (name: string): void => {
    host.ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}x`)
    for (const end of [name, `${name}x`]) host.ip('link', 'set', end, 'up')
  }
  const sysctl = (setting: string): void =>
    void execFileSync('ip', ['netns', 'exec', host.name, 'sysctl', '-qw', setting])
  // a new namespace has IPv4's from the first one
  for (const setting of ['ipv4.ip_forward', 'ipv6.conf.all.forwarding']) sysctl(`net.${setting}=0`)
  pair('eth0')
  host.ip('addr', 'add', '192.0.2.1/24', 'dev', 'eth0')
  let looks = 0
  const opened = descriptors()
  const watch = await openHostWatch({
    ...{ ns: host.name, resolvConf, clock: systemClock, log: silentLog },
    forwarding: (family, on) => switched.push(`IPv${family} ${on ? 'on' : 'off'}`),
    look: async () => {
      looks++
      await look()
    },
  })
  t.teardown(() => watch.close())
  const until = async (count: number): Promise<boolean> => {
    for (const end = Date.now() + patienceMs; Date.now() < end && looks < count; ) await sleep(20)
    return looks >= count
  }
  const quiet = async (): Promise<number> => {
    let before: number
    do {
      before = looks
      await sleep(700)
    } while (looks !== before)
    return looks
  }
  return { host, opened, pair, sysctl, resolvConf, switched, watch, until, quiet }
}

t.test('routes, addresses, links in use and resolv.conf are looked at, once for what comes together', async t => {
  const { host, pair, sysctl, resolvConf, switched, until, quiet } = await open(t)
  t.ok(await until(1), 'at the beginning')
  const seen = async (what: string, change: () => void): Promise<void> => {
    const before = await quiet()
    change()
    t.ok(await until(before + 1), what)
  }
  await seen('a route', () => host.ip('route', 'add', '10.77.0.0/16', 'via', '192.0.2.9'))
  await seen('its end', () => host.ip('route', 'del', '10.77.0.0/16'))
  await seen("one of a VPN's own table", () => host.ip('route', 'add', '10.76.0.0/16', 'dev', 'eth0', 'table', '52'))
  await seen('one with several hops', () =>
    host.ip('route', 'add', '10.78.0.0/16', 'nexthop', 'via', '192.0.2.9', 'nexthop', 'via', '192.0.2.8'),
  )
  await seen('an address', () => host.ip('addr', 'add', '2001:db8::1/64', 'dev', 'eth0', 'nodad'))
  await seen('an MTU', () => host.ip('link', 'set', 'eth0', 'mtu', '1300'))
  // the kernel tells of no IPv4 route that goes so
  await seen('a link that goes down', () => host.ip('link', 'set', 'eth0', 'down'))
  pair('tun0')
  await seen('an address of a new device', () => host.ip('addr', 'add', '10.79.0.1/24', 'dev', 'tun0'))
  await seen('the end of that device', () => host.ip('link', 'del', 'tun0'))
  host.ip('link', 'add', 'idrac', 'type', 'bridge')
  host.ip('link', 'set', 'idrac', 'up')
  await seen('an address where our links are from', () =>
    host.ip('addr', 'add', '169.254.1.2/32', 'dev', 'idrac', 'scope', 'link'),
  )
  await seen('a route there', () => host.ip('route', 'add', '169.254.2.0/24', 'dev', 'idrac'))
  // beside which Docker takes no subnet
  await seen('half a default by a device', () => host.ip('route', 'add', '0.0.0.0/1', 'dev', 'idrac'))
  await seen('resolv.conf', () => writeFileSync(resolvConf, 'nameserver 192.0.2.54\n'))
  t.same(switched, [])
  for (const on of [1, 0]) {
    await seen('forwarding of IPv4', () => sysctl(`net.ipv4.ip_forward=${on}`))
    await seen('forwarding of IPv6', () => sysctl(`net.ipv6.conf.all.forwarding=${on}`))
  }
  t.same(switched, ['IPv4 on', 'IPv6 on', 'IPv4 off', 'IPv6 off'])
  const before = await quiet()
  const { ifindex } = host.ip('link', 'show', 'eth0')[0]
  for (let i = 0; i < 50; i++) await host.netlink.run(addAddress({ ifindex, prefix: `192.0.2.${i + 100}/32` }))
  const after = await quiet()
  t.ok(after > before && after < before + 50, `${after - before} looks for 50 changes`)
})

t.test('what weft does itself, and the links of containers, are nothing new', async t => {
  const { host, pair, until, quiet } = await open(t)
  await until(1)
  const before = await quiet()
  pair('weft0')
  host.ip('addr', 'add', '169.254.5.1/30', 'dev', 'weft0')
  host.ip('addr', 'add', 'fd69:7765:6674:5::1/64', 'dev', 'weft0', 'nodad')
  host.ip('route', 'add', '10.80.0.0/24', 'dev', 'weft0')
  pair('vethabc')
  const { ifindex } = host.ip('link', 'show', 'eth0')[0]
  await host.netlink.run(
    addAddress({ ifindex, prefix: '192.0.2.77/32', noPrefixRoute: true, protocol, validSeconds: 60 }),
  )
  host.ip('link', 'del', 'vethabc')
  host.ip('link', 'del', 'weft0')
  t.equal(await quiet(), before)
})

t.test('a look that fails is repeated; none runs beside another; closing ends all', async t => {
  let running = 0
  let most = 0
  let failures = 1
  const { host, opened, watch, until, quiet } = await open(t, async () => {
    most = Math.max(most, ++running)
    await sleep(50)
    running--
    if (failures-- > 0) throw new Error('not now')
  })
  t.ok(await until(2), 'again although nothing changed')
  for (let i = 0; i < 5; i++) {
    watch.poke()
    host.ip('route', 'add', `10.77.${i}.0/24`, 'dev', 'eth0')
    await sleep(60)
  }
  await quiet()
  t.equal(most, 1)
  const looks = await quiet()
  await watch.close()
  watch.poke()
  host.ip('route', 'add', '10.78.0.0/24', 'dev', 'eth0')
  t.equal(await quiet(), looks)
  t.equal(descriptors(), opened)
})

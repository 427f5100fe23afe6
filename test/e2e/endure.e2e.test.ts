// SPDX-License-Identifier: Apache-2.0
// It endures: the agent, the engine and the kernel's objects are taken away, packets go on.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { idle, openLab, server } from './lab.ts'
import { rowsOf, startMonitors, startPing, startStream } from './witness.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const lab = await openLab('end', 2, '--live-restore')
t.teardown(() => lab.close())

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await lab.shows('h2', 'app')
await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'one', 'busybox', ...idle)
await lab.docker('h2', 'run', '-d', '--network', 'app', '--name', 'two', '-p', '8080:80', 'busybox', ...server)
const vni = await lab.vni('h1', 'app')
const address = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'two')
const repairs = async (host: string): Promise<Record<string, number>> =>
  (
    JSON.parse((await lab.try('weft', host, 'status', '-o', 'json')).out) as {
      reconciler: { repairs: Record<string, number> }
    }
  ).reconciler.repairs

const rows = (host: string): Promise<string> => rowsOf(lab, host, [vni])
const outside = '192.0.2.10'
const ping = (seconds: number, to = address) => startPing(lab, 'h1', 'one', to, seconds)
const monitors = (host: string) => startMonitors(lab, host, vni)

/** What goes on while something happens to weftd: packets, an open stream, and who writes to the kernel. */
const meanwhile = async (seconds: number, work: () => Promise<void>) => {
  const stream = await startStream(lab, ['h1', 'one'], ['h2', 'two'], address)
  const ended = monitors('h2')
  const lost = ping(seconds)
  await sleep(1000)
  await work()
  await lab.until(async () => (await lab.try('weft', 'h2', 'status')).code === 0)
  await sleep(1000)
  return { lost: await lost(), stream: await stream(), written: await ended() }
}

// a bridge tells of every new port once more when its forward delay is over: 15 s, without anybody writing
await sleep(16_000)

for (const signal of ['stop', 'kill'] as const)
  t.test(`weftd: ${signal} and start during traffic: no packet lost, no write to the kernel`, async t => {
    const { lost, stream, written } = await meanwhile(5, async () => {
      await lab.ok(signal, 'h2', 'weftd')
      await sleep(500)
      await lab.ok('start', 'h2', 'weftd')
    })
    t.equal(lost, 0, 'packets lost')
    t.ok(stream.whole, `stream unbroken: ${stream.lines} lines`)
    t.equal(written, '', 'kernel writes')
  })

t.test('weftd replaced by a build whose plan differs in one object: that one is written, no packet lost', async t => {
  const build = await mkdtemp(join(root, '.weft-other-build-'))
  t.teardown(() => rm(build, { recursive: true }))
  await cp(join(root, 'dist'), build, { recursive: true })
  const plan = join(build, 'overlay/switch-plan.js')
  const text = await readFile(plan, 'utf8')
  const changed = text.replace(
    "'icmpv6 type nd-router-solicit accept'",
    "'icmpv6 type nd-router-solicit counter accept'",
  )
  t.not(changed, text)
  await writeFile(plan, changed)
  const state = `${process.env['WEFT_LAB_DIR'] ?? '/var/lib/weft-lab'}/end/h2`
  const flags = {
    node: 'h2',
    vtep: '10.9.0.2',
    'underlay-dev': 'eth0',
    store: 'etcd://10.9.0.241:2379',
    'data-dir': `${state}/weft`,
    'plugin-socket': '/run/docker/plugins/weft.sock',
  }
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
  let other: ReturnType<typeof lab.background> | undefined
  const { lost, stream, written } = await meanwhile(6, async () => {
    await lab.ok('stop', 'h2', 'weftd')
    other = lab.background('exec', 'h2', process.execPath, join(build, 'main.js'), ...args)
    t.ok(await lab.until(async () => other?.out().includes('"reconciled"') ?? false))
  })
  t.equal(lost, 0, 'packets lost')
  t.ok(stream.whole, `stream unbroken: ${stream.lines} lines`)
  const lines = written.split('\n').filter(line => !/# new generation/.test(line))
  t.ok(lines.length > 0, 'it is written')
  t.same(
    lines.filter(line => !/^(add|delete|flush) (rule|chain) netdev weft discovery/.test(line)),
    [],
    'and nothing else',
  )
  const back = await meanwhile(6, async () => {
    await other?.stop()
    await lab.ok('start', 'h2', 'weftd')
  })
  t.equal(back.lost, 0, 'packets lost on the way back')
})

t.test('what somebody breaks is repaired within a second, counted, and nothing else is touched', async t => {
  const works = async (): Promise<boolean> =>
    (await lab.try('exec', 'client', 'curl', '-s', '-m', '1', 'http://10.9.0.2:8080/')).out === 'hello'
  const reaches = async (): Promise<boolean> =>
    (await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '1', address)).code === 0
  t.ok(await works())
  await lab.exec('h2', 'nft', 'add table inet foreign')
  await lab.exec('h2', 'nft', 'add chain inet foreign mine')
  const everything = () => lab.exec('h2', 'nft', 'flush ruleset')
  const mac = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.MacAddress}}', 'two')
  const endpoint = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.EndpointID}}', 'two')
  const inN = (...command: string[]) => lab.inside('h2', 'n', vni, ...command)
  const inM = (...command: string[]) => lab.inside('h2', 'm', vni, ...command)
  // nothing of ours is taken by these, but where it has to be changes: no repair to count
  const others = new Set<() => Promise<unknown>>()
  const forward = (command: string): (() => Promise<unknown>) => {
    const breaks = () => lab.exec('h2', 'sh', '-c', command)
    others.add(breaks)
    return breaks
  }
  const cases: [string, () => Promise<unknown>][] = [
    ['our table in H', () => lab.exec('h2', 'nft', 'delete table inet weft')],
    ['our bridge', () => inN('ip', 'link', 'del', 'br0')],
    ['all tables of N', () => inN('nft', 'flush ruleset')],
    ['all tables of M', () => inM('nft', 'flush ruleset')],
    ['an FDB row of N', () => lab.inside('h1', 'n', vni, 'bridge', 'fdb', 'del', mac, 'dev', 'vx0', 'self')],
    [
      'an FDB row of N, replaced by one to an address',
      () =>
        lab.inside(
          'h1',
          'n',
          vni,
          ...['sh', '-c', 'bridge fdb del "$@" self; bridge fdb add "$@" dst 10.9.0.99 self permanent', 'sh'],
          ...[mac, 'dev', 'vx0'],
        ),
    ],
    ['the port of a container, down', () => inN('ip', 'link', 'set', `c${endpoint.slice(0, 12)}`, 'down')],
    ['the gateway, down', () => inM('ip', 'link', 'set', 'gw0', 'down')],
    ['the link to the host, down and up', () => inM('sh', '-c', 'ip link set up0 down; ip link set up0 up')],
    ['ports isolated from each other', () => inN('bridge', 'link', 'set', 'dev', 'vx0', 'isolated', 'on')],
    ['a tunnel that learns', () => inN('ip', 'link', 'set', 'vx0', 'type', 'vxlan', 'learning')],
    ['the link to the host', () => lab.exec('h2', 'ip', 'link', 'del', 'weft0')],
    [
      'our accepts in FORWARD',
      () => lab.exec('h2', 'sh', '-c', 'iptables-save | grep -v "ACCEPT.*weft\\|weft.*ACCEPT" | iptables-restore'),
    ],
    [
      "a user's RETURN in DOCKER-USER",
      forward('iptables -I DOCKER-USER -j RETURN; iptables -I DOCKER-USER -s 10.9.0.0/24 -j RETURN'),
    ],
    ['FORWARD, set to DROP', forward('iptables -P FORWARD ACCEPT && iptables -P FORWARD DROP')],
    ["all of iptables' rules", () => lab.exec('h2', 'iptables', '-F')],
    ['as a start of Docker brings it back', forward('iptables -I FORWARD -j DOCKER-USER')],
    ['FORWARD, emptied: it does not go to DOCKER-USER any more', forward('iptables -F FORWARD')],
    ["all tables of H, Docker's too", everything],
  ]
  for (const [what, breaks] of cases) {
    if (breaks === everything) {
      t.match(await lab.exec('h2', 'nft', 'list table inet foreign'), /chain mine/, 'what is not ours is there')
    }
    const before = JSON.stringify([await repairs('h1'), await repairs('h2')])
    const whole = [await rows('h1'), await rows('h2')]
    await breaks()
    await sleep(1000)
    t.ok((await works()) && (await reaches()), `${what}: repaired`)
    const again = async (): Promise<string[]> => [await rows('h1'), await rows('h2')]
    await lab.until(async () => (await again()).join() === whole.join(), 5000)
    t.same(await again(), whole, `${what}: all of it`)
    if (!others.has(breaks))
      t.not(JSON.stringify([await repairs('h1'), await repairs('h2')]), before, `${what}: counted`)
  }
})

t.test('networks that come, on this host and others: no packet to the outside is lost', async t => {
  const lost = ping(8, outside)
  await sleep(500)
  const weft = ['-d', 'weft', '--ipam-driver', 'weft']
  for (const name of ['come1', 'come2', 'come3']) await lab.docker('h2', 'network', 'create', ...weft, name)
  for (const name of ['own1', 'own2']) await lab.docker('h1', 'network', 'create', name)
  t.equal(await lost(), 0)
  for (const name of ['come1', 'come2', 'come3']) await lab.docker('h2', 'network', 'rm', name)
  for (const name of ['own1', 'own2']) await lab.docker('h1', 'network', 'rm', name)
})

// what the engine did not name in 30 s would be released
t.test('dockerd killed and started with live-restore: no packet lost, nothing released or repaired', async t => {
  const before = await repairs('h2')
  const ways = [
    ['h1', 'one', address],
    ['h1', 'one', outside],
    ['h2', 'two', outside],
  ] as const
  const lost = ways.map(([host, name, to]) => startPing(lab, host, name, to, 50, 100))
  await sleep(500)
  await lab.ok('kill', 'h2', 'dockerd')
  await sleep(1000)
  await lab.ok('start', 'h2', 'dockerd')
  t.ok(await lab.until(async () => (await lab.tryDocker('h2', 'ps', '-q')).out !== '', 20_000))
  t.same(await Promise.all(lost.map(one => one())), [0, 0, 0])
  t.match(await lab.weft('h1', 'endpoint', 'ls'), /two/)
  t.same(await repairs('h2'), before)
})

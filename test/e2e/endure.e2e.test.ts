// SPDX-License-Identifier: Apache-2.0
// It endures: the agent, the engine, the store and the kernel's objects are taken away, packets go on.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { idle, openLab, server } from './lab.ts'

const lab = await openLab('end', 2, '--live-restore')
t.teardown(() => lab.close())

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await lab.until(async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=app')) !== '')
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

/** Pings 500 times a second from `one` to `two`, for `seconds`; the answer is how many were lost. */
const ping = (seconds: number) => {
  const count = seconds * 500
  const running = lab.background(
    'docker',
    'h1',
    'exec',
    'one',
    'ping',
    '-q',
    '-c',
    String(count),
    '-i',
    '0.002',
    '-W',
    '2',
    address,
  )
  const over = new Promise(resolve => running.child.once('close', resolve))
  return async (): Promise<number> => {
    await over
    const [, sent, received] = /(\d+) packets transmitted, (\d+) packets received/.exec(running.out()) ?? []
    if (Number(sent) !== count) throw new Error(`only ${sent} pings: ${running.out()}`)
    return Number(sent) - Number(received)
  }
}

/** Everything that is written to the kernel of a host while it runs. */
const monitors = (host: string) => {
  const all = [
    lab.background('exec', host, 'ip', 'monitor', 'link', 'address', 'nexthop'),
    lab.background('exec', host, 'nft', 'monitor'),
    ...(['n', 'm'] as const).flatMap(which => [
      lab.background('exec', host, 'ip', 'netns', 'exec', `weft-${which}${vni}`, 'ip', 'monitor', 'all'),
      lab.background('exec', host, 'ip', 'netns', 'exec', `weft-${which}${vni}`, 'nft', 'monitor'),
    ]),
  ]
  return async (): Promise<string> => {
    await Promise.all(all.map(one => one.stop()))
    return all
      .map(one => one.out())
      .join('')
      .trim()
  }
}

for (const signal of ['stop', 'kill'] as const)
  t.test(`weftd: ${signal} and start during traffic: no packet lost, no write to the kernel`, async t => {
    const ended = monitors('h2')
    const lost = ping(4)
    await sleep(1000)
    await lab.ok(signal, 'h2', 'weftd')
    await sleep(500)
    await lab.ok('start', 'h2', 'weftd')
    await lab.until(async () => (await lab.try('weft', 'h2', 'status')).code === 0)
    await sleep(1000)
    t.equal(await lost(), 0, 'packets lost')
    t.equal(await ended(), '', 'kernel writes')
  })

t.test('what somebody breaks is repaired within a second, counted, and nothing else is touched', async t => {
  const works = async (): Promise<boolean> =>
    (await lab.try('exec', 'client', 'curl', '-s', '-m', '1', 'http://10.9.0.2:8080/')).out === 'hello'
  const reaches = async (): Promise<boolean> =>
    (await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '1', address)).code === 0
  t.ok(await works())
  await lab.exec('h2', 'nft', 'add table inet foreign')
  await lab.exec('h2', 'nft', 'add chain inet foreign mine')
  const cases: [string, () => Promise<unknown>][] = [
    ['our table in H', () => lab.exec('h2', 'nft', 'delete table inet weft')],
    ['all tables of N', () => lab.inside('h2', 'n', vni, 'nft', 'flush ruleset')],
    ['all tables of M', () => lab.inside('h2', 'm', vni, 'nft', 'flush ruleset')],
    [
      'an FDB row of N',
      async () => {
        const mac = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.MacAddress}}', 'two')
        await lab.inside('h1', 'n', vni, 'bridge', 'fdb', 'del', mac, 'dev', 'vx0', 'self')
      },
    ],
    ['the link to the host', () => lab.exec('h2', 'ip', 'link', 'del', 'weft0')],
    ['the accept in DOCKER-USER', () => lab.exec('h2', 'iptables', '-F', 'DOCKER-USER')],
  ]
  for (const [what, breaks] of cases) {
    const before = JSON.stringify([await repairs('h1'), await repairs('h2')])
    await breaks()
    await sleep(1000)
    t.ok((await works()) && (await reaches()), `${what}: repaired`)
    t.not(JSON.stringify([await repairs('h1'), await repairs('h2')]), before, `${what}: counted`)
  }
  t.match(await lab.exec('h2', 'nft', 'list table inet foreign'), /chain mine/, 'what is not ours is there')
  await lab.exec('h2', 'nft', 'delete table inet foreign')
})

t.test('dockerd killed and started with live-restore: no packet lost, nothing released', async t => {
  const lost = ping(4)
  await sleep(500)
  await lab.ok('kill', 'h2', 'dockerd')
  await sleep(1000)
  await lab.ok('start', 'h2', 'dockerd')
  t.ok(await lab.until(async () => (await lab.tryDocker('h2', 'ps', '-q')).out !== '', 20_000))
  t.equal(await lost(), 0)
  t.match(await lab.weft('h1', 'endpoint', 'ls'), /two/)
})

t.test('etcd away: traffic and names go on, docker stop does not wait; back: all is right', async t => {
  await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'goes', 'busybox', ...idle)
  const lost = ping(15)
  await lab.ok('kill', 'store', 'etcd')
  await sleep(2500)
  t.equal((await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '2', 'two')).code, 0, 'names')
  const from = Date.now()
  await lab.docker('h1', 'rm', '-f', 'goes')
  t.ok(Date.now() - from < 5000, `docker rm -f took ${Date.now() - from} ms`)
  const run = Date.now()
  const answer = await lab.tryDocker('h1', 'run', '--rm', '--network', 'app', 'busybox', 'true')
  t.ok(Date.now() - run < 15_000, `docker run answered after ${Date.now() - run} ms`)
  if (answer.code !== 0) t.match(answer.err, /etcd|store/)
  t.equal((await lab.try('weft', 'h1', 'status')).code, 1, 'status is loud')
  await lab.ok('start', 'store', 'etcd')
  t.ok(await lab.until(async () => (await lab.try('weft', 'h1', 'status')).code === 0, 15_000), 'right again')
  t.equal(await lost(), 0)
  t.notMatch(await lab.weft('h1', 'endpoint', 'ls'), /goes/)
  await lab.docker('h1', 'run', '--rm', '--network', 'app', 'busybox', 'ping', '-c', '1', '-W', '2', 'two')
})

t.test('etcd emptied while we run: not one row goes, status is loud, accepting it makes it so', async t => {
  const ended = monitors('h1')
  const backup = await lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/', '--keys-only')
  t.match(backup, /endpoints/)
  await sleep(500)
  await lab.exec('store', 'etcdctl', 'del', '--prefix', '/weft/v1/')
  await sleep(2000)
  t.equal((await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '2', address)).code, 0)
  t.equal(await ended(), '', 'no write to the kernel')
  const status = await lab.try('weft', 'h1', 'status')
  t.equal(status.code, 1)
  t.match(status.out, /not believed: it is empty.*weft store accept/)
  const refused = await lab.tryDocker('h1', 'run', '--rm', '--network', 'app', 'busybox', 'true')
  t.match(refused.err, /store is not believed/)
})

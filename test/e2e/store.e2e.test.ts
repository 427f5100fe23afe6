// SPDX-License-Identifier: Apache-2.0
// The store is away for a minute, emptied, restored from an older copy, swapped for another: packets and names go on,
// not one row leaves the kernel, and weft status is loud until the right one is back or an operator accepts it.
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openAgreement } from './agree.ts'
import { idle, openLab } from './lab.ts'
import { startMonitors, startPing } from './witness.ts'

const lab = await openLab('store', 2)
t.teardown(() => lab.close())
const { agree } = openAgreement(lab, ['h1', 'h2'])
const state = `${process.env['WEFT_LAB_DIR'] ?? '/var/lib/weft-lab'}/store/s1`

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await lab.shows('h2', 'app')
const run = (host: string, name: string) =>
  lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)
await run('h1', 'one')
await run('h2', 'two')
const vni = await lab.vni('h1', 'app')
const address = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'two')
const reaches = async (): Promise<boolean> =>
  (await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '2', address)).code === 0
const names = async (): Promise<boolean> => (await lab.tryDocker('h1', 'exec', 'one', 'nslookup', 'two')).code === 0
const right = async (): Promise<boolean> =>
  (await Promise.all(['h1', 'h2'].map(host => lab.try('weft', host, 'status')))).every(({ code }) => code === 0)
/** Is all right within `ms`? If not, what `weft status` says is printed. */
const isRight = async (t: Test, ms: number, what: string): Promise<void> => {
  const came = await lab.until(right, ms)
  if (!came) for (const host of ['h1', 'h2']) t.comment((await lab.try('weft', host, 'status')).out)
  t.ok(came, what)
}
/** Is every weftd loud, and does Docker's user hear it? */
const loud = async (t: Test, why: RegExp): Promise<void> => {
  for (const host of ['h1', 'h2']) {
    const status = await lab.until(async () => {
      const answer = await lab.try('weft', host, 'status')
      return answer.code === 1 && why.test(answer.out) ? answer : undefined
    }, 15_000)
    t.ok(status, `${host} says so`)
  }
  const refused = await lab.tryDocker('h1', 'run', '--rm', '--network', 'app', 'busybox', 'true')
  t.not(refused.code, 0)
  t.match(refused.err, /store is not believed/)
}
/** With etcd stopped: its data goes aside and something else takes its place. */
const swap = async (work: () => Promise<void>): Promise<void> => {
  await lab.ok('stop', 'store', 'etcd')
  await work()
  await lab.ok('start', 'store', 'etcd')
}
const shell = (command: string) => lab.exec('store', 'sh', '-c', command)
const revision = () => shell('etcdctl get / -w json | sed "s/.*\\"revision\\":\\([0-9]*\\).*/\\1/"').then(Number)
/** Of the store as it is: held for a moment, as an outage long enough to lose a lease would make it write again. */
const copyTo = async (folder: string): Promise<void> => {
  const pid = await shell(`cat ${state}/etcd.pid`)
  for (let tries = 0; tries < 10; tries++) {
    const before = await revision()
    await shell(`rm -rf ${folder}; kill -STOP ${pid}; cp -a ${state}/data ${folder}; kill -CONT ${pid}`)
    if ((await lab.until(right)) && (await revision()) === before) return
  }
  throw new Error('the store does not come to rest')
}

const status = async (host: string) =>
  JSON.parse((await lab.try('weft', host, 'status', '-o', 'json')).out) as { unpublished: number; spares: number }
const spares = async (): Promise<string[]> =>
  (await lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/addresses/', '--print-value-only'))
    .split('\n')
    .filter(line => line.includes('"spare"'))

t.test('a minute without etcd', async t => {
  await run('h1', 'goes')
  const full = 2 * 16 // of both families
  t.ok(await lab.until(async () => (await status('h1')).spares === full), 'the reserve of h1')
  t.ok(await lab.until(async () => (await spares()).length === 2 * full), 'of both hosts')
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'leaves')
  await lab.shows('h2', 'leaves')
  await lab.docker('h1', 'run', '-d', '--network', 'leaves', '--name', 'leaver', 'busybox', ...idle)
  const lost = startPing(lab, 'h1', 'one', address, 60)
  await lab.ok('kill', 'store', 'etcd')
  const from = Date.now()
  await sleep(2500)
  t.ok(await names(), 'names')
  const timed = async <T>(limitMs: number, what: string, work: Promise<T>): Promise<T> => {
    const start = Date.now()
    const result = await work
    t.ok(Date.now() - start < limitMs, `${what} took ${Date.now() - start} ms`)
    return result
  }
  const pings = async (host: string, from: string, to: string): Promise<boolean> =>
    (await lab.tryDocker(host, 'exec', from, 'ping', '-c', '1', '-W', '2', to)).code === 0
  await timed(5000, 'docker stop', lab.docker('h1', 'stop', '-t', '0', 'goes'))
  await timed(5000, 'docker rm -f', lab.docker('h1', 'rm', '-f', 'goes'))
  await timed(5000, 'docker rm -f of the last of its network', lab.docker('h1', 'rm', '-f', 'leaver'))
  await timed(5000, 'docker network rm', lab.docker('h1', 'network', 'rm', 'leaves'))
  await timed(10_000, 'docker run', run('h1', 'born'))
  const [bornV4, bornV6] = (
    await lab.docker(
      'h1',
      'inspect',
      '-f',
      '{{with .NetworkSettings.Networks.app}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}',
      'born',
    )
  ).split(' ') as [string, string]
  t.ok(await pings('h1', 'one', bornV4))
  t.ok(await pings('h1', 'one', bornV6))
  t.ok(await pings('h1', 'born', 'one'))
  t.ok(await lab.until(() => pings('h1', 'one', 'born')), 'by name')
  await timed(10_000, 'docker run of a second', run('h1', 'brief'))
  await timed(5000, 'docker rm -f of it', lab.docker('h1', 'rm', '-f', 'brief'))
  for (const [what, ...flags] of [
    ['a port', '-p', '8099:80'],
    ['a MAC address of choice', '--mac-address', '02:42:00:00:00:01'],
  ] as const) {
    const none = ['run', '--rm', '--network', 'app', ...flags, 'busybox', 'true']
    const answer = await timed(10_000, `docker run with ${what}`, lab.tryDocker('h1', ...none))
    t.not(answer.code, 0)
    t.match(answer.err, /etcd/, what)
  }
  const { code, out } = await lab.try('weft', 'h1', 'status')
  t.equal(code, 1, 'status is loud')
  t.match(out, /1 endpoints not published yet/)
  t.match(await lab.weft('h1', 'endpoint', 'ls'), /born .*not published yet/)
  await lab.ok('kill', 'h1', 'weftd')
  await lab.ok('start', 'h1', 'weftd')
  t.ok(await lab.until(async () => (await status('h1').catch(() => undefined))?.unpublished === 1), 'known again')
  t.ok(await pings('h1', 'one', bornV4), 'kept over a crash')
  await timed(10_000, 'docker run after the crash', run('h1', 'late'))
  t.ok(await lab.until(() => pings('h1', 'late', 'born')))
  await sleep(58_000 - (Date.now() - from))
  t.ok(await names(), 'names, still')
  await lab.ok('start', 'store', 'etcd')
  const back = Date.now()
  t.ok(await lab.until(() => pings('h2', 'two', bornV4), 5000))
  t.comment(`reached from h2 ${Date.now() - back} ms after etcd answered`)
  t.ok(await lab.until(right, 5000 - (Date.now() - back)), `right again ${Date.now() - back} ms after etcd answered`)
  const left = async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=^leaves$')) === ''
  t.ok(await lab.until(left, 5000 - (Date.now() - back)), 'the network that was removed meanwhile is gone everywhere')
  t.equal(await lost(), 0, 'packets lost')
  t.ok(await lab.until(() => pings('h2', 'two', 'born')), 'by name')
  t.ok(await pings('h2', 'two', bornV6))
  t.equal((await status('h1')).unpublished, 0)
  await lab.docker('h1', 'run', '--rm', '--network', 'app', 'busybox', 'ping', '-c', '1', '-W', '2', 'two')
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
  await lab.docker('h1', 'rm', '-f', 'born', 'late')
  t.ok(await lab.until(async () => (await spares()).length === 2 * full), 'reserves are full again')
  t.same((await agree()).wrong, [])
})

for (const weftd of ['while we run', 'while we are down'] as const) {
  const during = async (work: () => Promise<void>): Promise<void> => {
    const hosts = weftd === 'while we run' ? [] : ['h1', 'h2']
    for (const host of hosts) await lab.ok('kill', host, 'weftd')
    await work()
    for (const host of hosts) await lab.ok('start', host, 'weftd')
  }

  t.test(`emptied ${weftd}`, async t => {
    const ended = startMonitors(lab, 'h1', vni)
    await sleep(500)
    await copyTo(`${state}/right`)
    await during(() => shell('etcdctl del --prefix /weft/v1/').then(() => {}))
    await loud(t, /not believed: it is empty.*weft store accept/)
    t.ok(await reaches())
    t.ok(await names())
    t.equal(await ended(), '', 'no write to the kernel')
    await swap(() => shell(`rm -rf ${state}/data; cp -a ${state}/right ${state}/data`).then(() => {}))
    await isRight(t, 20_000, 'the right one is back, and believed by itself')
    const { wrong, note } = await agree()
    t.same(wrong, [], note)
  })

  t.test(`swapped for another ${weftd}`, async t => {
    const ended = startMonitors(lab, 'h1', vni)
    await sleep(500)
    await during(() => swap(() => shell(`mv ${state}/data ${state}/right.2`).then(() => {})))
    await loud(t, /not believed: /)
    t.ok(await reaches())
    t.ok(await names())
    t.equal(await ended(), '', 'no write to the kernel')
    await swap(() => shell(`rm -rf ${state}/data; mv ${state}/right.2 ${state}/data`).then(() => {}))
    await isRight(t, 20_000, 'believed again')
  })

  t.test(`restored from an older copy ${weftd}`, async t => {
    await swap(() => shell(`rm -rf ${state}/older; cp -a ${state}/data ${state}/older`).then(() => {}))
    await isRight(t, 20_000, 'right')
    await run('h2', 'young')
    t.same((await agree()).wrong, [])
    const ended = startMonitors(lab, 'h1', vni)
    await sleep(500)
    await during(() =>
      swap(() => shell(`mv ${state}/data ${state}/newest; cp -a ${state}/older ${state}/data`).then(() => {})),
    )
    await loud(t, /not believed: /)
    t.ok(await reaches())
    t.equal(
      (await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '2', 'young')).code,
      0,
      'the young one too',
    )
    t.equal(await ended(), '', 'no write to the kernel')
    await swap(() => shell(`rm -rf ${state}/data; mv ${state}/newest ${state}/data`).then(() => {}))
    await isRight(t, 20_000, 'believed again')
    await lab.docker('h2', 'rm', '-f', 'young')
    const { wrong, note } = await agree()
    t.same(wrong, [], note)
  })
}

t.test('a snapshot that is meant, restored as etcd says: accepted, it is the state', async t => {
  const file = `${state}/snapshot`
  await shell(`etcdctl snapshot save ${file}`)
  await run('h2', 'young')
  const peer = 'http://10.9.0.241:2380'
  const member = `--name s1 --initial-cluster s1=${peer} --initial-advertise-peer-urls ${peer} --data-dir ${state}/data`
  await swap(() => shell(`rm -rf ${state}/data; etcdctl snapshot restore ${file} ${member}`).then(() => {}))
  await loud(t, /not believed: /)
  for (const host of ['h1', 'h2']) await lab.weft(host, 'store', 'accept')
  await isRight(t, 20_000, 'right')
  await lab.docker('h2', 'restart', '-t', '0', 'young')
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
})

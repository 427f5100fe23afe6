// SPDX-License-Identifier: Apache-2.0
// Records that a newer weft wrote, that somebody damaged or removed: packets go on, not one row leaves the kernel, and
// weft status names them until they are right again.
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { openAgreement } from './agree.ts'
import { idle, openLab } from './lab.ts'
import { startMonitors } from './witness.ts'

const lab = await openLab('rec', 2)
t.teardown(() => lab.close())
const { agree } = openAgreement(lab, ['h1', 'h2'])
const etcdctl = (...args: string[]) => lab.exec('store', 'etcdctl', ...args)
const get = (key: string) => etcdctl('get', '--print-value-only', `/weft/v1/${key}`)
const put = (key: string, value: string) => etcdctl('put', `/weft/v1/${key}`, value)
const parsed = (text: string): unknown => (text.trim().startsWith('{') ? JSON.parse(text) : undefined)
const right = async (): Promise<boolean> =>
  (await Promise.all(['h1', 'h2'].map(host => lab.try('weft', host, 'status')))).every(({ code }) => code === 0)
const says = (host: string, what: RegExp) =>
  lab.until(async () => {
    const { code, out } = await lab.try('weft', host, 'status')
    return code === 1 && what.test(out)
  }, 15_000)

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'app')
await lab.shows('h2', 'app')
const run = (host: string, name: string) =>
  lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)
await run('h1', 'one')
await run('h2', 'two')
const vni = await lab.vni('h1', 'app')
const { id } = JSON.parse(await lab.weft('h1', 'network', 'show', 'app', '-o', 'json')) as { id: string }
const ping = async () => (await lab.tryDocker('h1', 'exec', 'one', 'ping', '-c', '1', '-W', '2', 'two')).code
t.test('all is well before', async t => {
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
  await sleep(35_000) // a new bridge tells of its ports again, within its forward delays
})

for (const [key, damage] of [
  ['nodes/h2', () => 'garbage'],
  [`networks/${id}`, (text: string) => text.replace(/"mtu":(\d+)/, '"mtu":"$1"')],
  ['cluster', (text: string) => text.replace('"v":1', '"v":2')],
] as const)
  t.test(`${key.slice(0, 12)} cannot be read`, async t => {
    const ended = startMonitors(lab, 'h1', vni)
    await sleep(500)
    const good = await get(key)
    await put(key, damage(good))
    if (key === 'nodes/h2') {
      const whole = async () => isDeepStrictEqual(parsed(await get(key)), parsed(good))
      t.ok(await lab.until(whole, 10_000), 'h2 writes its own again')
    } else {
      t.ok(await says('h1', new RegExp(key)), 'status names it')
      await lab.ok('kill', 'h1', 'weftd')
      await lab.ok('start', 'h1', 'weftd')
      t.ok(await says('h1', new RegExp(key)), 'after the restart too')
    }
    t.equal(await ping(), 0)
    t.equal(await ended(), '', 'no write to the kernel')
    await put(key, good)
    t.ok(await lab.until(right, 20_000), 'right again')
  })

t.test('the record of a node removed: it writes it again, and keeps all it has', async t => {
  const before = JSON.parse(await get('nodes/h1')) as { number: number }
  const ended = startMonitors(lab, 'h1', vni)
  await sleep(500)
  await etcdctl('del', '/weft/v1/nodes/h1')
  t.ok(await lab.until(async () => (await get('nodes/h1')) !== '', 10_000))
  t.equal((JSON.parse(await get('nodes/h1')) as { number: number }).number, before.number)
  t.ok(await lab.until(right, 20_000))
  t.equal(await ping(), 0)
  t.equal(await ended(), '', 'no write to the kernel')
})

t.test('claims that cannot be read stop no network; what is refused exits as such', async t => {
  await put('pools/garbage', '{"v":1,"network":"n","node":"h1","settled":true}')
  await lab.weft('h2', 'network', 'create', 'more')
  t.ok(await says('h2', /pools\/garbage/))
  await etcdctl('del', '/weft/v1/pools/garbage')
  const refused = await lab.try('weft', 'h2', 'network', 'create', 'bad', '--opt', 'weft.foo=1')
  t.match(refused, { code: 2, err: /^weft: option weft\.foo is unknown/ })
  t.ok(await lab.until(right, 20_000))
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
})

// SPDX-License-Identifier: Apache-2.0
// A network goes while a host is away, and another of its name comes: who returns removes the replica of the old one,
// and never takes it for one of the new.
import t from 'tap'
import { idle, openLab } from './lab.ts'

const lab = await openLab('away', 2)
t.teardown(() => lab.close())

const id = async (host: string, name = 'app'): Promise<string> =>
  (await lab.docker(host, 'network', 'ls', '-q', '--no-trunc', '-f', `name=^${name}$`)).trim()
const create = (host: string, ...options: string[]) =>
  lab.docker(host, 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...options, 'app')
const subnet = (host: string): Promise<string> =>
  lab.docker(host, 'network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'app')
const clusterId = async (): Promise<string> =>
  (JSON.parse(await lab.weft('h1', 'network', 'show', 'app', '-o', 'json')) as { id: string }).id
const run = (host: string, name: string) =>
  lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)
const reaches = async (host: string, from: string, to: string): Promise<boolean> =>
  (await lab.tryDocker(host, 'exec', from, 'ping', '-c', '1', '-W', '1', to)).code === 0
/** Patience is the TTL of presence: a host that has just gone is asked. */
const gone = (): Promise<boolean> =>
  lab.until(async () => (await lab.try('weft', 'h1', 'network', 'show', 'app')).code !== 0, 40_000)

t.test('weftd was stopped: the old replica goes', async t => {
  await create('h1')
  t.ok(await lab.until(() => id('h2')))
  const old = await id('h2')
  await lab.ok('stop', 'h2', 'weftd')
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await gone(), 'who is away is not waited for')
  t.equal(await id('h2'), old)
  await lab.ok('start', 'h2', 'weftd')
  t.ok(await lab.until(async () => (await id('h2')) === '', 20_000))
})

t.test('weftd was stopped, and there is a new one of the name: a new replica', async t => {
  await create('h1', '--subnet', '10.71.0.0/24')
  t.ok(await lab.until(() => id('h2')))
  const old = await id('h2')
  const before = await clusterId()
  await lab.ok('stop', 'h2', 'weftd')
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await gone())
  await create('h1', '--subnet', '10.72.0.0/24')
  t.not(await clusterId(), before)
  await run('h1', 'one')
  await lab.ok('start', 'h2', 'weftd')
  t.ok(await lab.until(async () => ![old, ''].includes(await id('h2')), 20_000), 'not the old one')
  t.equal(await subnet('h2'), '10.72.0.0/24')
  await run('h2', 'two')
  t.ok(await lab.until(() => reaches('h2', 'two', 'one')))
  await lab.docker('h2', 'rm', '-f', 'two')
  await lab.docker('h1', 'rm', '-f', 'one')
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await gone())
  t.ok(await lab.until(async () => (await id('h2')) === '', 20_000))
})

t.test('a container that does not run keeps its network, whoever removes that elsewhere', async t => {
  await create('h1')
  t.ok(await lab.until(() => id('h2')))
  await run('h2', 'kept')
  await lab.docker('h2', 'stop', '-t', '0', 'kept')
  const network = await clusterId()
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await lab.until(() => id('h1'), 20_000), 'the replica is back')
  t.equal(await clusterId(), network)
  const { out } = await lab.try('weft', 'h1', 'status')
  t.match(out, /network app was to be removed and stays .*: host h2 has containers on it, running or stopped: kept/)
  await lab.docker('h2', 'start', 'kept')
  await run('h1', 'one')
  t.ok(await lab.until(() => reaches('h1', 'one', 'kept')))
  await lab.docker('h1', 'rm', '-f', 'one')
  await lab.docker('h2', 'rm', '-f', 'kept')
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await gone())
  t.ok(await lab.until(async () => (await id('h2')) === '', 20_000))
})

t.test('the whole host was away, with a stopped container on it: named as a problem, and gone with it', async t => {
  await create('h1', '--subnet', '10.73.0.0/24')
  t.ok(await lab.until(() => id('h2')))
  const old = await id('h2')
  await run('h2', 'left')
  await lab.docker('h2', 'stop', '-t', '0', 'left')
  for (const what of ['weftd', 'dockerd']) await lab.ok('kill', 'h2', what)
  await lab.docker('h1', 'network', 'rm', 'app')
  t.ok(await gone())
  await create('h1', '--subnet', '10.74.0.0/24')
  for (const what of ['weftd', 'dockerd']) await lab.ok('start', 'h2', what)
  const problem = async () => (await lab.try('weft', 'h2', 'status')).out
  t.ok(
    await lab.until(
      async () => /cluster network is gone, but containers here still use it/.test(await problem()),
      30_000,
    ),
    await problem(),
  )
  t.ok(
    await lab.until(async () => /a network that is not this one has its name here/.test(await problem()), 30_000),
    await problem(),
  )
  t.equal(await id('h2'), old, 'a container has it')
  const start = await lab.tryDocker('h2', 'start', 'left')
  t.not(start.code, 0)
  t.match(start.err, /belongs to no network of the cluster/)
  await lab.docker('h2', 'rm', 'left')
  t.ok(await lab.until(async () => ![old, ''].includes(await id('h2')), 60_000), 'the new one takes its place')
  t.equal(await subnet('h2'), '10.74.0.0/24')
  await run('h1', 'one')
  await run('h2', 'two')
  t.ok(await lab.until(() => reaches('h2', 'two', 'one')))
})

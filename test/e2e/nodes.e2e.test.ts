// SPDX-License-Identifier: Apache-2.0
// A host's place in the cluster: drained, dead and fenced, cut off and fenced, back; and nobody else under its name.
import t from 'tap'
import { idle, openLab } from './lab.ts'

const lab = await openLab('node', 2)
t.teardown(() => lab.close())
const address = (host: string, container: string): Promise<string> =>
  lab.docker(host, 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', container)
const run = (host: string, name: string, ...options: string[]) =>
  lab.tryDocker(host, 'run', '-d', '--network', 'app', '--name', name, ...options, 'busybox', ...idle)
const reaches = async (host: string, from: string, to: string): Promise<boolean> =>
  (await lab.tryDocker(host, 'exec', from, 'ping', '-c', '1', '-W', '1', to)).code === 0
const node = async (name: string): Promise<{ state: string; number: number }> =>
  JSON.parse(await lab.weft('h1', 'node', 'show', name, '-o', 'json'))
/** Patience is the TTL of presence and some seconds of a busy machine. */
const fenced = async (name: string) =>
  lab.until(async () => {
    const answer = await lab.try('weft', 'h1', 'node', 'rm', name)
    return answer.code === 0 ? answer.out : undefined
  }, 30_000)

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--subnet', '10.70.0.0/24', 'app')
await lab.shows('h2', 'app')
await run('h1', 'one')
await run('h2', 'two', '-p', '8080:80')

t.test('exit codes of the command line', async t => {
  const cases: [number, string[], RegExp][] = [
    [0, ['node', 'ls'], /h2/],
    [0, ['--help'], /Usage: weft/],
    [0, ['node', 'drain', '--help'], /started or restarted/],
    [1, ['node', 'rm', 'h2'], /node h2 is alive: stop weftd there first/],
    [2, ['node', 'frobnicate'], /--help/],
    [2, ['node', 'ls', '--output', 'csv'], /json/],
    [4, ['node', 'show', 'h9'], /no node "h9": see weft node ls/],
    [4, ['network', 'show', 'nowhere'], /nowhere/],
  ]
  for (const [code, args, says] of cases) {
    const answer = await lab.try('weft', 'h1', ...args)
    t.equal(answer.code, code, `weft ${args.join(' ')}`)
    t.match(answer.out + answer.err, says)
  }
  t.equal(
    (await lab.try('exec', 'h1', 'stat', '-c', '%a', '/run/weft/weft.sock')).out,
    '600',
    'the socket is ours alone',
  )
  const dead = await lab.try('weft', 'h1', '--api', 'unix:///run/nobody.sock', 'node', 'ls')
  t.equal(dead.code, 1)
  t.match(dead.err, /weftd.*\/run\/nobody\.sock/)
})

t.test('a drained node starts no containers, new or old, and keeps those it has', async t => {
  t.match(await lab.weft('h1', 'node', 'drain', 'h2'), /h2 drained/)
  const refused = await run('h2', 'new')
  t.not(refused.code, 0)
  t.match(refused.err, /node h2 is drained, .*start it elsewhere, or weft node drain --undo h2/)
  t.ok(await reaches('h1', 'one', await address('h2', 'two')))
  t.match((await lab.tryDocker('h2', 'restart', '-t', '0', 'two')).err, /no container is started or restarted there/)
  await lab.weft('h1', 'node', 'drain', '--undo', 'h2')
  await lab.docker('h2', 'start', 'two')
  await lab.docker('h2', 'start', 'new')
  t.ok(await reaches('h1', 'one', await address('h2', 'new')))
})

t.test('a dead node is fenced: what it held is free; it comes back with another number', async t => {
  const old = await address('h2', 'two')
  const { number } = await node('h2')
  await lab.ok('kill', 'h2', 'weftd')
  t.match((await lab.try('weft', 'h1', 'node', 'rm', 'h2')).err, /is alive/, 'its lease has not run out yet')
  t.match(await fenced('h2'), /h2 fenced, 2 endpoints freed/)
  t.match(await lab.weft('h1', 'endpoint', 'ls'), /one/)
  t.notMatch(await lab.weft('h1', 'endpoint', 'ls'), /two/)
  const heir = await run('h1', 'heir', '--ip', old)
  t.equal(heir.code, 0, heir.err)
  await lab.ok('start', 'h2', 'weftd')
  t.ok(await lab.until(async () => (await node('h2').catch(() => undefined))?.state === 'up'))
  t.not((await node('h2')).number, number)
  t.notOk(await reaches('h2', 'two', await address('h1', 'one')), 'the port of its old container is down')
  t.ok(await reaches('h1', 'one', old), "and the address is the heir's")
  await lab.docker('h2', 'restart', '-t', '0', 'two')
  t.ok(await reaches('h2', 'two', await address('h1', 'one')), 'started again it has an address of its own')
  await lab.docker('h1', 'rm', '-f', 'heir')
})

t.test('a node that was only cut off from the store, and fenced meanwhile, joins again by itself', async t => {
  const { number } = await node('h2')
  const nft = (...args: string[]) => lab.exec('h2', 'nft', ...args)
  await nft('add table inet cut; add chain inet cut out { type filter hook output priority -300; }')
  await nft('add rule inet cut out ip daddr 10.9.0.241 drop')
  t.match(await fenced('h2'), /h2 fenced/)
  t.ok(await reaches('h1', 'one', await address('h1', 'one')))
  await nft('delete table inet cut')
  t.ok(await lab.until(async () => (await node('h2').catch(() => undefined))?.state === 'up', 30_000))
  t.not((await node('h2')).number, number)
  t.ok(await lab.until(async () => !(await reaches('h2', 'two', await address('h1', 'one')))), 'its old port is down')
  await lab.docker('h2', 'restart', '-t', '0', 'two')
  t.ok(await reaches('h1', 'one', await address('h2', 'two')))
})

t.test('a second agent under a living name, or with its VTEP, refuses to start', async t => {
  const twin = (...flags: string[]) => {
    const paths = [
      '--data-dir',
      '/run/twin',
      '--api-socket',
      '/run/twin.sock',
      '--plugin-socket',
      '/run/twin-plugin.sock',
    ]
    const store = ['--store', 'etcd://10.9.0.241:2379', '--docker', 'unix:///run/docker.sock']
    return lab.try('exec', 'h2', process.execPath, 'dist/main.js', ...paths, ...store, ...flags)
  }
  await lab.exec('h2', 'ip', 'address', 'add', '10.9.0.12/24', 'dev', 'eth0')
  const named = await twin('--node', 'h1', '--vtep', '10.9.0.12')
  t.equal(named.code, 1)
  t.match(named.out + named.err, /node name h1 is alive elsewhere \(VTEP 10\.9\.0\.1, .*choose another --node/)
  const placed = await twin('--node', 'h7', '--vtep', '10.9.0.2')
  t.equal(placed.code, 1)
  t.match(placed.out + placed.err, /VTEP 10\.9\.0\.2 belongs to node h2/)
  t.ok(await reaches('h1', 'one', await address('h2', 'two')), 'nothing was done to those who live')
})

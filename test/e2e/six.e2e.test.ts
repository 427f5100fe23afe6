// SPDX-License-Identifier: Apache-2.0
// Networks of IPv6 alone (engines since 28): names are known on every host, through Docker's own server, which asks the
// resolver's IPv6 address; on --internal networks, for containers of Docker's own IPv6 bridges, whichever network a
// container leaves, and after weftd has been away.
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { openAgreement } from './agree.ts'
import { idle, openLab, server } from './lab.ts'
import { leaveInTurn } from './leaving.ts'
import { startMonitors } from './witness.ts'

const ours = 'fd69:7765:6674:ffff::53'
const outsideServer = '2001:db8::10'
const lab = await openLab('six', 2, '--engine', '28', '--dns', outsideServer)
t.teardown(() => lab.close())

const script = `
const { Resolver } = require('node:dns/promises')
const [server, name, type] = process.argv.slice(1)
const resolver = new Resolver({ timeout: 4000, tries: 1 })
resolver.setServers([server])
const ask = type === 'PTR' ? resolver.reverse(name) : resolver.resolve(name, type)
ask.then(found => found.map(one => one.name ?? one).sort().join(), error => error.code)
  .then(answer => console.log(answer), () => {})`
/** Records of that type, joined, or the error's code; asks Docker's own server. */
const ask = async (host: string, container: string, name: string, type = 'AAAA', server = '127.0.0.11') =>
  (
    await lab.within(
      host,
      container,
      process.execPath,
      '-e',
      script,
      server.includes(':') ? `[${server}]` : server,
      name,
      type,
    )
  ).trim()
const addressOf = (host: string, container: string, network: string): Promise<string> =>
  lab.docker(host, 'inspect', '-f', `{{(index .NetworkSettings.Networks "${network}").GlobalIPv6Address}}`, container)
const run = (host: string, name: string, network: string, ...options: string[]) =>
  lab.docker(host, 'run', '-d', '--network', network, '--name', name, ...options, 'busybox', ...idle)

/** Outside: answers any AAAA with 2001:db8::7. */
const outside = lab.background(
  'exec',
  'client',
  process.execPath,
  '-e',
  `const socket = require('node:dgram').createSocket('udp6')
socket.on('message', (query, from) => {
  const end = query.indexOf(0, 12) + 5
  const answer = Buffer.concat([query.subarray(0, end), Buffer.from('c00c001c0001000000050010' + '20010db8000000000000000000000007', 'hex')])
  answer[2] |= 0x80
  answer.writeUInt16BE(1, 6)
  answer.writeUInt32BE(0, 8)
  socket.send(answer, from.port, from.address)
})
socket.bind(53, '::', () => console.log('listening'))`,
)
await lab.until(async () => outside.out().includes('listening'))

const six = '--ipv4=false --ipv6'
const create = async (name: string, ...flags: string[]): Promise<void> => {
  await lab.docker(
    'h1',
    'network',
    'create',
    '-d',
    'weft',
    '--ipam-driver',
    'weft',
    ...flags.join(' ').split(' '),
    name,
  )
  const there = async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', `name=^${name}$`)) !== ''
  if (!(await lab.until(there))) throw new Error(`${name} is not on h2`)
}
await create('app', six)
await create('inner', six, '--internal')
await create('mixed', '--ipv6')
await run('h1', 'asks', 'app')
await run('h2', 'db', 'app', '--network-alias', 'store', '--hostname', 'dbhost')
const compose = ['--label', 'com.docker.compose.project=shop', '--label', 'com.docker.compose.service=web']
await run('h2', 'shop_web_1', 'app', ...compose)
const db = await addressOf('h2', 'db', 'app')
const known = (name: string, host = 'h1', container = 'asks') =>
  lab.until(async () => /^fd/.test(await ask(host, container, name)))
await known('shop_web_1')

t.test('by every name, from the other host', async t => {
  t.equal(await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'asks'), '')
  const id = (await lab.docker('h2', 'inspect', '-f', '{{.Id}}', 'db')).slice(0, 12)
  for (const name of ['db', 'DB', 'store', 'dbhost', id, 'db.app.weft']) {
    t.equal(await ask('h1', 'asks', name), db, `${name} AAAA`)
    t.equal(await ask('h1', 'asks', name, 'A'), 'ENODATA', `${name} A: the name is known, and has none`)
  }
  const web = await addressOf('h2', 'shop_web_1', 'app')
  for (const name of ['web', 'tasks.web']) t.equal(await ask('h1', 'asks', name), web, name)
  t.equal(await ask('h1', 'asks', 'h2.weft', 'A'), '10.9.0.2')
  t.equal(await ask('h1', 'asks', 'nobody.weft'), 'ENOTFOUND')
  t.equal(await ask('h1', 'asks', db, 'PTR', ours), 'db.app.weft')
  await run('h2', 'sells', 'app', '-p', '5432:5432')
  t.ok(await lab.until(async () => (await ask('h1', 'asks', '_5432._tcp.sells', 'SRV')) === 'sells.app.weft'))
  await lab.docker('h2', 'rm', '-f', 'sells')
  t.equal(await ask('h1', 'asks', 'example.com'), '2001:db8::7', 'what is not ours goes on')
  await lab.docker('h1', 'exec', 'asks', 'ping', '-c', '1', '-W', '2', 'db')
})

t.test("a service's virtual address", async t => {
  for (const host of ['h1', 'h2']) await run(host, `api-${host}`, 'app', '--label', 'weft.service=api')
  const vips = async (): Promise<string[]> =>
    (JSON.parse(await lab.weft('h1', 'service', 'ls', '-o', 'json')) as { name: string; vips: string[] }[]).find(
      ({ name }) => name === 'api',
    )?.vips ?? []
  t.ok(await lab.until(async () => (await vips()).length > 0, 30_000))
  const vip = (await vips()).join()
  t.ok(await lab.until(async () => (await ask('h1', 'asks', 'api')) === vip), vip)
  const both = [await addressOf('h1', 'api-h1', 'app'), await addressOf('h2', 'api-h2', 'app')].sort().join()
  t.ok(await lab.until(async () => (await ask('h1', 'asks', 'tasks.api')) === both), both)
  for (const host of ['h1', 'h2']) await lab.docker(host, 'rm', '-f', `api-${host}`)
})

t.test('on an --internal network', async t => {
  await run('h1', 'in1', 'inner')
  await run('h2', 'in2', 'inner')
  const in2 = await addressOf('h2', 'in2', 'inner')
  t.ok(await known('in2', 'h1', 'in1'))
  t.equal(await ask('h1', 'in1', 'in2'), in2)
  t.equal(await ask('h1', 'in1', 'in2', 'AAAA', ours), in2)
  t.equal(await ask('h1', 'in1', 'example.com', 'AAAA', ours), 'EREFUSED', 'no way out')
})

t.test('in a network of both families, at either address', async t => {
  await run('h1', 'm1', 'mixed')
  await run('h2', 'm2', 'mixed')
  t.ok(await known('m2', 'h1', 'm1'))
  for (const server of ['127.0.0.11', '169.254.77.53', ours])
    t.equal(await ask('h1', 'm1', 'm2', 'AAAA', server), await addressOf('h2', 'm2', 'mixed'), server)
})

t.test('whichever of its networks a container leaves', async t => {
  for (const name of ['s1', 's2']) await create(name, six)
  await run('h1', 'moves', 'app')
  const routes = async () =>
    (await lab.within('h1', 'moves', 'ip', '-6', 'route')).split('\n').filter(line => line.startsWith('fd69:'))
  await leaveInTurn(t, lab, routes, async when => {
    t.equal(await ask('h1', 'moves', 'db.app.weft'), db, when)
  })
})

t.test('store, Docker and kernel of both hosts agree; a weftd that starts again writes nothing', async t => {
  const { agree } = openAgreement(lab, ['h1', 'h2'])
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
  t.comment(note)
  await sleep(16_000) // a bridge tells of a new port once more when its forward delay is over
  const ended = startMonitors(lab, 'h1', await lab.vni('h1', 'app'))
  await sleep(500)
  await lab.ok('stop', 'h1', 'weftd')
  await lab.ok('start', 'h1', 'weftd')
  t.ok(await lab.until(async () => (await lab.try('weft', 'h1', 'status')).code === 0))
  t.ok(await known('db'))
  await sleep(500)
  t.equal(await ended(), '', 'kernel writes')
})

t.test("containers of Docker's own bridges with IPv6, and nobody from outside", async t => {
  await lab.docker('h1', ...`network create ${six} --subnet fd55::/64 plain`.split(' '))
  await lab.docker('h1', ...'network create --ipv6 --subnet fd56::/64 beside'.split(' '))
  for (const name of ['plain', 'beside']) {
    await run('h1', `on-${name}`, name)
    t.equal(await ask('h1', `on-${name}`, 'db.app.weft'), db, name)
    t.equal(await ask('h1', `on-${name}`, 'db.app.weft', 'AAAA', ours), db, `${name}, by IPv6`)
    t.equal(await ask('h1', `on-${name}`, 'example.com'), '2001:db8::7', name)
  }
  await lab.exec('router', 'ip', '-6', 'route', 'add', ours, 'via', 'fd09::1')
  const fromOutside = () => lab.exec('router', process.execPath, '-e', script, `[${ours}]`, 'db.app.weft', 'AAAA')
  t.equal(await fromOutside(), 'ETIMEOUT')
})

t.test('weftd dead: outside names go on, ours come back with it', async t => {
  await lab.ok('kill', 'h1', 'weftd')
  for (const container of ['asks', 'on-plain', 'on-beside']) {
    const from = Date.now()
    t.equal(await ask('h1', container, 'example.com'), '2001:db8::7', container)
    t.comment(`${container}: ${Date.now() - from} ms`)
  }
  await lab.ok('start', 'h1', 'weftd')
  t.ok(await known('db'))
})

t.test(
  "weftd --purge leaves nothing of it, and all that is Docker's; its containers start again with the next weftd",
  async t => {
    const status = JSON.parse(await lab.ok('status', '--output', 'json')) as { hosts: { name: string; data: string }[] }
    const dir = `${status.hosts.find(({ name }) => name === 'h1')!.data}/weft`
    const path = (file: string): string => fileURLToPath(new URL(`../../${file}`, import.meta.url))
    const purge = () => lab.try('exec', 'h1', path('scripts/node'), path('dist/main.js'), '--purge', '--data-dir', dir)
    await lab.docker('h1', 'run', '-d', '--name', 'shown', '-p', '8081:80', 'busybox', ...server)
    const hears = () => lab.try('exec', 'client', 'curl', '-s', '-m', '3', 'http://10.9.0.1:8081/')
    t.ok(await lab.until(async () => (await hears()).out === 'hello'))
    const all = ['ps', '-q', '--no-trunc', '--filter', 'status=running']
    const running = (await lab.docker('h1', ...all)).split('\n').sort()
    await lab.exec('h1', 'nft', 'add table inet mine { chain c { tcp dport 7 drop; }; }')

    const refused = await purge()
    t.not(refused.code, 0)
    t.match(refused.err, /stop weftd first/)
    t.equal(await ask('h1', 'asks', 'db'), db, 'nothing is gone then')

    await lab.ok('stop', 'h1', 'weftd')
    t.match(await lab.exec('h1', 'ip', '-6', 'address'), ours)
    const { code, err } = await purge()
    t.equal(code, 0, err)
    const left = async (...command: string[]): Promise<void> => {
      t.notMatch(await lab.exec('h1', ...command), /weft|fd69:|169\.254\.77/, command.join(' '))
    }
    await left('ip', 'netns', 'list')
    await left('ip', 'link')
    for (const family of ['-4', '-6']) {
      await left('ip', family, 'address')
      await left('ip', family, 'route', 'show', 'table', 'all')
    }
    await left('nft', 'list', 'ruleset')
    t.match(await lab.exec('h1', 'nft', 'list', 'table', 'inet', 'mine'), /tcp dport 7 drop/)
    t.same((await lab.docker('h1', ...all)).split('\n').sort(), running)
    t.equal((await hears()).out, 'hello', 'a port that Docker publishes')
    t.same((await purge()).code, 0, 'once more')

    await lab.ok('start', 'h1', 'weftd')
    t.ok(await lab.until(async () => (await lab.docker('h1', 'network', 'ls', '-q', '-f', 'name=^app$')) !== ''))
    await lab.docker('h1', 'restart', '-t', '0', 'asks')
    t.ok(await known('db'))
    await lab.docker('h1', 'exec', 'asks', 'ping', '-c', '1', '-W', '2', 'db')
  },
)

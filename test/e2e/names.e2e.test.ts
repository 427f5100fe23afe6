// SPDX-License-Identifier: Apache-2.0
// Names: what containers are called is known on every host, through Docker's own server in between; what is not ours
// goes on untouched, byte for byte; and a dead weftd costs only our own names.
import { createServer } from 'node:net'
import t from 'tap'
import { idle, openLab } from './lab.ts'
import { leaveInTurn } from './leaving.ts'
import { fileOf } from './proxy.ts'

const lab = await openLab('names', 2)
t.teardown(() => lab.close())

/** Runs in a container's network namespace, with this machine's Node. */
const inside = async (host: string, container: string, script: string, ...args: string[]): Promise<unknown> => {
  const pid = await lab.docker(host, 'inspect', '-f', '{{.State.Pid}}', container)
  const answer = await lab.try('exec', host, 'nsenter', '-t', pid, '-n', process.execPath, '-e', script, ...args)
  if (answer.code !== 0) throw new Error(answer.err)
  return JSON.parse(answer.out)
}
const resolverScript = `
const { Resolver } = require('node:dns/promises')
const [server, name, type] = process.argv.slice(1)
const resolver = new Resolver({ timeout: 4000, tries: 1 })
resolver.setServers([server])
const ttl = { ttl: true }
const asks = {
  A: () => resolver.resolve4(name, ttl),
  AAAA: () => resolver.resolve6(name, ttl),
  SRV: () => resolver.resolveSrv(name),
  PTR: () => resolver.reverse(name),
}
const ask = asks[type]()
const from = Date.now()
ask.then(found => ({ found }), error => ({ error: error.code }))
  .then(answer => console.log(JSON.stringify({ ...answer, ms: Date.now() - from })))`
interface Found {
  readonly found?: readonly unknown[]
  readonly error?: string
  readonly ms: number
}
const docker = '127.0.0.11'
const ours = '169.254.77.53'
const ask = (host: string, container: string, name: string, type = 'A', server = docker): Promise<Found> =>
  inside(host, container, resolverScript, server, name, type) as Promise<Found>
const addresses = async (...query: Parameters<typeof ask>): Promise<string[]> =>
  ((await ask(...query)).found as { address: string }[] | undefined)?.map(one => one.address).sort() ?? []
const addressOf = (host: string, container: string, network: string, six = false): Promise<string> =>
  lab.docker(
    host,
    'inspect',
    '-f',
    `{{(index .NetworkSettings.Networks "${network}").${six ? 'GlobalIPv6Address' : 'IPAddress'}}}`,
    container,
  )
const run = (host: string, name: string, network: string, ...options: string[]) =>
  lab.docker(host, 'run', '-d', '--network', network, '--name', name, ...options, 'busybox', ...idle)

/** Outside: answers any A with 203.0.113.7; other types with the query itself, marked as an answer. */
const outside = lab.background(
  'exec',
  'client',
  process.execPath,
  '-e',
  `const socket = require('node:dgram').createSocket('udp4')
socket.on('message', (query, from) => {
  const answer = Buffer.from(query)
  answer[2] |= 0x80
  let at = 12
  while (query[at] !== 0) at += query[at] + 1
  const record = Buffer.from('c00c00010001000000050004cb007107', 'hex')
  if (query.readUInt16BE(at + 1) === 1 && query.readUInt16BE(10) === 0) {
    answer.writeUInt16BE(1, 6)
    socket.send(Buffer.concat([answer, record]), from.port, from.address)
  } else socket.send(answer, from.port, from.address)
})
socket.bind(53, () => console.log('listening'))`,
)
await lab.until(async () => outside.out().includes('listening'))

for (const [name, ...options] of [
  ['app', '--ipv6'],
  ['inner', '--internal'],
] as const)
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...options, name)
await lab.until(
  async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'driver=weft')).split('\n').length === 2,
)
await run('h1', 'asks', 'app')
await run('h2', 'db', 'app', '--network-alias', 'store', '--hostname', 'dbhost', '-p', '5432:5432')
await run(
  'h2',
  'shop_web_1',
  'app',
  '--label',
  'com.docker.compose.project=shop',
  '--label',
  'com.docker.compose.service=web',
)
const db4 = await addressOf('h2', 'db', 'app')
const db6 = await addressOf('h2', 'db', 'app', true)
const known = (name: string) => lab.until(async () => (await addresses('h1', 'asks', name)).length > 0)

t.test('by every name that it has, in both families, on the other host', async t => {
  await known('shop_web_1')
  const id = (await lab.docker('h2', 'inspect', '-f', '{{.Id}}', 'db')).slice(0, 12)
  for (const name of ['db', 'DB', 'store', 'dbhost', id, 'db.app.weft']) {
    t.same(await addresses('h1', 'asks', name), [db4], `${name} A`)
    t.same(await addresses('h1', 'asks', name, 'AAAA'), [db6], `${name} AAAA`)
  }
  const web = [await addressOf('h2', 'shop_web_1', 'app')]
  for (const name of ['web', 'tasks.web']) t.same(await addresses('h1', 'asks', name), web, name)
  t.same(await addresses('h1', 'asks', 'h2.weft'), ['10.9.0.2'])
  t.match(await ask('h1', 'asks', 'nobody.weft'), { error: 'ENOTFOUND' })
  for (const address of [db4, db6])
    t.same((await ask('h1', 'asks', address, 'PTR', ours)).found, ['db.app.weft'], `PTR of ${address}`)
  t.match((await ask('h1', 'asks', '_5432._tcp.db', 'SRV')).found, [{ name: 'db.app.weft', port: 5432 }])
  const ttls = ((await ask('h1', 'asks', 'db', 'A', ours)).found as { ttl: number }[]).map(({ ttl }) => ttl)
  t.ok(
    ttls.every(ttl => ttl <= 5),
    `TTL ${ttls}`,
  )
})

/** A line for each change of the answer, with its moment: asked every 20 ms, without a process each time. */
const watcherScript = `
const { Resolver } = require('node:dns/promises')
const [server, name] = process.argv.slice(1)
const resolver = new Resolver({ timeout: 500, tries: 1 })
resolver.setServers([server])
let last = ''
const look = async () => {
  const [now] = await resolver.resolve4(name).catch(() => [last])
  if (now !== last) console.log((last = now), Date.now())
  setTimeout(look, 20)
}
look()`

t.test('a new address within a second of a restart', async t => {
  const asker = await lab.docker('h1', 'inspect', '-f', '{{.State.Pid}}', 'asks')
  const inAsks = ['exec', 'h1', 'nsenter', '-t', asker, '-n', process.execPath]
  const watcher = lab.background(...inAsks, '-e', watcherScript, docker, 'db')
  t.ok(await lab.until(async () => watcher.out().includes(db4)))
  await lab.docker('h2', 'stop', '-t', '0', 'db')
  await lab.docker('h2', 'run', '-d', '--network', 'app', '--name', 'takes', 'busybox', ...idle)
  await lab.docker('h2', 'start', 'db')
  const from = Date.now()
  const now = await addressOf('h2', 'db', 'app')
  const seen = () => new RegExp(`^${now} (\\d+)$`, 'm').exec(watcher.out())?.[1]
  await lab.until(async () => seen(), 5000)
  t.not(now, db4)
  t.ok(Number(seen()) - from < 1000, `${Number(seen()) - from} ms after docker start`)
  await watcher.stop()
  await lab.docker('h2', 'rm', '-f', 'takes')
})

t.test('equal names give all addresses, and weft status says so', async t => {
  await run('h1', 'twin', 'app')
  await run('h2', 'twin', 'app')
  const both = [await addressOf('h1', 'twin', 'app'), await addressOf('h2', 'twin', 'app')].sort()
  t.ok(await lab.until(async () => (await addresses('h1', 'asks', 'twin', 'A', ours)).join() === both.join()))
  t.match((await lab.try('weft', 'h1', 'status')).out, /2 containers answer to the name twin: twin on h1, twin on h2/)
  for (const host of ['h1', 'h2']) await lab.docker(host, 'rm', '-f', 'twin')
})

t.test('what is not ours goes on, untouched', async t => {
  t.same(await addresses('h1', 'asks', 'example.com'), ['203.0.113.7'])
  // type 65280 (private use), with an EDNS option of private use
  const query = 'abcd01000001000000000001076578616d706c6503636f6d00ff000001' + '00002904d0000000000007fde90003616263'
  const script = `
const socket = require('node:dgram').createSocket('udp4')
const timer = setTimeout(() => socket.close(), 4000)
socket.on('message', answer => { console.log(JSON.stringify(answer.toString('hex'))); clearTimeout(timer); socket.close() })
socket.send(Buffer.from('${query}', 'hex'), 53, '${ours}')`
  t.equal(await inside('h1', 'asks', script), query.replace('abcd01', 'abcd81'), 'byte for byte, there and back')
})

t.test('on an --internal network', async t => {
  await run('h1', 'in1', 'inner')
  await run('h2', 'in2', 'inner')
  const in2 = await addressOf('h2', 'in2', 'inner')
  t.ok(await lab.until(async () => (await addresses('h1', 'in1', 'in2', 'A', ours)).join() === in2), 'weftd answers')
  const through = await addresses('h1', 'in1', 'in2')
  const status = (await lab.try('weft', 'h1', 'status')).out
  if (through.length > 0) t.same(through, [in2])
  else t.match(status, /internal/, 'this engine forwards nothing there, and status says so')
  t.comment(through.length > 0 ? 'the engine forwards' : 'the engine does not forward')
  t.match(await ask('h1', 'in1', 'example.com', 'A', ours), { error: 'EREFUSED' }, 'no way out')
  // one container asks by the network that it was on first, the other by the --internal one too
  await run('h1', 'in3', 'app')
  for (const [network, container] of [
    ['app', 'in1'],
    ['inner', 'in3'],
  ] as const) {
    await lab.docker('h1', 'network', 'connect', network, container)
    const ways = (await lab.within('h1', container, 'ip', 'route', 'get', ours)).split('\n')[0]
    for (const server of [docker, ours])
      t.same(await addresses('h1', container, 'example.com', 'A', server), ['203.0.113.7'], `${container}: ${ways}`)
  }
  await lab.docker('h1', 'network', 'disconnect', 'app', 'in1')
  t.match(await ask('h1', 'in1', 'example.com', 'A', ours), { error: 'EREFUSED' })
})

t.test('whichever of its networks a container leaves', async t => {
  for (const name of ['s1', 's2'])
    await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', name)
  await run('h1', 'moves', 'app')
  const routes = async () =>
    (await lab.within('h1', 'moves', 'ip', 'route')).split('\n').filter(line => line.startsWith('169.254.77.'))
  await leaveInTurn(t, lab, routes, async when => {
    t.same(await addresses('h1', 'moves', 'h2.weft'), ['10.9.0.2'], when)
    t.same(await addresses('h1', 'moves', 'db.app.weft'), [await addressOf('h2', 'db', 'app')], when)
  })
})

t.test("a container of Docker's own bridge", async t => {
  await lab.docker('h1', 'network', 'create', 'plain')
  await run('h1', 'beside', 'plain')
  await run('h1', 'oldest', 'bridge')
  t.same(await addresses('h1', 'beside', 'h2.weft'), ['10.9.0.2'])
  t.same(await addresses('h1', 'beside', 'db.app.weft'), [await addressOf('h2', 'db', 'app')])
  t.same(await addresses('h1', 'oldest', 'h2.weft', 'A', ours), ['10.9.0.2'])
  const { found, ms } = await ask('h1', 'beside', 'example.com')
  t.match(found, [{ address: '203.0.113.7' }])
  t.ok(ms < 2000, `not after a time-out: ${ms} ms`)
})

t.test("port 53 can be published, by Docker's own bridges and by weft, and names go on", async t => {
  const plain = ['--network', 'plain', '-p', '53:53/udp', '-p', '53:53/tcp']
  await lab.docker('h1', 'run', '-d', '--name', 'server', ...plain, 'busybox', ...idle)
  const answered = async () => {
    for (const container of ['asks', 'beside', 'oldest'])
      t.same(await addresses('h1', container, 'h2.weft', 'A', ours), ['10.9.0.2'], container)
  }
  await answered()
  await lab.docker('h1', 'rm', '-f', 'server')
  const say = ['sh', '-c', 'echo published > /tmp/index.html; exec httpd -f -p 53 -h /tmp']
  const meshed = ['--network', 'app', '-p', '53:53/tcp', '-p', '53:53/udp']
  await lab.docker('h1', 'run', '-d', '--name', 'server', ...meshed, 'busybox', ...say)
  for (const host of ['10.9.0.1', '10.9.0.2'])
    t.ok(
      await lab.until(async () =>
        /published/.test((await lab.try('exec', 'client', 'curl', '-s', '-m', '2', `http://${host}:53/`)).out),
      ),
      host,
    )
  await answered()
  await lab.docker('h1', 'rm', '-f', 'server')
})

t.test('weftd dead: outside names go on everywhere', async t => {
  await lab.ok('kill', 'h1', 'weftd')
  for (const container of ['asks', 'beside']) {
    const { found, ms } = await ask('h1', container, 'example.com')
    t.match(found, [{ address: '203.0.113.7' }], container)
    t.comment(`${container}: ${ms} ms`)
  }
  await lab.ok('start', 'h1', 'weftd')
  t.ok(await known('db'))
})

t.test(
  'Docker says nothing of its containers: they start and reach each other, and have names when it does',
  async t => {
    const mute = createServer()
    const path = await fileOf(lab, 'h1', '/run/mute.sock')
    await new Promise<void>(resolve => mute.listen(path, resolve))
    t.teardown(() => mute.close())
    await lab.ok('stop', 'h1', 'weftd')
    await lab.ok('start', 'h1', 'weftd', '--weftd-args', '--docker unix:///run/mute.sock')
    const from = Date.now()
    await run('h1', 'unheard', 'app')
    t.ok(Date.now() - from < 8000, `docker run took ${Date.now() - from} ms: it does not wait for events`)
    for (const six of [false, true])
      for (const [host, who, whom] of [
        ['h1', 'unheard', await addressOf('h2', 'db', 'app', six)],
        ['h2', 'db', await addressOf('h1', 'unheard', 'app', six)],
      ] as const)
        t.equal(
          (await lab.tryDocker(host, 'exec', who, 'ping', '-c', '1', '-W', '2', whom)).code,
          0,
          `${who} to ${whom}`,
        )
    const its = await addressOf('h1', 'unheard', 'app')
    t.notOk((await addresses('h2', 'db', 'unheard')).includes(its), 'who it is only Docker knows')
    const { code, out } = await lab.try('weft', 'h1', 'status')
    t.equal(code, 1)
    t.match(out, /docker/i)
    await lab.ok('stop', 'h1', 'weftd')
    await lab.ok('start', 'h1', 'weftd')
    t.ok(await lab.until(async () => (await addresses('h2', 'db', 'unheard')).includes(its)))
  },
)

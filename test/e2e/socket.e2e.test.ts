// SPDX-License-Identifier: Apache-2.0
// The driver's socket under everything that is not the contract, and under the contract repeated: clear errors, the
// same weftd, nothing left behind.
import { readdir, readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { openLab, server } from './lab.ts'
import { behindProxy, type Call, fileOf, heldKeys, kernelOf, openProxy, post, type Reply } from './proxy.ts'

const lab = await openLab('sock', 1, ...behindProxy)
const proxy = await openProxy(lab, 'h1')
t.teardown(async () => {
  await proxy.close()
  await lab.close()
})
const socket = await fileOf(lab, 'h1', '/run/weft/behind.sock')
const call = (method: string, body: string | Buffer, verb?: string): Promise<Reply> => post(socket, method, body, verb)

const held = () => heldKeys(lab)
const weftd = async () => {
  const { hosts } = JSON.parse(await lab.ok('status', '--output', 'json')) as { hosts: { weftd: number }[] }
  const pid = hosts[0]!.weftd
  const memory = /VmRSS:\s*(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  return { pid, descriptors: (await readdir(`/proc/${pid}/fd`)).length, megabytes: Number(memory) >> 10 }
}
const docker = (...args: string[]): Promise<string> => lab.docker('h1', ...args)
const create = (...args: string[]) => docker('network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...args)

/** A user's day: two networks, containers with ports, a second network joined and left; all of it goes if `whole`. */
const session = async (whole: boolean, subnet: string, port: number): Promise<Call[]> => {
  const from = proxy.calls.length
  await create('--ipv6', 'app')
  await create('--subnet', `${subnet}.0/24`, '--ip-range', `${subnet}.128/25`, '--aux-address', `a=${subnet}.9`, 'side')
  await docker('run', '-d', '--network', 'app', '--name', 'one', '-p', `${port}:80`, 'busybox', ...server)
  await docker('network', 'connect', 'side', 'one')
  await docker('network', 'disconnect', 'side', 'one')
  await docker('network', 'rm', 'side')
  if (whole) await docker('rm', '-f', 'one')
  if (whole) await docker('network', 'rm', 'app')
  await lab.until(async () => !(await held()).some(key => key.includes(whole ? 'network-names' : 'names/side')))
  return proxy.calls.slice(from)
}
/** Not clear: why; whoever gets an error must know what was wrong. */
const unclear = (reply: Reply, ...words: string[]): string | undefined => {
  const { Err, Error: error } = JSON.parse(reply.text) as { Err?: unknown; Error?: unknown }
  if (reply.status < 400 || typeof Err !== 'string' || Err !== error) return `${reply.status} ${reply.text}`
  if (Err.length > 500 || Err.includes('\n') || /\.js:|is not a function|URI|\[object|Cannot /.test(Err)) return Err
  return words.every(word => Err.toLowerCase().includes(word.toLowerCase())) ? undefined : `no ${words}: ${Err}`
}

const bare = { keys: await held(), kernel: await kernelOf(lab, 'h1') }
const first = await weftd()
const gone = await session(true, '10.66.0', 8060)

t.test('every call of a session twice, and all of them once more, when all of it is gone', async t => {
  const wrong: string[] = []
  for (const [times, calls] of [
    [2, gone],
    [1, gone],
  ] as const)
    for (const { method, body } of calls)
      for (let i = 0; i < times; i++) {
        const reply = await call(method, body)
        const why = reply.status === 200 ? undefined : unclear(reply)
        if (why !== undefined) wrong.push(`${method}: ${why}`)
      }
  t.same(wrong, [], 'success or a clear error')
  t.equal((await weftd()).pid, first.pid)
  // what has leaked is looked at in the end, after the grace time
})

let live: Call[] = []
let withBody: Call[] = []
let methods: string[] = []
let before = { keys: bare.keys, ...first }
let address = ''
const works = async (): Promise<boolean> =>
  (await lab.try('exec', 'client', 'curl', '-s', '-m', '3', 'http://10.9.0.1:8080/')).out === 'hello'

t.test('every call of what lives, twice: the same answers', async t => {
  live = await session(false, '10.67.0', 8080)
  withBody = [...live, ...gone].filter(one => one.body !== '')
  methods = [...new Set(withBody.map(one => one.method))]
  // its address, and the reserve that a host keeps where it has a container
  await lab.until(async () => (await held()).filter(key => key.includes('/addresses/')).length > 1)
  before = { keys: await held(), ...(await weftd()) }
  address = await docker('inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'one')
  const [network, endpoint] = ['CreateNetwork', 'CreateEndpoint'].map(
    name => JSON.parse(live.find(one => one.method.endsWith(name))!.body) as { NetworkID: string; EndpointID: string },
  )
  for (const { method, body, text } of live) {
    const about = JSON.parse(body || '{}') as { NetworkID?: string; EndpointID?: string }
    const ours = about.NetworkID === network!.NetworkID && [undefined, endpoint!.EndpointID].includes(about.EndpointID)
    if (body !== '' && !ours) continue
    for (let i = 0; i < 2; i++) t.same(await call(method, body), { status: 200, text }, method)
  }
  t.ok(await works())
  // late repetitions of what frees: what lives keeps its address, its gateway, its pools and its MAC
  const kept = async () => (await held()).filter(key => /\/(addresses|macs|pools|endpoints|networks)\//.test(key))
  const lives = await kept()
  for (const { body, text } of live.filter(one => one.method.endsWith('RequestAddress'))) {
    const { PoolID } = JSON.parse(body) as { PoolID: string }
    const Address = (JSON.parse(text) as { Address: string }).Address.replace(/\/.*/, '')
    for (let i = 0; i < 2; i++)
      for (const [method, what] of [
        ['ReleaseAddress', { PoolID, Address }],
        ['ReleasePool', { PoolID }],
      ] as const)
        t.equal(
          (await call(`IpamDriver.${method}`, JSON.stringify(what))).status,
          200,
          `${method} ${PoolID} ${Address}`,
        )
  }
  await sleep(1000)
  const still = new Set(await kept())
  t.same(
    lives.filter(key => !still.has(key)),
    [],
    'nothing is freed that lives',
  )
  t.ok(await works())
})

t.test('no JSON, no body, another verb, another method', async t => {
  t.ok(methods.length >= 13, methods.join(' '))
  const wrong: unknown[] = []
  const bad = async (method: string, body: string, verb: string, ...words: string[]): Promise<void> => {
    const why = unclear(await call(method, body, verb), ...words)
    if (why !== undefined) wrong.push([method, body.slice(0, 40), verb, why])
  }
  for (const method of methods) {
    for (const body of ['{"NetworkID":', '\0\xff', 'NetworkID=5', `${'['.repeat(100_000)}`])
      await bad(method, body, 'POST', 'JSON')
    for (const body of ['', ' \n']) await bad(method, body, 'POST', 'no body')
    for (const body of ['[]', 'null', '7', '"x"', `${'['.repeat(9000)}${']'.repeat(9000)}`])
      await bad(method, body, 'POST', 'object')
    for (const verb of ['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
      await bad(method, withBody.find(one => one.method === method)!.body, verb, verb)
  }
  for (const method of [
    'NetworkDriver.Nothing',
    'toString',
    '__proto__',
    '',
    'x'.repeat(5000),
    'networkdriver.join',
    '../NetworkDriver.Join',
  ])
    t.match(await call(method, '{}'), { status: 404, text: /is no method of this driver/ }, method.slice(0, 30))
  t.same(wrong, [])
})

/** Every field of a body replaced by what it is not. */
const long = 'x'.repeat(100_000)
const replacements = function* (
  at: unknown,
  path: string[] = [],
): Generator<[string[], unknown, (root: object) => void]> {
  if (typeof at !== 'object' || at === null) return
  for (const [key, value] of Object.entries(at)) {
    for (const other of [null, -1, 1e99, [], [7], { x: [] }, true, long, '../\n"\ud800'])
      if (typeof other !== typeof value || Array.isArray(other) !== Array.isArray(value) || typeof value !== 'object')
        if (typeof value !== 'boolean' || typeof other !== 'boolean')
          yield [
            [...path, key],
            other,
            root => {
              let here = root as Record<string, unknown>
              for (const step of path) here = here[step] as Record<string, unknown>
              here[key] = other
            },
          ]
    yield* replacements(value, [...path, key])
  }
}
/** Fields that weft has no use for: what is in them does not matter. */
const unread = (method: string, path: readonly string[]): boolean =>
  (/CreateEndpoint|Join/.test(method) && path[0] === 'Options' && path.length > 1) ||
  /SandboxKey|AddressSpace|exposedports|\.IP$|RequestAddressType|enable_ipv4/.test(path.join('.'))

t.test('wrong types in every field', async t => {
  const wrong: unknown[] = []
  let tried = 0
  const samples = withBody.filter(
    (one, i) =>
      withBody.findIndex(other => other.method === one.method) === i ||
      (/Request|CreateNetwork/.test(one.method) && one.body.includes('10.67.0')),
  )
  for (const { method, body } of samples)
    for (const [path, value, change] of replacements(JSON.parse(body))) {
      const root = JSON.parse(body) as object
      change(root)
      const reply = await call(method, JSON.stringify(root))
      tried++
      if (reply.status === 200) {
        // what was granted goes back
        const { PoolID, Address } = JSON.parse(reply.text) as { PoolID?: string; Address?: string }
        if (PoolID !== undefined) await call('IpamDriver.ReleasePool', JSON.stringify({ PoolID }))
        if (Address !== undefined)
          await call('IpamDriver.ReleaseAddress', JSON.stringify({ ...root, Address: Address.replace(/\/.*/, '') }))
        if (value === null || unread(method, path)) continue
      }
      const key = path.findLast(step => !/^\d+$/.test(step))!
      const why = unclear(reply, ...(value === null || unread(method, path) ? [] : [key]))
      if (why !== undefined)
        wrong.push([method, path.join('.'), String(JSON.stringify(value)).slice(0, 20), why.slice(0, 300)])
    }
  t.same(wrong, [], `${tried} bodies`)
  t.ok(tried > 500)
  t.ok(await works())
})

t.test('huge bodies are refused early', async t => {
  const huge = Buffer.alloc(64 << 20, ' ')
  const { megabytes } = await weftd()
  for (const method of [...methods, 'NetworkDriver.Nothing']) {
    t.equal(unclear(await call(method, huge), 'larger than 1048576 bytes'), undefined, method)
  }
  const grown = (await weftd()).megabytes - megabytes
  t.ok(grown < 64, `memory: ${grown} MiB more`)
})

t.test('bodies that come slowly, stop, or break off', async t => {
  const { method, body } = live.find(one => one.method.endsWith('EndpointOperInfo'))!
  const head = `POST /${method} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`
  const open = async (work: (write: (text: string) => void) => Promise<void>, end = true): Promise<string> => {
    const socketHere = connect(socket)
    let heard = ''
    socketHere.on('data', chunk => {
      heard += String(chunk)
    })
    const closed = new Promise(resolve => socketHere.once('close', resolve))
    socketHere.on('error', () => {})
    await work(text => socketHere.write(text))
    if (!end) socketHere.destroy()
    await closed
    return heard
  }
  const pieces = async (write: (text: string) => void): Promise<void> => {
    for (const piece of [head, ...body.match(/.{1,20}|\n/g)!]) {
      write(piece)
      await sleep(150)
    }
  }
  const half = async (write: (text: string) => void): Promise<void> => write(head + body.slice(0, 20))
  const many = <T>(n: number, one: () => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length: n }, one))
  const [slow, stopped, broken] = await Promise.all([
    many(20, () => open(pieces)),
    many(20, () => open(half)),
    many(50, () => open(half, false)),
  ])
  for (const answer of slow) t.match(answer, /^HTTP\/1\.1 200 /)
  for (const answer of stopped) t.match(answer, /^HTTP\/1\.1 500 (.|\n|\r)*"Err":"[^"]*is not done after 8 s/)
  t.same(new Set(broken), new Set(['']))
})

t.test('1,000 calls at once: all are answered', async t => {
  const body = (name: string): [string, string] => {
    const one = live.find(({ method }) => method.endsWith(name))!
    return [one.method, one.body]
  }
  const pool = (JSON.parse(body('RequestAddress')[1]) as { PoolID: string }).PoolID
  const kinds: [string, string][] = [
    body('EndpointOperInfo'),
    body('Join'),
    body('CreateEndpoint'),
    body('CreateNetwork'),
    body('ProgramExternalConnectivity'),
    ['IpamDriver.GetCapabilities', ''],
    ['Plugin.Activate', ''],
    ['NetworkDriver.Join', '{'],
    ['IpamDriver.ReleasePool', '{"PoolID":"10.99.0.0/24"}'],
    ['IpamDriver.RequestAddress', JSON.stringify({ PoolID: pool, Address: '', Options: null })],
  ]
  const replies = await Promise.all(Array.from({ length: 1000 }, (_, i) => call(...kinds[i % 10]!)))
  t.equal(replies.length, 1000)
  const wrong = replies.map((reply, i) =>
    i % 10 === 7 ? unclear(reply, 'JSON') : reply.status === 200 ? undefined : reply.text,
  )
  t.same(wrong.filter(Boolean), [])
  const given = replies.flatMap((reply, i) =>
    i % 10 === 9 ? [(JSON.parse(reply.text) as { Address: string }).Address] : [],
  )
  t.equal(new Set(given).size, 100, 'no address twice')
  await Promise.all(
    given.map(one =>
      call('IpamDriver.ReleaseAddress', JSON.stringify({ PoolID: pool, Address: one.replace(/\/.*/, '') })),
    ),
  )
})

t.test('after all that: the same weftd, everything works, nothing is left behind', async t => {
  const now = await lab.until(async () => {
    const state = await weftd()
    return state.descriptors <= before.descriptors + 3 ? state : undefined
  })
  t.equal(now?.pid, before.pid, `same weftd, descriptors closed: ${before.descriptors}, ${(await weftd()).descriptors}`)
  t.ok(now!.megabytes < before.megabytes + 256, `memory: ${before.megabytes} MiB, then ${now!.megabytes} MiB`)
  t.ok(await works())
  t.equal(await docker('inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'one'), address)
  let more: string[] = []
  await lab.until(async () => {
    more = (await held()).filter(key => !before.keys.includes(key))
    return more.length === 0
  }, 20_000)
  t.same(more, [], 'keys')
  await docker('run', '--rm', '--network', 'app', 'busybox', 'ping', '-c', '1', address)
  await docker('rm', '-f', 'one')
  await docker('network', 'rm', 'app')
  await lab.until(async () => (await held()).length <= bare.keys.length, 150_000) // grace of an endpoint, looks at the engine
  t.same(await held(), bare.keys, 'etcd is as in the beginning')
  t.equal(await kernelOf(lab, 'h1'), bare.kernel, 'so is the kernel')
})

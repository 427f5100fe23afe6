// SPDX-License-Identifier: Apache-2.0
// No address, pool or name is handed out twice, also when three hosts ask at once; nothing is leaked.
import t from 'tap'
import { idle, openLab } from './lab.ts'

const lab = await openLab('ipam', 3)
t.teardown(() => lab.close())
const hosts = ['h1', 'h2', 'h3']
const keys = async (prefix: string): Promise<Map<string, { kind?: string }>> => {
  const { kvs = [] } = JSON.parse(
    await lab.exec('store', 'etcdctl', 'get', '--prefix', `/weft/v1/${prefix}`, '-w', 'json'),
  ) as { kvs?: { key: string; value: string }[] }
  const text = (base64: string): string => Buffer.from(base64, 'base64').toString()
  return new Map(kvs.map(({ key, value }) => [text(key), JSON.parse(text(value)) as { kind?: string }]))
}
const everywhere = (network: string): Promise<boolean> =>
  lab.until(async () =>
    (await Promise.all(hosts.map(host => lab.docker(host, 'network', 'ls', '-q', '-f', `name=^${network}$`)))).every(
      id => id !== '',
    ),
  )

t.test('more starts than addresses at once on three hosts: exactly the free ones succeed', async t => {
  await lab.docker(
    'h1',
    'network',
    'create',
    '-d',
    'weft',
    '--ipam-driver',
    'weft',
    '--subnet',
    '10.80.0.0/25',
    'small',
  )
  t.ok(await everywhere('small'))
  const free = 128 - 3 // network, broadcast, gateway
  const runs = Array.from({ length: 155 }, (_, i) =>
    lab.tryDocker(hosts[i % 3]!, 'run', '-d', '--network', 'small', '--name', `c${i}`, 'busybox', ...idle),
  )
  const answers = await Promise.all(runs)
  const good = answers.filter(answer => answer.code === 0)
  for (const { code, err } of answers) if (code !== 0) t.match(err, /subnet 10\.80\.0\.0\/25 is full/)
  t.equal(good.length, free)
  const addresses = await Promise.all(
    hosts.map(async host =>
      (await lab.docker(host, 'network', 'inspect', '-f', '{{range .Containers}}{{.IPv4Address}} {{end}}', 'small'))
        .split(' ')
        .filter(Boolean),
    ),
  )
  t.equal(new Set(addresses.flat()).size, free, 'all different')
  await Promise.all(
    answers.map((answer, i) => (answer.code === 0 ? lab.docker(hosts[i % 3]!, 'rm', '-f', `c${i}`) : undefined)),
  )
  const live = async () =>
    [...(await keys('addresses/')), ...(await keys('macs/'))].filter(([, { kind }]) => kind !== 'resting').length
  t.ok(await lab.until(async () => (await live()) === 0, 90_000), 'no live claim is left')
  t.equal((await keys('endpoints/')).size, 0)
})

t.test('one --ip on all hosts at once: one wins', async t => {
  for (let i = 0; i < 5; i++) {
    const answers = await Promise.all(
      hosts.map(host =>
        lab.tryDocker(
          host,
          'run',
          '-d',
          '--network',
          'small',
          '--name',
          'same',
          '--ip',
          '10.80.0.9',
          'busybox',
          ...idle,
        ),
      ),
    )
    t.equal(answers.filter(answer => answer.code === 0).length, 1)
    for (const { code, err } of answers) if (code !== 0) t.match(err, /10\.80\.0\.9 is in use on host h\d/)
    await Promise.all(hosts.map(host => lab.tryDocker(host, 'rm', '-f', 'same')))
  }
})

t.test('automatic subnets and VNIs, asked for on three hosts at once: all different, and given back', async t => {
  const kinds = ['pools/', 'vnis/', 'networks/']
  const held = async (): Promise<number[]> => Promise.all(kinds.map(async kind => (await keys(kind)).size))
  const before = await held()
  const all = hosts.flatMap(host => [1, 2, 3, 4, 5, 6].map(i => [host, `${host}-${i}`] as const))
  const weft = ['-d', 'weft', '--ipam-driver', 'weft', '--ipv6']
  await Promise.all(all.map(([host, name]) => lab.docker(host, 'network', 'create', ...weft, name)))
  const subnets = await Promise.all(
    all.map(([host, name]) =>
      lab.docker(host, 'network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Subnet}} {{end}}', name),
    ),
  )
  t.equal(new Set(subnets.flatMap(text => text.trim().split(' '))).size, 2 * all.length, 'of both families')
  t.same(await held(), [before[0]! + 2 * all.length, before[1]! + all.length, before[2]! + all.length])
  await Promise.all(all.map(([host, name]) => lab.docker(host, 'network', 'rm', name)))
  t.ok(await lab.until(async () => (await held()).join() === before.join(), 60_000), 'given back')
})

t.test('two overlapping pools at once on two hosts: one wins, every time', async t => {
  for (let i = 0; i < 200; i++) {
    const [a, b] = await Promise.all([
      lab.tryDocker(
        'h1',
        'network',
        'create',
        '-d',
        'weft',
        '--ipam-driver',
        'weft',
        '--subnet',
        `10.81.${i}.0/24`,
        `a${i}`,
      ),
      lab.tryDocker(
        'h2',
        'network',
        'create',
        '-d',
        'weft',
        '--ipam-driver',
        'weft',
        '--subnet',
        `10.81.${i}.128/25`,
        `b${i}`,
      ),
    ])
    t.equal([a, b].filter(answer => answer.code === 0).length, 1, `${a.err} ${b.err}`)
    await lab.docker(a.code === 0 ? 'h1' : 'h2', 'network', 'rm', a.code === 0 ? `a${i}` : `b${i}`)
  }
})

t.test('weftd killed inside a start: docker answers, the retry succeeds, nothing is leaked', async t => {
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'wide')
  t.ok(await everywhere('wide'))
  const run = lab.tryDocker('h3', 'run', '-d', '--network', 'wide', '--name', 'half', 'busybox', ...idle)
  await new Promise(resolve => setTimeout(resolve, 150))
  await lab.ok('kill', 'h3', 'weftd')
  await lab.ok('start', 'h3', 'weftd')
  const from = Date.now()
  await run
  t.ok(Date.now() - from < 20_000)
  await lab.tryDocker('h3', 'rm', '-f', 'half')
  await lab.docker('h3', 'run', '-d', '--network', 'wide', '--name', 'half', 'busybox', ...idle)
  await lab.docker('h3', 'rm', '-f', 'half')
  t.ok(await lab.until(async () => (await keys('endpoints/')).size === 0, 60_000))
})

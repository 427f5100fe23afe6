// SPDX-License-Identifier: Apache-2.0
// docker-compose on two hosts: projects that bring the network along, projects that find it, one after the other and
// at the same moment, down and up again.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Answer, openLab } from './lab.ts'

const lab = await openLab('comp', 2)
const folder = await mkdtemp(join(tmpdir(), 'weft-compose-'))
t.teardown(async () => {
  await lab.close()
  await rm(folder, { recursive: true })
})
const hosts = ['h1', 'h2']
const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

/** One service a host, `web-h1` and `web-h2`, of one project: what people do who have no orchestrator. */
const project = async (name: string, networks: object): Promise<void> => {
  for (const host of hosts)
    await writeFile(
      join(folder, `${name}-${host}.json`),
      JSON.stringify({
        version: '2.4',
        services: { [`web-${host}`]: { image: 'busybox', command: 'sleep 1000000', networks: ['app'], init: true } },
        networks: { app: networks },
      }),
    )
}
const compose = (host: string, name: string, ...args: string[]): Promise<Answer> =>
  lab.try('exec', host, 'docker-compose', '-p', name, '-f', join(folder, `${name}-${host}.json`), ...args)
const up = (host: string, name: string) => compose(host, name, 'up', '-d')
/** Compose 1 writes underscores where 2 has hyphens. */
const containerOf = async (host: string, name: string): Promise<string> =>
  lab.docker(host, 'ps', '-aq', '-f', `label=com.docker.compose.project=${name}`)
const reach = async (name: string): Promise<boolean> => {
  const ping = async (from: string, to: string) =>
    lab.tryDocker(from, 'exec', await containerOf(from, name), 'ping', '-c', '1', '-W', '1', `web-${to}`)
  return (await Promise.all([ping('h1', 'h2'), ping('h2', 'h1')])).every(answer => answer.code === 0)
}
interface Shown {
  readonly pools: readonly { readonly prefix: string }[]
}
/** As the cluster has them. */
const known = async (host: string): Promise<string[]> => {
  const shown = JSON.parse(await lab.weft(host, 'network', 'ls', '-o', 'json')) as { name: string }[]
  return shown.map(network => network.name)
}
const networks = async (host: string): Promise<string[]> =>
  (await lab.docker(host, 'network', 'ls', '--format', '{{.Name}}', '-f', 'driver=weft')).split('\n').filter(Boolean)
const subnetFormat = '{{(index .IPAM.Config 0).Subnet}}'
/** As the engine shows it. */
const subnet = (host: string, network: string): Promise<string> =>
  lab.docker(host, 'network', 'inspect', '-f', subnetFormat, network)
const gone = (network: string): Promise<boolean> =>
  lab.until(async () => (await Promise.all(hosts.map(networks))).every(names => !names.includes(network)), 20_000)

t.test('a project that brings its network, on one host after the other, down and up again', async t => {
  await project('seq', { driver: 'weft', ipam: { driver: 'weft' } })
  for (const round of ['first', 'second']) {
    for (const host of hosts) {
      const answer = await up(host, 'seq')
      t.equal(answer.code, 0, `${round} up on ${host}: ${answer.err}`)
      t.ok(await lab.until(async () => (await networks('h2')).includes('seq_app')), 'the other host has the network')
    }
    t.ok(await lab.until(() => reach('seq')), 'by service name, both ways')
    t.equal((await compose('h1', 'seq', 'down')).code, 0)
    t.ok(
      await lab.until(async () => (await networks('h1')).includes('seq_app')),
      'it stays while h2 has containers on it',
    )
    t.ok(await lab.until(async () => (await up('h1', 'seq')).code === 0), 'up again on one host')
    t.ok(await lab.until(() => reach('seq')))
    for (const host of hosts) t.equal((await compose(host, 'seq', 'down')).code, 0)
    t.ok(await gone('seq_app'), 'the last down takes it away everywhere')
  }
})

t.test('at the same moment, with the network named for good', async t => {
  const option = { 'weft.network': 'shop' }
  const network = { driver: 'weft', driver_opts: option, ipam: { driver: 'weft', options: option } }
  await project('own', network) // its Docker network is own_app
  await project('same', { ...network, name: 'shop' })
  await project('two', { ...network, ipam: { driver: 'weft' } }) // all that compose 2 can say
  for (const name of ['own', 'same', 'two']) {
    for (const answer of await Promise.all(hosts.map(host => up(host, name)))) t.equal(answer.code, 0, answer.err)
    t.ok(await lab.until(() => reach(name)), 'one network')
    t.strictSame(await known('h1'), ['shop'])
    for (const answer of await Promise.all(hosts.map(host => compose(host, name, 'down')))) t.equal(answer.code, 0)
    t.ok(await gone('shop'))
  }
})

t.test('at the same moment, where nobody named it: one network, and nobody has to repeat', async t => {
  await project('race', { driver: 'weft', ipam: { driver: 'weft' } })
  let joined = 0
  // how much later one of the hosts begins, ms: up to what a replica needs to be there
  const lags = [0, 0, 0, 0, 0, 300, 700, 1100, 1500]
  for (const [i, lag] of lags.entries()) {
    const late = hosts[i % 2]
    const begin = (host: string) => pause(host === late ? lag : 0).then(() => up(host, 'race'))
    for (const [at, { code, err }] of (await Promise.all(hosts.map(begin))).entries())
      t.equal(code, 0, `round ${i}, ${hosts[at]}: ${err}`)
    for (const host of hosts) {
      t.strictSame(await known(host), ['race_app'], 'one network')
      t.same(await networks(host), ['race_app'], 'no second of this name')
    }
    t.ok(await lab.until(() => reach('race')))
    if ((await subnet('h1', 'race_app')) !== (await subnet('h2', 'race_app'))) joined++
    for (const host of hosts) t.equal((await compose(host, 'race', 'down')).code, 0)
    t.ok(await gone('race_app'))
  }
  t.ok(joined > 0, `${joined} of ${lags.length} times both had made it`)
})

t.test('a host whose network was joined: restarts, and a replica in its place', async t => {
  let late: string | undefined
  for (let i = 0; i < 5 && late === undefined; i++) {
    for (const { code, err } of await Promise.all(hosts.map(host => up(host, 'race')))) t.equal(code, 0, err)
    const [first, second] = await Promise.all(hosts.map(host => subnet(host, 'race_app')))
    const { pools } = JSON.parse(await lab.weft('h1', 'network', 'show', 'race_app', '-o', 'json')) as Shown
    if (first !== second) late = pools[0]!.prefix === first ? 'h2' : 'h1'
    else for (const host of hosts) t.equal((await compose(host, 'race', 'down')).code, 0)
    if (late === undefined) t.ok(await gone('race_app'))
  }
  if (late === undefined) return t.fail('five times one was so late that it found the network')
  const own = await subnet(late, 'race_app')
  for (const what of ['weftd', 'dockerd']) {
    await lab.ok('kill', late, what)
    await lab.ok('start', late, what)
  }
  const container = await containerOf(late, 'race')
  t.ok(await lab.until(async () => (await lab.tryDocker(late!, 'restart', '-t', '0', container)).code === 0, 30_000))
  t.ok(await lab.until(() => reach('race'), 30_000), 'starts again on it')
  t.equal(await subnet(late, 'race_app'), own)
  t.equal((await compose(late, 'race', 'rm', '-sf')).code, 0)
  // for a moment it is not there
  const trySubnet = (host: string) => lab.tryDocker(host, 'network', 'inspect', '-f', subnetFormat, 'race_app')
  const replaced = async () => {
    const [one, two] = await Promise.all(hosts.map(trySubnet))
    return one?.code === 0 && two?.code === 0 && one.out === two.out
  }
  t.ok(await lab.until(replaced, 150_000), 'nobody used it for a minute')
  t.equal((await up(late, 'race')).code, 0)
  t.ok(await lab.until(() => reach('race')))
})

t.test('down and at once up again, on both', async t => {
  for (let i = 0; i < 3; i++) {
    const again = async (host: string) => [await compose(host, 'race', 'down'), await up(host, 'race')] as const
    for (const [at, answers] of (await Promise.all(hosts.map(again))).entries())
      for (const { code, err } of answers) t.equal(code, 0, `round ${i}, ${hosts[at]}: ${err}`)
    t.ok(await lab.until(() => reach('race')))
  }
  for (const host of hosts) t.equal((await compose(host, 'race', 'down')).code, 0)
  t.ok(await gone('race_app'))
})

t.test('a network from outside', async t => {
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'given')
  t.ok(await lab.until(async () => (await networks('h2')).includes('given')))
  await project('ext', { external: true, name: 'given' })
  for (const round of ['first', 'second']) {
    for (const answer of await Promise.all(hosts.map(host => up(host, 'ext'))))
      t.equal(answer.code, 0, `${round}: ${answer.err}`)
    t.ok(await lab.until(() => reach('ext')))
    for (const host of hosts) t.equal((await compose(host, 'ext', 'down')).code, 0)
  }
  t.ok((await networks('h1')).includes('given'), 'down leaves what was given')
})

t.test('the driver without our addresses: the error has the lines to add', async t => {
  await project('half', { driver: 'weft' })
  const { code, err } = await up('h1', 'half')
  t.not(code, 0)
  t.match(err, /ipam:/)
  t.match(err, /driver: weft/)
  t.notOk((await networks('h1')).includes('half_app'), 'nothing half-made')
})

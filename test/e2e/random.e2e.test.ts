// SPDX-License-Identifier: Apache-2.0
// Random work on three hosts: after every round all that can be looked at agrees with docker inspect, and pings pass
// exactly between those that share a network. WEFT_SEED replays a run.
import t from 'tap'
import { openAgreement } from './agree.ts'
import { openLab } from './lab.ts'
import { type Attachment, attachmentsOf } from './truth.ts'
import { rowsOf } from './witness.ts'

const rounds = Number(process.env['WEFT_ROUNDS'] ?? 20)
const seed = Number(process.env['WEFT_SEED'] ?? Date.now()) >>> 0
t.comment(`replay with WEFT_SEED=${seed}`)

let state = seed
/** mulberry32: [0, 1) */
const random = (): number => {
  state = (state + 0x6d2b79f5) | 0
  let x = Math.imul(state ^ (state >>> 15), 1 | state)
  x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
  return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
}
const below = (n: number): number => Math.floor(random() * n)
const pick = <T>(list: readonly T[]): T => list[below(list.length)]!

const hosts = ['h1', 'h2', 'h3']
const networks = { plain: [], six: ['--ipv6'], inner: ['--internal'] }
const names = Object.keys(networks)
const most = 12
/** Ends at once when told to. */
const body = ['busybox', 'sh', '-c', 'trap "exit 0" TERM; sleep 1000000 & wait']

const lab = await openLab('rand', hosts.length)
t.teardown(() => lab.close())
for (const [i, name] of names.entries())
  await lab.docker(
    hosts[i]!,
    'network',
    'create',
    '-d',
    'weft',
    '--ipam-driver',
    'weft',
    ...networks[name as keyof typeof networks],
    name,
  )
await lab.until(async () => {
  const shown = await Promise.all(hosts.map(host => lab.docker(host, 'network', 'ls', '-q', '-f', 'driver=weft')))
  return shown.every(ids => ids.split('\n').length === names.length)
}, 30_000)

const vnis = await Promise.all(names.map(name => lab.vni('h1', name)))
const rows = (): Promise<string[]> => Promise.all(hosts.map(host => rowsOf(lab, host, vnis)))
await lab.until(async () =>
  (await Promise.all(hosts.map(host => lab.try('weft', host, 'status')))).every(({ code }) => code === 0),
)
const empty = await rows()

const { look, ping, agree } = openAgreement(lab, hosts)

t.test('before any round: the comparison sees what is missing and what is too much', async t => {
  await lab.docker('h1', 'run', '-d', '--name', 'far', '--network', 'six', ...body)
  await lab.docker('h2', 'run', '-d', '--name', 'near', '--network', 'six', ...body)
  t.same((await agree()).wrong, [], 'all agree')
  const { views, store } = await look()
  const [far, near] = attachmentsOf(views) as [Attachment, Attachment]
  const { id, vni } = store.find(({ key, record }) => key[0] === 'networks' && record['name'] === 'six')!.record
  const inside = (...command: string[]) => lab.inside('h2', 'n', Number(vni), ...command)
  const port = `c${near.endpoint.slice(0, 12)}`
  const etcd = (...command: string[]) => lab.exec('store', 'etcdctl', ...command)
  const claim = `/weft/v1/addresses/${id}/10.1.2.3`
  await lab.ok('kill', 'h2', 'weftd')
  await inside('bridge', 'fdb', 'del', far.mac, 'dev', 'vx0', 'self')
  await inside('ip', 'neigh', 'del', far.addresses[1]!, 'dev', 'br0')
  await inside('ip', 'link', 'add', 'orphan', 'master', 'br0', 'type', 'veth', 'peer', 'end')
  await inside('nft', 'delete', 'element', 'inet', 'weft', 'local_macs', `{ ${near.mac} }`)
  await inside('nft', 'add', 'rule', 'netdev', 'weft', `in_${port}`, 'ip', 'saddr', '192.0.2.1', 'accept')
  await etcd('put', claim, '{"v":1,"kind":"bound","node":"h3","boot":"x","endpoint":"departed"}')
  t.same((await look()).wrong, [
    `missing: h2 six N ip neigh: ${far.addresses[1]} ${far.mac} br0`,
    `missing: h2 six bridge fdb: ${far.mac} to 10.9.0.1`,
    `missing: h2 six nft: local_macs ${near.mac}`,
    'unexpected: etcd six: address 10.1.2.3 of departed on h3',
    'unexpected: h2 six N ip link: end',
    'unexpected: h2 six N ip link: orphan',
    `unexpected: h2 six nft: port of ${near.mac}: ip saddr == 192.0.2.1 accept`,
  ])
  const silent = [far.addresses.map(ip => `near -> ${ip}`), near.addresses.map(ip => `far -> ${ip}`)].flat()
  t.same((await ping(views)).wrong, silent.map(way => `missing: ping ${way}`).sort())
  await etcd('del', claim)
  await lab.ok('start', 'h2', 'weftd')
  t.same((await agree()).wrong, [], 'repaired')
  await lab.docker('h1', 'rm', '-f', 'far')
  await lab.docker('h2', 'rm', '-f', 'near')
})

/** What the commands given so far should have led to; only to choose the next ones. */
interface Container {
  readonly name: string
  readonly host: string
  running: boolean
  networks: string[]
}
const containers: Container[] = []
let count = 0

type Step = readonly string[]
/** Steps of one container, one after another; `against` runs beside the last, and may lose. */
interface Work {
  readonly host: string
  readonly container: string
  readonly steps: Step[]
  against?: Step
}

const born = (): Work => {
  const container = { name: `c${++count}`, host: pick(hosts), running: true, networks: [pick(names)] }
  const { name, host } = container
  const [first] = container.networks as [string]
  const more = names.filter(network => network !== first && random() < 0.3)
  const connect = more.map((network): Step => ['network', 'connect', network, name])
  container.networks.push(...more)
  containers.push(container)
  const how = ['--name', name, '--network', first, ...body]
  const steps = random() < 0.6 ? [['run', '-d', ...how], ...connect] : [['create', ...how], ...connect, ['start', name]]
  return { host, container: name, steps }
}

/** Something random that this container can take; removing may race with the same. */
const change = (container: Container, work: Work): void => {
  const { name, running, networks } = container
  const free = names.filter(network => !networks.includes(network))
  const choices: [step: Step, then: () => void][] = []
  const choice = (step: Step, then: () => void) => choices.push([step, then])
  const turn = (command: string) => choice([command, name], () => (container.running = !running))
  if (running) for (const command of ['stop', 'kill']) turn(command)
  else for (const command of ['start', 'start', 'start']) turn(command)
  for (const network of free)
    choice(['network', 'connect', network, name], () => (container.networks = [...networks, network]))
  for (const network of networks)
    choice(['network', 'disconnect', network, name], () => (container.networks = networks.filter(n => n !== network)))
  const [step, then] = pick(choices)
  if (random() < 0.25) {
    containers.splice(containers.indexOf(container), 1)
    work.steps.push(['rm', '-f', name])
    if (random() < 0.4) work.against = step
  } else {
    then()
    work.steps.push(step)
  }
}

const plan = (): Work[] => {
  const works: Work[] = []
  for (let i = 0; i < 6; i++) {
    if (containers.length < 5 || (containers.length < most && random() < 0.4)) works.push(born())
    else {
      const container = pick(containers)
      const { name, host } = container
      const work = works.find(one => one.container === name) ?? { host, container: name, steps: [] }
      if (work.steps.length === 0) works.push(work)
      change(container, work)
    }
  }
  return works
}

const perform = async ({ host, steps, against }: Work): Promise<string[]> => {
  const failed: string[] = []
  for (const [i, step] of steps.entries()) {
    const rival = against && i === steps.length - 1 ? lab.tryDocker(host, ...against) : undefined
    const { code, err } = await lab.tryDocker(host, ...step)
    if (code !== 0) failed.push(`${host} docker ${step.join(' ')}: ${err}`)
    await rival
  }
  return failed
}

const said = ({ host, steps, against }: Work): string => {
  const text = steps.map(step => step.filter(word => !body.includes(word)).join(' ')).join(', ')
  return `${host}: ${text}${against ? ` against ${against.join(' ')}` : ''}`
}

let agreed = true
for (let round = 1; round <= rounds; round++)
  t.test(`round ${round}`, async t => {
    if (!agreed) return t.pass('not run', { skip: 'a round before left a difference' })
    const works = plan()
    const together = random() < 0.75
    t.comment(`${together ? 'together' : 'in turn'}: ${works.map(said).join('; ')}`)
    const failed: string[] = []
    if (together) failed.push(...(await Promise.all(works.map(perform))).flat())
    else for (const work of works) failed.push(...(await perform(work)))
    const { wrong, note } = await agree()
    t.comment(note)
    agreed = wrong.length === 0
    t.same([...failed, ...wrong], [], 'commands succeed, all agree')
  })

t.test('when all containers are gone, also some that published, every table is as before the first', async t => {
  for (const { host, name } of containers) await lab.docker(host, 'rm', '-f', name)
  const published = hosts.flatMap(host => [1, 2].map(i => [host, `${host}-${i}`] as const))
  const how = ['--network', 'six', '--label', 'weft.service=web', '-p', '8080:80']
  await Promise.all(published.map(([host, name]) => lab.docker(host, 'run', '-d', '--name', name, ...how, ...body)))
  t.not((await rows()).join(), empty.join())
  await Promise.all(published.map(([host, name]) => lab.docker(host, 'rm', '-f', name)))
  await lab.until(async () => (await rows()).join() === empty.join(), 60_000)
  t.same(await rows(), empty)
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Engine, EngineContainer, ListedContainer } from '../../src/docker/engine.ts'
import { openIdentity } from '../../src/docker/identity.ts'
import { openStarts } from '../../src/docker/starts.ts'
import type { RequestedPort } from '../../src/docker/wire.ts'
import { fastClock } from '../store/clock.ts'

interface Made {
  readonly labels?: Readonly<Record<string, string>>
  readonly port?: string
  readonly everyPort?: boolean
  readonly network?: string
}
const open = () => {
  const containers = new Map<string, ListedContainer & { full: Partial<EngineContainer> }>()
  let locked = false
  const make = (name: string, { labels = {}, port = '8080', everyPort = false, network = 'app' }: Made = {}): void => {
    const PortBindings = everyPort ? {} : { '80/tcp': [{ HostIp: '', HostPort: port }] }
    containers.set(name, {
      ...{ Id: name, Names: [`/${name}`], ImageID: 'i', Labels: labels, State: 'created', Status: 'Created' },
      NetworkSettings: { Networks: { [network]: { NetworkID: '', EndpointID: '', Aliases: null } } },
      full: { State: { Running: false }, HostConfig: { PortBindings, PublishAllPorts: everyPort } },
    })
  }
  const engine = {
    containers: async (filters?: { id?: string[] }) =>
      [...containers.values()].filter(({ Id }) => filters?.id === undefined || filters.id.includes(Id)),
    async container(id: string) {
      if (locked) await new Promise(resolve => setTimeout(resolve, 100))
      if (locked) throw new WeftError('DOCKER_UNAVAILABLE', 'its start held its lock')
      return containers.get(id)!.full
    },
    imageLabels: async () => ({}),
  } as unknown as Engine
  const starts = openStarts(
    engine,
    openIdentity(engine, { mirror: {} as never, log: silentLog }, { endpoints: () => [] }),
    fastClock(2),
  )
  const lock = (): void => {
    locked = true
  }
  return { starts, make, containers, lock }
}
const ask = (hostPort: number): RequestedPort[] => [{ proto: 'tcp', port: 80, hostPort, end: hostPort }]

t.test('the one container that fits is meant', async t => {
  const { starts, make } = open()
  make('web', { labels: { 'weft.service': 'site' } })
  make('db', { port: '5432' })
  make('far', { network: 'other' })
  for (const id of ['web', 'db', 'far']) await starts.waiting(id)
  t.equal(await starts.service(['x', 'app'], ask(8080)), 'label site')
  t.equal(await starts.service(['x', 'app'], ask(5432)), 'container db')
  t.equal(await starts.service(['other'], ask(8080)), 'container far')
  t.equal(await starts.service(['app'], ask(1)), undefined, 'nobody')
  starts.running('web')
  t.equal(await starts.service(['app'], ask(8080)), undefined, 'it runs already')
})

t.test('several of one service are no doubt, of two services they are', async t => {
  const { starts, make } = open()
  const labels = { 'com.docker.compose.project': 'shop', 'com.docker.compose.service': 'web' }
  make('shop_web_1', { labels, everyPort: true })
  make('shop_web_2', { labels, everyPort: true })
  for (const id of ['shop_web_1', 'shop_web_2']) await starts.waiting(id)
  t.equal(await starts.service(['app'], ask(0)), 'compose shop web')
  make('other', { everyPort: true })
  await starts.waiting('other')
  t.equal(await starts.service(['app'], ask(0)), undefined)
  starts.destroyed('other')
  t.equal(await starts.service(['app'], ask(0)), 'compose shop web')
})

t.test('what comes while the call waits counts; so does what a start holds locked', async t => {
  const { starts, make, lock } = open()
  make('late')
  setTimeout(() => void starts.waiting('late').catch(() => {}), 5)
  t.equal(await starts.service(['app'], ask(8080)), 'container late')
  lock()
  make('locked', { port: '9090' })
  const looked = starts.waiting('locked').catch(() => 'not in full')
  t.equal(await starts.service(['app'], ask(9090)), 'container locked')
  t.equal(await looked, 'not in full')
})

t.test('after the stream broke off everything is looked at again', async t => {
  const { starts, make, containers } = open()
  make('old')
  await starts.waiting('old')
  containers.delete('old')
  make('new')
  await starts.load([...containers.values()])
  t.equal(await starts.service(['app'], ask(8080)), 'container new')
})

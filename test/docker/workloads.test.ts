// SPDX-License-Identifier: Apache-2.0
// Who is behind an endpoint, by an engine of which parts do not answer, and a store that comes and goes.
import t, { type Test } from 'tap'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Engine, EngineContainer, EngineEvent, ListedContainer } from '../../src/docker/engine.ts'
import { openIdentity } from '../../src/docker/identity.ts'
import { openStarts } from '../../src/docker/starts.ts'
import { openWorkloads } from '../../src/docker/workloads.ts'
import type { Endpoint, Workload } from '../../src/model/endpoint.ts'
import { fastClock } from '../store/clock.ts'

const network = 'n'
const docker = 'd'
const inTime = async (test: () => boolean, ms = 3000): Promise<boolean> => {
  for (const end = Date.now() + ms; !test(); await new Promise(resolve => setTimeout(resolve, 5)))
    if (Date.now() > end) return false
  return true
}

/** Each container has one endpoint, of its own name. */
const open = (t: Test, speed = 10) => {
  const clock = fastClock(speed)
  const names = new Map<string, string>()
  const states = new Map<string, { status: string; listed: boolean }>()
  const locked = new Set<string>()
  const broken = new Set<string>()
  const endpoints = new Map<string, Endpoint>()
  const starts = new Map<string, number>() // each gives new endpoints
  const endpointOf = (id: string): string => `${id}-e${starts.get(id) ?? ''}`
  const streams = new Set<(event: EngineEvent) => void>()
  let asked = 0
  let store: WeftError | undefined
  let hangs = false
  let networksCame = 0

  const attachments = (id: string, shown: boolean) => ({
    Networks: { app: { NetworkID: docker, EndpointID: shown ? endpointOf(id) : '', Aliases: null } },
  })
  const engine = {
    async ping() {
      if (hangs) throw new WeftError('DOCKER_UNAVAILABLE', 'no answer', { cause: 'time' })
    },
    version: async () => '20.10.24',
    networks: async () => [{ Id: docker, Name: 'app' }],
    containers: async (filters?: { id?: string[] }) =>
      [...names]
        .filter(([id]) => filters?.id === undefined || filters.id.includes(id))
        .map(([id, name]): ListedContainer => {
          const { status, listed } = states.get(id)!
          const State = status.startsWith('Up') ? 'running' : 'created'
          const NetworkSettings = attachments(id, listed)
          return { Id: id, Names: [`/${name}`], ImageID: 'i', Labels: {}, State, Status: status, NetworkSettings }
        }),
    async container(id: string): Promise<EngineContainer> {
      // as its time limit
      for (const end = clock.monotonic() + 10_000; locked.has(id); await new Promise(resolve => setTimeout(resolve, 5)))
        if (clock.monotonic() > end) throw new WeftError('DOCKER_UNAVAILABLE', 'no answer', { cause: 'time' })
      if (broken.has(id)) throw new WeftError('DOCKER_UNAVAILABLE', 'RWLayer is unexpectedly nil')
      const { status } = states.get(id)!
      const Health = /\((.+)\)/.exec(status)?.[1]
      return {
        ...{ Id: id, Name: `/${names.get(id)}`, Image: 'i', Config: { Hostname: id, Labels: {} } },
        State: { Running: status.startsWith('Up'), ...(Health ? { Health: { Status: Health } } : {}) },
        HostConfig: { PortBindings: {}, PublishAllPorts: false },
        NetworkSettings: attachments(id, true),
      }
    },
    imageLabels: async () => ({}),
    async *events(signal: AbortSignal) {
      asked++
      const waiting: EngineEvent[] = []
      let wake = (): void => {}
      const push = (event: EngineEvent): void => {
        waiting.push(event)
        wake()
      }
      signal.addEventListener('abort', () => wake())
      streams.add(push)
      while (!signal.aborted) {
        yield* waiting.splice(0)
        if (waiting.length === 0 && !signal.aborted)
          await new Promise<void>(resolve => {
            wake = resolve
          })
      }
      streams.delete(push)
    },
  } as unknown as Engine
  const known = new Map<string, { record: Endpoint }>()
  const released: string[] = []
  const availability = new Set<(available: boolean) => void>()
  const context = {
    mirror: {
      snapshot: { endpoints: () => known },
      get status() {
        return { available: store === undefined }
      },
      onAvailability(listener: (available: boolean) => void) {
        availability.add(listener)
        return () => availability.delete(listener)
      },
    },
    clock,
    log: silentLog,
  }
  const holdings = { endpoints: () => [...known.keys()].map((id): [string, string] => [id, network]) }
  const start = () => {
    const identity = openIdentity(engine, context as never, holdings)
    const workloads = openWorkloads({
      ...{ context, engine, identity, starts: openStarts(engine, identity, clock), onNetworks: () => networksCame++ },
      holdings,
      bindings: { byDocker: (id: string) => (id === docker ? { network } : undefined) },
      endpoints: {
        async identify(_: string, id: string, workload: Workload, withheld: string) {
          if (store) throw store
          known.set(id, { record: { ...endpoints.get(id)!, workload, withheld } as Endpoint })
        },
        async withhold(_: string, id: string, withheld: string) {
          if (store) throw store
          const now = known.get(id)
          if (!now) throw new WeftError('NOT_FOUND', 'it is gone')
          known.set(id, { record: { ...now.record, withheld } as Endpoint })
        },
      },
      departures: {
        async add(_: string, id: string) {
          released.push(id)
          known.delete(id)
        },
      },
    } as never)
    t.teardown(() => {
      locked.clear()
      return workloads.close()
    })
    return workloads
  }
  return {
    ...{ start, clock, locked, broken, released, streams, names },
    asked: () => asked,
    networksCame: () => networksCame,
    hang: (does: boolean) => (hangs = does),
    /** Runs, but for who says otherwise; nobody has told weft of it yet. */
    make(
      id: string,
      status = 'Up 1 minute',
      { listed = status.startsWith('Up'), endpoint = true, ports = [] as object[] } = {},
    ): void {
      names.set(id, id)
      states.set(id, { status, listed })
      const own = endpointOf(id)
      endpoints.set(own, { id: own, network, ports } as unknown as Endpoint)
      if (endpoint) known.set(own, { record: endpoints.get(own)! })
    },
    /** Stopped and started: what it had is departed, and nobody has told weft of what it has. */
    restart(id: string): void {
      known.delete(endpointOf(id))
      starts.set(id, (starts.get(id) ?? 0) + 1)
      this.make(id, undefined, { ports: [{}] })
    },
    turnsTo: (id: string, status: string): void => void states.set(id, { listed: true, status }),
    leak: (id: string): void => void known.set(id, { record: { id, network, ports: [] } as unknown as Endpoint }),
    tell(Action: string, container: string, Type = 'container'): void {
      const ID = Type === 'container' ? container : docker
      for (const push of streams) push({ Type, Action, Actor: { ID, Attributes: { container, signal: '15' } } })
    },
    nameOf: (id: string): string | undefined => known.get(endpointOf(id))?.record.workload?.name,
    withheldOf: (id: string): string | undefined => known.get(endpointOf(id))?.record.withheld,
    turn(away: WeftError | undefined): void {
      store = away
      for (const listener of availability) listener(away === undefined)
    },
  }
}

t.test('a container that cannot be looked at stops neither events nor the look at others', async t => {
  for (const how of ['locked', 'broken'] as const) {
    const { start, make, tell, nameOf, names, streams, asked, ...engine } = open(t)
    make('bad', 'Created', { endpoint: false })
    make('worse')
    for (const id of ['bad', 'worse']) engine[how].add(id)
    make('web')
    const workloads = start()
    t.ok(await inTime(() => nameOf('web') === 'web', 500), `${how}: found at start`)
    names.set('web', 'site')
    tell('connect', 'worse', 'network')
    tell('connect', 'web', 'network')
    t.ok(await inTime(() => nameOf('web') === 'site', 500), `${how}: told by an event`)
    await new Promise(resolve => setTimeout(resolve, 1500))
    t.same([asked(), streams.size, workloads.engineError], [1, 1, undefined], `${how}: one stream`)
    engine[how].clear()
    tell('start', 'worse')
    t.ok(await inTime(() => nameOf('worse') === 'worse', 500), `${how}: known when it has started`)
  }
})

t.test('an engine that hangs does not answer, though its event stream stays open', async t => {
  const { start, make, nameOf, names, hang, asked, networksCame } = open(t, 100)
  make('web')
  const workloads = start()
  t.ok(await inTime(() => nameOf('web') === 'web'))
  t.equal(workloads.engineError, undefined)
  hang(true)
  t.ok(await inTime(() => workloads.engineError === 'no answer: time', 500))
  names.set('web', 'site')
  hang(false)
  t.ok(await inTime(() => workloads.engineError === undefined, 500))
  t.ok(await inTime(() => nameOf('web') === 'site', 100), 'looked at when it answers')
  t.same([asked(), networksCame()], [1, 2], 'by the same stream')
})

t.test('a store that takes nothing stops no events, and opens no streams', async t => {
  const { start, make, tell, nameOf, names, streams, asked, turn } = open(t)
  make('web')
  turn(new WeftError('STORE_SUSPECT', 'it is empty'))
  start()
  await new Promise(resolve => setTimeout(resolve, 1000))
  t.same([asked(), streams.size], [1, 1])
  turn(undefined)
  names.set('web', 'site')
  tell('rename', 'web')
  t.ok(await inTime(() => nameOf('web') === 'site', 500))
})

t.test('what Docker told while the store was away is caught up with at once', async t => {
  const { start, make, tell, nameOf, withheldOf, names, turn, ...engine } = open(t)
  for (const id of ['web', 'db']) make(id)
  start()
  t.ok(await inTime(() => nameOf('web') === 'web' && nameOf('db') === 'db'))
  turn(new WeftError('STORE_UNAVAILABLE', 'away'))
  names.set('web', 'site')
  tell('rename', 'web')
  engine.turnsTo('db', 'Up 2 minutes (unhealthy)')
  tell('health_status: unhealthy', 'db')
  make('late')
  tell('connect', 'late', 'network')
  await new Promise(resolve => setTimeout(resolve, 800)) // all attempts are over
  t.same([nameOf('web'), withheldOf('db'), nameOf('late')], ['web', undefined, undefined])
  turn(undefined)
  t.ok(await inTime(() => nameOf('web') === 'site', 400), 'the name')
  t.ok(await inTime(() => withheldOf('db') === 'unhealthy', 100), 'health')
  t.ok(await inTime(() => nameOf('late') === 'late', 100), 'who came meanwhile')
})

t.test('who is told to stop gets no connections, and again if it runs all the same', async t => {
  const { start, make, tell, nameOf, withheldOf } = open(t, 100)
  make('web', 'Up 1 minute', { ports: [{}] })
  start()
  t.ok(await inTime(() => nameOf('web') === 'web'))
  tell('kill', 'web')
  t.ok(await inTime(() => withheldOf('web') === 'stopping', 300))
  t.ok(await inTime(() => withheldOf('web') === undefined), 'after a minute')
})

t.test('a signal of before its start withholds nobody, though the store took it late', async t => {
  const engine = open(t)
  engine.make('web', 'Up 1 minute', { ports: [{}] })
  engine.start()
  t.ok(await inTime(() => engine.nameOf('web') === 'web'))
  engine.turn(new WeftError('STORE_UNAVAILABLE', 'away'))
  engine.tell('kill', 'web')
  await new Promise(resolve => setTimeout(resolve, 20)) // it failed, and is tried again
  engine.restart('web')
  engine.turn(undefined)
  for (const action of ['die', 'start']) engine.tell(action, 'web')
  t.ok(await inTime(() => engine.nameOf('web') === 'web', 400), 'the start is known')
  t.notOk(await inTime(() => engine.withheldOf('web') !== undefined, 800))
})

t.test('what changed while weftd was down is found at its start', async t => {
  const { start, make, nameOf, names } = open(t)
  make('web')
  const before = start()
  t.ok(await inTime(() => nameOf('web') === 'web'))
  await before.close()
  names.set('web', 'site')
  start()
  t.ok(await inTime(() => nameOf('web') === 'site', 400))
})

t.test('what a starting container has stays; what nobody has goes, also beside one that is broken', async t => {
  const { start, make, locked, broken, leak, released, tell, turnsTo, nameOf, streams } = open(t, 40)
  make('slow', 'Created')
  locked.add('slow')
  make('bad', 'Created', { endpoint: false })
  broken.add('bad')
  leak('stray')
  start()
  await inTime(() => streams.size > 0)
  tell('connect', 'slow', 'network')
  await new Promise(resolve => setTimeout(resolve, 4000))
  t.same(released, [], 'in doubt all of its network')
  turnsTo('slow', 'Up 1 second')
  locked.clear()
  tell('start', 'slow')
  t.ok(await inTime(() => nameOf('slow') === 'slow', 500), 'known when it has started')
  t.ok(await inTime(() => released.length > 0, 4000))
  t.same(released, ['stray'], 'also where the list does not show the start yet')
})

t.test('a container that ended while Docker could not tell: it keeps the id of what it had', async t => {
  const { start, make, released, nameOf } = open(t, 40)
  make('ended', 'Exited (143) 2 minutes ago', { listed: true })
  make('web')
  make('paused', 'Up 1 minute (Paused)')
  start()
  t.ok(await inTime(() => released.length > 0, 4000))
  t.ok(await inTime(() => nameOf('paused') === 'paused'))
  t.same(released, ['ended-e'])
})

// SPDX-License-Identifier: Apache-2.0
// Who gets a port, in every order of asking, of labels that come late, and of leaving.
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Context } from '../../src/control/context.ts'
import { choosePorts, type PortRequest, releasePorts, settlePorts } from '../../src/control/ports.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'
import { holding, type PortClaim } from '../../src/model/port.ts'
import { endpointService } from '../../src/model/service.ts'
import { decode, encode } from '../../src/store/codec.ts'
import { openEmbeddedStore } from '../../src/store/embedded.ts'
import { keys } from '../../src/store/keys.ts'
import { openMirror } from '../../src/store/mirror.ts'
import { testCluster } from '../overlay/cluster.ts'

const limit = () => AbortSignal.timeout(5000)

const open = async (t: Test) => {
  const store = await openEmbeddedStore({})
  const mirror = openMirror(store, silentLog)
  await mirror.ready(limit())
  t.teardown(async () => {
    await mirror.close()
    await store.close()
  })
  const shapes = testCluster()
  for (const id of ['app', 'other']) {
    shapes.putNetwork({ id })
    const record = shapes.networks.get(id)!.record
    await store.commit([], [{ kind: 'put', key: keys.network(id), value: encode('network', record) }], {
      signal: limit(),
    })
  }
  const taken = new Set<number>()
  const on = (node: string): Context => ({ store, mirror, node, boot: 'b', clock: systemClock, log: silentLog })
  let made = 0
  const put = async (endpoint: Endpoint): Promise<void> => {
    const key = keys.endpoint(endpoint.network, endpoint.id)
    const revision = await store.commit([], [{ kind: 'put', key, value: encode('endpoint', endpoint) }], {
      signal: limit(),
    })
    await mirror.reached(revision, limit())
  }
  const workload = (name: string, label?: string) => ({
    ...{ container: name, name, aliases: [] },
    labels: label === undefined ? {} : { 'weft.service': label },
  })
  /** A container of this name is published: its label is sure, or comes later (identify). */
  const publish = async (
    node: string,
    name: string,
    wish: Partial<PortRequest> & { network?: string; service?: string; local?: boolean } = {},
  ): Promise<Endpoint> => {
    const { network = 'app', service, local, ...port } = wish
    const request: PortRequest = { proto: 'tcp', port: 80, hostPort: 8080, end: port.hostPort ?? 8080, ...port }
    const record = shapes.networks.get(network)!.record
    const where = local ? { ...record, options: { 'weft.publish': 'local' } } : record
    const hold = async ({ hostPort }: { hostPort: number }) =>
      taken.has(hostPort) ? 'a process of this host has it' : undefined
    const choice = await choosePorts(on(node), where, name, service, [request], hold, limit())
    await store.commit(choice.compares, choice.writes, { signal: limit() })
    const endpoint: Endpoint = {
      ...{ id: name, network, node, boot: 'b', addresses: [`10.80.0.${++made}`], mac: `02:77:0a:50:00:0${made}` },
      ...{ ports: choice.ports, gateway: true, identity: 4, ...(service === undefined ? {} : { service }) },
    }
    await put(endpoint)
    return endpoint
  }
  const identify = async (endpoint: Endpoint, label?: string): Promise<void> => {
    const known = { ...endpoint, workload: workload(endpoint.id, label) }
    const { compares, writes } = await settlePorts(on(endpoint.node), known, limit())
    await store.commit(compares, writes, { signal: limit() })
    await put(known)
  }
  const leave = async (endpoint: Endpoint): Promise<void> => {
    const { compares, writes } = await releasePorts(on(endpoint.node), endpoint, limit())
    const gone = { kind: 'delete', key: keys.endpoint(endpoint.network, endpoint.id) } as const
    await mirror.reached(await store.commit(compares, [...writes, gone], { signal: limit() }), limit())
  }
  const claim = async (port = 8080): Promise<PortClaim | undefined> => {
    const entry = await store.get(keys.port('tcp', port))
    return entry && decode('portClaim', entry.key, entry.value)
  }
  /** Who gets the connections. */
  const active = async (): Promise<readonly string[]> => {
    const { cluster } = (await claim()) ?? {}
    if (!cluster) return []
    return holding(cluster, id => {
      const record = mirror.snapshot.endpoints(cluster.network).get(id)?.record
      return record && endpointService(record)
    })
  }
  return { publish, identify, leave, claim, active, taken }
}

t.test('containers of one service share a port; another service is refused by name', async t => {
  const { publish, active } = await open(t)
  await publish('a', 'one', { service: 'label web' })
  await publish('b', 'two', { service: 'label web' })
  t.same(await active(), ['one', 'two'])
  await t.rejects(publish('b', 'db', { service: 'container db' }), {
    code: 'TAKEN',
    message: /8080\/tcp is not free: container one on host a has it, as service web of network app/,
  })
  await t.rejects(publish('a', 'far', { network: 'other', service: 'label web' }), { code: 'TAKEN' })
})

t.test('in doubt the newcomer starts, and gets connections when its label is the same', async t => {
  const { publish, identify, active, claim } = await open(t)
  const one = await publish('a', 'one')
  const two = await publish('b', 'two')
  const three = await publish('b', 'three')
  t.same(await active(), ['one'], 'the first, alone')
  await identify(two, 'web')
  t.same(await active(), ['two'], 'who is known first')
  await identify(one, 'web')
  t.same(await active(), ['one', 'two'])
  await identify(three)
  t.same(await active(), ['one', 'two'])
  t.equal((await claim())?.cluster?.service, 'label web')
})

t.test('when the last of a service leaves, the port is that of who waited', async t => {
  const { publish, identify, leave, active, claim } = await open(t)
  const one = await publish('a', 'one')
  await identify(one, 'web')
  const other = await publish('b', 'other')
  await identify(other, 'late')
  t.same(await active(), ['one'])
  await leave(one)
  t.same(await active(), ['other'])
  await leave(other)
  t.equal(await claim(), undefined)
})

t.test('ports of one host: each host its own, never beside one of the cluster', async t => {
  const { publish, leave, claim } = await open(t)
  const one = await publish('a', 'one', { hostIp: '127.0.0.1', local: true })
  await publish('b', 'two', { local: true })
  t.same(
    (await claim())?.local.map(({ node }) => node),
    ['a', 'b'],
  )
  await t.rejects(publish('a', 'three', { local: true }), { message: /container one on host a has it on this host/ })
  await t.rejects(publish('c', 'four'), { message: /container one on host a has it on host a/ })
  await leave(one)
  await publish('a', 'three', { local: true })
  await publish('c', 'five', { hostPort: 9090 })
  await t.rejects(publish('a', 'six', { hostPort: 9090, local: true }), { message: /has it on every host/ })
})

t.test('any port, and one of a range: free in the cluster, on this host, and never shared', async t => {
  const { publish, taken } = await open(t)
  const one = await publish('a', 'one', { hostPort: 7000, end: 7002, service: 'label web' })
  taken.add(7001)
  const two = await publish('b', 'two', { hostPort: 7000, end: 7002, service: 'label web' })
  t.same(
    [one, two].map(({ ports }) => ports[0]?.hostPort),
    [7000, 7002],
  )
  await t.rejects(publish('b', 'three', { hostPort: 7000, end: 7002 }), { message: /7000-7002\/tcp is not free/ })
  const any = await publish('b', 'four', { hostPort: 0, end: 0 })
  t.ok(any.ports[0]!.hostPort >= 32768)
})

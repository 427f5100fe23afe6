// SPDX-License-Identifier: Apache-2.0
// weftd killed inside each driver call, and between its answer and the engine: docker answers within 20 s, the retry
// succeeds, and after the grace time nothing is left anywhere.
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { idle, openLab } from './lab.ts'
import { behindProxy, heldKeys, kernelOf, openProxy } from './proxy.ts'

const lab = await openLab('kill', 2, ...behindProxy)
const hosts = ['h1', 'h2'] as const
type Host = (typeof hosts)[number]
const proxies = { h1: await openProxy(lab, 'h1'), h2: await openProxy(lab, 'h2') }
t.teardown(async () => {
  for (const host of hosts) await proxies[host].close()
  await lab.close()
})
const kernels = () => Promise.all(hosts.map(host => kernelOf(lab, host)))
const bare = { keys: await heldKeys(lab), kernels: await kernels() }
const answersWithinMs = 20_000
let slowest = 0

const weftdOf = async (host: Host): Promise<number> => {
  const status = JSON.parse(await lab.ok('status', '--output', 'json')) as { hosts: { name: string; weftd: number }[] }
  return status.hosts.find(one => one.name === host)!.weftd
}

type When = 'inside' | 'after'
/** weftd dies in the next such call, and is started again at once. */
const arm = async (host: Host, when: When, method: string) => {
  const pid = await weftdOf(host)
  let back: Promise<unknown> | undefined
  proxies[host].gate = async (at, called) => {
    if (back || at !== when || !called.endsWith(`.${method}`)) return false
    const { promise, resolve } = Promise.withResolvers<unknown>()
    back = promise
    if (when === 'inside') await sleep(Math.random() * 6)
    process.kill(pid, 'SIGKILL')
    await lab.ok('kill', host, 'weftd') // it is gone when this answers
    resolve(lab.ok('start', host, 'weftd'))
    return true
  }
  return { struck: () => back !== undefined, back: () => back }
}
/** A docker command during which weftd dies in that call; then the retry, if there is one. */
const strike = async (t: Test, host: Host, when: When, method: string, args: string[], again = [args]) => {
  const what = `${args.slice(0, 2).join(' ')}, ${when} ${method}`
  const { struck, back } = await arm(host, when, method)
  const from = Date.now()
  const answer = await lab.tryDocker(host, ...args)
  const ms = Date.now() - from
  slowest = Math.max(slowest, ms)
  t.ok(struck(), `${what}: weftd was killed`)
  t.ok(ms < answersWithinMs, `${what}: docker says ${answer.code} after ${ms} ms: ${answer.err}`)
  await back()
  if (answer.code === 0) return
  for (const command of again) {
    const { code, err } = await lab.tryDocker(host, ...command)
    if (code !== 0 && !/No such container|is not connected to/.test(err))
      t.fail(`${what}: ${command.join(' ')}: ${err} (first: ${answer.err})`)
  }
}
const both: readonly When[] = ['inside', 'after']
const every = (methods: string[]): [When, string][] =>
  methods.flatMap(method => both.map((when): [When, string] => [when, method]))
const create = ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft']

/** They stay: of a small store a third is gone with one network, and then weftd does not believe it when it starts. */
const others = [0, 1, 2, 3].map(i => `other${i}`)

t.test('network create and rm', async t => {
  for (const name of others) await lab.docker('h1', ...create, name)
  const removals = every(['ReleaseAddress', 'ReleasePool', 'DeleteNetwork'])
  for (const [i, [when, method]] of every(['RequestPool', 'RequestAddress', 'CreateNetwork']).entries()) {
    const name = `net${i}`
    await strike(t, 'h1', when, method, [...create, '--subnet', `10.7${i}.0.0/24`, name])
    t.ok(
      await lab.until(
        async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', `name=^${name}$`)) !== '',
        20_000,
      ),
      `${name} is on the other host`,
    )
    await strike(t, 'h1', ...removals[i]!, ['network', 'rm', name])
  }
})

t.test('run and rm on one host, connect and disconnect on the other', async t => {
  await lab.docker('h1', ...create, '--ipv6', 'app')
  await lab.docker('h1', ...create, '--subnet', '10.60.0.0/24', 'side')
  t.ok(
    await lab.until(
      async () => (await lab.docker('h2', 'network', 'ls', '-q', '-f', 'name=^(app|side)$')).includes('\n'),
      20_000,
    ),
  )
  await lab.docker('h2', 'run', '-d', '--network', 'app', '--name', 'stays', 'busybox', ...idle)
  const runs = async (): Promise<void> => {
    const removals = every(['RevokeExternalConnectivity', 'Leave', 'DeleteEndpoint', 'ReleaseAddress'])
    const starts = every([
      'RequestAddress',
      'CreateEndpoint',
      'Join',
      'ProgramExternalConnectivity',
      'EndpointOperInfo',
    ])
    for (const [i, [when, method]] of starts.entries()) {
      const run = ['run', '-d', '--network', 'app', '--name', `c${i}`, '-p', '8080:80', 'busybox', ...idle]
      await strike(t, 'h1', when, method, run, [['rm', '-f', `c${i}`], run])
      const removal = removals[i]
      if (removal) await strike(t, 'h1', ...removal, ['rm', '-f', `c${i}`])
      else await lab.docker('h1', 'rm', '-f', `c${i}`)
    }
  }
  const connects = async (): Promise<void> => {
    const leaves = every(['Leave', 'DeleteEndpoint', 'ReleaseAddress'])
    for (const [i, [when, method]] of every([
      'RequestAddress',
      'CreateEndpoint',
      'Join',
      'EndpointOperInfo',
    ]).entries()) {
      await strike(t, 'h2', when, method, ['network', 'connect', 'side', 'stays'])
      const leave = leaves[i]
      if (leave) await strike(t, 'h2', ...leave, ['network', 'disconnect', 'side', 'stays'])
      else await lab.docker('h2', 'network', 'disconnect', 'side', 'stays')
    }
  }
  await Promise.all([runs(), connects()])
})

t.test('with an address and a MAC of its choice it starts again at once, and is restarted', async t => {
  await lab.docker('h1', ...create, '--subnet', '10.61.0.0/24', 'fixed')
  const strikes = every(['CreateEndpoint', 'Join'])
  const stops = every(['Leave', 'DeleteEndpoint'])
  for (const [i, [when, method]] of strikes.entries()) {
    const name = `f${i}`
    const mine = ['--network', 'fixed', '--ip', '10.61.0.20', '--mac-address', '02:42:00:00:00:20', '--name', name]
    const comes = () => lab.until(async () => (await lab.tryDocker('h1', 'start', name)).code === 0, 10_000)
    await strike(t, 'h1', when, method, ['run', '-d', ...mine, 'busybox', ...idle], [])
    t.ok(await comes(), `${when} ${method}`)
    const [stopped, by] = stops[i]!
    await strike(t, 'h1', stopped, by, ['restart', '-t', '0', name], [])
    t.ok(await comes(), `restart, ${stopped} ${by}`)
    t.equal(
      await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.fixed.IPAddress}}', name),
      '10.61.0.20',
    )
    await lab.docker('h1', 'rm', '-f', name)
  }
})

t.test(
  'dockerd killed between an address and its endpoint: the address is free again, for who asks for it at once',
  async t => {
    const reserved = async (): Promise<number> => {
      const values = await lab.exec('store', 'etcdctl', 'get', '--prefix', '/weft/v1/addresses/', '--print-value-only')
      return values.split('\n').filter(line => line.includes('"reserved"')).length
    }
    for (const when of both) {
      let struck = false
      proxies.h1.gate = async (at, called) => {
        if (struck || at !== when || !called.endsWith('.RequestAddress')) return false
        struck = true
        await lab.ok('kill', 'h1', 'dockerd')
        return true
      }
      const asked = ['run', '-d', '--network', 'fixed', '--ip', '10.61.0.30']
      t.not((await lab.tryDocker('h1', ...asked, '--name', when, 'busybox', ...idle)).code, 0)
      t.ok(struck, when)
      t.ok(await lab.until(async () => (await reserved()) > 0), 'an address without an endpoint')
      await lab.ok('start', 'h1', 'dockerd')
      await lab.docker('h1', ...asked, '--name', `${when}-again`, 'busybox', ...idle)
      await lab.docker('h1', 'rm', '-f', when, `${when}-again`)
    }
    t.ok(await lab.until(async () => (await reserved()) === 0, 100_000), 'none is left')
  },
)

t.test('while a new engine asks who it is', async t => {
  for (const [when, method] of every(['Activate', 'GetCapabilities', 'GetDefaultAddressSpaces'])) {
    const what = `${when} ${method}`
    await lab.ok('kill', 'h1', 'dockerd')
    const { struck, back } = await arm('h1', when, method)
    await lab.ok('start', 'h1', 'dockerd')
    // an engine may ask when it needs it first
    const made = await lab.tryDocker('h1', ...create, '--subnet', '10.62.0.0/24', 'asked')
    t.ok(struck(), `${what}: weftd was killed`)
    await back()
    if (made.code !== 0) await lab.docker('h1', ...create, '--subnet', '10.62.0.0/24', 'asked')
    await lab.docker('h1', 'run', '--rm', '--network', 'asked', 'busybox', 'true')
    await lab.docker('h1', 'network', 'rm', 'asked')
  }
})

t.test('nothing is left behind', async t => {
  t.comment(`slowest answer: ${slowest} ms`)
  await lab.docker('h1', 'run', '-d', '--network', 'app', '--name', 'last', 'busybox', ...idle)
  const address = await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'last')
  await lab.docker('h2', 'exec', 'stays', 'ping', '-c', '1', '-W', '3', address)
  await lab.docker('h1', 'rm', '-f', 'last')
  await lab.docker('h2', 'rm', '-f', 'stays')
  await lab.until(async () => !(await heldKeys(lab)).some(key => key.includes('/endpoints/')), 120_000)
  await lab.docker('h1', 'network', 'rm', 'app', 'side', 'fixed', ...others)
  const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)
  // the kernel follows the store
  const same = async (): Promise<boolean> =>
    equal(await heldKeys(lab), bare.keys) && equal(await kernels(), bare.kernels)
  await lab.until(same, 100_000)
  t.same(await heldKeys(lab), bare.keys, 'etcd is as in the beginning')
  t.same(await kernels(), bare.kernels, 'so are the kernels')
})

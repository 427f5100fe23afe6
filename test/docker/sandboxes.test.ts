// SPDX-License-Identifier: Apache-2.0
// The route to the resolver that each endpoint of a sandbox brings.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { networkDriver } from '../../src/docker/network-driver.ts'
import { openSandboxes } from '../../src/docker/sandboxes.ts'

const open = async (t: Test, before?: string) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-sandboxes-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const path = join(dir, 'sandboxes.json')
  if (before !== undefined) writeFileSync(path, before)
  const start = async () => {
    const driver = networkDriver({
      endpoints: {
        get: async (_: string, id: string) => ({
          endpoint: {
            id,
            addresses: id.startsWith('six')
              ? ['fd00::2']
              : id.startsWith('both')
                ? ['10.224.0.2', 'fd00::2']
                : ['10.224.0.2'],
          },
          network: { id: 'n', pools: [], internal: true },
        }),
      },
      converger: { attach: async () => {} },
      sandboxes: await openSandboxes(path, silentLog),
      containerEnd: () => 'c',
      resolvers: ['169.254.77.53', 'fd69:7765:6674:ffff::53'],
    } as never)
    const call = (method: string, body: object) =>
      driver[`NetworkDriver.${method}`]!(JSON.stringify({ NetworkID: 'n', ...body }), AbortSignal.timeout(5000))
    return {
      join: async (EndpointID: string, SandboxKey = '/one') => {
        const answer = await call('Join', { EndpointID, SandboxKey })
        return (answer as { StaticRoutes: { Destination: string }[] }).StaticRoutes.map(route => route.Destination)
      },
      leave: (EndpointID: string) => call('Leave', { EndpointID }),
    }
  }
  return { path, start, ...(await start()) }
}

t.test('every network brings one of its own, the more specific wins', async t => {
  const { join } = await open(t)
  const routes = []
  for (let i = 0; i < 17; i++) routes.push(...(await join(`e${i}`)))
  const first = ['169.254.77.53/32', '169.254.77.52/31', '169.254.77.52/30', '169.254.77.48/29', '169.254.77.48/28']
  t.same(routes.slice(0, 5), first)
  t.same(routes.slice(14), ['169.254.64.0/18', '169.254.0.0/17'], 'and the 17th network none')
  t.same(await join('other', '/two'), ['169.254.77.53/32'])
})

t.test('who is in one sandbox', async t => {
  const { path, join, leave } = await open(t)
  for (const id of ['a', 'b', 'c']) await join(id)
  await join('other', '/two')
  await leave('b')
  const { beside } = await openSandboxes(path, silentLog)
  t.same([beside('a'), beside('other'), beside('b')], [['a', 'c'], ['other'], []])
})

t.test('Docker repeats its calls, the next weftd too; what left is used again', async t => {
  const one = await open(t)
  await one.join('a')
  await one.join('b')
  t.same(await one.join('a'), ['169.254.77.53/32'])
  const { join, leave } = await one.start()
  t.same(await join('b'), ['169.254.77.52/31'])
  t.same(await join('c'), ['169.254.77.52/30'])
  await leave('a')
  t.same(await join('b'), ['169.254.77.52/31'])
  t.same(await join('d'), ['169.254.77.53/32'])
})

t.test('of each family that the endpoint has, under one number', async t => {
  const { join, leave } = await open(t)
  t.same(await join('six'), ['fd69:7765:6674:ffff::53/128'])
  t.same(await join('four'), ['169.254.77.52/31'])
  t.same(await join('both'), ['169.254.77.52/30', 'fd69:7765:6674:ffff::50/126'])
  await leave('six')
  t.same(await join('six2'), ['fd69:7765:6674:ffff::53/128'])
  const last = []
  for (let i = 3; i < 17; i++) last.push(await join(`both${i}`))
  t.same(last.slice(-2), [['169.254.0.0/17', 'fd69:7765:6674:ffff::/113'], []])
})

t.test('the file of a weftd before there were numbers', async t => {
  const { join } = await open(t, '[["/one","a"]]')
  t.same(await join('b'), ['169.254.77.52/31'])
  t.same(await join('a'), ['169.254.77.53/32'])
})

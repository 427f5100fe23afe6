// SPDX-License-Identifier: Apache-2.0
// Containers, engines and hosts that end without a word: after the grace time nothing of them is left anywhere, and
// what lives on, or comes back, works.
import t from 'tap'
import { openAgreement } from './agree.ts'
import { idle, openLab } from './lab.ts'
import { attachmentsOf } from './truth.ts'

const lab = await openLab('crash', 2)
t.teardown(() => lab.close())
const { look, agree } = openAgreement(lab, ['h1', 'h2'])
/** 30 s of grace for endpoints that the engine does not list, and the look that finds them. */
const graceMs = 60_000

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await lab.shows('h2', 'app')
const run = (host: string, name: string, ...options: string[]) =>
  lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, ...options, 'busybox', ...idle)
const running = async (): Promise<string[]> =>
  [...new Set(attachmentsOf((await look()).views).map(one => one.container))].sort()
const resolves = async (name: string): Promise<boolean> =>
  (await lab.tryDocker('h1', 'exec', 'stays', 'nslookup', name)).code === 0
const pid = (host: string, name: string) => lab.docker(host, 'inspect', '-f', '{{.State.Pid}}', name)

await run('h1', 'stays')

t.test('a container killed from outside', async t => {
  await run('h2', 'dies')
  await run('h2', 'again', '--restart', 'always')
  t.same((await agree()).wrong, [])
  t.ok(await resolves('dies'))
  for (const name of ['dies', 'again']) await lab.exec('h2', 'sh', '-c', `kill -9 ${await pid('h2', name)}`)
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
  t.same(await running(), ['again', 'stays'])
  t.notOk(await resolves('dies'))
  t.ok(await resolves('again'))
  await lab.docker('h2', 'rm', '-f', 'dies', 'again')
})

t.test('an engine killed, whose containers do not outlive it', async t => {
  await run('h2', 'once')
  await run('h2', 'again', '--restart', 'always')
  await lab.ok('kill', 'h2', 'dockerd')
  await lab.ok('start', 'h2', 'dockerd')
  t.ok(await lab.until(async () => (await running()).join() === 'again,stays', graceMs))
  const { wrong, note } = await agree(graceMs)
  t.same(wrong, [], note)
  t.notOk(await resolves('once'))
  t.ok(await resolves('again'))
  await lab.docker('h2', 'rm', '-f', 'once', 'again')
})

t.test('a host that loses its power', async t => {
  await run('h2', 'once')
  await run('h2', 'again', '--restart', 'always')
  t.same((await agree()).wrong, [])
  await lab.ok('reboot', 'h2')
  t.ok(await lab.until(async () => (await running()).join() === 'again,stays', graceMs))
  const { wrong, note } = await agree(graceMs)
  t.same(wrong, [], note)
  t.notOk(await resolves('once'))
  t.ok(await resolves('again'))
  await lab.docker('h2', 'start', 'once')
  t.same((await agree()).wrong, [])
  t.ok(await resolves('once'))
})

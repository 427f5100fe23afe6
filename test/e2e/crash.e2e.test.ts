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
const subnets = ['--subnet', '10.55.0.0/24', '--ipv6', '--subnet', 'fd55::/64']
await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...subnets, 'stat')
await lab.shows('h2', 'stat')
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

t.test(
  'an engine killed, whose end weftd does not see: back first, it keeps the ids of what its containers had',
  async t => {
    await run('h2', 'once')
    for (const what of ['weftd', 'dockerd']) await lab.ok('kill', 'h2', what)
    await lab.ok('start', 'h2', 'dockerd') // it asks weftd in vain for what it cleans up
    await lab.ok('start', 'h2', 'weftd')
    const id = await lab.docker('h2', 'inspect', '-f', '{{.NetworkSettings.Networks.app.EndpointID}}', 'once')
    t.match(id, /^[0-9a-f]{64}$/, 'so it is')
    t.ok(await lab.until(async () => !(await resolves('once')), graceMs))
    const { wrong, note } = await agree(graceMs)
    t.same(wrong, [], note)
    await lab.docker('h2', 'start', 'once')
    t.ok(await lab.until(() => resolves('once')))
    t.same((await agree()).wrong, [])
    await lab.docker('h2', 'rm', '-f', 'once')
  },
)

/** Containers that have to come back to what they had: by --ip, --ip6, both, and --mac-address. */
const chosen: readonly (readonly string[])[] = Array.from({ length: 6 }, (_, i) => [
  ['--ip', `10.55.0.${20 + i}`],
  ['--ip6', `fd55::${20 + i}`],
  ['--ip', `10.55.0.${40 + i}`, '--ip6', `fd55::${40 + i}`],
  ['--mac-address', `02:42:11:22:33:${20 + i}`],
]).flat()
const settledOnes = async (): Promise<string[]> => {
  const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{.MacAddress}}{{end}}'
  const found = chosen.map(async (options, i) => {
    const { out } = await lab.tryDocker('h2', 'inspect', '-f', `{{.State.Running}} ${format}`, `s${i}`)
    const [running, ...has] = out.split(' ')
    const wanted = options.filter((_, at) => at % 2 === 1)
    return running === 'true' && wanted.every(one => has.includes(one)) ? [] : [`s${i} ${options.join(' ')}: ${out}`]
  })
  return (await Promise.all(found)).flat()
}
const startChosen = () =>
  Promise.all(
    chosen.map((options, i) =>
      lab.docker(
        'h2',
        ...['run', '-d', '--restart', 'always', '--network', 'stat', '--name', `s${i}`, ...options, 'busybox', ...idle],
      ),
    ),
  )
const endChosen = () => lab.docker('h2', 'rm', '-f', ...chosen.map((_, i) => `s${i}`))

t.test('many with addresses of their choice, restarted at once', async t => {
  await startChosen()
  for (let round = 0; round < 4; round++) {
    const answers = await Promise.all(chosen.map((_, i) => lab.tryDocker('h2', 'restart', '-t', '0', `s${i}`)))
    t.same(
      answers.filter(({ code }) => code !== 0).map(({ err }) => err),
      [],
      `round ${round}`,
    )
    t.same(await settledOnes(), [], `round ${round}`)
  }
  const { wrong, note } = await agree()
  t.same(wrong, [], note)
  await endChosen()
})

t.test('a host that loses its power, with addresses of their choice', async t => {
  await startChosen()
  t.same((await agree()).wrong, [])
  await lab.ok('reboot', 'h2')
  await lab.until(async () => (await settledOnes()).length === 0, graceMs)
  t.same(await settledOnes(), [])
  const { wrong, note } = await agree(graceMs)
  t.same(wrong, [], note)
  await endChosen()
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

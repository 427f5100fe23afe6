// SPDX-License-Identifier: Apache-2.0
// Which labels of a container count: what its user said, not what its image brings.
import t from 'tap'
import { WeftError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Engine } from '../../src/docker/engine.ts'
import { openIdentity, workloadOf } from '../../src/docker/identity.ts'
import type { Workload } from '../../src/model/endpoint.ts'

const compose = 'com.docker.compose.'
const built = { [`${compose}project`]: 'shop', [`${compose}service`]: 'web', [`${compose}version`]: '2.30.0' }
const started = {
  [`${compose}config-hash`]: 'c0ffee',
  [`${compose}container-number`]: '1',
  [`${compose}oneoff`]: 'False',
}
/** Labels of a container are those of its image, and over them those given. */
const who = (image: Record<string, string>, given: Record<string, string>) =>
  workloadOf({ Id: 'c1', Name: '/c', Image: 'i', Config: { Hostname: 'h', Labels: { ...image, ...given } } }, [], image)

t.test('compose runs the image that it built', async t => {
  t.match(who(built, { ...built, ...started }), { project: 'shop', service: 'web' })
  for (const [mark, value] of Object.entries(started).slice(0, 2))
    t.match(who(built, { ...built, [mark]: value }), { service: 'web' }, mark)
})

t.test('compose runs an image that compose built for another project', async t => {
  const given = { [`${compose}project`]: 'other', [`${compose}service`]: 'front', ...started }
  t.match(who(built, given), { project: 'other', service: 'front' })
})

t.test('docker run of an image that compose built is of no service', async t => {
  const { project, service, labels } = who(built, { team: 'a' })
  t.same([project, service, labels], [undefined, undefined, { team: 'a' }])
})

t.test('an image cannot claim by bringing the marks of a running compose', async t => {
  t.equal(who({ ...built, ...started }, {}).service, undefined)
})

t.test("weft.service counts when given, not as an image's own", async t => {
  t.equal(who({ 'weft.service': 'db' }, {}).service, undefined)
  t.equal(who({ 'weft.service': 'db' }, started).service, undefined, 'under compose neither')
  t.equal(who({ 'weft.service': 'db' }, { 'weft.service': 'web' }).service, 'web')
  t.equal(who({}, { 'weft.service': 'web' }).service, 'web')
})

/** Opened when the image is removed already, as by a weftd that starts after it. */
const open = (image: Error | Record<string, string>, before?: Workload) => {
  const warnings: object[] = []
  const engine = { imageLabels: async () => (image instanceof Error ? Promise.reject(image) : image) }
  const endpoints = new Map([['e', { record: { workload: before } }]])
  const identity = openIdentity(
    engine as unknown as Engine,
    {
      mirror: { snapshot: { endpoints: () => endpoints } } as never,
      log: { ...silentLog, warn: (about: object | string) => void warnings.push(about as object) },
    },
    { endpoints: () => [['e', 'n']] },
  )
  const ask = (Labels: Record<string, string>) =>
    identity({ Id: 'c1', Name: '/web', Image: 'i', Config: { Hostname: 'h', Labels } }, ['www'])
  return { ask, warnings }
}
const removed = new WeftError('NOT_FOUND', 'no such image')

t.test('a container whose image was removed has its name, and no label that the image may have brought', async t => {
  const { ask, warnings } = open(removed)
  const labels = { 'weft.service': 'db', ...built, ...started, team: 'a' }
  const { service, project, ...rest } = await ask(labels)
  t.same([service, project], [undefined, undefined])
  t.same(rest, { container: 'c1', name: 'web', hostname: 'h', aliases: ['www'], labels: { team: 'a' } })
  t.match(warnings, [{ container: 'web', labels: ['weft.service', `${compose}project`, `${compose}service`] }])
  await ask({ team: 'a' })
  t.equal(warnings.length, 1, 'where nothing is lost nothing is said')
})

t.test('what counted while there was an image counts without it', async t => {
  const given = { 'weft.service': 'web', ...built, ...started }
  const image = { 'weft.weight': '900', ...built }
  const { warnings, ...before } = open(image)
  const workload = await before.ask({ ...image, ...given })
  t.match(workload, { service: 'web', project: 'shop' })
  t.same(await open(removed, workload).ask({ ...image, ...given }), workload)
  const other = open(removed, { ...workload, container: 'c2' })
  t.equal((await other.ask(given)).service, undefined, "another container's does not")
  t.same([warnings.length, other.warnings.length], [0, 1])
})

t.test('an engine that fails says nothing about the image', async t => {
  const failed = new WeftError('DOCKER_UNAVAILABLE', 'no answer')
  await t.rejects(open(failed).ask({ team: 'a' }), { code: 'DOCKER_UNAVAILABLE' })
})

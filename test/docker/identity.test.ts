// SPDX-License-Identifier: Apache-2.0
// Which labels of a container count: what its user said, not what its image brings.
import t from 'tap'
import { workloadOf } from '../../src/docker/identity.ts'

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

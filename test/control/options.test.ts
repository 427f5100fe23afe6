// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { parseOptions, refuseEndpointOptions } from '../../src/control/options.ts'

t.test('what a network cannot have is refused, never ignored', async t => {
  t.throws(() => parseOptions({ 'weft.polici': 'allow' }), {
    code: 'UNKNOWN_OPTION',
    message: 'option weft.polici is unknown, did you mean weft.policy?',
  })
  for (const value of ['', 'true', '1'])
    t.throws(() => parseOptions({ encrypted: value }), {
      code: 'INVALID',
      message: `option encrypted=${value} is not available: use false; encryption is not built yet`,
    })
  t.same(parseOptions({ encrypted: 'false', 'weft.policy': 'allow', 'other.driver': 'x' }), {})
})

t.test('a connection of a container has no options of ours', async t => {
  t.throws(() => refuseEndpointOptions({ 'weft.foo': '1' }), {
    code: 'UNKNOWN_OPTION',
    message: /^option weft\.foo is unknown, did you mean weft\.\w+\?$/,
  })
  t.throws(() => refuseEndpointOptions({ 'weft.policy': 'deny' }), {
    code: 'UNKNOWN_OPTION',
    message: /^option weft\.policy is one of networks, .*docker network create -o weft\.policy=…$/,
  })
  refuseEndpointOptions({ 'com.docker.network.portmap': [], 'com.docker.network.endpoint.exposedports': [] })
})

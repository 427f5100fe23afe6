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
  t.same(parseOptions({ encrypted: 'false', 'weft.policy': 'allow' }), {})
  for (const [name, meant] of [
    ['Weft.encrypted', 'weft.encrypted'],
    ['weft-vni', 'weft.vni'],
    ['com.docker.network.driver.MTU', 'com.docker.network.driver.mtu'],
  ] as const)
    t.throws(() => parseOptions({ [name]: '1' }), { message: `option ${name} is unknown, did you mean ${meant}?` })
  for (const name of [
    'com.docker.network.bridge.enable_icc',
    'com.docker.network.bridge.host_binding_ipv4',
    'com.docker.network.bridge.gateway_mode_ipv4',
    'parent',
    '__proto__',
  ])
    t.throws(() => parseOptions(Object.fromEntries([[name, '1']])), {
      code: 'UNKNOWN_OPTION',
      message: `option ${name} is unknown, and would do nothing in a network of weft: leave it out (there are weft.network, weft.publish, weft.policy, weft.encrypted, weft.vni, com.docker.network.driver.mtu)`,
    })
  for (const name of ['weft.vni', 'com.docker.network.driver.mtu'])
    t.throws(() => parseOptions({ [name]: '' }), { code: 'INVALID', message: /= is not a whole number/ })
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

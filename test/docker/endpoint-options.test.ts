// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { type NetworkDriverParts, networkDriver } from '../../src/docker/network-driver.ts'

t.test('options of a connection that weft has not: refused before anything is made', async t => {
  let made = 0
  const endpoints = { create: async () => ({ mac: `02:77:00:00:00:0${++made}` }) }
  const driver = networkDriver({ endpoints } as unknown as NetworkDriverParts)
  const create = (options: Record<string, unknown>) =>
    driver['NetworkDriver.CreateEndpoint']!(
      JSON.stringify({ NetworkID: 'n1', EndpointID: 'e1', Interface: { Address: '10.80.0.2/24' }, Options: options }),
      AbortSignal.timeout(1000),
    )
  const usual = { 'com.docker.network.portmap': [], 'com.docker.network.endpoint.exposedports': [] }
  await t.rejects(create({ ...usual, 'weft.policy': 'deny' }), { code: 'UNKNOWN_OPTION', message: /weft\.policy/ })
  await t.rejects(create({ ...usual, 'weft.foo': '1' }), { code: 'UNKNOWN_OPTION', message: /weft\.foo is unknown/ })
  t.equal(made, 0)
  t.match(await create(usual), { Interface: { MacAddress: '02:77:00:00:00:01' } })
})

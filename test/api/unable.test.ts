// SPDX-License-Identifier: Apache-2.0
// What a host says of the service that it cannot serve as it was told to.
import t from 'tap'
import { type Balancing, unable } from '../../src/api/unable.ts'
import { schedulers, turnSchedulers } from '../../src/model/service-options.ts'

const ipvs: Balancing = { balancer: 'ipvs', schedulers }
const nft: Balancing = { balancer: 'nft', schedulers: turnSchedulers }
const about = { network: 'n1', service: 'web' }

t.test('nothing was said, or everything can be done', async t => {
  for (const balancing of [ipvs, nft]) {
    t.same(unable(undefined, true, balancing), [])
    t.same(unable({ ...about, scheduler: 'wrr' }, true, balancing), [])
  }
  t.same(unable({ ...about, scheduler: 'lc', affinity: 60 }, false, ipvs), [])
  t.same(unable({ ...about, timeoutUdp: 60 }, false, nft), [])
})

t.test('a scheduler that it has not', async t => {
  const used = 'rr, wrr, sh; rr is used'
  t.same(unable({ ...about, scheduler: 'lc' }, true, nft), [
    `scheduler lc: this host balances by nft, which has ${used}`,
  ])
  t.same(unable({ ...about, scheduler: 'lc' }, true, ipvs), [`scheduler lc: virtual addresses have ${used}`])
})

t.test('affinity without a time, time-outs of all services or of none', async t => {
  const [byPorts, ...rest] = unable({ ...about, affinity: 60 }, true, nft)
  t.match(byPorts, /^affinity 60 s: this host balances by nft, which keeps a client's container as long as/)
  t.same(rest, [], 'the same by virtual addresses')
  t.match(unable({ ...about, affinity: 60 }, true, ipvs), [/^affinity 60 s: virtual addresses keep /])
  t.match(unable({ ...about, timeoutTcp: 60 }, true, ipvs), [
    /^timeouts: this host balances by ipvs, /,
    /^timeouts: .*own$/,
  ])
  t.match(unable({ ...about, timeoutTcp: 60 }, true, nft), [/^timeouts: connections by virtual addresses /])
})

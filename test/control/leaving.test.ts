// SPDX-License-Identifier: Apache-2.0
// Containers that come back to the address and the MAC that they had: at once, many together, and after a boot.
import t, { type Test } from 'tap'
import type { EndpointRequest } from '../../src/control/endpoints.ts'
import { macFrom } from '../../src/model/address.ts'
import { encode } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'
import { limit, openHost } from './host.ts'

const prefixes = ['10.230.0.0/24', 'fd30::/64'] as const
const userMac = '02:42:11:22:33:44'

const open = async (t: Test) => {
  const host = await openHost(t)
  const { mirror, pools, networks, departures, endpoints, addresses, put } = host
  const options = { options: {}, internal: false, ipv6: true }
  for (const prefix of prefixes)
    await pools.request({ family: prefix.includes(':') ? 6 : 4, prefix, wanted: 'app' }, limit())
  await networks.create({ docker: 'd', pools: prefixes.map(prefix => ({ prefix })), ...options }, limit())
  const { network } = mirror.snapshot.names.get('app')!.record
  await networks.introduce(network, { name: 'app', labels: {}, attachable: false }, limit())
  const erase = (delayMs = 0) =>
    departures.start(async (network, endpoint, signal) => {
      await new Promise(resolve => setTimeout(resolve, delayMs))
      await endpoints.erase(network, endpoint, signal)
    })
  return {
    ...host,
    network,
    erase,
    /** As Docker starts a container with --ip and --ip6. */
    async start(endpoint: string, ips: readonly string[], mac?: string) {
      for (const [i, ip] of ips.entries()) await addresses.request(prefixes[i]!, ip, false, limit())
      const request: EndpointRequest = { docker: 'd', endpoint, addresses: ips }
      return endpoints.create(mac === undefined ? request : { ...request, mac }, limit())
    },
    /** As Docker stops it, which waits for an address to be released no longer than a moment. */
    async stop(endpoint: string, ips: readonly string[]) {
      await endpoints.delete('d', endpoint)
      for (const [i, ip] of ips.entries()) void addresses.release(prefixes[i]!, ip, limit())
    },
    /** As the last boot left it. */
    async past(endpoint: string, ips: readonly string[], mac = macFrom(ips)!) {
      const from = { node: 'a', boot: 'before' }
      const bound = { kind: 'bound', node: 'a', endpoint } as const
      const flags = { ports: [], gateway: false, identity: 0 }
      const record = encode('endpoint', { id: endpoint, network, ...from, addresses: ips, mac, ...flags })
      for (const ip of ips) await put(keys.address(network, ip), encode('addressClaim', { ...bound, boot: 'before' }))
      await put(keys.mac(network, mac), encode('macClaim', bound))
      await mirror.reached(await put(keys.endpoint(network, endpoint), record), limit())
    },
  }
}

t.test('forty restarted at once, however slow the erasing', async t => {
  const { start, stop, erase, mirror, network } = await open(t)
  erase(100)
  const all = Array.from({ length: 40 }, (_, i) => [`10.230.0.${i + 20}`, `fd30::${i + 20}`] as const)
  await Promise.all(all.map((ips, i) => start(`first${i}`, ips, i % 2 ? undefined : `02:42:00:00:00:${i + 10}`)))
  for (const round of ['second', 'third'])
    await Promise.all(
      all.map(async (ips, i) => {
        await stop(`${round === 'second' ? 'first' : 'second'}${i}`, ips)
        const record = await start(`${round}${i}`, ips, i % 2 ? undefined : `02:42:00:00:00:${i + 10}`)
        t.same(record.addresses, ips)
        t.equal(record.mac, i % 2 ? macFrom(ips) : `02:42:00:00:00:${i + 10}`)
      }),
    )
  t.equal([...mirror.snapshot.endpoints(network).keys()].filter(id => id.startsWith('third')).length, 40)
})

t.test("an endpoint that Docker never deleted, and nobody lives with, is in nobody's way", async t => {
  const { start, departures, endpoints, mirror, network } = await open(t)
  const deserted = new Set<string>()
  departures.start(endpoints.erase, ({ id }) => deserted.has(id))
  await start('killed', ['10.230.0.9', 'fd30::9'], userMac)
  t.ok(endpoints.isYoung('killed'))
  t.notOk(endpoints.isYoung('of another life'))
  await t.rejects(start('again', ['10.230.0.9', 'fd30::9'], userMac), { code: 'TAKEN' })
  deserted.add('killed')
  t.match(await start('again', ['10.230.0.9', 'fd30::9'], userMac), { mac: userMac })
  t.same([...mirror.snapshot.endpoints(network).keys()], ['again'])
  deserted.add('again')
  t.match(await start('third', ['10.230.0.10', 'fd30::10'], userMac), { mac: userMac }, 'its MAC alone')
})

t.test('who lives keeps what it has', async t => {
  const { start, erase } = await open(t)
  erase()
  await start('one', ['10.230.0.9', 'fd30::9'], userMac)
  await t.rejects(start('two', ['10.230.0.9', 'fd30::8']), {
    code: 'TAKEN',
    message: 'address 10.230.0.9 is in use on host a: choose another --ip',
  })
  await t.rejects(start('two', ['10.230.0.8', 'fd30::9']), { code: 'TAKEN', message: /fd30::9 is in use on host a/ })
  await t.rejects(start('two', ['10.230.0.7', 'fd30::7'], userMac), {
    code: 'TAKEN',
    message: /mac address 02:42:11:22:33:44 is in use on host a/,
  })
})

t.test('after a boot: asked for before this node has joined again', async t => {
  const { start, past, erase, departures, network, mirror } = await open(t)
  await past('ip', ['10.230.0.9', 'fd30::9'])
  await past('mac', ['10.230.0.10', 'fd30::10'], userMac)
  const started = [start('ip-again', ['10.230.0.9', 'fd30::9']), start('mac-again', ['10.230.0.11'], userMac)]
  await new Promise(resolve => setTimeout(resolve, 300))
  t.same([...mirror.snapshot.endpoints(network).keys()].sort(), ['ip', 'mac'], 'nothing is done yet')
  await departures.addAll([
    ['ip', network],
    ['mac', network],
  ])
  await new Promise(resolve => setTimeout(resolve, 100))
  erase()
  t.same(
    (await Promise.all(started)).map(({ id, mac }) => [id, mac]),
    [
      ['ip-again', '02:77:0a:e6:00:09'],
      ['mac-again', userMac],
    ],
  )
})

t.test('after a boot, when the node does not join: an error in time, and nothing taken', async t => {
  const { past, endpoints, addresses, mirror, network } = await open(t)
  await past('ip', ['10.230.0.9'])
  await addresses.request(prefixes[0], '10.230.0.9', false, limit())
  const request = { docker: 'd', endpoint: 'again', addresses: ['10.230.0.9'] }
  await t.rejects(endpoints.create(request, AbortSignal.timeout(300)), {
    code: 'CONFLICT',
    message: /endpoint ip of before the boot is not erased yet: start the container again/,
  })
  t.same([...mirror.snapshot.endpoints(network).keys()], ['ip'])
})

t.test('a reservation that a call of ours left behind, answered or not', async t => {
  const { start, addresses, put, network } = await open(t)
  for (const boot of ['b', 'before']) {
    const claim = encode('addressClaim', { kind: 'reserved', node: 'a', boot, since: Date.now() })
    await put(keys.address(network, '10.230.0.9'), claim)
    t.equal(await addresses.request(prefixes[0], '10.230.0.9', false, limit()), '10.230.0.9/24')
    await addresses.release(prefixes[0], '10.230.0.9', limit())
  }
  const both = ['one', 'two'].map(endpoint => start(endpoint, ['10.230.0.9']))
  t.equal((await Promise.allSettled(both)).filter(({ status }) => status === 'fulfilled').length, 1, 'one has it')
})

t.test('of the reserve: of an endpoint that began without the store, and has left', async t => {
  const { start, departures, endpoints, reserve, erase, network, put, mirror } = await open(t)
  erase(50)
  const spare = { kind: 'spare', node: 'a', boot: 'b', since: Date.now() } as const
  await mirror.reached(await put(keys.address(network, '10.230.0.9'), encode('addressClaim', spare)), limit())
  await reserve.add(network, ['10.230.0.9'])
  await reserve.take(network, () => true)
  const flags = { ports: [], gateway: false, identity: 0 }
  const from = { network, node: 'a', boot: 'b', addresses: ['10.230.0.9'], mac: '02:77:0a:e6:00:09' }
  await reserve.bind({ id: 'alone', ...from, ...flags })
  await t.rejects(start('again', ['10.230.0.9']), { code: 'TAKEN', message: /10\.230\.0\.9 is in use on this host/ })
  await departures.add(network, 'alone')
  t.equal((await start('again', ['10.230.0.9'])).mac, from.mac)
  await endpoints.erase(network, 'alone', limit())
  t.same([...mirror.snapshot.endpoints(network).keys()], ['again'])
})

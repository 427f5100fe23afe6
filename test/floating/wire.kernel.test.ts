// SPDX-License-Identifier: Apache-2.0
// On a real link between two namespaces: who has an address is heard, an announcement turns the neighbour's table, and the
// kernel takes an address away by itself.

import { closeSync } from 'node:fs'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { openWire } from '../../src/floating/wire.ts'
import { lateMs, openHostAddresses } from '../../src/kernel/host-addresses.ts'
import { native } from '../../src/netlink/addon.ts'
import { netnsOpenFd, netnsWrite } from '../../src/netlink/netns.ts'
import { openPacketSocket } from '../../src/netlink/packet.ts'
import { addLink, decodeLink, getLink } from '../../src/netlink/rtnl/link.ts'
import { descriptors, freshNetns, openLab } from '../netlink/lab.ts'

const signal = () => AbortSignal.timeout(20_000)
const families = {
  4: ['10.77.0.1', '10.77.0.2', '10.77.0.99', '/24'],
  6: ['fd77::1', 'fd77::2', 'fd77::99', '/64'],
} as const

/** Two hosts, a and b, on one cable, both with an address of each family. */
const open = async (t: Test) => {
  const [a, b] = [await openLab(t, 'a'), await openLab(t, 'b')]
  const fd = await netnsOpenFd(b.path)
  await a.netlink.run(addLink({ name: 'eth0', type: { kind: 'veth', peer: { name: 'eth0', netnsFd: fd } } }))
  closeSync(fd)
  for (const [host, i] of [
    [a, 0],
    [b, 1],
  ] as const) {
    await netnsWrite(host.path, '/proc/sys/net/ipv6/conf/eth0/accept_dad', '0')
    host.ip('link', 'set', 'eth0', 'up')
    for (const one of [families[4], families[6]]) host.ip('addr', 'add', `${one[i]}${one[3]}`, 'dev', 'eth0')
  }
  const link = async (host: typeof a) => decodeLink((await host.netlink.run(getLink({ name: 'eth0' })))[0]!)!
  return { a, b, linkA: await link(a), linkB: await link(b), wire: openWire(systemClock, a.path) }
}

for (const family of [4, 6] as const) {
  const [, there, nobody, length] = families[family]

  t.test(`IPv${family}: the machine that has an address answers with its MAC, else nobody does`, async t => {
    const { wire, linkA, linkB, a, b } = await open(t)
    t.equal(await wire.probe(linkA, there, signal()), linkB.mac)
    t.equal(await wire.probe(linkA, nobody, signal()), undefined)
    b.ip('addr', 'add', `${nobody}${length}`, 'dev', 'eth0')
    t.equal(await wire.probe(linkA, nobody, signal()), linkB.mac)
    b.ip('addr', 'del', `${nobody}${length}`, 'dev', 'eth0')
    t.equal(await wire.probe(linkA, nobody, signal()), undefined)
    b.ip('link', 'set', 'eth0', 'down')
    // 6.18 refuses to send without carrier, 6.1 swallows the frame
    const asked = await wire.probe(linkA, nobody, signal()).catch(error => (error as { code: string }).code)
    t.match(String(asked), /^(KERNEL|undefined)$/)
    const here = openHostAddresses(a.path)
    t.teardown(() => here.close())
    for (let i = 0; i < 100 && (await here.link('eth0')); i++) await new Promise(resolve => setTimeout(resolve, 50))
    t.equal(await here.link('eth0'), undefined, 'such a device is not asked at all')
  })

  t.test(`IPv${family}: who remembers another MAC learns the new one from the announcement`, async t => {
    const { wire, linkA, b } = await open(t)
    const macOf = (): string => b.ip('neigh', 'show', nobody)[0]?.lladdr
    b.ip('neigh', 'add', nobody, 'lladdr', '02:00:00:00:00:99', 'dev', 'eth0', 'nud', 'stale')
    t.equal(macOf(), '02:00:00:00:00:99')
    const over = new AbortController()
    const told = wire.announce(linkA, nobody, over.signal).catch(() => {})
    for (let i = 0; i < 200 && macOf() !== linkA.mac; i++) await new Promise(resolve => setTimeout(resolve, 20))
    t.equal(macOf(), linkA.mac)
    over.abort(new Error('enough'))
    await told
  })

  t.test(`IPv${family}: an address goes by itself, and is ours until then`, async t => {
    const { a, b } = await open(t)
    const here = openHostAddresses(a.path)
    t.teardown(() => here.close())
    const place = { dev: 'eth0', address: `${nobody}${length}` }
    const shown = () =>
      a.ip('addr', 'show', 'dev', 'eth0')[0].addr_info.find((one: { local: string }) => one.local === nobody)
    t.match(await here.link('eth0'), { mac: /:/ })
    t.equal(await here.link('eth9'), undefined)
    await here.put(place, 30)
    t.match(shown(), { deprecated: true, preferred_life_time: 0, noprefixroute: true })
    t.same(await here.ours(), [place])
    t.notOk((await here.on('eth0')).includes(place.address), 'not one of the host')
    t.ok((await here.on('eth0')).includes(`${families[family][0]}${length}`))
    const late: number[] = []
    for (let i = 0; i < 5; i++) {
      await here.put(place, 1)
      const from = performance.now()
      while (shown() && performance.now() - from < 10_000) await new Promise(resolve => setTimeout(resolve, 10))
      late.push(Math.round(performance.now() - from - 1000))
    }
    t.comment(`the kernel was ${late.join(', ')} ms late; taken into account: ${lateMs}`)
    t.ok(late.every(ms => ms > -100 && ms < 5000))
    await here.put(place, 30)
    b.ip('link', 'set', 'eth0', 'down')
    t.equal(await here.link('eth0'), undefined, 'without a carrier')
    await t.rejects(here.put(place, 30), { message: /ENODEV: no such device that is up/ })
    await here.remove(place)
    await here.remove(place)
    t.same(await here.ours(), [])
    await t.rejects(here.put({ dev: 'eth9', address: place.address }, 1), { message: /ENODEV/ })
  })
}

t.test('a packet socket hears only what its filter passes, and leaves nothing open', async t => {
  const { wire, linkA, b, linkB } = await open(t)
  const before = descriptors()
  const all = await openPacketSocket({ netns: b.path, ifindex: linkB.index, protocol: 0x0806 })
  const none = await openPacketSocket({
    netns: b.path,
    ifindex: linkB.index,
    protocol: 0x0806,
    filter: [[0x06, 0, 0, 0]],
  })
  await wire.probe(linkA, families[4][2], signal())
  const frames: Buffer[] = []
  for (let frame = all.receive(); frame; frame = all.receive()) frames.push(frame)
  t.equal(frames.length, 3, 'three questions')
  t.match(
    frames[0]!.toString('hex'),
    new RegExp(`^ffffffffffff${linkA.mac.replaceAll(':', '')}08060001080006040001.{12}00000000`),
  )
  t.equal(none.receive(), undefined)
  for (const socket of [all, none]) {
    socket.close()
    socket.close()
    t.throws(() => socket.send(Buffer.alloc(60)), { message: /EBADF/ })
  }
  t.equal(descriptors(), before)
})

t.test('what makes no sense is refused by errno, without a descriptor', async t => {
  const { path } = await freshNetns(t)
  const before = descriptors()
  for (const [ifindex, filter, errnoName] of [
    [0, Buffer.alloc(0), 'EINVAL'],
    [-1, Buffer.alloc(0), 'EINVAL'],
    [99, Buffer.alloc(0), 'ENODEV'],
    [1, Buffer.alloc(7), 'EINVAL'],
    [1, Buffer.alloc(8 * 5000), 'EINVAL'],
    [1, Buffer.alloc(8, 0xff), 'EINVAL'],
  ] as const) {
    const { errno } = await native().netnsPacket(path, ifindex, 0x0806, filter)
    t.ok(errno > 0, `${errnoName}: ${errno}`)
  }
  const odd = await native().netnsPacket(path, 1, 0x0806, undefined as never)
  t.equal(odd.errno, 0, 'no filter')
  closeSync(odd.number)
  t.equal(descriptors(), before)
})

// SPDX-License-Identifier: Apache-2.0
// Conntrack against the live kernel, in a namespace of its own: entries of `conntrack -I` and of real packets, found and
// removed by us, and what `conntrack -L` says is left.
import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import t, { type Test } from 'tap'
import { findConntrack, removeConntrack } from '../../src/netlink/ct/conntrack.ts'
import { decodeConntrack, isRemovedConntrack } from '../../src/netlink/ct/decode.ts'
import { type ConntrackFilter, tupleText } from '../../src/netlink/ct/types.ts'
import type { Message } from '../../src/netlink/message.ts'
import { openMonitor } from '../../src/netlink/monitor.ts'
import { netnsSocket } from '../../src/netlink/netns.ts'
import { type Netlink, openNetlink, type Request } from '../../src/netlink/socket.ts'
import { AF_INET, AF_INET6, IPPROTO, NETLINK_NETFILTER } from '../../src/netlink/uapi.ts'
import { freshNetns, ok } from './lab.ts'

const { TCP, UDP, ICMP, ICMPV6 } = IPPROTO

interface Host {
  readonly path: string
  readonly netlink: Netlink
  run(command: string, input?: string): string
  /** `conntrack -I ...` */
  insert(...lines: string[]): void
  /** `conntrack -L`, one line each, sorted. */
  printed(): string[]
}

const open = async (t: Test, suffix: string): Promise<Host> => {
  const { name, path } = await freshNetns(t, suffix)
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, netns: path })
  t.teardown(() => netlink.close())
  const run = (command: string, input = ''): string =>
    execFileSync('ip', ['netns', 'exec', name, 'sh', '-c', command], { input, encoding: 'utf8' })
  run('ip link set lo up')
  const insert = (...lines: string[]) => {
    run('cat | conntrack --load-file - 2> /dev/null', lines.map(line => `-I --timeout 600 ${line}\n`).join(''))
  }
  const printed = () =>
    run('conntrack -L -f ipv4 2> /dev/null; conntrack -L -f ipv6 2> /dev/null')
      .trim()
      .split('\n')
      .filter(Boolean)
      .sort()
  return { path, netlink, run, insert, printed }
}

/** Counts what the kernel sends: its part of the filter. */
const counting = (netlink: Netlink) => {
  const counter = { sent: 0 }
  const dump = <T>(request: Request, decode: (message: Message) => T | undefined) =>
    netlink.dump(request, message => {
      counter.sent++
      return decode(message)
    })
  return { counter, netlink: { dump } as Netlink }
}

// one client at two backends of one port, and a backend that answers as such
const to = (client: string, sport: number, backend: string, mark = 0) =>
  `-p tcp -s ${client} -d 198.51.100.1 --sport ${sport} --dport 8080 --reply-src ${backend} --reply-dst ${client} ` +
  `--reply-port-src 80 --reply-port-dst ${sport} --state ESTABLISHED --mark ${mark}`

t.test('entries of every kind', async t => {
  const { netlink, insert } = await open(t, 'c1')
  insert(
    to('192.0.2.9', 1000, '10.1.0.5', 7),
    '-p udp -s 192.0.2.9 -d 192.0.2.1 --sport 1000 --dport 53 --orig-zone 6',
    '-p udp -s 192.0.2.9 -d 192.0.2.1 --sport 1000 --dport 54 --reply-zone 8',
    '-p udp -s fd77::9 -d fd77::1 --sport 1000 --dport 53 -w 5 --mark 0xfffffff0',
    '-p icmp -s 192.0.2.9 -d 192.0.2.1 --icmp-type 8 --icmp-code 0 --icmp-id 77',
    '-p icmpv6 -s fd77::9 -d fd77::1 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 78',
    '-p 99 -s 192.0.2.9 -d 192.0.2.1',
  )
  const found = await findConntrack(netlink)
  const of = (text: string) => found.find(entry => tupleText(entry.original) === text)
  t.match(of('tcp 192.0.2.9:1000 to 198.51.100.1:8080'), {
    family: AF_INET,
    reply: { source: '10.1.0.5', sourcePort: 80, destination: '192.0.2.9', destinationPort: 1000, protocol: TCP },
    zone: 0,
    mark: 7,
    tcpState: 'ESTABLISHED',
    seenReply: false,
  })
  t.ok(found.every(({ timeoutSeconds = 0 }) => timeoutSeconds > 500 && timeoutSeconds <= 600))
  t.match(of('udp 192.0.2.9:1000 to 192.0.2.1:53 in zone 6'), { zone: 0, reply: { zone: undefined } })
  t.match(of('udp 192.0.2.9:1000 to 192.0.2.1:54'), { zone: 0, reply: { zone: 8 } })
  t.match(of('udp [fd77::9]:1000 to [fd77::1]:53'), { family: AF_INET6, zone: 5, mark: 0xfffffff0 })
  t.match(of('icmp 192.0.2.9 to 192.0.2.1'), { original: { protocol: ICMP, icmp: { id: 77, type: 8, code: 0 } } })
  t.match(of('icmpv6 fd77::9 to fd77::1'), { original: { protocol: ICMPV6, icmp: { id: 78, type: 128 } } })
  t.match(of('protocol 99 192.0.2.9 to 192.0.2.1'), { original: { sourcePort: undefined } })
  t.equal(found.length, 7)

  // each by what we know of it, the others stay
  for (const [i, entry] of found.entries()) {
    const [wrong] = await netlink.batch([removeConntrack({ ...entry, id: entry.id ^ 1 })])
    t.match(wrong, { errnoName: 'ENOENT', absent: true }, 'another id')
    t.equal((await findConntrack(netlink)).length, 7 - i)
    const [removed, again] = await netlink.batch([removeConntrack(entry), removeConntrack(entry)])
    t.equal(removed, undefined, tupleText(entry.original))
    t.match(again, { errnoName: 'ENOENT', absent: true, index: 1 })
    const rest = await findConntrack(netlink)
    t.strictSame(
      rest.map(one => one.id).sort(),
      found
        .slice(i + 1)
        .map(one => one.id)
        .sort(),
    )
  }
})

t.test('a removal that names another zone, or half an entry, removes nothing', async t => {
  const { netlink, insert, printed } = await open(t, 'c2')
  insert('-p udp -s 192.0.2.9 -d 192.0.2.1 --sport 1000 --dport 53 -w 5', to('192.0.2.9', 1000, '10.1.0.5'))
  const original = {
    source: '192.0.2.9',
    destination: '192.0.2.1',
    protocol: UDP,
    sourcePort: 1000,
    destinationPort: 53,
  }
  const outcomes = await netlink.batch([
    removeConntrack({ original }),
    removeConntrack({ original, zone: 6 }),
    removeConntrack({ original: { ...original, zone: 6 } }),
    removeConntrack({ original: { ...original, sourcePort: undefined }, zone: 5 }),
  ])
  t.strictSame(
    outcomes.map(error => error?.errnoName),
    ['ENOENT', 'ENOENT', 'ENOENT', 'EINVAL'],
  )
  t.equal(printed().length, 2)
  ok(t, await netlink.batch([removeConntrack({ original, zone: 5 })]))
  t.match(printed(), [/^tcp /])
})

t.test('filters: the kernel sends no more than what matches, where it knows how', async t => {
  const host = await open(t, 'c3')
  host.insert(
    to('192.0.2.9', 1000, '10.1.0.5', 0x17),
    to('192.0.2.9', 1001, '10.1.0.6', 0x27),
    to('192.0.2.8', 1000, '10.1.0.5', 0x18),
    '-p udp -s 192.0.2.9 -d 10.1.0.5 --sport 1000 --dport 80 -w 5 --mark 0x17',
    '-p tcp -s fd77::9 -d fd77::5 --sport 1000 --dport 80 --state ESTABLISHED',
    '-p udp -s fd77::9 -d fd77::1 --sport 1000 --dport 53 --orig-zone 5',
  )
  const look = async (filter: ConntrackFilter, matching: number, sent: number) => {
    const { counter, netlink } = counting(host.netlink)
    const found = await findConntrack(netlink, filter)
    t.strictSame([found.length, counter.sent], [matching, sent], JSON.stringify(filter))
  }
  await look({}, 6, 6)
  await look({ family: AF_INET6 }, 2, 2)
  await look({ mark: { value: 0x17 } }, 2, 2)
  await look({ mark: { value: 7, mask: 0xf } }, 3, 3)
  await look({ mark: { value: 0 }, family: AF_INET }, 0, 0)
  await look({ reply: { source: '10.1.0.5' } }, 3, 3)
  await look({ reply: { source: '10.1.0.5', protocol: TCP } }, 2, 2)
  await look({ reply: { source: '10.1.0.5', protocol: TCP, sourcePort: 80 } }, 2, 2)
  await look({ reply: { source: '10.1.0.5', protocol: TCP, sourcePort: 81 } }, 0, 0)
  await look({ reply: { source: '10.1.0.5' }, mark: { value: 0x18 } }, 1, 1)
  await look({ reply: { source: '10.1.0.5' }, original: { destination: '198.51.100.1' } }, 2, 2)
  await look({ original: { source: '192.0.2.9', protocol: TCP, sourcePort: 1001, destinationPort: 8080 } }, 1, 1)
  // of IPv6, addresses are compared here
  await look({ reply: { source: 'fd77:0::5' } }, 1, 2)
  await look({ reply: { source: 'fd77::5' }, original: { destination: 'fd77::5' } }, 1, 2)
  await look({ original: { destination: 'fd77::1', protocol: UDP, destinationPort: 53 } }, 1, 1)
  await look({ original: { protocol: UDP } }, 2, 6)
  await look({ reply: { source: '10.1.0.5', sourcePort: 80 } }, 3, 3)
  // zones and translation are compared here; newer kernels would compare the zone
  await look({ zone: 5 }, 2, 6)
  await look({ zone: 5, family: AF_INET }, 1, 4)
  await look({ destinationNat: true }, 0, 6)
})

t.test('real connections to a backend that goes are cut, and only those', async t => {
  const { path, netlink, run, printed } = await open(t, 'c4')
  run('ip addr add 10.9.0.1/32 dev lo; ip addr add 10.9.0.2/32 dev lo; ip addr add 198.51.100.1/32 dev lo')
  run(
    'nft -f -',
    `table ip x {
      chain zone {
        type filter hook output priority raw
        udp sport 2000-2009 ct original zone set 3
      }
      chain nat {
        type nat hook output priority -100
        ip daddr 198.51.100.1 udp dport 8080 dnat to 10.9.0.1 : 80
      }
    }`,
  )
  run(
    'nft -f -',
    `insert rule ip x nat ip daddr 198.51.100.1 udp dport 8080 udp sport { 1000, 1002, 2000 } dnat to 10.9.0.2 : 80`,
  )
  const seen: Message[] = []
  // before the first packet: an entry made while nobody listens never tells of its end
  const monitor = await openMonitor({
    protocol: NETLINK_NETFILTER,
    netns: path,
    groups: [3], // NFNLGRP_CONNTRACK_DESTROY
    onMessages: messages => seen.push(...messages),
    onLost: () => t.fail('lost'),
  })
  t.teardown(() => monitor.close())
  const send = async (sport: number, address: string, port: number) => {
    const socket = createSocket('udp4').on('error', () => {}) // nobody listens
    socket.bind({ fd: await netnsSocket(path, { type: 'udp', address: '0.0.0.0', port: sport }) })
    await new Promise(resolve => socket.send('x', port, address, resolve))
    socket.close()
  }
  for (const sport of [1000, 1001, 1002, 1003, 2000, 2001]) await send(sport, '198.51.100.1', 8080)
  await send(3000, '10.9.0.2', 80) // not balanced, although at the backend that goes
  const before = printed()
  t.equal(before.filter(line => line.startsWith('udp')).length, 7)

  const gone = await findConntrack(netlink, {
    original: { destination: '198.51.100.1' },
    reply: { source: '10.9.0.2', protocol: UDP, sourcePort: 80 },
    destinationNat: true,
  })
  t.strictSame(gone.map(entry => entry.original.sourcePort).sort(), [1000, 1002, 2000])
  t.match(
    gone.find(entry => entry.original.sourcePort === 2000),
    { zone: 0, original: { zone: 3 } },
  )
  ok(t, await netlink.batch(gone.map(removeConntrack)))
  t.strictSame(
    printed()
      .map(line => /sport=(\d+)/.exec(line)?.[1])
      .sort(),
    ['1001', '1003', '2001', '3000'],
  )
  for (let i = 0; i < 100 && seen.length < 3; i++) await new Promise(resolve => setTimeout(resolve, 50))
  t.strictSame(
    seen
      .filter(isRemovedConntrack)
      .map(message => decodeConntrack(message)?.id)
      .sort(),
    gone.map(entry => entry.id).sort(),
  )
})

t.test('2,000 of 4,000 entries in one batch', async t => {
  const { netlink, insert } = await open(t, 'c5')
  insert(...Array.from({ length: 4000 }, (_, i) => to('192.0.2.9', 1000 + i, i % 2 === 0 ? '10.1.0.5' : '10.1.0.6')))
  const reply = { source: '10.1.0.5' }
  const gone = await findConntrack(netlink, { reply })
  t.equal(gone.length, 2000)
  ok(t, await netlink.batch(gone.map(removeConntrack)))
  t.equal((await findConntrack(netlink, { reply })).length, 0)
  t.equal((await findConntrack(netlink)).length, 2000)
})

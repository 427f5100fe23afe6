// SPDX-License-Identifier: Apache-2.0
// Echo sockets, and the thread that uses them, between two namespaces.
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openEcho } from '../../src/health/echo.ts'
import { startPeerThread } from '../../src/health/peer-thread.ts'
import { netnsWrite } from '../../src/netlink/netns.ts'
import { descriptors, freshNetns, threads } from '../netlink/lab.ts'
import { until } from '../until.ts'

const there = 'fe80::7e:ff:fe00:2%gw0'
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' })
/** Two gateways with a cable. */
const gateways = async (t: Test, suffix: string) => {
  const [here, far] = [await freshNetns(t, `${suffix}1`), await freshNetns(t, `${suffix}2`)]
  for (const { path } of [here, far]) {
    await netnsWrite(path, '/proc/sys/net/ipv6/conf/default/accept_dad', '0')
    await netnsWrite(path, '/proc/sys/net/ipv4/ping_group_range', '0\t2147483647')
  }
  const end = (number: number): string[] => ['gw0', 'address', `02:7e:00:00:00:0${number}`]
  ip('-n', here.name, 'link', 'add', ...end(1), 'type', 'veth', 'peer', 'name', ...end(2), 'netns', far.name)
  const cable = (state: 'up' | 'down'): string => ip('-n', far.name, 'link', 'set', 'gw0', state)
  ip('-n', here.name, 'link', 'set', 'gw0', 'up')
  cable('up')
  // the kernel gives addresses a moment after a link is up
  const ready = ({ name }: { name: string }): boolean =>
    ip('-n', name, '-6', 'address', 'show', 'gw0').includes('fe80::')
  t.ok(await until(() => ready(here) && ready(far)))
  return { here, far, cable }
}

t.test('an echo is answered, once, by the kernel over there', async t => {
  const { here, cable } = await gateways(t, 'e')
  const before = descriptors()
  const echo = await openEcho(here.path, there)
  t.notOk(echo.answered(), 'nothing was asked')
  t.ok(
    await until(async () => {
      echo.send()
      await sleep(20)
      return echo.answered()
    }),
  )
  t.notOk(echo.answered(), 'not twice')
  for (let i = 0; i < 70_000; i++) {
    echo.send()
    if (!echo.answered()) t.fail(`echo ${i}`)
  }
  cable('down')
  echo.send()
  await sleep(50)
  t.notOk(echo.answered())
  ip('-n', here.name, 'link', 'del', 'gw0')
  t.throws(() => echo.send(), 'from here there is no way')
  echo.close()
  echo.close()
  t.equal(descriptors(), before)
})

t.test('an answer without the secret is none', async t => {
  const { here, far } = await gateways(t, 's')
  const echo = await openEcho(here.path, there)
  t.ok(
    await until(async () => {
      echo.send()
      await sleep(20)
      return echo.answered()
    }),
  )
  // the far end answers no more; somebody there who has seen the identifiers says that it does
  await netnsWrite(far.path, '/proc/sys/net/ipv6/icmp/echo_ignore_all', '1')
  const forge = String.raw`
    use strict; use warnings; use Socket qw(:all);
    socket(my $s, AF_INET6, SOCK_RAW, 58) or die "socket: $!";
    my $to = pack_sockaddr_in6(0, inet_pton(AF_INET6, 'fe80::7e:ff:fe00:1'), $ARGV[0]);
    for my $id (0 .. 65535) { send($s, pack('CCnnn', 129, 0, 0, $id, 9999) . 'x' x 16, 0, $to) } print "sent\n"`
  const index = /^(\d+):/.exec(ip('-n', far.name, '-o', 'link', 'show', 'gw0'))![1]!
  echo.send()
  t.equal(execFileSync('ip', ['netns', 'exec', far.name, 'perl', '-e', forge, index], { encoding: 'utf8' }), 'sent\n')
  t.notOk(echo.answered())
  echo.close()
})

t.test('an answer is heard although somebody reports that there can be none', async t => {
  const { here, far } = await gateways(t, 'r')
  const echo = await openEcho(here.path, there)
  const heard = (): Promise<boolean> =>
    until(async () => {
      echo.send()
      await sleep(20)
      return echo.answered()
    })
  t.ok(await heard())
  // port unreachable (RFC 4443, 3.1), about an echo request of each identifier
  const forge = String.raw`
    use strict; use warnings; use Socket qw(:all);
    socket(my $s, AF_INET6, SOCK_RAW, 58) or die "socket: $!";
    my ($us, $them) = map { inet_pton(AF_INET6, "fe80::7e:ff:fe00:$_") } 2, 1;
    my $to = pack_sockaddr_in6(0, $them, $ARGV[0]);
    for my $id (0 .. 65535) {
      my $inner = pack('NnCC', 0x60000000, 24, 58, 64) . $them . $us . pack('CCnnn', 128, 0, 0, $id, 1) . 'x' x 16;
      send($s, pack('CCnN', 1, 4, 0, 0) . $inner, 0, $to)
    } print "sent\n"`
  const index = /^(\d+):/.exec(ip('-n', far.name, '-o', 'link', 'show', 'gw0'))![1]!
  echo.send()
  await sleep(200)
  t.equal(execFileSync('ip', ['netns', 'exec', far.name, 'perl', '-e', forge, index], { encoding: 'utf8' }), 'sent\n')
  t.ok(echo.answered())
  t.ok(await heard())
  echo.close()
})

t.test('the thread says who answers, and leaves nothing behind', async t => {
  const { here, cable } = await gateways(t, 't')
  const told: string[] = []
  const cycle = async (work: () => Promise<void>): Promise<void> => {
    const asker = startPeerThread({
      report: report => told.push(...report.map(([id, verdict]) => `${id} ${verdict}`)),
      died: error => t.fail(String(error)),
    })
    asker.order({ drop: [], add: [{ id: 7, node: 'b', netns: here.path, address: there }] })
    asker.order({ drop: [], add: [{ id: 8, node: 'c', netns: '/run/netns/nothing', address: there }] })
    await work()
    await asker.close()
  }
  await cycle(async () => {
    t.ok(await until(() => told.includes('7 answers') && told.includes('8 unasked')), told.join())
  })
  t.notOk(told.includes('8 answers'))
  told.splice(0)
  const before = [descriptors(), threads()]
  await cycle(async () => {
    await until(() => told.includes('7 answers'))
    cable('down')
    t.ok(await until(() => told.includes('7 silent')))
    cable('up')
    told.splice(0)
    t.ok(await until(() => told.includes('7 answers')))
  })
  await cycle(async () => {})
  t.ok(
    await until(() => descriptors() === before[0] && threads() <= before[1]!),
    `${[descriptors(), threads()]}, before ${before}`,
  )
})

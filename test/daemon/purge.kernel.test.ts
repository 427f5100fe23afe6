// SPDX-License-Identifier: Apache-2.0
// What weft changes of a host's settings is as before after --purge, and a weft that comes later sees the truth.
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost, openReconciled } from '../kernel/reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { systemClock } = await import('../../src/base/clock.ts')
  const { openForwarding } = await import('../../src/daemon/forwarding.ts')
  const { readIdentity } = await import('../../src/daemon/identity.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { bootId } = await import('../../src/kernel/host-facts.ts')
  const { readSettings } = await import('../../src/kernel/host-settings.ts')
  const { openHostWatch } = await import('../../src/kernel/host-watch.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const dir = '/run/weft-data'
  const patienceMs = process.env['WEFT_VM'] ? 60_000 : 10_000
  const all = 'net.ipv6.conf.all.forwarding'
  const now = (): Record<string, string> =>
    Object.fromEntries(
      [
        ...[all, 'net.ipv6.conf.eth0.forwarding', 'net.ipv6.conf.wire.forwarding', 'net.ipv6.conf.eth0.accept_ra'],
        ...['net.ipv4.ip_forward', 'net.ipv4.conf.eth0.forwarding'],
      ].map(name => [name, sh(`sysctl -n ${name}`).trim()]),
    )
  /** As weftd does at its start: notes what it finds, then makes its data path. */
  const live = async () => {
    const identity = await readIdentity(dir, await bootId(), await readSettings('eth0', []), '192.0.2.1')
    const { closed6 } = identity
    const snapshot = testCluster()
    snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
    const { reconciler, close } = openReconciled(snapshot, testHost(new Map(), { closed6, acceptsRa: ['eth0'] }))
    await reconciler.start()
    t.same(reconciler.status().failing, [])
    await close()
    return identity
  }

  t.test('forwarding and router advertisements', async t => {
    sh(`sysctl -qw net.ipv4.ip_forward=0 ${all}=0 net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.wire.forwarding=1`)
    const before = now()
    const first = await live()
    t.equal(first.closed6, true)
    const on = { [all]: '1', 'net.ipv6.conf.eth0.accept_ra': '2', 'net.ipv4.conf.eth0.forwarding': '1' }
    t.match(now(), on)
    t.same(await live(), first, 'a restart keeps what was before the first start')
    t.match((await purge(dir)).join('\n'), /H: sysctl net\/ipv6\/conf\/all\/forwarding=0, as before weft/)
    t.same(now(), before)
    t.same(await purge(dir), [], 'once')
  })

  t.test('a later one finds the host closed, with the data directory of before or an empty one', async t => {
    const again = await live()
    t.equal(again.closed6, true)
    await purge(dir)
    rmSync(dir, { recursive: true })
    const other = await live()
    t.equal(other.closed6, true)
    t.not(other.instance, again.instance)
    await purge(dir)
  })

  t.test('what was open stays open, and what somebody opened meanwhile', async t => {
    sh(`sysctl -qw ${all}=1`)
    t.equal((await live()).closed6, false, 'purged: what was known before counts no more')
    sh('sysctl -qw net.ipv4.ip_forward=1') // as dockerd does
    await purge(dir)
    t.match(now(), { [all]: '1', 'net.ipv4.ip_forward': '1', 'net.ipv4.conf.eth0.forwarding': '1' })
  })

  const guarded = (): string[] =>
    [...sh('nft list chain inet weft forward').matchAll(/meta nfproto (ipv[46]) .*drop/g)].map(match => match[1]!)

  t.test('switched off by others between two starts', async t => {
    sh(`sysctl -qw ${all}=1 net.ipv4.ip_forward=1`)
    t.equal((await live()).closed6, false)
    sh(`sysctl -qw ${all}=0 net.ipv4.ip_forward=0`)
    t.equal((await live()).closed6, true)
    t.match(now(), { [all]: '1', 'net.ipv4.conf.eth0.forwarding': '1' })
    await purge(dir)
    t.match(now(), { [all]: '0', 'net.ipv4.conf.eth0.forwarding': '0' })
  })

  t.test('switched off by others while it runs: guarded at once', async t => {
    sh(`sysctl -qw ${all}=1 net.ipv4.ip_forward=1`)
    let closed4 = false
    const identity = await readIdentity(dir, await bootId(), await readSettings('eth0', []), '192.0.2.1')
    const snapshot = testCluster()
    snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
    const { reconciler, close } = openReconciled(snapshot, () =>
      testHost(new Map(), { closed4, closed6: forwarding.closed6 }),
    )
    const forwarding = openForwarding({
      ...{ dataDir: dir, identity, dev: 'eth0', log: silentLog },
      changed(family, on) {
        if (family === 4) closed4 = !on
        reconciler.hostChanged()
      },
    })
    t.teardown(close)
    await reconciler.start()
    const { switched } = forwarding
    const watch = await openHostWatch({
      ns: '',
      look: async () => {},
      forwarding: switched,
      clock: systemClock,
      log: silentLog,
    })
    t.teardown(() => watch.close())
    t.same(guarded(), [])
    const { 'net.ipv4.conf.eth0.forwarding': four, [all]: six } = now()
    t.same([four, six], ['1', '1'])
    sh('sysctl -qw net.ipv4.ip_forward=0')
    const on = async (name: string): Promise<boolean> => {
      for (const end = Date.now() + patienceMs; Date.now() < end && now()[name] !== '1'; ) await sleep(10)
      return now()[name] === '1'
    }
    t.ok(await on('net.ipv4.conf.eth0.forwarding'))
    t.same(guarded(), ['ipv4'])
    sh(`sysctl -qw ${all}=0`)
    t.ok(await on(all))
    t.same(guarded(), ['ipv4', 'ipv6'])
    sh('sysctl -qw net.ipv4.ip_forward=1')
    for (const end = Date.now() + patienceMs; Date.now() < end && guarded().length > 1; ) await sleep(10)
    t.same(guarded(), ['ipv6'], 'IPv4 opens again')
    sh('sysctl -qw net.ipv4.ip_forward=0')
    t.ok(await on('net.ipv4.conf.eth0.forwarding'))
    t.same(guarded(), ['ipv4', 'ipv6'])
    await watch.close()
    await forwarding.close()
    await close()
    t.equal((await live()).closed6, true, 'and known at the next start')
    await purge(dir)
    t.match(now(), { [all]: '0', 'net.ipv4.conf.eth0.forwarding': '0' })
  })

  t.test('with the data directory of another weftd', async t => {
    sh(`sysctl -qw ${all}=0`)
    await live()
    const warnings: string[] = []
    const warn = (text: string): void => void warnings.push(text)
    const { listenOnFile } = await import('../../src/base/socket-file.ts')
    const { createServer } = await import('node:net')
    const server = createServer()
    await listenOnFile(server, '/run/weft.sock')
    const sockets = ['/run/other.sock', '/run/weft.sock']
    await t.rejects(purge('/nonexistent', { sockets, warn }), { code: 'TAKEN', message: /\/run\/weft\.sock is served/ })
    t.match(sh('nft list tables'), /weft/, 'nothing is taken')
    server.close()
    await purge('/nonexistent', { sockets, warn })
    t.match(warnings, [/^\/nonexistent does not say how this host was before weft: .*all\/forwarding stays 1/])
    await purge(dir, { sockets, warn })
    t.equal(warnings.length, 1)
    t.match(now(), { [all]: '0' })
  })

  t.test('a data directory of a weftd that noted less', async t => {
    const { instance, boot } = await live()
    const { writeFileSync } = await import('node:fs')
    const file = `${dir}/identity.json`
    writeFileSync(file, JSON.stringify({ instance, boot, closed6: true }))
    t.match(await readIdentity(dir, boot, await readSettings('eth0', []), '192.0.2.1'), { instance, closed6: true })
    writeFileSync(file, JSON.stringify({ instance, boot, closed6: true }))
    await purge(dir)
    t.match(now(), { [all]: '0' })
    writeFileSync(file, '{"instance":1}')
    await t.rejects(readIdentity(dir, boot, {}, ''), { message: /identity\.json is damaged: restore it/ })
  })
}

// SPDX-License-Identifier: Apache-2.0
// What weft changes of a host's settings is as before after --purge, and a weft that comes later sees the truth.
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost, openReconciled } from '../kernel/reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { readIdentity } = await import('../../src/daemon/identity.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { bootId } = await import('../../src/kernel/host-facts.ts')
  const { readSettings } = await import('../../src/kernel/host-settings.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const dir = '/run/weft-data'
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

// SPDX-License-Identifier: Apache-2.0
// What others have on a host stays as it is, whatever they call it: while weftd runs, and when it is purged.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost, openReconciled } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const lines = (command: string): string[] => sh(command).trim().split('\n').sort()
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  snapshot.putNetwork({ id: 'n1' })
  const bound = new Map([['n1', { slot: 0 }]])

  t.test('namespaces and tables of others stay, ours of before go', async t => {
    const theirs = ['weft-mine', 'weft-u', 'weft-n7', 'weft-n8', 'weft-m8']
    for (const ns of [...theirs, 'weft-n9', 'weft-m9', 'weft-m10']) sh(`ip netns add ${ns}`)
    sh('ip -n weft-n8 link add dummy0 type bridge && ip -n weft-n8 link add br0 type veth peer name far')
    sh('ip netns exec weft-m8 nft add table ip weft')
    sh('nft "add table ip weft; add chain ip weft theirs; add table ip6 weft"')
    sh('ip -n weft-n9 link add br0 type bridge && ip -n weft-m9 link add up0 type veth peer name down0')
    sh('ip netns exec weft-m10 nft add table inet weft')
    const { reconciler, close } = openReconciled(snapshot, testHost(bound))
    await reconciler.start()
    t.same(reconciler.status().failing, [])
    t.same(lines('ls /run/netns'), [...theirs, 'weft-m1048576', 'weft-n1048576'].sort())
    await reconciler.audit()
    await close()
    const foreign = (): void => {
      t.match(sh('ip -n weft-n8 link'), /dummy0.*br0/s)
      t.match(sh('ip netns exec weft-m8 nft list tables'), /table ip weft/)
      t.match(sh('nft list table ip weft'), /chain theirs/)
      t.match(sh('nft list tables'), /table ip6 weft/)
    }
    foreign()
    t.ok((await purge('/nonexistent')).length > 0)
    t.same(lines('ls /run/netns'), theirs.sort())
    foreign()
    t.notMatch(sh('nft list tables'), /inet weft/)
  })
}

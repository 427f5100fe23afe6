// SPDX-License-Identifier: Apache-2.0
// What others have on a host stays as it is, whatever they call it: while weftd runs, and when it is purged.
import { execFileSync, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost, openReconciled } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { loadModules } = await import('../../src/daemon/modules.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { openChainWatch } = await import('../../src/kernel/chain-watch.ts')
  const { legacyFilters } = await import('../../src/kernel/guest-chains.ts')
  const { readHostFacts } = await import('../../src/kernel/host-facts.ts')
  const { systemClock } = await import('../../src/base/clock.ts')
  const { testCluster, testHost } = await import('../overlay/cluster.ts')

  await loadModules(silentLog)
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
  const lines = (command: string): string[] => sh(command).trim().split('\n').sort()
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  snapshot.putNetwork({ id: 'n1' })
  const bound = new Map([['n1', { slot: 0 }]])
  const patienceMs = process.env['WEFT_VM'] ? 180_000 : 10_000

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

  const guests = (family: string): string => sh(`nft list table ${family} filter 2>/dev/null | grep weft || true`)
  const dropping = (policy: string) =>
    sh(
      `nft "add table ip6 filter; add chain ip6 filter FORWARD { type filter hook forward priority 0; policy ${policy}; }"`,
    )

  t.test('where Docker has no chain of its own, FORWARD lets our links through behind its own rules', async t => {
    dropping('drop')
    sh('nft add rule ip6 filter FORWARD counter comment theirs')
    const forward = { family: 'ip6', table: 'filter', chain: 'FORWARD' }
    const readGuests = async () => (await readHostFacts({ dev: 'eth0' })).guestChains
    t.same(await readGuests(), [forward])
    let guestChains = await readGuests()
    const { reconciler, close } = openReconciled(snapshot, () => testHost(bound, { guestChains }))
    await reconciler.start()
    const ours = /(\w+ "weft\*" counter packets 0 bytes 0 accept comment "weft #\w+"\s+){2}/.source
    const chain = (): string => sh('nft list chain ip6 filter FORWARD')
    const becomes = async (what: string, wanted: string, where = chain): Promise<void> => {
      const from = Date.now()
      while (!new RegExp(wanted, 's').test(where()) && Date.now() - from < patienceMs) await sleep(20)
      t.match(where(), new RegExp(wanted, 's'), what)
      t.same(reconciler.status().failing, [])
    }
    await becomes('behind', `policy drop;.*theirs"\\s+${ours}}`)
    sh('nft flush chain ip6 filter FORWARD')
    await becomes('flushed', `policy drop;\\s+${ours}}`)
    sh('nft add rule ip6 filter FORWARD counter comment theirs; nft add rule ip6 filter FORWARD counter reject')
    await becomes('before what rejects the rest', `theirs"\\s+${ours}counter packets 0 bytes 0 reject`)
    sh(
      'nft flush chain ip6 filter FORWARD; ip6tables-nft -A FORWARD -s 2001:db8::9 -j DROP; ip6tables-nft -A FORWARD -j REJECT',
    )
    await becomes("the same by iptables' words", `2001:db8::9.*drop\\s+${ours}.*(reject|REJECT)`)
    sh('nft flush chain ip6 filter FORWARD; nft add rule ip6 filter FORWARD counter comment theirs')
    await becomes('flushed again', `theirs"\\s+${ours}}`)
    // a start of Docker that brings its chain
    sh('nft add chain ip6 filter DOCKER-USER')
    t.same(await readGuests(), [{ ...forward, to: 'DOCKER-USER' }], 'not led there yet')
    sh('nft add rule ip6 filter FORWARD counter jump DOCKER-USER; nft add rule ip6 filter FORWARD counter drop')
    guestChains = await readGuests()
    t.same(guestChains, [forward])
    reconciler.hostChanged()
    await becomes('behind it', `theirs"\\s+counter packets 0 bytes 0 jump DOCKER-USER\\s+${ours}counter`)
    await close()
    // as weft did it once
    sh(`nft add rule ip6 filter DOCKER-USER counter comment '"weft #0123456789ab"'`)
    const next = openReconciled(snapshot, testHost(bound, { guestChains }))
    await next.reconciler.start()
    t.equal(next.reconciler.status().operations, 1)
    t.notMatch(sh('nft list chain ip6 filter DOCKER-USER'), /weft/)
    await next.close()
    await purge('/nonexistent')
    t.equal(guests('ip6'), '')
    t.match(chain(), /policy drop.*theirs.*jump.*drop/s)
    sh('nft delete table ip6 filter')
  })

  t.test("the user's rules in Docker's chain come before ours, and only those", async t => {
    const words = (chain: string): string[] =>
      sh(`iptables-nft -S ${chain}`)
        .trim()
        .split('\n')
        .map(line => /--comment "?(\w+)/.exec(line)?.[1] ?? /-j ([\w-]+)/.exec(line)?.[1] ?? '')
        .filter(word => word !== '')
    sh('iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER')
    sh('iptables-nft -A DOCKER-USER -s 198.51.100.9 -j RETURN; iptables-nft -A DOCKER-USER -j RETURN')
    sh('iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DROP')
    const { guestChains } = await readHostFacts({ dev: 'eth0' })
    const { reconciler, close } = openReconciled(snapshot, testHost(bound, { guestChains }))
    const becomes = async (what: string, wanted: readonly string[]): Promise<void> => {
      const from = Date.now()
      while (words('FORWARD').join() !== wanted.join() && Date.now() - from < patienceMs) await sleep(50)
      t.same(words('FORWARD'), wanted, what)
    }
    await reconciler.start()
    await becomes('behind the jump to it: who returns comes to ours', ['DOCKER-USER', 'weft', 'weft', 'DROP'])
    sh('iptables-nft -D FORWARD -j DOCKER-USER; iptables-nft -I FORWARD 3 -j DOCKER-USER')
    await becomes('it has come later', ['DOCKER-USER', 'weft', 'weft', 'DROP'])
    sh('iptables-nft -I FORWARD -j DOCKER-USER')
    await sleep(500)
    t.same(words('FORWARD'), ['DOCKER-USER', 'DOCKER-USER', 'weft', 'weft', 'DROP'], 'Docker brings it to the head')
    t.same(words('DOCKER-USER'), ['RETURN', 'RETURN'])
    t.same(reconciler.status().failing, [])
    await reconciler.audit()
    const { operations } = reconciler.status()
    await reconciler.audit()
    t.equal(reconciler.status().operations, operations, 'and stays so')
    await close()
    await purge('/nonexistent')
    t.same(words('FORWARD'), ['DOCKER-USER', 'DOCKER-USER', 'DROP'])
    sh('nft delete table ip filter')
  })

  t.test("where FORWARD was emptied, the user's rules in Docker's chain still come before ours", async t => {
    sh('iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN')
    sh('iptables-nft -I DOCKER-USER -p tcp --dport 8080 -j DROP')
    const { guestChains } = await readHostFacts({ dev: 'eth0' })
    const { reconciler, close } = openReconciled(snapshot, testHost(bound, { guestChains }))
    await reconciler.start()
    t.same(reconciler.status().failing, [])
    const forward = lines('iptables-nft -S FORWARD').filter(line => line.startsWith('-A'))
    t.equal(forward.length, 4)
    t.match(sh('iptables-nft -S FORWARD'), /(-j DOCKER-USER\s.*){2}(-j ACCEPT\s.*){2}/s)
    t.notMatch(sh('iptables-nft -S DOCKER-USER'), /weft/)
    await reconciler.audit()
    const { operations } = reconciler.status()
    await reconciler.audit()
    t.equal(reconciler.status().operations, operations, 'and stays so')
    await close()
    await purge('/nonexistent')
    t.notMatch(sh('iptables-nft -S'), /weft/)
    sh('nft delete table ip filter')
  })

  t.test('our rules are ours still when iptables has saved and restored them', async t => {
    sh('iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN')
    sh('iptables-nft -A FORWARD -j DOCKER-USER')
    sh('iptables-nft -I DOCKER-USER -m comment --comment "weft #1 of mine" -j RETURN; ip6tables-nft -P FORWARD DROP')
    const { guestChains } = await readHostFacts({ dev: 'eth0' })
    const { reconciler, close } = openReconciled(snapshot, testHost(bound, { guestChains }))
    const rules = (): string[] =>
      [
        ...sh('iptables-nft -S FORWARD').trim().split('\n').slice(1),
        ...sh('iptables-nft -S DOCKER-USER').trim().split('\n').slice(1),
        ...sh('ip6tables-nft -S FORWARD').trim().split('\n').slice(1),
      ].sort() // our two are in any order
    const becomes = async (what: string, wanted: readonly string[]): Promise<void> => {
      const from = Date.now()
      while (rules().join() !== wanted.join() && Date.now() - from < patienceMs) await sleep(50)
      t.same(rules(), wanted, what)
    }
    const restored = (tool: string, change = 'cat', options = ''): string =>
      sh(`${tool}-save >/run/saved && ${change} /run/saved | ${tool}-restore ${options}`)
    await reconciler.start()
    const wanted = rules()
    t.equal(wanted.filter(rule => /weft #\w{12}/.test(rule)).length, 4)
    for (let round = 1; round <= 3; round++) {
      for (const tool of ['iptables-nft', 'ip6tables-nft']) restored(tool)
      await sleep(300)
      t.same(rules(), wanted, `round ${round}`)
    }
    await reconciler.audit()
    t.same(reconciler.status().repairs, {}, 'nothing to mend')
    const double = (): void => {
      restored('iptables-nft', "sed '/ weft+ /p'")
      restored('ip6tables-nft', 'cat', '--noflush')
      sh('iptables-nft -I DOCKER-USER -i weft9 -m comment --comment "weft #0123456789ab" -j ACCEPT')
    }
    double()
    await becomes('one of each, and none of before', wanted)
    await close()
    double()
    t.equal(rules().filter(rule => /weft #\w{12}/.test(rule)).length, 9)
    const gone = (await purge('/nonexistent')).filter(line => /chain (DOCKER-USER|FORWARD)/.test(line))
    t.equal(gone.length, 5)
    for (const line of gone) t.match(line, / comment "weft #\w{12}"$/)
    t.same(
      rules(),
      wanted.filter(rule => !/weft #\w{12}/.test(rule)),
    )
    sh('nft delete table ip filter; nft delete table ip6 filter')
  })

  t.test('repaired while somebody writes rules of his own without a pause', async t => {
    sh('nft "add table ip busy; add set ip busy s { type ipv4_addr; }; add chain ip busy c"')
    const many = Array.from({ length: 6000 }, (_, i) => `add rule ip busy c ip saddr 10.1.${i >> 8}.${i & 255} drop`)
    execFileSync('nft', ['-f', '-'], { input: many.join('\n') })
    const { reconciler, close } = openReconciled(snapshot, testHost(bound))
    await reconciler.start()
    const writer = spawn('sh', [
      '-c',
      'while :; do for w in add delete; do nft $w element ip busy s { 10.9.9.9 }; done; done',
    ])
    t.teardown(() => writer.kill())
    for (let i = 1; i <= 3; i++) {
      sh('nft delete table inet weft')
      const from = Date.now()
      const repaired = (): boolean => reconciler.status().repairs['nft-table'] === i && reconciler.has('nft  inet weft')
      while (!repaired() && Date.now() - from < 2 * patienceMs) await sleep(20)
      t.ok(repaired(), `after ${Date.now() - from} ms`)
    }
    writer.kill()
    t.match(sh('nft list tables'), 'inet weft')
    await close()
    await purge('/nonexistent')
    sh('nft delete table ip busy')
  })

  t.test('a chain for our guests is noticed when it comes', async t => {
    let known = (await readHostFacts({ dev: 'eth0' })).guestChains
    let told = 0
    const watch = await openChainWatch({ known: () => known, changed: () => told++, clock: systemClock })
    const after = async (command: string): Promise<number> => {
      const before = told
      sh(command)
      await sleep(400)
      known = (await readHostFacts({ dev: 'eth0' })).guestChains
      return told - before
    }
    t.equal(await after('nft "add table ip6 other; add chain ip6 other mine"'), 0)
    t.equal(await after('ip6tables-nft -P FORWARD DROP'), 1)
    t.same(known, [{ family: 'ip6', table: 'filter', chain: 'FORWARD' }])
    t.equal(await after('ip6tables-nft -A INPUT -j ACCEPT'), 0, 'nobody is a guest there')
    t.equal(await after('nft delete table ip6 filter'), 1)
    t.same(known, [])
    t.equal(await after('iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER'), 1)
    const docker = { family: 'ip', table: 'filter', chain: 'FORWARD' }
    const led = [{ ...docker, to: 'DOCKER-USER' }]
    t.same(known, led, 'nothing leads to it')
    t.equal(await after('iptables-nft -I FORWARD -j DOCKER-USER'), 1)
    t.same(known, [docker])
    t.equal(await after('iptables-nft -F FORWARD'), 1)
    t.same(known, led, 'emptied by somebody')
    t.equal(await after('iptables-nft -I FORWARD -i eth9 -j DOCKER-USER'), 1)
    t.same(known, led, 'not all goes there')
    t.equal(await after('iptables-nft -A FORWARD -m comment --comment why -j DOCKER-USER'), 1)
    t.same(known, [docker], 'with a comment')
    await after('nft delete table ip filter')
    t.same(known, [])
    await watch.close()
  })

  t.test('tables of iptables-legacy', async t => {
    t.same(legacyFilters(), [])
    try {
      sh('iptables-legacy -P FORWARD DROP')
    } catch {
      return t.comment('this kernel has none')
    }
    t.same(legacyFilters(), ['IPv4'])
  })
}

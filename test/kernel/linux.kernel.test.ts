// SPDX-License-Identifier: Apache-2.0
// The whole way from records to this machine's kernel and back, in a host of its own: a network, mount and PID-less
// namespace with an own /run. What was made is found again as wanted, by us and by ip, bridge, nft and ipvsadm. Once for
// each balancer.
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inEachBalancer } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) await inEachBalancer(t, fileURLToPath(import.meta.url))
else {
  const balancer = process.env['WEFT_TEST_HOST'] === 'ipvs' ? 'ipvs' : 'nft'
  const { silentLog } = await import('../../src/base/log.ts')
  const { purge } = await import('../../src/daemon/purge.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')
  const { guestRulesOf } = await import('../../src/overlay/host-plan.ts')
  const { optionsKeyOf } = await import('../../src/model/service-options.ts')
  const { inM, inN, local, openSample, patienceMs, sh } = await import('./sample.ts')

  const sample = await openSample(balancer)
  const { snapshot } = sample
  const tell = (keys: readonly (readonly string[])[]): void => sample.running.tell(keys)
  /** As nft prints seconds, by version: 77, 77s, 1m17s. */
  const span = (s: number): string => `(${s}s?|${Math.floor(s / 60)}m${s % 60}s)`

  t.test('everything wanted is reached, and the tools see it', async t => {
    await sample.running.reconciler.start()
    await sample.running.reconciler.attach('n1', local, AbortSignal.timeout(20_000))
    const status = sample.running.reconciler.status()
    t.same(status.failing, [])
    t.same(status.lost, [])
    t.equal(sh(`${inN} bridge fdb show dev vx0 | grep -c self`).trim(), '22', '20 endpoints and 2 gateways')
    t.match(
      sh(`${inN} ip -d link show vx0`),
      /vxlan id 1048576 local 192\.0\.2\.1 (?=.*dstport 8473 )(?=.*nolearning)(?=.*gbp)/s,
    )
    t.match(sh(`${inN} nft list map inet weft published`), /tcp \. 8080 : 80/)
    t.match(sh('nft list map inet weft ports4'), /tcp \. 8080 : 169\.254\.1\.2/)
    if (balancer === 'nft')
      t.match(
        sh(`${inM} nft list chain inet weft tcp_8080`),
        /dnat ip to numgen inc mod 2 map \{ 0 : 10\.80\.0\.\d+, 1 : 10\.80\.0\./,
      )
    else {
      const services = sh(`${inM} ipvsadm -Sn`)
      t.match(services, /^-A -t 169\.254\.1\.2:8080 -s rr$/m)
      t.match(services, /^-A -t \[fd69:7765:6674::2\]:8080 -s rr$/m)
      t.match(services, /^-a -t 169\.254\.1\.2:8080 -r 10\.80\.0\.\d+:8080 -m -w 1$/m)
      t.equal(services.match(/^-a /gm)?.length, 4, 'two containers, two families')
      t.match(sh(`${inM} ipvsadm -Ln --timeout`), /tcp tcpfin udp\): 432000 3600 300/, 'no UDP here')
      t.equal(sh(`${inM} sysctl -n net.ipv4.vs.expire_nodest_conn`).trim(), '1')
    }
    t.match(sh('nft list ct timeout inet weft tcp_432000_3600'), /close_wait ?: ?(3600|1h)/)
    for (const where of [inN, inM])
      t.equal(sh(`${where} sysctl -n net.netfilter.nf_conntrack_tcp_timeout_close_wait`).trim(), '3600')
    t.match(sh(`${inN} nft list chain netdev weft in_clocal0000000`), /policy drop/)
    t.equal(sh(`${inN} sysctl -n net.bridge.bridge-nf-call-iptables`).trim(), '1')
    t.equal(
      sh('ip netns exec weft-n1048577 sysctl -n net.bridge.bridge-nf-call-iptables').trim(),
      '0',
      'nobody tracked, no hooks',
    )
    t.match(sh('ip nexthop show'), /fdb/)
  })

  t.test('a new life finds it as wanted and writes nothing', async t => {
    await sample.running.close()
    sample.open()
    await sample.running.reconciler.start()
    const { operations, failing, lost } = sample.running.reconciler.status()
    t.equal(operations, 0)
    t.same(failing, [])
    t.same(lost, [])
  })

  t.test('a change costs its own operations; what is taken away goes', async t => {
    const before = sample.running.reconciler.status().operations
    snapshot.putEndpoint({ id: 'later', network: 'n1', node: 'b' })
    tell([['endpoints', 'n1', 'later']])
    await sample.running.reconciler.endpointReached('n1', 'later', AbortSignal.timeout(10_000))
    t.equal(sample.running.reconciler.status().operations - before, 6)
    snapshot.dropEndpoint('n1', 'later')
    tell([['endpoints', 'n1', 'later']])
    for (let i = 0; i < 100 && sample.running.reconciler.status().operations - before < 12; i++) await sleep(50)
    t.equal(sample.running.reconciler.status().operations - before, 12)
  })

  t.test('a container that takes no more connections keeps those it has', async t => {
    const { record } = snapshot.endpoints('n1').get('remote1')!
    const weights = (): string[] => [...sh(`${inM} ipvsadm -Sn`).matchAll(/-w (\d)$/gm)].map(([, weight]) => weight!)
    const change = async (endpoint: typeof record, expected: string[]): Promise<void> => {
      const before = sample.running.reconciler.status().operations
      snapshot.putEndpoint(endpoint)
      tell([['endpoints', 'n1', endpoint.id]])
      if (balancer === 'nft') {
        const chain = (): string => sh(`${inM} nft list chain inet weft tcp_8080`)
        for (let i = 0; i < 100 && chain().includes('numgen') === endpoint.drained; i++) await sleep(50)
        t.equal(chain().includes('numgen'), !endpoint.drained)
        return
      }
      for (let i = 0; i < 100 && weights().sort().join() !== expected.join(); i++) await sleep(50)
      t.same(weights().sort(), expected)
      for (let i = 0; i < 100 && sample.running.reconciler.status().operations === before; i++) await sleep(20)
      t.equal(sample.running.reconciler.status().operations - before, 2, 'one write for each family')
    }
    await change({ ...record, drained: true }, ['0', '0', '1', '1'])
    await change({ ...record, drained: false } as unknown as typeof record, ['1', '1', '1', '1'])
  })

  t.test('the port of a container, renamed: left as it is, and ours again by its name', async t => {
    const rename = (from: string, to: string): string =>
      sh(`${inN} sh -c 'ip link set ${from} down; ip link set ${from} name ${to}; ip link set ${to} up'`)
    rename('clocal0000000', 'foo')
    await sleep(500)
    await sample.running.reconciler.audit()
    t.match(sh(`${inN} ip -o link show dev foo`), /group 119/)
    rename('foo', 'clocal0000000')
    const row = `${inN} bridge fdb show dev clocal0000000 | grep static || true`
    for (let i = 0; i < 100 && (sh(row) === '' || sample.running.reconciler.status().failing.length > 0); i++)
      await sleep(50)
    t.not(sh(row), '')
    t.same(sample.running.reconciler.status().failing, [])
  })

  t.test('a way that was taken while nobody looked', async t => {
    await sample.running.close()
    sh(`ip route del 169.254.1.0/30 dev weft0; ${inM} ip -6 route flush dev gw0 proto kernel`)
    sample.open()
    await sample.running.reconciler.start()
    t.equal(sample.running.reconciler.status().operations, 3, 'one for each address')
    t.match(sh('ip route show dev weft0'), /^169\.254\.1\.0\/30 proto kernel/m)
    t.match(sh(`${inM} ip -6 route show dev gw0`), /^fd.*\/64 proto kernel/m)
    await sleep(300)
    t.equal(sample.running.reconciler.status().operations, 3, 'once')
  })

  t.test('a service with an idle timeout of its own', async t => {
    const before = sample.running.reconciler.status().operations
    const say = (timeoutTcp: number | undefined): void => {
      const service = optionsKeyOf('web')
      snapshot.putService({ network: 'n1', service, ...(timeoutTcp === undefined ? {} : { timeoutTcp }) })
      tell([['services', 'n1', service]])
    }
    const sees = async (command: string, wanted: RegExp): Promise<void> => {
      let found = ''
      for (let i = 0; i < 100 && !wanted.test(found); i++) {
        found = sh(`${inM} ${command}`)
        await sleep(50)
      }
      t.match(found, wanted)
    }
    const [show, idle] =
      balancer === 'nft'
        ? [
            'nft list ruleset',
            (s: number) =>
              new RegExp(`ct timeout tcp_${s}_${s} {[^}]*established ?: ?${span(s)}.*set "tcp_${s}_${s}"`, 's'),
          ]
        : ['ipvsadm -Ln --timeout', (s: number) => new RegExp(`: ${s} 3600`)]
    say(77)
    await sees(show, idle(77))
    say(78)
    await sees(show, idle(78))
    if (balancer === 'nft') t.notMatch(sh(`${inM} ${show}`), /tcp_77/)
    say(undefined)
    await sees(show, balancer === 'nft' ? /^(?!.*ct timeout)/s : idle(432_000))
    t.same(sample.running.reconciler.status().failing, [])
    t.ok(sample.running.reconciler.status().operations > before)
  })

  t.test('--purge takes all of ours and nothing else', async t => {
    await sample.running.close()
    sh('nft add table inet foreign')
    sh("nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; }'")
    const guests = guestRulesOf([{ family: 'ip', table: 'filter', chain: 'FORWARD' }])
    const kernel = openLinuxKernel(silentLog)
    const made = await kernel.apply(guests.map(object => ({ kind: 'add', object }) as const))
    await kernel.close()
    t.notOk(made.find(({ error }) => error))
    t.match(sh('nft list chain ip filter FORWARD'), /weft/)
    t.ok((await purge('/nonexistent')).length > 0)
    t.equal(sh('ls /run/netns').trim(), '')
    t.notMatch(sh('nft list ruleset'), /weft/)
    t.match(sh('nft list ruleset'), /foreign/)
    // the kernel takes a namespace's devices away a moment after its name
    for (let i = 0; i < 100 && sh('ip -o link').includes('weft'); i++) await sleep(50)
    t.notMatch(sh('ip -o link'), /weft/)
    t.notMatch(sh('ip nexthop show'), /fdb/)
    t.same(await purge('/nonexistent'), [])
  })

  t.test('killed while it made a namespace, or its name unmounted by somebody', async t => {
    const becomes = async (what: string, command: string): Promise<void> => {
      const is = (): string => sh(`{ ${command}; } 2>/dev/null || true`).trim()
      for (const end = Date.now() + patienceMs; is() === '' && Date.now() < end; ) await sleep(50)
      t.not(is(), '', what)
      for (let i = 0; i < 100 && sample.running.reconciler.status().failing.length > 0; i++) await sleep(50)
      t.same(sample.running.reconciler.status().failing, [])
    }
    sh('cd /run/netns && touch weft-n1048576 weft-m1048577 weft-n77')
    sample.open()
    await sample.running.reconciler.start()
    await becomes('its own, made anew', `${inN} ip -o link show dev vx0 && ip -n weft-m1048577 -o link show dev up0`)
    sh('touch /run/netns/weft-m78 && nft delete table inet weft')
    await becomes('repaired beside such a file', 'nft list chain inet weft prerouting')
    sh('umount /run/netns/weft-n1048576 /run/netns/weft-m1048577')
    await sample.running.reconciler.audit()
    await becomes(
      'found by the audit',
      `${inN} ip -o link show dev vx0 up && ip -n weft-m1048577 -o link show dev up0 up`,
    )
    await sample.running.close()
    sh('echo mine >/run/netns/weft-n79')
    await purge('/nonexistent')
    t.equal(sh('ls /run/netns').trim(), 'weft-n79', 'a file of somebody')
  })
}

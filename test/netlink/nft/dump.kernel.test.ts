// SPDX-License-Identifier: Apache-2.0
// Tables of others: made by iptables-nft and by nft with what we do not know. We read past it, and leave it alone.
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { nftBatch } from '../../../src/netlink/nft/batch.ts'
import { listObjects } from '../../../src/netlink/nft/dump.ts'
import { openNft } from './compare.ts'
import { set } from './rules.ts'

t.test('rules of iptables', async t => {
  const lab = await openNft(t, 'd1')
  const run = (tool: string, ...args: string[]) => execFileSync('ip', ['netns', 'exec', lab.name, tool, ...args])
  for (const tool of ['iptables-nft', 'ip6tables-nft']) {
    run(tool, '-N', 'DOCKER-USER')
    run(tool, '-A', 'FORWARD', '-j', 'DOCKER-USER')
    run(tool, '-A', 'DOCKER-USER', '-m', 'comment', '--comment', 'theirs', '-j', 'RETURN')
    run(tool, '-A', 'DOCKER-USER', '-p', 'tcp', '--dport', '80', '-m', 'conntrack', '--ctstate', 'NEW', '-j', 'ACCEPT')
    run(tool, '-t', 'nat', '-A', 'POSTROUTING', '-o', 'eth0', '-j', 'MASQUERADE')
  }
  const before = await listObjects(lab.netlink)
  t.same(before.tables.map(({ family, table }) => `${family} ${table}`).sort(), [
    'ip filter',
    'ip nat',
    'ip6 filter',
    'ip6 nat',
  ])
  const forward = before.chains.find(({ family, chain }) => family === 'ip' && chain === 'FORWARD')
  t.strictSame(forward?.hook, { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' })
  t.equal(before.rules.filter(({ chain }) => chain === 'DOCKER-USER').length, 4)

  // our guest at the head of their chain
  const rule = 'iifname "weft*" counter accept'
  const batch = nftBatch()
  for (const family of ['ip', 'ip6'] as const)
    batch.addRule(family, 'filter', 'DOCKER-USER', rule, { comment: 'weft #0123456789ab', first: true })
  await batch.commit(lab.netlink, 'add guests')
  const users = { table: () => false, chain: ({ chain }: { chain: string }) => chain === 'DOCKER-USER' }
  const { rules } = await listObjects(lab.netlink, users)
  for (const family of ['ip', 'ip6']) {
    const there = rules.filter(one => one.family === family && one.chain === 'DOCKER-USER')
    t.equal(there[0]?.comment, 'weft #0123456789ab')
    t.equal(there.length, 3)
  }
  t.match(run('iptables-nft', '-S', 'DOCKER-USER').toString(), /theirs/, 'iptables still understands its own')
  const remove = nftBatch()
  for (const { family, table, chain, handle, comment } of rules) {
    if (comment?.startsWith('weft ')) remove.removeRule(family, table, chain, handle)
  }
  await remove.commit(lab.netlink, 'remove guests')
  t.same(await listObjects(lab.netlink), before)
})

const exotic = `
table inet strange {
  flags dormant
  comment "not ours"
  counter c { packets 1 bytes 2 }
  quota q { over 10 mbytes }
  ct helper ftp { type "ftp" protocol tcp; }
  limit l { rate 10/second }
  set times { type ipv4_addr; flags timeout, dynamic; timeout 1h; size 100; elements = { 10.0.0.1 timeout 5m comment "one" } }
  set counted { type ipv4_addr . inet_service; flags interval; counter; elements = { 10.0.0.0/8 . 1-5, 192.0.2.1 . 80 } }
  set unknown { typeof ct state . meta skuid; elements = { new . 5 } }
  set number { typeof ip dscp; elements = { 5 } }
  set zone { typeof ct original zone; elements = { 5 } }
  set any { type ipv4_addr; flags interval; elements = { 10.0.0.1-10.0.0.9 } }
  map other { type ipv4_addr : inet_service; elements = { 10.0.0.1 : 80, * : 443 } }
  map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : jump plain, 192.0.2.1 : return } }
  map objects { type ipv4_addr : counter; elements = { 10.0.0.1 : "c" } }
  chain plain { comment "a chain"
    counter name "c" quota name "q" limit name "l"
    ip saddr { 10.0.0.1, 10.0.0.2 } ct state vmap { new : accept, invalid : drop }
    tcp option maxseg size set rt mtu
    meta time "2030-01-01" drop
    update @times { ip saddr timeout 1m }
    socket transparent 1 accept
  }
  chain early { type filter hook prerouting priority mangle - 5; }
  chain base { type filter hook ingress device "lo" priority 5; policy drop; }
}
table netdev many {
  chain both { type filter hook ingress devices = { "lo", "va" } priority 0; policy accept; }
}
table arp a {
  chain c { type filter hook input priority 0; arp operation request accept; }
}
table bridge b {
  set s { type ether_addr; }
  chain c { type filter hook forward priority 0; }
}
`

t.test('features we do not know', async t => {
  const lab = await openNft(t, 'd2')
  lab.ip('link', 'add', 'va', 'type', 'bridge')
  lab.nft(['-f', '-'], exotic)
  const found = await listObjects(lab.netlink)
  t.same(
    found.tables.map(({ family, table }) => `${family} ${table}`),
    ['inet strange', 'netdev many'],
  )
  t.strictSame(
    found.sets.map(({ name, key, value, interval }) => [name, key, value, interval]),
    [
      ['times', ['ipv4_addr'], undefined, undefined],
      ['counted', ['ipv4_addr', 'inet_service'], undefined, true],
      ['any', ['ipv4_addr'], undefined, true],
      ['other', ['ipv4_addr'], ['inet_service'], undefined],
      ['verdicts', ['ipv4_addr'], ['verdict'], true],
    ],
  )
  t.strictSame(
    found.elements.map(({ set, key, value }) => `${set} ${key.join(' . ')}${value ? ` : ${value}` : ''}`).sort(),
    [
      'any 10.0.0.1-10.0.0.9',
      'counted 10.0.0.0/8 . 1-5',
      'counted 192.0.2.1 . 80',
      'other 10.0.0.1 : 80',
      'times 10.0.0.1',
      'verdicts 10.0.0.0/8 : jump plain',
      'verdicts 192.0.2.1 : return',
    ],
  )
  t.equal(found.rules.length, 6)
  t.strictSame(
    found.chains.map(({ chain, hook }) => [chain, hook?.hook, hook?.priority, hook?.device]),
    [
      ['plain', undefined, undefined, undefined],
      ['early', 'prerouting', -155, undefined],
      ['base', 'ingress', 5, 'lo'],
      ['both', 'ingress', 0, undefined],
    ],
  )
  const some = await listObjects(lab.netlink, { table: ({ table }) => table === 'weft' })
  t.same([some.sets, some.elements], [[], []])
  t.equal(some.tables.length, 2)
})

t.test('a table in motion', async t => {
  const lab = await openNft(t, 'd3')
  const marks = set('marks', ['mark'])
  const start = nftBatch()
  start.addTable('inet', 'weft')
  start.addSet('inet', 'weft', marks)
  await start.commit(lab.netlink, 'start')
  const other = await openNft(t, 'd4') // a namespace of its own does not disturb
  let stop = false
  const writer = (async () => {
    for (let i = 0; !stop; i++) {
      const batch = nftBatch()
      // always an even number, in every state
      for (const n of [2 * i, 2 * i + 1]) batch.addElement('inet', 'weft', marks, { key: [String(n)] })
      await batch.commit(lab.netlink, 'disturb')
      await new Promise(resolve => setTimeout(resolve, 2))
    }
  })()
  for (let i = 0; i < 50; i++) {
    const found = await listObjects(lab.netlink).catch(error => error)
    if (found instanceof Error) t.match(found, { errnoName: 'EINTR' })
    else if (found.elements.length % 2 !== 0) t.fail(`half a transaction: ${found.elements.length}`)
  }
  stop = true
  await writer
  t.same(await listObjects(other.netlink), { tables: [], chains: [], rules: [], sets: [], elements: [], timeouts: [] })
})

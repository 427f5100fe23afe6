// SPDX-License-Identifier: Apache-2.0
// Batches against the live kernel: all or nothing, the culprit named, hooks and comments as given, and that rules do
// to packets what they say.
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { type NftBatch, nftBatch } from '../../../src/netlink/nft/batch.ts'
import { listObjects } from '../../../src/netlink/nft/dump.ts'
import type { NftHook } from '../../../src/netlink/nft/types.ts'
import { freshNetns } from '../lab.ts'
import { failure, listed, type NftLab, openNft } from './compare.ts'
import { set } from './rules.ts'

const commit = async (lab: NftLab, fill: (batch: NftBatch) => void): Promise<void> => {
  const batch = nftBatch()
  fill(batch)
  await batch.commit(lab.netlink, 'change nft')
}

t.test('one wrong object, and nothing is done', async t => {
  const lab = await openNft(t, 'b1')
  await commit(lab, batch => {
    batch.addTable('inet', 'weft')
    batch.addChain('inet', 'weft', 'there')
  })
  const before = lab.nft(['list', 'ruleset'])
  const marks = set('marks', ['mark'])
  const wrong: readonly (readonly [string, object, (batch: NftBatch) => void])[] = [
    [
      'a rule that jumps to nowhere',
      { errnoName: 'ENOENT', op: 'add nft rule in inet weft there: meta mark 5 jump nowhere', index: 2 },
      batch => batch.addRule('inet', 'weft', 'there', 'meta mark 5 jump nowhere'),
    ],
    [
      'a rule in a chain that is not',
      { errnoName: 'ENOENT', op: 'add nft rule in inet weft nowhere: accept', attribute: 'NFTA_RULE_CHAIN' },
      batch => batch.addRule('inet', 'weft', 'nowhere', 'accept'),
    ],
    [
      'a rule that looks into a set that is not',
      { errnoName: 'ENOENT', op: 'add nft rule in inet weft there: meta mark @nothing accept' },
      batch => batch.addRule('inet', 'weft', 'there', 'meta mark @nothing accept'),
    ],
    [
      'a rule with a set of its own in a chain that is not',
      { errnoName: 'ENOENT', op: 'add nft rule in inet weft nowhere: tcp dport { 80, 443 } accept' },
      batch => batch.addRule('inet', 'weft', 'nowhere', 'tcp dport { 80, 443 } accept'),
    ],
    [
      'an element of a set that is not',
      { errnoName: 'ENOENT', op: 'add nft element inet weft marks { 5 }', attribute: 'NFTA_SET_ELEM_LIST_SET' },
      batch => batch.addElement('inet', 'weft', marks, { key: ['5'] }),
    ],
    [
      'a chain in a table that is not',
      { errnoName: 'ENOENT', op: 'add nft chain inet nowhere x', attribute: 'NFTA_CHAIN_TABLE' },
      batch => batch.addChain('inet', 'nowhere', 'x'),
    ],
    [
      'a nat rule in a chain that is not for nat',
      { op: 'add nft rule in inet weft base: masquerade' },
      batch => {
        batch.addChain('inet', 'weft', 'base', { type: 'filter', hook: 'input', priority: 0, policy: 'accept' })
        batch.addRule('inet', 'weft', 'base', 'masquerade')
      },
    ],
    [
      'removal of what is not',
      { errnoName: 'ENOENT', op: 'remove nft set inet weft x', absent: true },
      batch => batch.removeSet('inet', 'weft', 'x'),
    ],
    [
      'removal of a chain',
      { errnoName: 'ENOENT', op: 'remove nft chain inet weft x' },
      batch => batch.removeChain('inet', 'weft', 'x'),
    ],
    [
      'removal of a table',
      { errnoName: 'ENOENT', op: 'remove nft table ip weft' },
      batch => batch.removeTable('ip', 'weft'),
    ],
    [
      'flush of a chain',
      { errnoName: 'ENOENT', op: 'flush nft chain inet weft x' },
      batch => batch.flushChain('inet', 'weft', 'x'),
    ],
    [
      'removal of a rule',
      { errnoName: 'ENOENT', op: 'remove nft rule 99 in inet weft there' },
      batch => batch.removeRule('inet', 'weft', 'there', 99n),
    ],
    [
      'a chain again with another hook',
      { op: 'add nft chain inet weft there' },
      batch =>
        batch.addChain('inet', 'weft', 'there', { type: 'filter', hook: 'input', priority: 0, policy: 'accept' }),
    ],
  ]
  for (const [name, expected, fill] of wrong) {
    const refused = await failure(
      commit(lab, batch => {
        batch.addChain('inet', 'weft', 'before')
        batch.addRule('inet', 'weft', 'before', 'counter')
        fill(batch)
        batch.addChain('inet', 'weft', 'after')
      }),
    )
    t.match(refused, { name: 'NetlinkError', ...expected }, name)
    t.equal(lab.nft(['list', 'ruleset']), before, 'nothing applied')
  }
})

t.test('a batch that cannot be sent', async t => {
  const lab = await openNft(t, 'b2')
  await commit(lab, () => {})
  t.equal(lab.nft(['list', 'ruleset']), '')
  t.throws(() => nftBatch().addRule('inet', 'weft', 'x', 'acept'), { code: 'INVALID', message: /"acept"/ })
  t.throws(() => nftBatch().addRule('inet', 'weft', 'x', 'accept', { comment: 'say "x"' }), { code: 'INVALID' })
  t.throws(() => nftBatch().addRule('inet', 'weft', 'x', 'accept', { comment: 'x'.repeat(128) }), { code: 'INVALID' })
  const device = await failure(
    commit(lab, batch => {
      batch.addTable('netdev', 'weft')
      batch.addChain('netdev', 'weft', 'x')
      batch.addRule('netdev', 'weft', 'x', 'fwd to "nowhere"')
    }),
  )
  t.match(device, { errnoName: 'ENODEV', op: /nowhere/ })
  t.equal(lab.nft(['list', 'ruleset']), '')
})

const ingress: NftHook = { type: 'filter', hook: 'ingress', priority: 0, policy: 'drop', device: 'va' }

t.test('hooks, comments and order come back as given', async t => {
  const lab = await openNft(t, 'b3')
  lab.ip('link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb')
  const hooks: readonly (readonly ['inet' | 'ip' | 'ip6' | 'netdev', string, NftHook | undefined])[] = [
    ['inet', 'plain', undefined],
    ['inet', 'raw', { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' }],
    ['inet', 'translate', { type: 'nat', hook: 'prerouting', priority: -110, policy: 'accept' }],
    ['inet', 'incoming', { type: 'filter', hook: 'input', priority: -10, policy: 'drop' }],
    ['inet', 'through', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' }],
    ['ip', 'outgoing', { type: 'route', hook: 'output', priority: 2_147_483_647, policy: 'accept' }],
    ['ip6', 'masked', { type: 'nat', hook: 'postrouting', priority: -150, policy: 'accept' }],
    ['netdev', 'in_va', ingress],
    ['inet', 'in_both', { ...ingress, device: 'vb', policy: 'accept' }],
  ]
  await commit(lab, batch => {
    for (const family of ['inet', 'ip', 'ip6', 'netdev'] as const) batch.addTable(family, 'weft')
    for (const [family, chain, hook] of hooks) batch.addChain(family, 'weft', chain, hook)
    for (const [family, chain] of hooks) {
      batch.addRule(family, 'weft', chain, 'counter', { comment: '#0123456789ab' })
      batch.addRule(family, 'weft', chain, 'meta mark { 1, 2 } accept', { comment: `last of ${chain} ä` })
      batch.addRule(family, 'weft', chain, 'drop', { comment: 'first', first: true })
      batch.addRule(family, 'weft', chain, 'accept')
    }
  })
  const found = await listObjects(lab.netlink)
  t.same(
    found.chains.map(({ family, chain, hook }) => [family, chain, hook]).sort(),
    hooks.map(hook => [...hook]).sort(),
  )
  for (const [family, chain] of hooks) {
    const comments = found.rules
      .filter(rule => rule.family === family && rule.chain === chain)
      .map(rule => rule.comment)
    t.strictSame(comments, ['first', '#0123456789ab', `last of ${chain} ä`, undefined])
  }
  t.match(lab.nft(['list', 'chain', 'inet', 'weft', 'raw']), /counter packets 0 bytes 0 comment "#0123456789ab"/)
  t.strictSame(found.sets, [], 'sets without a name are not objects')

  const again = hooks[2]![2]!
  await commit(lab, batch => {
    batch.addTable('inet', 'weft')
    batch.addChain('inet', 'weft', 'translate', again)
    batch.addChain('inet', 'weft', 'through', { ...hooks[4]![2]!, policy: 'accept' })
  })
  const [first] = found.rules.filter(rule => rule.chain === 'raw')
  await commit(lab, batch => {
    batch.removeRule('inet', 'weft', 'raw', first!.handle)
    batch.flushChain('inet', 'weft', 'plain')
    batch.flushChain('inet', 'weft', 'plain')
    batch.removeChain('inet', 'weft', 'plain')
    batch.flushChain('ip', 'weft', 'outgoing')
    batch.addRule('ip', 'weft', 'outgoing', 'counter', { comment: 'anew' })
  })
  const after = await listObjects(lab.netlink)
  t.strictSame(
    after.rules
      .filter(rule => rule.chain === 'raw' || rule.chain === 'outgoing')
      .map(rule => rule.comment)
      .sort(),
    ['#0123456789ab', 'anew', 'last of raw ä', undefined],
  )
  t.notOk(after.chains.some(({ chain }) => chain === 'plain'))
  t.equal(after.chains.find(({ chain }) => chain === 'through')?.hook?.policy, 'accept', 'another policy is set')

  await commit(lab, batch => {
    for (const family of ['inet', 'ip', 'ip6', 'netdev'] as const) batch.removeTable(family, 'weft')
  })
  t.equal(lab.nft(['list', 'ruleset']), '')
})

t.test('a chain is made anew with another hook in one batch', async t => {
  const lab = await openNft(t, 'b4')
  const hook: NftHook = { type: 'filter', hook: 'input', priority: 0, policy: 'accept' }
  const fill = (batch: NftBatch, policy: 'accept' | 'drop', priority: number) => {
    batch.addChain('inet', 'weft', 'x', { ...hook, policy, priority })
    batch.addRule('inet', 'weft', 'x', 'tcp dport { 80, 443 } accept')
  }
  await commit(lab, batch => {
    batch.addTable('inet', 'weft')
    fill(batch, 'accept', 0)
  })
  await commit(lab, batch => {
    batch.flushChain('inet', 'weft', 'x')
    batch.removeChain('inet', 'weft', 'x')
    fill(batch, 'drop', -10)
  })
  t.match(listed(lab), /priority filter - 10; policy drop;\s+tcp dport \{ 80, 443 \} accept/)
  await commit(lab, batch => {
    batch.removeTable('inet', 'weft')
    batch.addTable('inet', 'weft')
  })
  t.notMatch(listed(lab), /chain/)
})

t.test('500 rules, each with a set of its own', async t => {
  const lab = await openNft(t, 'b5')
  await commit(lab, batch => {
    batch.addTable('inet', 'weft')
    batch.addChain('inet', 'weft', 'x')
    for (let i = 0; i < 500; i++) batch.addRule('inet', 'weft', 'x', `tcp dport { ${i + 1}, ${i + 1000} } accept`)
    const many = Array.from({ length: 2000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
    batch.addRule('inet', 'weft', 'x', `ip saddr { ${many.join(', ')} } accept`)
  })
  t.equal((await listObjects(lab.netlink)).rules.length, 501)
  const text = listed(lab)
  t.match(text, /tcp dport \{ 500, 1499 \} accept/)
  t.match(text, /10\.0\.7\.207/)
})

/** va here, its peer eth0 in a namespace of its own; `ping` from there to 10.9.0.1 here. */
const openPackets = async (t: import('tap').Test, suffix: string) => {
  const lab = await openNft(t, suffix)
  const far = await freshNetns(t, `${suffix}f`)
  lab.ip('link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', far.name)
  lab.ip('addr', 'add', '10.9.0.1/24', 'dev', 'va')
  lab.ip('link', 'set', 'va', 'up')
  const there = (...args: string[]) => execFileSync('ip', ['netns', 'exec', far.name, ...args], { encoding: 'utf8' })
  there('ip', 'addr', 'add', '10.9.0.2/24', 'dev', 'eth0')
  there('ip', 'link', 'set', 'eth0', 'up')
  const mac = there('cat', '/sys/class/net/eth0/address').trim()
  const ping = (to = '10.9.0.1'): boolean => {
    try {
      there('ping', '-c', '1', '-W', '1', to)
      return true
    } catch {
      return false
    }
  }
  return { lab, mac, there, ping }
}

t.test('an ingress chain filters what comes in at its device', async t => {
  const { lab, mac, ping } = await openPackets(t, 'b6')
  t.ok(ping())
  await commit(lab, batch => {
    batch.addTable('netdev', 'weft')
    batch.addChain('netdev', 'weft', 'in_va', ingress)
    batch.addRule('netdev', 'weft', 'in_va', `ether saddr != ${mac} drop`)
    batch.addRule('netdev', 'weft', 'in_va', `arp saddr ether ${mac} arp saddr ip 10.9.0.2 accept`)
    batch.addRule('netdev', 'weft', 'in_va', 'ip saddr 10.9.0.2 meta mark set 0x01000005 counter accept', {
      comment: 'mine',
    })
    batch.addTable('inet', 'weft')
    batch.addSet('inet', 'weft', set('marks', ['mark'], ['verdict']))
    batch.addChain('inet', 'weft', 'known')
    batch.addRule('inet', 'weft', 'known', 'counter accept')
    batch.addChain('inet', 'weft', 'in', { type: 'filter', hook: 'input', priority: 0, policy: 'drop' })
    batch.addRule('inet', 'weft', 'in', 'meta mark & 0xff000000 == 0x01000000 meta mark vmap @marks')
    batch.addElement('inet', 'weft', set('marks', ['mark'], ['verdict']), {
      key: ['0x01000005'],
      value: ['jump known'],
    })
  })
  t.ok(ping(), 'known sender, known mark')
  t.match(lab.nft(['list', 'ruleset']), /ip saddr 10.9.0.2 meta mark set 0x01000005 counter packets 1 /)
  t.match(lab.nft(['list', 'chain', 'inet', 'weft', 'known']), /packets 1 /)
  await commit(lab, batch =>
    batch.removeElement('inet', 'weft', set('marks', ['mark'], ['verdict']), { key: ['0x01000005'] }),
  )
  t.notOk(ping(), 'unknown mark')
  await commit(lab, batch => {
    batch.removeTable('inet', 'weft')
    batch.flushChain('netdev', 'weft', 'in_va')
  })
  t.notOk(ping(), 'policy drop')
})

t.test('conntrack zones from a map, a destination from a map, a frame sent on', async t => {
  const { lab, mac, there, ping } = await openPackets(t, 'b7')
  const zoneOf = set('zone_of', ['ether_addr'], ['ct_zone'])
  const macOf = set('mac_of_zone', ['ct_zone'], ['ether_addr'])
  const to = set('backends', ['ipv4_addr'], ['ipv4_addr'])
  const base = (type: NftHook['type'], hook: NftHook['hook'], priority: number): NftHook => ({
    type,
    hook,
    priority,
    policy: 'accept',
  })
  await commit(lab, batch => {
    batch.addTable('inet', 'weft')
    for (const one of [zoneOf, macOf, to]) batch.addSet('inet', 'weft', one)
    batch.addElement('inet', 'weft', zoneOf, { key: [mac], value: ['4711'] })
    batch.addElement('inet', 'weft', macOf, { key: ['4711'], value: [mac] })
    batch.addElement('inet', 'weft', to, { key: ['10.9.0.77'], value: ['10.9.0.1'] })
    batch.addChain('inet', 'weft', 'raw', base('filter', 'prerouting', -300))
    batch.addRule('inet', 'weft', 'raw', 'ct original zone set ether saddr map @zone_of')
    batch.addChain('inet', 'weft', 'translate', base('nat', 'prerouting', -100))
    batch.addRule('inet', 'weft', 'translate', 'dnat ip to ip daddr map @backends')
    batch.addChain('inet', 'weft', 'in', base('filter', 'input', 0))
    batch.addRule('inet', 'weft', 'in', 'ct original zone 4711 ct status & dnat == dnat counter', {
      comment: 'translated',
    })
  })
  const macOfVa = execFileSync('ip', ['netns', 'exec', lab.name, 'cat', '/sys/class/net/va/address'], {
    encoding: 'utf8',
  })
  there('ip', 'neigh', 'add', '10.9.0.77', 'lladdr', macOfVa.trim(), 'dev', 'eth0')
  t.ok(ping('10.9.0.77'), 'translated and answered')
  t.match(lab.nft(['list', 'chain', 'inet', 'weft', 'in']), /counter packets [1-9]/)

  // frames from the far end to nobody, sent on to another device
  lab.ip('link', 'add', 'vc', 'type', 'veth', 'peer', 'name', 'vd')
  for (const link of ['vc', 'vd']) lab.ip('link', 'set', link, 'up')
  await commit(lab, batch => {
    batch.addTable('netdev', 'weft')
    batch.addChain('netdev', 'weft', 'in_va', { ...ingress, policy: 'accept' })
    batch.addRule('netdev', 'weft', 'in_va', 'ip daddr 10.9.0.1 fwd to "vc"')
    batch.addChain('netdev', 'weft', 'in_vd', { ...ingress, device: 'vd', policy: 'accept' })
    batch.addRule('netdev', 'weft', 'in_vd', 'ip daddr 10.9.0.1 counter')
  })
  t.notOk(ping())
  t.match(lab.nft(['list', 'chain', 'netdev', 'weft', 'in_vd']), /counter packets 1 /)
  t.match(lab.nft(['list', 'chain', 'netdev', 'weft', 'in_va']), /fwd to "vc"/)
})

// SPDX-License-Identifier: Apache-2.0
// The atomic send, which nf_tables needs, and large tables.
import { execFileSync } from 'node:child_process'
import t from 'tap'
import type { Writer } from '../../src/netlink/message.ts'
import { decodeFdb, listFdb, replaceFdb } from '../../src/netlink/rtnl/fdb.ts'
import { addLink } from '../../src/netlink/rtnl/link.ts'
import { openNetlink } from '../../src/netlink/socket.ts'
import { NETLINK_NETFILTER, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REQUEST } from '../../src/netlink/uapi.ts'
import { freshNetns, openLab } from './lab.ts'

const nfgen = (w: Writer, family: number, resource: number): void => {
  w.u8(family)
  w.u8(0)
  w.be16(resource)
}
const edge = (w: Writer, type: number): void => {
  w.begin(type, NLM_F_REQUEST)
  nfgen(w, 0, 10)
  w.end()
}
const table = (w: Writer, name: string, flags = 0): void => {
  w.begin((10 << 8) | 0, NLM_F_REQUEST | NLM_F_CREATE | flags)
  nfgen(w, 1, 0)
  w.attrString(1, name)
  w.end()
}
const chain = (w: Writer, inTable: string, name: string): void => {
  w.begin((10 << 8) | 3, NLM_F_REQUEST | NLM_F_CREATE)
  nfgen(w, 1, 0)
  w.attrString(1, inTable)
  w.attrString(3, name)
  w.end()
}

t.test('an atomic batch is done as a whole or not at all', async t => {
  const { name, path } = await freshNetns(t, 's1')
  const netlink = await openNetlink({ protocol: NETLINK_NETFILTER, netns: path, sndbuf: 32 << 20, rcvbuf: 8 << 20 })
  t.teardown(() => netlink.close())
  const done = await netlink.atomic('set up table weft', w => {
    edge(w, 0x10)
    table(w, 'weft', NLM_F_ECHO)
    chain(w, 'weft', 'one')
    edge(w, 0x11)
  })
  t.strictSame(done.errors, [])
  t.match(done.replies, [{ type: 10 << 8, sequence: 1 }], 'the echo carries the index of its message')
  const list = () => execFileSync('ip', ['netns', 'exec', name, 'nft', 'list', 'ruleset'], { encoding: 'utf8' })
  t.match(list(), /table inet weft \{\s+chain one/)

  const refused = await netlink.atomic('break table weft', w => {
    edge(w, 0x10)
    chain(w, 'weft', 'two')
    chain(w, 'nosuch', 'three')
    chain(w, 'nosuch', 'four')
    edge(w, 0x11)
  })
  t.match(refused.errors, [
    { errnoName: 'ENOENT', op: 'break table weft', index: 2 },
    { errnoName: 'ENOENT', index: 3 },
  ])
  t.notMatch(list(), /two/)

  const many = await netlink.atomic('many chains', w => {
    edge(w, 0x10)
    for (let i = 0; i < 20_000; i++) chain(w, 'weft', `chain-${i}`)
    edge(w, 0x11)
  })
  t.strictSame(many.errors, [])
  t.match(list(), /chain chain-19999/)

  const small = await openNetlink({ protocol: NETLINK_NETFILTER, netns: path })
  t.teardown(() => small.close())
  const tooBig = small.atomic('too big', w => {
    edge(w, 0x10)
    for (let i = 0; i < 20_000; i++) chain(w, 'weft', `other-${i}`)
    edge(w, 0x11)
  })
  t.match(await tooBig.catch(error => error), { errnoName: 'EMSGSIZE', op: 'too big' })
})

t.test('100,000 fdb entries go in and come out', async t => {
  const { netlink } = await openLab(t, 's2')
  t.match(await netlink.batch([addLink({ name: 'vx0', index: 7, type: { kind: 'vxlan', vni: 7, port: 4789 } })]), [
    undefined,
  ])
  const hex = (n: number) => (n & 255).toString(16).padStart(2, '0')
  const rows = Array.from({ length: 100_000 }, (_, i) =>
    replaceFdb({
      ifindex: 7,
      mac: `02:42:00:${hex(i >> 16)}:${hex(i >> 8)}:${hex(i)}`,
      table: 'self',
      dst: '192.0.2.1',
    }),
  )
  const start = performance.now()
  const outcomes = await netlink.batch(rows)
  const middle = performance.now()
  t.ok(outcomes.every(error => error === undefined))
  const found = await netlink.dump(listFdb({ ifindex: 7 }), decodeFdb)
  t.equal(found.length, 100_000)
  t.comment(`in ${Math.round(middle - start)} ms, out ${Math.round(performance.now() - middle)} ms`)
})

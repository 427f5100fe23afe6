// SPDX-License-Identifier: Apache-2.0
// Which Docker network is which cluster network, when that changes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openBindings } from '../../src/control/bindings.ts'

t.test('bound to another: on the disk, with a link of its own, and both are planned again', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-bindings-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const changed: string[] = []
  const open = () => openBindings(join(dir, 'bindings.json'), 3, network => changed.push(network))
  const bindings = await open()
  await bindings.bind('d', 'second')
  await bindings.bind('e', 'other')
  changed.length = 0
  await bindings.rebind('nobody', 'first')
  await bindings.rebind('d', 'second')
  t.same(changed, [], 'nothing to do')
  await bindings.rebind('d', 'first')
  t.same(changed, ['second', 'first'])
  const now = { docker: 'd', network: 'first', slot: 2 }
  t.same([bindings.byDocker('d'), bindings.byNetwork('first'), bindings.byNetwork('second')], [now, now, undefined])
  t.same((await open()).byDocker('d'), now)
  await bindings.rebind('e', 'first')
  t.equal(bindings.byDocker('e')?.slot, 2, 'the link that the network has')
  rmSync(dir, { recursive: true })
  writeFileSync(dir, '') // no place for the file any more
  await t.rejects(bindings.rebind('d', 'third'))
  t.same(bindings.byDocker('d'), now, 'as on the disk')
})

t.test('where every link is taken it keeps its own', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-bindings-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const bindings = await openBindings(join(dir, 'bindings.json'), 1, () => {})
  await bindings.bind('d', 'second')
  await bindings.rebind('d', 'first')
  t.equal(bindings.byDocker('d')?.slot, 0)
})

t.test('links that others use are not taken', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-bindings-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const others = new Set([0, 2])
  const open = () =>
    openBindings(
      join(dir, 'bindings.json'),
      4,
      () => {},
      slot => others.has(slot),
    )
  const bindings = await open()
  t.equal((await bindings.bind('d', 'first')).slot, 1)
  t.equal((await bindings.bind('e', 'second')).slot, 3)
  await t.rejects(bindings.bind('f', 'third'), {
    code: 'FULL',
    message: "of 4 link networks of this host 2 are weft's and others use the rest: no more networks fit",
  })
  others.add(1)
  t.equal((await open()).byDocker('d')?.slot, 1, 'what it has it keeps')
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { afterChanges, differencesTo, doubt, type Look, type Pins, sweeping } from '../../src/store/belief.ts'
import { knownProblems } from '../../src/store/etcd-version.ts'
import type { Entry } from '../../src/store/store.ts'

const entry = (key: string, value = '{}', revision = 5n): Entry => ({ key, value, revision })
const pins: Pins = { engine: 'e1', cluster: 'c1', revision: 100n }
const base = [entry('cluster', '{"id":"c1"}'), entry('nodes/a'), entry('nodes/b')]
const endpoints = (count: number): Entry[] => Array.from({ length: count }, (_, i) => entry(`endpoints/n/${i}`))
const whole = [...base, ...endpoints(57)]
const believed = new Map(whole.map(one => [one.key, one]))
const look = (fields: Partial<Look> = {}): Look => ({ engine: 'e1', revision: 101n, entries: whole, ...fields })

t.test('believes what it knows, and everything while nothing is pinned', async t => {
  t.equal(doubt(pins, believed, look()), undefined)
  t.equal(doubt(pins, believed, look({ revision: 100n })), undefined)
  t.equal(doubt(undefined, believed, look({ entries: [], engine: 'e2', revision: 1n })), undefined)
})

t.test('doubts another store, saying what is wrong', async t => {
  const other = [entry('cluster', '{"id":"c2"}'), ...whole.slice(1)]
  for (const [shown, why] of [
    [{ entries: [] }, /it is empty, it held cluster c1/],
    [{ entries: whole.slice(1) }, /no readable cluster record/],
    [{ entries: [entry('cluster', 'not JSON'), ...whole.slice(1)] }, /no readable cluster record/],
    [{ entries: other }, /cluster c2 instead of c1/],
    [{ engine: 'e2' }, /engine e2 instead of e1/],
    [{ revision: 99n }, /went back from 100 to 99/],
    [{ entries: [whole[0]!, ...whole.slice(3)] }, /all nodes are gone/],
  ] as const)
    t.match(doubt(pins, believed, look(shown)), why)
})

t.test('doubts a list without more than 30 % of the records, leased ones not counted', async t => {
  const without = (count: number): Look => look({ entries: [...base, ...endpoints(57 - count)] })
  t.equal(doubt(pins, believed, without(18)), undefined, '18 of 60')
  t.match(doubt(pins, believed, without(19)), /19 of 60 records are gone/)
  const present = new Map(believed)
  for (let i = 0; i < 40; i++)
    for (const key of [`presence/${i}`, `floating/192.0.2.${i}`]) present.set(key, entry(key))
  t.equal(doubt(pins, present, look()), undefined, 'all presence gone says nothing')
  t.match(doubt(pins, present, without(19)), /19 of 60/, 'and hides nothing')
  const small = new Map(whole.slice(0, 49).map(one => [one.key, one]))
  t.equal(doubt(pins, small, look({ entries: base })), undefined, 'a share of few records says nothing')
})

t.test('what goes by itself while we are down says nothing', async t => {
  const claim = (i: number) => ({ kind: ['resting', 'spare', 'reserved'][i % 3], until: 1, node: 'a' })
  const passing = Array.from({ length: 100 }, (_, i) =>
    entry(`${i % 2 ? 'addresses/n' : 'macs/n'}/${i}`, JSON.stringify({ v: 1, ...claim(i) })),
  )
  const bound = (i: number) => entry(`addresses/n/10.0.0.${i}`, '{"v":1,"kind":"bound","node":"a"}')
  const held = Array.from({ length: 57 }, (_, i) => bound(i))
  const before = new Map([...base, ...held, ...passing].map(one => [one.key, one]))
  t.equal(doubt(pins, before, look({ entries: [...base, ...held] })), undefined)
  t.match(doubt(pins, before, look({ entries: [...base, ...passing] })), /57 of 60 records are gone/)
})

t.test('of changes, only those that take the cluster or the last node are swept up', async t => {
  const gone = (...keys: string[]) => keys.map(key => ({ key, entry: undefined }))
  t.ok(sweeping(believed, gone('cluster')))
  t.ok(sweeping(believed, [{ key: 'cluster', entry: entry('cluster', '{"id":"c2"}') }]))
  t.notOk(sweeping(believed, [{ key: 'cluster', entry: entry('cluster', '{"id":"c1","more":1}') }]))
  t.notOk(sweeping(believed, gone('nodes/a')))
  t.ok(sweeping(believed, gone('nodes/a', 'nodes/b')))
  t.notOk(sweeping(believed, gone(...endpoints(17).map(one => one.key))), 'what somebody did')
  t.notOk(sweeping(new Map(), [{ key: 'cluster', entry: base[0] }]), 'the first node writes it')
})

t.test('differences lead from one state to the other', async t => {
  const target = [entry('nodes/a', 'new', 9n), entry('nodes/c'), entry('cluster', 'other value, same revision')]
  const changes = differencesTo(believed, target)
  const sorted = (entries: readonly Entry[]) => [...entries].sort((a, b) => (a.key < b.key ? -1 : 1))
  t.same(sorted(afterChanges(believed, changes)), sorted(target))
  t.same(differencesTo(believed, whole), [])
})

t.test('faults of etcd by version', async t => {
  const count = (version: string): number => knownProblems(version).length
  for (const version of ['3.5.33', '3.5.40', '3.6.14', '3.7.0', '4.0.0']) t.equal(count(version), 0, version)
  for (const version of ['3.4.36', '3.5.18', '3.5.32', '3.6.13']) t.match(knownProblems(version), [/authorization/])
  for (const version of ['3.4.23', '3.5.0']) t.equal(count(version), 2, version)
  t.match(knownProblems('3.3.27'), [/older than 3.4/])
  t.match(knownProblems('mine'), [/does not know/])
})

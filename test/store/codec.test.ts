// SPDX-License-Identifier: Apache-2.0
// Records of every kind, damaged as bytes and as values: refused in words that name key and field, or read as what is
// written again; never a number that the kernel has no room for.
import fc from 'fast-check'
import t from 'tap'
import { serviceKey } from '../../src/model/service.ts'
import { decode, encode, type RecordKind, type Records, recordKinds } from '../../src/store/codec.ts'
import { keys } from '../../src/store/keys.ts'

const web = serviceKey({ by: 'label', name: 'web' })
const states: readonly Records['network']['state'][] = [
  { kind: 'active', veto: { node: 'a', at: '2026-01-01T00:00:00Z', why: 'containers' } },
  { kind: 'removing', since: '2026-01-01T00:00:00Z', by: 'a', acks: ['b'], force: true },
]
const network = (state: Records['network']['state']): Records['network'] => ({
  ...{
    id: 'n',
    name: 'app',
    wanted: 'app',
    vni: 4096,
    mtu: 1450,
    internal: false,
    attachable: true,
    ipv6: true,
    state,
  },
  pools: [
    { prefix: '10.1.0.0/16', range: '10.1.128.0/17', gateway: '10.1.0.1', aux: { router: '10.1.0.9' } },
    { prefix: 'fd00:1::/64', gateway: 'fd00:1::1' },
  ],
  ...{
    options: { 'weft.publish': 'local' },
    labels: { a: 'b', ['__proto__']: 'x' },
    origin: { by: 'docker', node: 'a' },
  },
})
const claims: readonly Records['addressClaim'][] = [
  { kind: 'spare', node: 'a', boot: 'b', since: 1, asked: 'app' },
  { kind: 'reserved', node: 'a', boot: 'b', since: 1 },
  { kind: 'bound', node: 'a', boot: 'b', endpoint: 'e' },
  { kind: 'vip', service: web },
  { kind: 'resting', until: 1 },
]

const samples: { readonly [K in RecordKind]: { readonly key: string; readonly records: readonly Records[K][] } } = {
  cluster: {
    key: keys.cluster,
    records: [
      {
        ...{ id: 'c', pools: ['10.224.0.0/12'], underlayFamily: 4, vxlanPort: 4789, reservedPorts: [53], created: '' },
      },
    ],
  },
  node: {
    key: keys.node('a'),
    records: [
      {
        ...{ name: 'a', number: 1, instance: 'i', boot: 'b', vtep: '192.0.2.1', mtu: 1500, routes: ['10.0.0.1/8'] },
        ...{ addresses: [{ dev: 'eth0', address: '192.0.2.1/24' }], version: '0', drained: true, fenced: 'a' },
      },
    ],
  },
  presence: { key: keys.presence('a'), records: [{ node: 'a', instance: 'i', boot: 'b', applied: '7' }] },
  nodeNumber: { key: keys.nodeNumber(1), records: [{ node: 'a', instance: 'i' }] },
  network: { key: keys.network('n'), records: states.map(network) },
  nameClaim: { key: keys.networkName('app'), records: [{ network: 'n' }] },
  vniClaim: { key: keys.vni(4096), records: [{ network: 'n' }] },
  poolClaim: {
    key: keys.pool('10.1.0.0/16'),
    records: [
      { network: 'n', node: 'a', settled: true, range: '10.1.128.0/17', wanted: 'app', automatic: true, joined: 'app' },
    ],
  },
  endpoint: {
    key: keys.endpoint('n', 'e'),
    records: [
      {
        ...{ id: 'e', network: 'n', node: 'a', boot: 'b', addresses: ['10.1.0.2', 'fd00:1::2'] },
        ...{ mac: '02:77:0a:01:00:02', gateway: true, identity: 7, service: web },
        ports: [{ proto: 'tcp', port: 80, hostPort: 8080, hostIp: '192.0.2.1', family: 4, local: true }],
        workload: {
          ...{ container: 'c', name: 'one', hostname: 'one', aliases: ['web'], labels: { a: 'b' } },
          ...{ project: 'p', service: 's' },
        },
        ...{ withheld: 'starting', unready: true, failing: true, drained: true },
      },
    ],
  },
  addressClaim: { key: keys.address('n', '10.1.0.2'), records: claims },
  macClaim: {
    key: keys.mac('n', '02:77:0a:01:00:02'),
    records: [
      { kind: 'bound', node: 'a', endpoint: 'e' },
      { kind: 'resting', until: 1 },
    ],
  },
  portClaim: {
    key: keys.port('tcp', 8080),
    records: [
      {
        cluster: { network: 'n', service: web, holders: ['e'] },
        local: [{ node: 'a', network: 'n', endpoint: 'e' }],
      },
    ],
  },
  service: {
    key: keys.service('n', web),
    records: [
      {
        ...{ network: 'n', service: web, scheduler: 'rr', affinity: 60, timeoutTcp: 900, timeoutUdp: 30 },
        probe: {
          target: { kind: 'http', port: 80, path: '/', status: { first: 200, last: 299 } },
          ...{ intervalMs: 1000, timeoutMs: 500, failures: 3 },
        },
        addresses: [{ dev: 'eth0', address: '192.0.2.10/24' }],
      },
    ],
  },
  floating: {
    key: keys.floating('192.0.2.10'),
    records: [{ node: 'a', instance: 'i', boot: 'b', network: 'n', service: web, dev: 'eth0', since: '' }],
  },
  vip: { key: keys.vip('n', web), records: [{ addresses: ['10.1.0.3'] }] },
}

type Json = null | boolean | number | string | Json[] | { [field: string]: Json }
type Path = readonly (string | number)[]

/** Where values are: every field of every object, every element of every list, the whole. */
const pathsOf = (value: Json, at: Path = []): Path[] => {
  const inside = value === null || typeof value !== 'object' ? [] : Object.entries(value)
  return [at, ...inside.flatMap(([field, one]) => pathsOf(one, [...at, Array.isArray(value) ? Number(field) : field]))]
}
const replaced = (value: Json, [first, ...rest]: Path, by: Json): Json => {
  if (first === undefined) return by
  const copy = structuredClone(value) as { [field: string]: Json }
  copy[first] = replaced(copy[first]!, rest, by)
  return copy
}
const numbersIn = (value: Json): number[] =>
  typeof value === 'number'
    ? [value]
    : value !== null && typeof value === 'object'
      ? Object.values(value).flatMap(numbersIn)
      : []
const numberFields = /^(port|hostPort|vxlanPort|number|identity|vni)$/
const smallIn = (value: Json): number[] =>
  value === null || typeof value !== 'object'
    ? []
    : Object.entries(value).flatMap(([field, one]) =>
        typeof one === 'number' ? (numberFields.test(field) ? [one] : []) : smallIn(one),
      )

/** Refused, naming the key; else what it was read as. */
const read = <K extends RecordKind>(kind: K, key: string, text: string): Records[K] | undefined => {
  try {
    return decode(kind, key, text)
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    if (code !== 'INVALID' || !message.startsWith(`store key ${key}`)) throw error
    return undefined
  }
}

for (const kind of new Set(Object.values(recordKinds)))
  t.test(`a record of kind ${kind}`, async t => {
    const { key, records } = samples[kind]
    for (const record of records as Records[typeof kind][]) {
      const text = encode(kind, record)
      t.same(read(kind, key, text), record, 'is read as it was written')
      const stays = (damaged: string): void => {
        const found = read(kind, key, damaged)
        if (found === undefined) return
        const again = encode(kind, found)
        if (encode(kind, decode(kind, key, again)) !== again) throw new Error(`${damaged} is not read as ${again}`)
        for (const number of numbersIn(found as unknown as Json))
          if (!Number.isFinite(number)) throw new Error(`${damaged} has ${number}`)
        for (const number of smallIn(found as unknown as Json))
          if (!(Number.isInteger(number) && number >= 0 && number < 1 << 24)) throw new Error(`${damaged}: ${number}`)
      }
      const bytes = Buffer.from(text)
      const octet = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255))
      t.doesNotThrow(
        () =>
          fc.assert(
            fc.property(fc.array(octet, { maxLength: 4 }), fc.nat(bytes.length), (damage, length) => {
              const copy = Buffer.from(bytes)
              for (const [at, value] of damage) copy[at] = value
              stays(copy.toString())
              stays(copy.subarray(0, length).toString())
            }),
          ),
        'other bytes, and cut',
      )
      const json = JSON.parse(text) as Json
      const other = fc.oneof(
        fc.jsonValue() as fc.Arbitrary<Json>,
        fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
        fc.constantFrom<Json>('__proto__', '', '::', '10.1.0.0/99', '99:99', { ['__proto__']: 1 }, { toString: '' }),
      )
      t.doesNotThrow(
        () =>
          fc.assert(
            fc.property(fc.constantFrom(...pathsOf(json)), other, (path, value) =>
              stays(JSON.stringify(replaced(json, path, value))),
            ),
            { numRuns: 300 },
          ),
        'other values',
      )
    }
  })

t.test('a key with other parts', async t => {
  for (const kind of new Set(Object.values(recordKinds))) {
    const { key, records } = samples[kind]
    const text = encode(kind, records[0]!)
    t.throws(() => decode(kind, `${key}/more`, text), { code: 'INVALID' })
    t.throws(() => decode(kind, `${key}/%zz`, text), { code: 'INVALID' })
  }
})

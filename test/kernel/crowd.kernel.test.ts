// SPDX-License-Identifier: Apache-2.0
// A thousand published services with ten containers each, elsewhere: what one change costs, and that a new life of weftd
// finds all of it as it is. Once for each balancer. $WEFT_SERVICES: how many, if not a thousand.
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { loadModules } from '../../src/daemon/modules.ts'
import { purge } from '../../src/daemon/purge.ts'
import { testCluster, testHost } from '../overlay/cluster.ts'
import { inEachBalancer, openReconciled } from './reconciled.ts'

const services = Number(process.env['WEFT_SERVICES'] ?? 1000)
const each = 10

if (process.env['WEFT_TEST_HOST'] === undefined) await inEachBalancer(t, fileURLToPath(import.meta.url))
else {
  t.setTimeout(1_200_000)
  const balancer = process.env['WEFT_TEST_HOST'] === 'ipvs' ? 'ipvs' : 'nft'
  await loadModules(silentLog)
  const snapshot = testCluster()
  for (const name of ['a', 'b', 'c']) snapshot.putNode({ name })
  snapshot.putNetwork({ id: 'n1', pools: [{ prefix: '10.80.0.0/16', gateway: '10.80.0.1' }], ipv6: false })
  const members = new Map<string, Set<string>>()
  snapshot.members = (_, service) => members.get(service) ?? new Set()
  const portOf = (service: number): number => 20_000 + service
  let made = 256
  const add = (service: number): string => {
    const [high, low] = [made >> 8, made & 255]
    const id = `e${made++}`
    const name = `label s${service}`
    snapshot.putEndpoint({
      ...{ id, network: 'n1', node: made % 2 ? 'b' : 'c', gateway: true, service: name },
      addresses: [`10.80.${high}.${low}`],
      mac: `02:77:0a:50:${high.toString(16).padStart(2, '0')}:${low.toString(16).padStart(2, '0')}`,
      ports: [{ proto: 'tcp', port: 80, hostPort: portOf(service) }],
    })
    members.set(name, (members.get(name) ?? new Set()).add(id))
    const holders = [...members.get(name)!]
    snapshot.putPort(`tcp/${portOf(service)}`, { cluster: { network: 'n1', service: name, holders }, local: [] })
    return id
  }
  for (let service = 0; service < services; service++) for (let i = 0; i < each; i++) add(service)
  const open = () => openReconciled(snapshot, testHost(new Map([['n1', { slot: 0 }]]), { balancer }))
  const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8', maxBuffer: 1 << 28 })
  const inM = 'ip netns exec weft-m1048576'
  let running = open()

  t.test('all are made', async t => {
    const from = performance.now()
    await running.reconciler.start()
    t.comment(`${running.reconciler.status().operations} objects in ${Math.round(performance.now() - from)} ms`)
    t.same(running.reconciler.status().failing, [])
    if (balancer === 'nft') {
      const chains = [...sh(`${inM} nft list table inet weft`).matchAll(/numgen inc mod 10 map/g)]
      t.equal(chains.length, services)
    } else {
      const table = sh(`${inM} ipvsadm -Sn`)
      t.equal(table.match(/^-A /gm)?.length, services)
      t.equal(table.match(/^-a /gm)?.length, services * each)
    }
  })

  t.test('one container more, or that takes no more, costs as much as with one service', async t => {
    const costs = async (keys: string[][], expected: number, what: string): Promise<void> => {
      const before = running.reconciler.status().operations
      const cost = (): number => running.reconciler.status().operations - before
      running.tell(keys)
      for (let i = 0; i < 600 && cost() < expected; i++) await sleep(50)
      await sleep(500)
      t.equal(cost(), expected, what)
    }
    const id = add(7)
    // two FDB rows, two neighbours, and the balancer: a destination, or the chain of the port
    await costs(
      [
        ['endpoints', 'n1', id],
        ['ports', 'tcp', String(portOf(7))],
      ],
      5,
      'one more',
    )
    const { record } = snapshot.endpoints('n1').get(id)!
    snapshot.putEndpoint({ ...record, drained: true })
    await costs([['endpoints', 'n1', id]], 1, 'drained')
  })

  t.test('a new life finds all as wanted and writes nothing', async t => {
    await running.close()
    running = open()
    const from = performance.now()
    await running.reconciler.start()
    t.comment(`adopted in ${Math.round(performance.now() - from)} ms`)
    t.equal(running.reconciler.status().operations, 0)
    t.same(running.reconciler.status().failing, [])
    await running.close()
    t.ok((await purge('/nonexistent')).length > 0)
  })
}

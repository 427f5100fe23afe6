// SPDX-License-Identifier: Apache-2.0
// Two networks on three nodes, of which this machine is one, kept in this machine's kernel: 20 containers elsewhere, one
// here that publishes a port together with one of them.
import { execFileSync } from 'node:child_process'
import { silentLog } from '../../src/base/log.ts'
import { loadModules } from '../../src/daemon/modules.ts'
import { probeKernel } from '../../src/kernel/host-facts.ts'
import { type TestCluster, testCluster, testHost } from '../overlay/cluster.ts'
import { openReconciled, type Reconciled } from './reconciled.ts'

export const sh = (command: string): string => execFileSync('sh', ['-c', command], { encoding: 'utf8' })
/** A command inside the switch, and inside the gateway. */
export const inN = 'ip netns exec weft-n1048576'
export const inM = 'ip netns exec weft-m1048576'
/** Its endpoint. */
export const local = 'local0000000'
/** For a repair. */
export const patienceMs = process.env['WEFT_VM'] ? 180_000 : 10_000

export interface Sample {
  readonly snapshot: TestCluster
  /** What keeps it now: not started yet. */
  running: Reconciled
  /** Another life; that of before has been closed. */
  open(): void
}

export const openSample = async (balancer: 'nft' | 'ipvs'): Promise<Sample> => {
  await loadModules(silentLog)
  await probeKernel()
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: '192.0.2.1' })
  snapshot.putNode({ name: 'b', vtep: '192.0.2.2' })
  snapshot.putNode({ name: 'c', vtep: '192.0.2.3' })
  snapshot.putNetwork({ id: 'n1' })
  snapshot.putNetwork({ id: 'n2', internal: true })
  for (let i = 0; i < 20; i++) snapshot.putEndpoint({ id: `remote${i}`, network: 'n1', node: i % 2 ? 'b' : 'c' })
  snapshot.putEndpoint({
    id: local,
    network: 'n1',
    node: 'a',
    gateway: true,
    ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
    service: 'label web',
  })
  // with a container elsewhere, so that the balancer has a choice
  const { record: other } = snapshot.endpoints('n1').get('remote1')!
  snapshot.putEndpoint({
    ...other,
    gateway: true,
    ports: [{ proto: 'tcp', port: 80, hostPort: 8080 }],
    service: 'label web',
  })
  snapshot.putPort('tcp/8080', {
    cluster: { network: 'n1', service: 'label web', holders: [local, other.id] },
    local: [],
  })
  const bound = new Map([
    ['n1', { slot: 0 }],
    ['n2', { slot: 1 }],
  ])
  const open = () => openReconciled(snapshot, testHost(bound, { balancer, acceptsRa: ['eth0'] }))
  const self: Sample = {
    snapshot,
    running: open(),
    open() {
      self.running = open()
    },
  }
  return self
}

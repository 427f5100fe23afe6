// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { openDeserted } from '../../src/docker/deserted.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'

t.test('nobody lives with it: no port, and a container that does not run, or none and no Join on its way', async t => {
  const of = (port: boolean, container: 'runs' | 'stopped' | undefined, young = false): boolean => {
    const workload = container && { container, name: 'one', aliases: [], labels: {} }
    const parts = { hasPort: () => port, stopped: (id: string) => id === 'stopped', isYoung: () => young }
    return openDeserted(parts)({ id: 'e', ...(workload ? { workload } : {}) } as unknown as Endpoint)
  }
  t.ok(of(false, undefined), 'killed between CreateEndpoint and Join')
  t.notOk(of(false, undefined, true), 'Join is on its way')
  t.notOk(of(true, undefined), 'a start that takes long')
  t.ok(of(false, 'stopped'), 'killed in DeleteEndpoint')
  t.notOk(of(false, 'runs'), 'somebody removed the port of one that runs')
  t.notOk(of(true, 'stopped'), 'Docker is about to say so')
})

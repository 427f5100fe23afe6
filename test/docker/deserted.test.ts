// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { type DesertedParts, openDeserted } from '../../src/docker/deserted.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'

t.test('nobody lives with it', async t => {
  const of = (port: ReturnType<DesertedParts['port']>, container?: 'runs' | 'stopped', young = false): boolean => {
    const workload = container && { container, name: 'one', aliases: [], labels: {} }
    const parts = { port: () => port, stopped: (id: string) => id === 'stopped', isYoung: () => young }
    return openDeserted(parts)({ id: 'e', ...(workload ? { workload } : {}) } as unknown as Endpoint)
  }
  t.ok(of('absent'), 'killed between CreateEndpoint and Join')
  t.notOk(of('absent', undefined, true), 'Join is on its way')
  t.notOk(of('waiting'), 'a start that takes long')
  t.notOk(of('in use'), 'it runs, and Docker has not said yet who it is')
  t.ok(of('absent', 'stopped'), 'killed in DeleteEndpoint')
  t.ok(of('waiting', 'stopped'), 'killed after Leave')
  t.notOk(of('in use', 'stopped'), 'paused')
  t.notOk(of('absent', 'runs'), 'somebody removed the port of one that runs')
})

// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { openDeserted } from '../../src/docker/deserted.ts'
import type { Endpoint } from '../../src/model/endpoint.ts'

t.test('nobody lives with it', async t => {
  const of = (...words: readonly ('in use' | 'joined' | 'young' | 'runs' | 'stopped')[]): boolean => {
    const container = words.find(word => word === 'runs' || word === 'stopped')
    const workload = container && { container, name: 'one', aliases: [], labels: {} }
    return openDeserted({
      inUse: () => words.includes('in use'),
      joined: () => words.includes('joined'),
      isYoung: () => words.includes('young'),
      stopped: id => id === 'stopped',
    })({ id: 'e', ...(workload ? { workload } : {}) } as unknown as Endpoint)
  }
  t.ok(of(), 'killed between CreateEndpoint and Join')
  t.notOk(of('young'), 'Join is on its way')
  t.notOk(of('joined'), 'a start that takes long')
  t.notOk(of('joined', 'in use'), 'it runs, and Docker has not said yet who it is')
  t.ok(of('stopped'), 'killed after Leave')
  t.ok(of('runs'), 'the same, and it is restarted just now')
  t.ok(of('joined', 'stopped'), 'killed in Leave')
  t.notOk(of('joined', 'in use', 'stopped'), 'paused')
  t.notOk(of('joined', 'runs'), 'somebody removed the port of one that runs')
})

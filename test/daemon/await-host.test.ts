// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { WeftError } from '../../src/base/errors.ts'
import type { Log } from '../../src/base/log.ts'
import { awaitHost } from '../../src/daemon/await-host.ts'
import type { HostFacts } from '../../src/kernel/host-facts.ts'
import { fastClock } from '../store/clock.ts'

const open = () => {
  const said: string[] = []
  return { said, log: { warn: ({ err }: { err: string }) => said.push(err) } as unknown as Log }
}

t.test('an underlay that comes later is waited for, each reason said once', async t => {
  const { said, log } = open()
  const facts = {} as HostFacts
  let tries = 0
  const read = async () => {
    if (++tries < 10) throw new WeftError('NOT_REACHED', tries < 5 ? 'no device' : 'no address')
    return facts
  }
  t.equal(await awaitHost(read, fastClock(100), log), facts)
  t.same(said, ['no device', 'no address'])
})

t.test('a minute at most; what no waiting mends is said at once', async t => {
  const { log } = open()
  const never = async () => {
    throw new WeftError('NOT_REACHED', 'no address')
  }
  await t.rejects(awaitHost(never, fastClock(100), log), { code: 'INVALID', message: 'no address' })
  let tries = 0
  const wrong = async () => {
    tries++
    throw new WeftError('INVALID', 'lo leads nowhere')
  }
  await t.rejects(awaitHost(wrong, fastClock(100), log), { message: 'lo leads nowhere' })
  t.equal(tries, 1)
})

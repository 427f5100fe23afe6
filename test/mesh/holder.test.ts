// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { silentLog } from '../../src/base/log.ts'
import { type HeldPort, openPortHolder } from '../../src/mesh/holder.ts'
import { manualClock } from '../store/clock.ts'

const open = () => {
  const clock = manualClock()
  const foreign = new Set<string>() // 'address:port' that a process has
  const bound = new Set<string>()
  const told: string[] = []
  const holder = openPortHolder({
    async bind({ proto, address, port }) {
      const key = `${proto} ${address}:${port}`
      if (foreign.has(key)) throw Object.assign(new Error('in use'), { errnoName: 'EADDRINUSE' })
      if (address === '192.0.2.99') throw Object.assign(new Error('none'), { errnoName: 'EADDRNOTAVAIL' })
      bound.add(key)
      return () => bound.delete(key)
    },
    clock,
    log: silentLog,
    changed: ({ port }) => told.push(`${port}`),
  })
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms)
    for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
  }
  return { holder, foreign, bound, told, pass }
}
const web: HeldPort = { proto: 'tcp', port: 80 }

t.test('holds both families of what is wanted, and lets go of the rest', async t => {
  const { holder, bound } = open()
  await holder.want([web, { proto: 'tcp', port: 81, address: '127.0.0.1' }])
  t.same([...bound], ['tcp 0.0.0.0:80', 'tcp :::80', 'tcp 127.0.0.1:81'])
  t.ok(holder.holds('tcp', 80))
  t.notOk(holder.holds('tcp', 81))
  t.ok(holder.holds('tcp', 81, '127.0.0.1'))
  await holder.want([web])
  t.same([...bound], ['tcp 0.0.0.0:80', 'tcp :::80'])
  await holder.close()
  t.equal(bound.size, 0)
})

t.test('what a process has is left to it, half of it too, until it lets go', async t => {
  const { holder, foreign, bound, told, pass } = open()
  foreign.add('tcp :::80')
  await holder.want([web])
  t.same([...bound], [], 'not the other family alone')
  t.notOk(holder.holds('tcp', 80))
  t.same([...holder.refused], [['tcp/80', 'a process of this host has it']])
  foreign.clear()
  await pass(5000)
  t.ok(holder.holds('tcp', 80))
  t.equal(holder.refused.size, 0)
  t.same(told, ['80'])
  await holder.close()
})

t.test('a port is held for a publication that is on its way, and given up if it never comes', async t => {
  const { holder, foreign, bound, pass } = open()
  const mapping = { proto: 'tcp', port: 80, hostPort: 8080 } as const
  t.equal(await holder.hold(mapping), undefined)
  await holder.want([])
  t.ok(holder.holds('tcp', 8080))
  await pass(20_000)
  t.equal(bound.size, 0)
  t.equal(await holder.hold(mapping), undefined)
  await holder.want([{ proto: 'tcp', port: 8080 }])
  await pass(20_000)
  t.ok(holder.holds('tcp', 8080), 'it came')
  foreign.add('udp 0.0.0.0:53')
  t.match(await holder.hold({ proto: 'udp', port: 53, hostPort: 53 }), /a process of this host has it/)
  foreign.add('udp 0.0.0.0:7753')
  t.equal(await holder.hold({ proto: 'udp', port: 53, hostPort: 7753 }), 'weft answers names there')
  t.match(await holder.hold({ ...mapping, hostPort: 81, hostIp: '192.0.2.99' }), /no address 192\.0\.2\.99/)
  await holder.close()
})

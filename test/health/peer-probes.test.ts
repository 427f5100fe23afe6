// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { openPeerProbes, type Target } from '../../src/health/peer-probes.ts'
import { manualClock } from '../store/clock.ts'

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await new Promise(resolve => setImmediate(resolve))
}
const open = () => {
  const clock = manualClock()
  const lives = new Map([
    ['m1', 'a'],
    ['m2', 'b'],
  ])
  const away = new Set<string>() // 'netns address' that do not answer
  const broken = new Set<string>() // that cannot be sent to from here
  const sockets = new Set<string>()
  const told: string[] = []
  const asked: string[] = []
  const probes = openPeerProbes({
    async open(netns, address) {
      const key = `${netns} ${address}`
      if (broken.has(key)) throw new Error('ENODEV')
      const life = lives.get(netns)
      sockets.add(key)
      let answer = false
      return {
        send() {
          if (broken.has(key)) throw new Error('ENETUNREACH')
          asked.push(key)
          answer = !away.has(key) && lives.get(netns) === life
        },
        answered: () => answer,
        close: () => sockets.delete(key),
      }
    },
    async identity(netns) {
      const life = lives.get(netns)
      if (life === undefined) throw new Error('ENOENT')
      return life
    },
    report: report => told.push(...report.map(([id, verdict]) => `${id} ${verdict}`)),
    clock,
  })
  const pass = async (ms: number): Promise<string[]> => {
    for (let i = 0; i < ms; i += 100) {
      clock.advance(100)
      await settle()
    }
    return told.splice(0)
  }
  return { clock, lives, away, broken, sockets, told, asked, probes, pass }
}
const target = (id: number, node: string, netns = 'm1'): Target => ({ id, node, netns, address: `fe80::${node}%gw0` })

t.test('who stops answering is silent, then dead, then back: said once each', async t => {
  const { probes, away, asked, pass } = open()
  probes.add([target(1, 'b'), target(2, 'c')])
  t.same(await pass(2000), ['1 answers', '2 answers'])
  t.ok(asked.length >= 20 && asked.length <= 24, `${asked.length} probes in 2 s`)
  away.add('m1 fe80::b%gw0')
  t.same(await pass(600), [], 'the answer to the last one, two misses')
  t.same(await pass(200), ['1 silent'])
  t.same(await pass(200), ['1 dead'], 'a second after its last answer')
  t.same(await pass(2000), [])
  away.clear()
  t.same(await pass(1000), ['1 answers'])
  probes.close()
})

t.test('nobody answers: nobody is dead, also not when one is back a little before the other', async t => {
  const { probes, away, pass } = open()
  probes.add([target(1, 'b'), target(2, 'c')])
  await pass(2000)
  away.add('m1 fe80::b%gw0').add('m1 fe80::c%gw0')
  t.same(await pass(3000), ['1 silent', '2 silent'])
  away.delete('m1 fe80::c%gw0')
  t.same(await pass(800), ['2 answers'])
  away.clear()
  t.same(await pass(800), ['1 answers'])
  probes.close()
})

t.test('one of two networks: the node is silent there, and dead only by another node', async t => {
  const { probes, away, pass } = open()
  probes.add([target(1, 'b'), target(2, 'b', 'm2')])
  await pass(2000)
  away.add('m2 fe80::b%gw0')
  t.same(await pass(3000), ['2 silent'])
  probes.add([target(3, 'c')])
  t.same(await pass(2000), ['3 answers', '2 dead'])
  probes.close()
})

t.test('a start while one is dead: a second, then it is too', async t => {
  const { probes, away, pass } = open()
  away.add('m1 fe80::b%gw0')
  probes.add([target(1, 'b'), target(2, 'c')])
  t.same(await pass(900), ['2 answers'])
  t.same(await pass(600), ['1 silent', '1 dead'])
  probes.close()
})

t.test('a process that stood still was not asking', async t => {
  const { clock, probes, pass } = open()
  probes.add([target(1, 'b'), target(2, 'c')])
  await pass(1000)
  for (let i = 0; i < 5; i++) clock.jump(10_000)
  t.same(await pass(1000), [])
  probes.close()
})

t.test('what cannot be asked from here says nothing of the other; it is tried again', async t => {
  const { lives, probes, broken, sockets, pass } = open()
  lives.delete('m1')
  probes.add([target(1, 'b'), target(2, 'b', 'm2')])
  t.same(await pass(1500), ['1 unasked', '2 answers'])
  lives.set('m1', 'a')
  t.same(await pass(3000), ['1 answers'])
  broken.add('m1 fe80::b%gw0')
  t.same(await pass(5000), [])
  t.same([...sockets], ['m2 fe80::b%gw0'], 'its socket is closed')
  broken.clear()
  t.same(await pass(3000), [])
  t.equal(sockets.size, 2)
  probes.close()
  t.equal(sockets.size, 0)
})

t.test('a gateway that was made anew gets a new socket, one that is gone none', async t => {
  const { lives, probes, sockets, pass } = open()
  probes.add([target(1, 'b')])
  await pass(1000)
  lives.set('m1', 'z')
  t.match((await pass(4000)).join(), /^(1 silent,1 answers)?$/, 'silent for as long as it is not seen')
  t.equal(sockets.size, 1)
  lives.delete('m1')
  await pass(3000)
  t.equal(sockets.size, 0)
  probes.drop([1])
  lives.set('m1', 'y')
  t.same(await pass(3000), [])
  t.equal(sockets.size, 0)
  probes.close()
})

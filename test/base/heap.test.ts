// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const heap = fileURLToPath(new URL('../../src/base/heap.ts', import.meta.url))
/** Makes much, drops it, settles; then makes as much again. Prints the young generation's MiB each time. */
const program = `
import { getHeapSpaceStatistics } from 'node:v8'
import { settleHeap } from ${JSON.stringify(heap)}
const young = () => getHeapSpaceStatistics().find(space => space.space_name === 'new_space').space_size / 2 ** 20
const work = () => {
  let kept = []
  for (let i = 0; i < 2e6; i++) if (i % 20 === 0) kept.push({ i, text: 'x' + i, list: [i] })
    else kept[kept.length - 1].list = [i, { i }]
  return kept.length
}
work()
const before = young()
settleHeap()
const after = young()
work()
console.log(JSON.stringify([before, after, young()]))
`

t.test('the young generation becomes small, and stays so', async t => {
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  const [before, after, later] = JSON.parse(out) as [number, number, number]
  t.ok(before > 4, `${before} MiB before`)
  t.ok(after < 4 && later < 4, `${after} MiB after, ${later} MiB later`)
})

// SPDX-License-Identifier: Apache-2.0
// A damaged disk: what is read of the journal is what was written up to some moment, or an error with the remedy. Never
// something else.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { type JournalRecord, line, readJournal } from '../../src/store/journal-read.ts'

const dir = t.testdir()
const records: JournalRecord[] = [
  { r: '8', w: [{ k: 'a', v: 'one' }] },
  { r: '9', w: [{ k: 'b', v: 'two', l: true }, { k: 'a' }] },
  { r: '10', w: [{ k: 'ä\n', v: '\u2028"' }] },
  { r: '11', w: [{ k: 'b' }, { k: 'c', v: '' }] },
]
const snapshot = Buffer.concat([
  line(JSON.stringify({ engine: 'e', revision: '7', count: 1 })),
  line(JSON.stringify({ k: 'old', v: 'zero', r: '7' })),
])
const journal = Buffer.concat(records.map(record => line(JSON.stringify(record))))
const read = async (files: { snapshot: Buffer; journal: Buffer }): Promise<string> => {
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(dir, name), bytes)
  const { engine, entries, revision } = await readJournal(dir, () => 'new')
  return JSON.stringify([engine, String(revision), entries])
}
/** As after each write, and before the first. */
const moments: string[] = []
for (let count = 0; count <= records.length; count++) {
  const written = Buffer.concat(records.slice(0, count).map(record => line(JSON.stringify(record))))
  moments.push(await read({ snapshot, journal: written }))
}
const whole = { snapshot, journal }
const damaged = (name: keyof typeof whole) =>
  fc
    .tuple(
      fc.array(fc.tuple(fc.nat(whole[name].length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(whole[name].length),
      fc.uint8Array({ maxLength: 20 }),
    )
    .map(([octets, length, more]) => {
      const bytes = Buffer.from(whole[name])
      for (const [at, value] of octets) bytes[at] = value
      return { ...whole, [name]: Buffer.concat([bytes.subarray(0, length), more]) }
    })

t.test('written and read', async t => {
  t.equal(new Set(moments).size, records.length + 1)
  t.equal(await read(whole), moments.at(-1))
})

for (const [name, allowed] of [
  ['journal', moments],
  ['snapshot', moments.slice(-1)],
] as const)
  t.test(`a damaged ${name}`, async t => {
    let refused = 0
    const holds = fc.asyncProperty(damaged(name), async files => {
      const was = await read(files).catch((error: { code?: string; message: string }) => {
        if (error.code !== 'INTERNAL' || !/restore .* from a backup, or move it away/.test(error.message)) throw error
        refused++
      })
      return was === undefined || allowed.includes(was)
    })
    await t.resolves(fc.assert(holds, { numRuns: 3000 }))
    t.ok(refused > 0, `${refused} of 3,000 refused`)
  })

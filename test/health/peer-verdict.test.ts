// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { count, judge, type Row, type Verdict } from '../../src/health/peer-verdict.ts'

/** '!' answered, '.' missed; gives the first letter of the verdict after each. */
const after = (probes: string, elsewhere = true): string => {
  let row: Row = { missed: 0, answered: 0 }
  let verdict: Verdict = 'unasked'
  return [...probes]
    .map(probe => {
      row = count(row, probe === '!')
      verdict = judge(verdict, row, elsewhere)
      return verdict[0]
    })
    .join('')
}

t.test('silent by three misses in a row, dead by four, back by three answers', async t => {
  t.equal(after('!!...'), 'aaaas')
  t.equal(after('!.....!!!'), 'aaasdddda')
  t.equal(after('!..!..!'), 'aaaaaaa', 'what loses two of three is not silent')
  t.equal(after('!...!!.!.!!!'), 'aaassssssssa', 'nor does it come back by two')
  t.equal(after('!...!....'), 'aaasssssd', 'four in a row, not with an answer between')
})

t.test('one that never answered has a second', async t => {
  t.equal(after('......'), 'uuuusd')
  t.equal(after('....!'), 'uuuua')
})

t.test('nobody is dead while nobody else answers', async t => {
  t.equal(after('!.......', false), 'aaasssss')
  t.equal(after('........', false), 'uuuussss')
})

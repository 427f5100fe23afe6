// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check'
import t from 'tap'
import { checkAddress, parseAddress } from '../../src/model/address.ts'

/** What it throws; undefined: it takes the text. */
const refusal = (work: (text: string) => unknown, text: string): string | undefined => {
  try {
    work(text)
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

const strange = [
  '',
  '10.1.0.1/8',
  '01.1.1.1',
  '1.1.1',
  '::',
  ':',
  ':::',
  '::1%eth0',
  '::ffff:1.2.3.4',
  '1::2::3',
  ' ::1',
]
const pieces = fc.constantFrom(
  '0',
  '1',
  '10',
  '255',
  '256',
  'fd77',
  'FFFF',
  '12345',
  'g',
  '.',
  ':',
  '::',
  '%',
  '/',
  ' ',
)
const text = fc.oneof(
  fc.constantFrom(...strange),
  fc.ipV4(),
  fc.ipV6(),
  fc.string(),
  fc.array(pieces, { maxLength: 17 }).map(all => all.join('')),
)

t.test('an address is checked as it is parsed', async t => {
  for (const one of strange) t.equal(refusal(checkAddress, one), refusal(parseAddress, one), JSON.stringify(one))
  fc.assert(
    fc.property(text, one => refusal(checkAddress, one) === refusal(parseAddress, one)),
    { numRuns: 20_000 },
  )
})

// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../src/daemon/config.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-config-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const file = (text: string): string[] => {
  const path = join(dir, 'weft.yaml')
  writeFileSync(path, text)
  return ['--config', path]
}

t.test('the resolver is IPv4', async t => {
  t.equal(parseConfig([]).resolver, '169.254.77.53')
  for (const args of [['--resolver', 'fd00::53'], file('resolver: fd00::53')])
    t.throws(() => parseConfig(args), { code: 'INVALID', message: '--resolver fd00::53: an IPv4 address is wanted' })
  t.throws(() => parseConfig(['--resolver', 'here']), { code: 'INVALID', message: /--resolver "here"/ })
})

t.test('a wrong word in a file is answered with the flag and the right ones', async t => {
  t.equal(parseConfig(file('log-level: warn')).logLevel, 'warn')
  t.throws(() => parseConfig(file('log-level: shout')), {
    code: 'INVALID',
    message: '--log-level shout: one of debug, info, warn, error',
  })
})

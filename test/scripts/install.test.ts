// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { run } from './lab.ts'

t.test('help and mistakes', async t => {
  t.match(await run('scripts/install', ['--help']), { code: 0, out: /usage: scripts\/install/ })
  t.match(await run('scripts/install', []), { code: 2 })
  t.match(await run('scripts/install', ['kitchen']), { code: 2, err: /unknown group kitchen/ })
})

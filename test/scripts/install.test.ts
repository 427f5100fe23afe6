// SPDX-License-Identifier: Apache-2.0
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { run } from './lab.ts'

t.test('help and mistakes', async t => {
  t.match(await run('scripts/install', ['--help']), { code: 0, out: /usage: scripts\/install/ })
  t.match(await run('scripts/install', []), { code: 2 })
  t.match(await run('scripts/install', ['kitchen']), { code: 2, err: /unknown group kitchen/ })
})

t.test('a complete machine is left alone, at once', async t => {
  const folder = t.testdir()
  const program = (name: string, script: string): void =>
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  // dpkg knows every package that it is asked for; whoever calls apt-get or sudo is found out
  program('dpkg-query', 'shift 3; for p; do echo "$p ii "; done')
  for (const name of ['apt-get', 'sudo']) program(name, `echo ${name} >> '${folder}/called'; exit 1`)
  const begin = performance.now()
  const result = await run('scripts/install', ['base', 'lab', 'vm'], { PATH: `${folder}:${process.env['PATH']}` })
  const ms = performance.now() - begin
  t.match(result, { code: 0, out: /^$/, err: /^$/ })
  t.notOk(existsSync(join(folder, 'called')), 'apt is not asked')
  t.ok(ms < 1000, `took ${Math.round(ms)} ms`) // 20 on a machine with nothing else to do
})

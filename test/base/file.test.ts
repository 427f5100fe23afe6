// SPDX-License-Identifier: Apache-2.0
// The state files of a host when they are damaged: the message names file and remedy, and what can be done without is.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { isPairs, readState } from '../../src/base/file.ts'
import { silentLog } from '../../src/base/log.ts'
import { openBindings } from '../../src/control/bindings.ts'
import { openDepartures } from '../../src/control/departures.ts'
import { openSandboxes } from '../../src/docker/sandboxes.ts'
import { manualClock } from '../store/clock.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-file-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const path = join(dir, 'state.json')

t.test('a state file that is no JSON, or not what it should be, is named with the remedy', async t => {
  t.equal(await readState(path, 'remove it', isPairs), undefined)
  for (const damaged of ['', '[["a"', '{}', '[["a"]]', '[["a", 1]]', 'null']) {
    writeFileSync(path, damaged)
    await t.rejects(readState(path, 'remove it', isPairs), {
      code: 'INTERNAL',
      message: `${path} is damaged: remove it`,
    })
    await t.rejects(
      openBindings(path, 64, () => {}),
      { code: 'INTERNAL', message: /state.json is damaged: restore it, or/ },
    )
  }
  writeFileSync(path, '[["a", "b"]]')
  t.same(await readState(path, '', isPairs), [['a', 'b']])
})

t.test('what deletions and routes the damaged files held is found again: weftd starts without', async t => {
  const said: string[] = []
  const log = { ...silentLog, error: (fields: object) => said.push((fields as { err: string }).err) }
  writeFileSync(path, '[["a"')
  const sandboxes = await openSandboxes(path, log)
  t.equal(await sandboxes.number('s', 'e'), 0)
  t.equal(await (await openSandboxes(path, log)).number('s', 'f'), 1, 'written whole again')
  writeFileSync(path, '')
  const departures = await openDepartures(path, manualClock(), log, () => {})
  t.equal(departures.size, 0)
  await departures.close()
  t.match(said, [/state.json is damaged: restart a container/, /state.json is damaged: nothing to do/])
})

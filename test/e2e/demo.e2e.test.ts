// SPDX-License-Identifier: Apache-2.0
// The README's first command, and every command that it prints.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../../', import.meta.url))
const run = (command: string): Promise<{ code: number; out: string }> =>
  new Promise(resolve => {
    execFile('bash', ['-c', command], { cwd: root, timeout: 240_000, maxBuffer: 16 << 20 }, (error, out, err) =>
      resolve({ code: error ? (typeof error.code === 'number' ? error.code : 255) : 0, out: `${out}${err}` }),
    )
  })

const leftovers = async (): Promise<string> =>
  (await run('ip netns list; ls /var/lib/weft-lab 2>/dev/null; pgrep -af "[d]ata-dir.*/demo/" || true')).out

t.test('the demo runs, what it prints works, --down leaves nothing', async t => {
  t.teardown(() => run('scripts/demo --down'))
  const demo = await run('scripts/demo')
  t.equal(demo.code, 0, demo.out)
  t.equal(
    demo.out.match(/hello from bob to .*192\.0\.2\.10/g)?.length,
    2,
    'by both hosts, with the address of the client',
  )
  const pings = /exec (alice ping -4.* bob|alice ping -6.* bob|bob ping -4.* alice|bob ping -6.* alice)\n.*\n64 bytes/g
  t.equal(demo.out.match(pings)?.length, 4, 'by name, both ways, both families')
  // a line with `$` is what the demo itself runs
  const named = demo.out.split('\n').filter(line => line.includes('scripts/') && !line.startsWith('$ '))
  t.equal(named.length, 10)
  t.match(named.pop(), /^ {2}(sudo )?scripts\/demo --down$/)
  for (const command of named) {
    const answer = await run(command)
    t.equal(answer.code, 0, `${command}: ${answer.out.slice(0, 300)}`)
    t.not(answer.out.trim(), '')
  }
  const down = await run('scripts/demo --down')
  t.equal(down.code, 0)
  t.notMatch(await leftovers(), /\bdemo(-|$)/m)
})

t.test('a step that fails says so and leaves nothing', async t => {
  const demo = await run('WEFT_LAB_PATIENCE=0 scripts/demo')
  t.match(demo, { code: 1, out: /does not come up[\s\S]*this step failed, cleaning up/ })
  t.notMatch(await leftovers(), /\bdemo(-|$)/m)
})

t.test('--help and a wrong option', async t => {
  t.match((await run('scripts/demo --help')).out, /usage: scripts\/demo/)
  t.equal((await run('scripts/demo --nonsense')).code, 2)
})

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

t.test('the demo runs, what it prints works, --down leaves nothing', async t => {
  t.teardown(() => run('scripts/demo --down'))
  const demo = await run('scripts/demo')
  t.equal(demo.code, 0, demo.out)
  t.match(demo.out, /hello from bob/)
  t.match(demo.out, /0% packet loss[\s\S]*0% packet loss/)
  const printed = demo.out.slice(demo.out.indexOf('Look around')).match(/^ {2}scripts\/lab .*$/gm) ?? []
  t.equal(printed.length, 8)
  for (const command of printed) {
    const answer = await run(command)
    t.equal(answer.code, 0, `${command}: ${answer.out.slice(0, 300)}`)
    t.not(answer.out.trim(), '')
  }
  const down = await run('scripts/demo --down')
  t.equal(down.code, 0)
  const left = await run('ip netns list; ls /var/lib/weft-lab 2>/dev/null; pgrep -af "[d]ata-dir.*/demo/" || true')
  t.notMatch(left.out, /\bdemo(-|$)/m)
})

t.test('--help and a wrong option', async t => {
  t.match((await run('scripts/demo --help')).out, /usage: scripts\/demo/)
  t.equal((await run('scripts/demo --nonsense')).code, 2)
})

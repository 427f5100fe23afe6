// SPDX-License-Identifier: Apache-2.0
// scripts/vm: the command meets Debian's kernel with this machine's files, and its exit code comes back.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../until.ts'
import { root, run } from './lab.ts'

t.setTimeout(900_000)
const cache = process.env['WEFT_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'weft')
const runs = (): string[] => {
  const folder = join(cache, 'vm')
  return existsSync(folder) ? readdirSync(folder).filter(entry => entry.startsWith('run.')) : []
}
const before = runs()

if (process.env['WEFT_VM'] === '1') {
  t.plan(0, 'there is no VM inside the VM')
  process.exit()
}

t.test("Debian's kernel, its modules, this directory and environment, exit code", async t => {
  const script =
    'uname -r; modprobe ip_vs wireguard && echo modules; pwd; echo "$WEFT_VM $WEFT_MARK"; ls /tmp /run/user; ip -br link; exit 3'
  const result = await run('scripts/vm', ['sh', '-c', script], { WEFT_MARK: 'a "b" c' })
  t.equal(result.code, 3, result.err)
  const lines = result.out.split('\n')
  t.match(lines[0], /^6\.\d+\..*-amd64$/)
  t.equal(lines[1], 'modules')
  t.equal(lines[2], root)
  t.equal(lines[3], '1 a "b" c')
  t.notMatch(result.out, /eth0/, 'loopback only')
})

t.test('a VM that takes too long is ended', async t => {
  const result = await run('scripts/vm', ['--timeout', '2', 'sleep', '1000'])
  t.match(result, { code: 124, err: /2 s/ })
})

t.test('mistakes are answered with what to do', async t => {
  t.match(await run('scripts/vm', ['--mem', 'x', 'true']), { code: 2, err: /--mem needs a number/ })
  t.match(await run('scripts/vm', ['--help']), { code: 0, out: /usage: scripts\/vm/ })
})

const marked = (mark: string): string[] =>
  readdirSync('/proc').filter(pid => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`WEFT_MARK=${mark}`)
    } catch {
      return false
    }
  })

t.test('nothing is left', async t => {
  t.same(
    runs().filter(entry => !before.includes(entry)),
    [],
  )
  t.same(marked('a "b" c'), [])
})

t.test('after a kill -9 the machine is gone, and the next one starts', async t => {
  const mark = `killed ${process.pid}`
  const env = { ...process.env, WEFT_MARK: mark }
  const script = spawn(join(root, 'scripts/vm'), ['sh', '-c', 'echo up; sleep 1000'], { cwd: root, env })
  for await (const said of script.stdout) if (String(said).includes('up')) break
  t.not(marked(mark).length, 0, 'there is something to look for')
  script.kill('SIGKILL')
  t.ok(await until(() => marked(mark).length === 0), marked(mark).join())
  t.match(await run('scripts/vm', ['echo', 'up again']), { code: 0, out: 'up again\n' })
})

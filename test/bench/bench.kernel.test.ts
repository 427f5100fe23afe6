// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { bench, quickRows } from './bench.ts'

t.test('section netlink measures all its rows', async t => {
  const rows = await quickRows('netlink')
  t.equal(rows.length, 10)
  t.ok(rows.every(({ peer, section }) => peer && section === 'netlink'))
})

t.test('what cannot be is refused with what can', async t => {
  const said = (...args: readonly string[]) => bench(...args).catch((error: { code: number; stderr: string }) => error)
  t.match(await said('nonsense'), { code: 2, stderr: /no section "nonsense": there are netlink/ })
  t.match(await said('--runs', '0'), { code: 2, stderr: /--runs 0: a whole number from 1/ })
  t.match(await said('--output', 'xml'), { code: 2, stderr: /--output xml: one of table, json/ })
  t.match(await said('--fast'), { code: 2, stderr: /--fast.*--help/s })
})

t.test('killed in the middle it leaves no process', async t => {
  const main = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))
  const mark = `WEFT_BENCH_TEST=${process.pid}`
  const child = spawn(process.execPath, [main, 'netlink', '--quick', '--runs', '1000'], {
    env: { ...process.env, WEFT_BENCH_TEST: String(process.pid) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const alive = (): string =>
    execFileSync('sh', ['-c', `grep -lz '^${mark}$' /proc/[0-9]*/environ 2>/dev/null || true`], { encoding: 'utf8' })
  for await (const chunk of child.stderr) if (String(chunk).includes('fdb rows')) break
  t.ok(alive().split('\n').length > 3, 'bench, its host, the section')
  child.kill('SIGKILL')
  let left = alive()
  for (let i = 0; i < 300 && left !== ''; i++) {
    await sleep(100)
    left = alive()
  }
  t.equal(left, '')
})

// SPDX-License-Identifier: Apache-2.0
// The command as its user meets it before any weftd answers: every command that --help lists is there, and exit codes.
import { execFile } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const dir = mkdtempSync(join(tmpdir(), 'weft-command-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const call = (program: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> =>
  new Promise(resolve =>
    execFile(program, args, (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err })),
  )
const weft = (...args: string[]) => call(process.execPath, main, ...args)

/** What its help lists, itself without more: with a word for each argument that it needs. */
const leaves = async (path: readonly string[]): Promise<string[][]> => {
  const { code, out } = await weft(...path, '--help')
  if (code !== 0) throw new Error(`weft ${path.join(' ')} --help: exit code ${code}`)
  const listed = [...(out.split('\nCommands:\n')[1] ?? '').matchAll(/^ {2}([a-z]+)/gm)]
    .map(([, name]) => name!)
    .filter(name => name !== 'help')
  if (listed.length > 0) return (await Promise.all(listed.map(name => leaves([...path, name])))).flat()
  const needs = /^Usage: (.*)$/m.exec(out)![1]!.match(/<[a-z]+>/g) ?? []
  return [[...path, ...needs.map(() => (path.at(-1) === 'export' ? '-' : '/dev/null'))]]
}

t.test('every command that --help lists asks weftd', async t => {
  const all = await leaves([])
  t.ok(all.length >= 18, `${all.length} commands`)
  await Promise.all(
    all.map(async path => {
      const service = path[0] === 'service' && /^(create|rm)$/.test(path[1]!)
      const more = service ? ['--network', 'app'] : []
      const answer = await weft('--api', `unix://${dir}/nobody.sock`, ...path, ...more)
      // what is to be imported is read before anybody is asked
      const expected = path[1] === 'import' ? { code: 2, err: /line 0/ } : { code: 1, err: /nobody\.sock/ }
      t.match(answer, expected, path.join(' '))
    }),
  )
})

t.test('exit codes: 0 done, 2 usage, 3 denied', async t => {
  t.equal((await weft('--version')).code, 0)
  t.match(await weft('network', 'mend'), { code: 2, err: /unknown command 'mend'[\s\S]*--help/ })
  for (const path of [[], ['network'], ['service']]) {
    const alone = await weft(...path)
    t.match(alone, { code: 2, out: '', err: /^Usage: weft/ }, 'nothing to do is wrong usage')
    t.same(await weft('help', ...path), { code: 0, out: alone.err, err: '' })
  }
  t.match(await weft('network', 'create'), { code: 2, err: /missing required argument 'name'/ })
  t.match(await weft('network', 'ls', '--output', 'xml'), { code: 2, err: /xml/ })
  // somebody else's socket, to one who may not open everything; and who may read this file
  const path = join(dir, 'api.sock')
  const server = createServer().listen(path)
  t.teardown(() => server.close())
  chmodSync(path, 0o600)
  chownSync(path, 65_534, 65_534)
  chmodSync(dir, 0o755)
  const owner = `${statSync(main).uid}`
  const user = ['--reuid', owner, '--clear-groups', '--bounding-set', '-all']
  const denied = await call('setpriv', ...user, process.execPath, main, '--api', `unix://${path}`, 'network', 'ls')
  t.match(denied, { code: 3, err: `weft: ${path} may not be opened: run it as root\n` })
})

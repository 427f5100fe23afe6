// SPDX-License-Identifier: Apache-2.0
// The rules of the tree: who may import whom, how large a file may be, what no file is called.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const src = fileURLToPath(new URL('../../src', import.meta.url))
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(
  file => file.endsWith('.ts') && !file.includes('/gen/'),
)

/** Folder → folders or single files it may import. */
const may: Readonly<Record<string, readonly string[]>> = {
  base: [],
  model: ['base'],
  netlink: ['base'],
  ipam: ['model', 'base'],
  store: ['model', 'base'],
  kernel: ['netlink', 'model/address', 'model/ids', 'base'],
  plan: ['model', 'kernel/objects', 'base'],
  overlay: ['plan', 'model', 'kernel/objects', 'base'],
  health: ['plan', 'model', 'netlink', 'base'],
  mesh: ['plan', 'model', 'kernel/objects', 'base'],
  control: ['model', 'ipam', 'store', 'base'],
  reconcile: ['model', 'store', 'kernel', 'plan', 'overlay', 'mesh', 'control/converger', 'base'],
  dns: ['model', 'store', 'base'],
  floating: ['model', 'store', 'netlink', 'kernel/host-addresses', 'base'],
  docker: ['control', 'model', 'base'],
  api: ['control', 'reconcile/status', 'model', 'base'],
  cli: ['api/client', 'api/gen', 'model/address', 'base'],
}

const importsOf = (file: string): string[] =>
  [...readFileSync(join(src, file), 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(match =>
    relative(src, join(src, dirname(file), match[1]!)),
  )

t.test('every import is one that the tree allows', async t => {
  for (const file of files) {
    const folder = file.split('/')[0]!
    const allowed = may[folder]
    if (!allowed) continue // daemon and main may import anything
    for (const target of importsOf(file)) {
      if (target.startsWith(`${folder}/`)) continue
      t.ok(
        allowed.some(rule => target === `${rule}.ts` || target.startsWith(`${rule}/`)),
        `${file} imports ${target}`,
      )
    }
  }
})

t.test('only main imports the daemon, only the daemon names implementations', async t => {
  const implementations = [
    'kernel/linux.ts',
    'kernel/memory.ts',
    'store/etcd.ts',
    'store/embedded.ts',
    'store/guard.ts',
  ]
  for (const file of files)
    for (const target of importsOf(file)) {
      if (target.startsWith('daemon/')) t.match(file, /^(main\.ts|daemon\/)/, `${file} imports ${target}`)
      if (implementations.includes(target))
        t.ok(file.startsWith('daemon/') || dirname(file) === dirname(target), `${file} imports ${target}`)
    }
})

t.test('no files import each other in a circle, for types neither', async t => {
  const done = new Set<string>()
  const walk = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file)
    if (at !== -1) t.fail([...path.slice(at), file].join(' → '))
    if (at !== -1 || done.has(file)) return
    for (const target of importsOf(file)) if (files.includes(target)) walk(target, [...path, file])
    done.add(file)
  }
  for (const file of files) walk(file, [])
  t.equal(done.size, files.length)
})

t.test('files fit in the head', async t => {
  for (const file of files) {
    const lines = readFileSync(join(src, file), 'utf8').split('\n').length
    t.ok(lines <= 500, `${file} has ${lines} lines`)
  }
})

t.test('a file says its licence and what it is for, and is called by what it does', async t => {
  for (const file of files) {
    const [first, second] = readFileSync(join(src, file), 'utf8').split('\n')
    t.equal(first, '// SPDX-License-Identifier: Apache-2.0', file)
    t.match(second, /^(\/\/|\/\*)/, `${file} opens with its purpose`)
    t.notMatch(file, /(^|\/)(index|util|utils|helper|helpers|common|manager)\.ts$/, file)
  }
})

t.test('nothing is exported as default, no module keeps state in a variable', async t => {
  for (const file of files) {
    const text = readFileSync(join(src, file), 'utf8')
    t.notMatch(text, /^export default/m, file)
    t.notMatch(text, /^(export )?let /m, file)
  }
})

t.test('the native part and the etcd client are loaded in one place each', async t => {
  for (const file of files) {
    const text = readFileSync(join(src, file), 'utf8')
    if (/weft\.node|process\.dlopen/.test(text)) t.equal(file, 'netlink/addon.ts')
    if (/from 'etcd3'/.test(text)) t.ok(file.startsWith('store/'), file)
  }
})

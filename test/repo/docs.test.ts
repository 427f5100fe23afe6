// SPDX-License-Identifier: Apache-2.0
// Documentation that must not drift from the code.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { errorTable } from '../../src/base/errors.ts'
import { version } from '../../src/base/version.ts'
import { knownOptions } from '../../src/control/options.ts'

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')

t.test('every error code is documented with its meaning to each edge', async t => {
  const page = read('docs/errors.md')
  for (const [code, { retryable, http, grpc, exit }] of Object.entries(errorTable)) {
    const row = page.split('\n').find(line => line.startsWith(`| \`${code}\` |`))
    t.ok(row, code)
    t.match(row, `| ${retryable ? 'yes' : 'no'} | ${http} | ${grpc} | ${exit} |`, code)
  }
  const documented = [...page.matchAll(/^\| `([A-Z_]+)` \|/gm)].map(match => match[1])
  t.same(documented.sort(), Object.keys(errorTable).sort(), 'and no other')
})

t.test('every metric of ours is documented, and no other', async t => {
  const files = readdirSync(new URL('../../src/', import.meta.url), { recursive: true, encoding: 'utf8' })
  const names = files
    .filter(file => file.endsWith('.ts') && !file.includes('/gen/'))
    .flatMap(file => [...read(`src/${file}`).matchAll(/'(weft_[a-z_]+)'/g)].map(match => match[1]))
  t.ok(names.length > 20)
  const documented = [...read('docs/metrics.md').matchAll(/^\| `(weft_[a-z_]+)` \|/gm)].map(match => match[1])
  t.same(documented.sort(), names.sort())
})

t.test('every option of a network is documented', t => {
  const page = read('docs/networks.md')
  for (const name of knownOptions) t.match(page, `| \`${name}=`, name)
  t.end()
})

t.test('the version is one', async t => {
  t.equal((JSON.parse(read('package.json')) as { version: string }).version, version)
})

t.test('the licence is whole; package.json names it', async t => {
  const text = read('LICENSE')
  t.match(text, /^\s*Apache License\s+Version 2\.0, January 2004/)
  t.match(text, /9\. Accepting Warranty or Additional Liability[\s\S]*END OF TERMS AND CONDITIONS/)
  t.equal((JSON.parse(read('package.json')) as { license: string }).license, 'Apache-2.0')
})

t.test('every folder of src has a README', async t => {
  for (const entry of readdirSync(new URL('../../src/', import.meta.url), { withFileTypes: true }))
    if (entry.isDirectory()) t.ok(existsSync(new URL(`../../src/${entry.name}/README.md`, import.meta.url)), entry.name)
})

t.test('links between the pages lead somewhere', async t => {
  for (const page of [
    'README.md',
    'CONTRIBUTING.md',
    ...readdirSync(new URL('../../docs/', import.meta.url)).map(name => `docs/${name}`),
  ])
    for (const [, target] of read(page).matchAll(/\]\(([^)#:]+)\)/g)) {
      const folder = page.includes('/') ? page.slice(0, page.lastIndexOf('/') + 1) : ''
      t.ok(existsSync(new URL(`../../${folder}${target}`, import.meta.url)), `${page}: ${target}`)
    }
})

// SPDX-License-Identifier: Apache-2.0
// strip.cjs FOLDER DIR…: the TypeScript of these folders without its types into FOLDER, by the hash of its text. Before
// the VM starts: the guest's Nodes need no WebAssembly for it (node.cjs says why).
const { createHash } = require('node:crypto')
const { existsSync, globSync, mkdirSync, readFileSync, renameSync, writeFileSync } = require('node:fs')
const { stripTypeScriptTypes } = require('node:module')

process.removeAllListeners('warning') // that stripping is experimental
const [folder, ...dirs] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
for (const file of globSync(dirs.map(dir => `${dir}/**/*.ts`))) {
  const source = readFileSync(file, 'utf8')
  const stripped = `${folder}/${createHash('sha1').update(source).digest('hex')}`
  if (existsSync(stripped)) continue
  writeFileSync(`${stripped}.${process.pid}`, stripTypeScriptTypes(source))
  renameSync(`${stripped}.${process.pid}`, stripped)
}

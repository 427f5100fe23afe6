// SPDX-License-Identifier: Apache-2.0
// The agent as JavaScript, as `npm run build` makes weftd: a process that strips types itself needs some 40 MiB more and
// starts later, which would be charged to the agent.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** Folders that the agent's modules are in, and what they find beside them. */
const sources = ['src', 'bench', 'test/overlay', 'test/store'] as const
const beside = ['native', 'node_modules', 'package.json'] as const

/** Gives the folder that stands for the checkout's. */
export const compiled = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-js-'))
  for (const name of beside) symlinkSync(join(root, name), join(folder, name))
  for (const source of sources)
    for (const name of readdirSync(join(root, source), { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts') || name.endsWith('.test.ts')) continue
      const target = join(folder, source, name.replace(/\.ts$/, '.js'))
      mkdirSync(dirname(target), { recursive: true })
      const text = stripTypeScriptTypes(readFileSync(join(root, source, name), 'utf8'))
      writeFileSync(target, text.replace(/((?:from|import\(|import) *'\.[^']*)\.ts'/g, "$1.js'"))
    }
  return folder
}

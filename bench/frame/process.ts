// SPDX-License-Identifier: Apache-2.0
// A section in a process of its own: `node process.ts NAME RUNS full|quick` measures and writes one JSON line per row
// and one with the load; `runSection` starts that and reads it. What it says meanwhile goes to standard error.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { sections } from '../sections.ts'
import { type Load, watchLoad } from './load.ts'
import { inOwnHost, temporary } from './own-host.ts'
import type { Row } from './row.ts'
import type { Options } from './section.ts'

const self = fileURLToPath(import.meta.url)

export interface Measured {
  readonly section: string
  readonly rows: readonly Row[]
  readonly load: Load
}

type Line = { readonly row: Row } | { readonly load: Load }

/** Rejects when the section fails; its own words are on standard error. */
export const runSection = async (name: string, { runs, quick }: Options): Promise<Measured> => {
  const argv = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    self,
    name,
    String(runs),
    quick ? 'quick' : 'full',
  ]
  const [file, ...args] = inOwnHost(argv)
  const env = { ...process.env, TMPDIR: temporary }
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'], env })
  const ended = new Promise<string | undefined>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code === 0 ? undefined : `ended with ${signal ?? `code ${code}`}`))
  })
  ended.catch(() => {})
  const rows: Row[] = []
  let load: Load | undefined
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as Line
    if ('row' in line) rows.push(line.row)
    else load = line.load
  }
  const failure = await ended
  if (failure) throw new Error(`section ${name} ${failure}`)
  if (!load) throw new Error(`section ${name} ended before it was measured`)
  return { section: name, rows, load }
}

const measure = async (name: string, options: Options): Promise<void> => {
  const section = sections[name]!
  const loadSince = watchLoad()
  const write = (line: Line): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
  const { run } = await section.load()
  await run(options, {
    row: row => write({ row }),
    say: text => process.stderr.write(`bench: ${name}: ${text}\n`),
  })
  write({ load: loadSince() })
}

if (process.argv[1] === self) {
  const [name, runs, size] = process.argv.slice(2) as [string, string, string]
  await measure(name, { runs: Number(runs), quick: size === 'quick' })
  process.exit(0) // whatever a section left open ends with its host
}

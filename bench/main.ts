// SPDX-License-Identifier: Apache-2.0
// The command: which sections, how often, how to print. Each section runs in a process of its own.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { parseArgs } from 'node:util'
import { codeOf, describe, errorTable, WeftError } from '../src/base/errors.ts'
import { type Measured, runSection } from './frame/process.ts'
import { renderMarkdown, renderTable } from './frame/render.ts'
import type { Options } from './frame/section.ts'
import { sections } from './sections.ts'

const outputs = ['table', 'json', 'markdown'] as const
type Output = (typeof outputs)[number]

const usage = `usage: scripts/bench [SECTION…] [OPTION…]

  --runs N        values per row, at least 1 (default 5; with --quick 1)
  --quick         small sizes, in seconds: to see that it works, not to be quoted
  --output FORMAT ${outputs.join(', ')} (default table)
  --save FILE     also write everything that was measured there, as JSON
  --help          this text

Sections (default: all):
${Object.entries(sections)
  .map(([name, { about }]) => `  ${name.padEnd(16)}${about}`)
  .join('\n')}

Needs root. Ours and the peers take turns; ratios above 1 are better for us. Exit code 0 when everything was measured,
also where a goal is missed.`

interface Command extends Options {
  readonly names: readonly string[]
  readonly output: Output
  readonly save: string | undefined
}

/** Throws INVALID, naming what to type instead. */
const readCommand = (argv: readonly string[]): Command | 'help' => {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(argv)
  } catch (cause) {
    throw new WeftError('INVALID', `${(cause as Error).message} (--help lists the options)`, { cause })
  }
  const { values, positionals } = parsed
  if (values.help) return 'help'
  for (const name of positionals)
    if (!Object.hasOwn(sections, name))
      throw new WeftError('INVALID', `no section "${name}": there are ${Object.keys(sections).join(', ')}`)
  const quick = values.quick ?? false
  const runs = Number(values.runs ?? (quick ? 1 : 5))
  if (!Number.isInteger(runs) || runs < 1 || runs > 1000)
    throw new WeftError('INVALID', `--runs ${values.runs}: a whole number from 1 to 1000`)
  const output = outputs.find(one => one === (values.output ?? 'table'))
  if (!output) throw new WeftError('INVALID', `--output ${values.output}: one of ${outputs.join(', ')}`)
  const names = positionals.length > 0 ? [...new Set(positionals)] : Object.keys(sections)
  return { names, quick, runs, output, save: values.save }
}

const parse = (argv: readonly string[]) =>
  parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      runs: { type: 'string' },
      quick: { type: 'boolean' },
      output: { type: 'string' },
      save: { type: 'string' },
      help: { type: 'boolean' },
    },
  })

/** First line of what a tool says of its version; absent tools fail their section, not this. */
const versionOf = (tool: string, flag: string): string => {
  try {
    return execFileSync(tool, [flag], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n')[0]!
  } catch {
    return 'absent'
  }
}

const machine = () => ({
  date: new Date().toISOString().slice(0, 10),
  kernel: release(),
  cpus: cpus().length,
  cpu: cpus()[0]?.model ?? '?',
  memoryMiB: Math.round(Number(/MemTotal: +(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) / 1024),
  node: process.version,
  iproute2: versionOf('ip', '-V'),
  nft: versionOf('nft', '--version'),
  etcd: versionOf('etcd', '--version'),
})

const main = async (): Promise<void> => {
  const command = readCommand(process.argv.slice(2))
  if (command === 'help') return console.log(usage)
  if (process.getuid?.() !== 0) throw new WeftError('PERMISSION', 'namespaces need root: run scripts/bench as root')
  const measured: Measured[] = []
  const facts = { machine: machine(), runs: command.runs, quick: command.quick }
  let json = ''
  for (const name of command.names) {
    measured.push(await runSection(name, command))
    json = JSON.stringify({ ...facts, measured }, undefined, 2)
    // after each: a later one that fails takes none of these
    if (command.save !== undefined) writeFileSync(command.save, `${json}\n`)
  }
  switch (command.output) {
    case 'json':
      return console.log(json)
    case 'markdown':
      return console.log(renderMarkdown(measured))
    case 'table':
      return console.log(renderTable(measured))
  }
}

await main().catch((error: unknown) => {
  console.error(`scripts/bench: ${describe(error)}`)
  process.exitCode = errorTable[codeOf(error)].exit
})

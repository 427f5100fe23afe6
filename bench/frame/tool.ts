// SPDX-License-Identifier: Apache-2.0
// The peers: programs that are started for the work. Command lines run one after the other by one small shell, so that
// what is measured is theirs (start included) and not Node's way of starting programs.
import { execFile } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const start = promisify(execFile)
/** As much of a tool's complaint as helps. */
const complaint = 400

const run = async (args: readonly string[]): Promise<string> => {
  try {
    return (await start('sh', [...args], { maxBuffer: 64 << 20 })).stdout
  } catch (error) {
    throw new Error(
      `sh ${args.join(' ').slice(0, complaint)}: ${(error as { stderr?: string }).stderr?.slice(0, complaint)}`,
    )
  }
}

/** Writes the lines to a file that ends with the section's host; gives its path. */
export const fileOf = (lines: readonly string[]): string => {
  const path = join(mkdtempSync(join(tmpdir(), 'bench-')), 'input')
  writeFileSync(path, `${lines.join('\n')}\n`)
  return path
}

/** Runs a shell script to its end; rejects with what it says where a command fails. Wall time in ms. */
export const timedScript = async (path: string): Promise<number> => {
  const from = performance.now()
  await run(['-e', path])
  return performance.now() - from
}

/** A few commands by hand, unmeasured. */
export const sh = (command: string): Promise<string> => run(['-ec', command])

/** For words of nft with spaces and quotes in a shell's command line. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

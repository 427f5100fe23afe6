// SPDX-License-Identifier: Apache-2.0
// scripts/bench in its small sizes, as tests run it: do all rows come, each with values? No times are asserted.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Measured } from '../../bench/frame/process.ts'
import { type Row, spread } from '../../bench/frame/row.ts'

const main = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))

export const bench = (...args: readonly string[]): Promise<{ stdout: string; stderr: string }> =>
  promisify(execFile)(process.execPath, [main, ...args], { maxBuffer: 16 << 20 })

/** The rows of one section; throws where one has no numbers. */
export const quickRows = async (section: string): Promise<readonly Row[]> => {
  const { stdout } = await bench(section, '--quick', '--runs', '1', '--output', 'json')
  const { measured } = JSON.parse(stdout) as { measured: readonly Measured[] }
  const rows = measured.flatMap(({ rows }) => rows)
  for (const { ours, peer } of rows) for (const values of [ours, peer?.values ?? ours]) spread(values)
  return rows
}

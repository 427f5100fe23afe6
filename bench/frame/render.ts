// SPDX-License-Identifier: Apache-2.0
// Measured rows for people: a table for the terminal, the same in markdown for docs/benchmarks.md.
import type { Measured } from './process.ts'
import { type Goal, type Row, ratios, spread, verdict } from './row.ts'

/** Three significant digits, without an exponent. */
export const formatNumber = (value: number): string =>
  Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)))

const formatSpread = (values: readonly number[], unit: string): string => {
  const { median, min, max } = spread(values)
  const text = `${formatNumber(median)}${unit}`
  return values.length === 1 ? text : `${text} (${formatNumber(min)}..${formatNumber(max)})`
}

const formatGoal = (goal: Goal | undefined, unit: string): string => {
  if (!goal) return ''
  return goal.kind === 'ratio' ? `>= ${formatNumber(goal.atLeast)}x` : `<= ${formatNumber(goal.atMost)}${unit}`
}

const columns = ['section', 'measured', 'ours', 'peer', 'ratio', 'goal', ''] as const

const cells = (row: Row): readonly string[] => {
  const unit = row.unit.startsWith('/') || row.unit === '' ? row.unit : ` ${row.unit}`
  const measured = ratios(row)
  return [
    row.section,
    row.name,
    formatSpread(row.ours, unit),
    row.peer ? `${formatSpread(row.peer.values, unit)} ${row.peer.name}` : '',
    measured ? formatSpread(measured, 'x') : '',
    formatGoal(row.goal, unit),
    verdict(row),
  ]
}

const formatLoad = ({ section, load }: Measured): string =>
  `${section}: others used ${load.others} % of the CPUs, the hypervisor ${load.steal} %; load average ${load.average}`

const notesOf = ({ rows }: Measured): string[] => rows.flatMap(({ name, note }) => (note ? [`${name}: ${note}`] : []))

export const renderTable = (measured: readonly Measured[]): string => {
  const lines = [columns, ...measured.flatMap(({ rows }) => rows.map(cells))]
  const widths = columns.map((_, i) => Math.max(...lines.map(line => line[i]!.length)))
  const table = lines.map(line =>
    line
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
  return [
    ...table,
    '',
    ...measured.flatMap(notesOf),
    ...measured.map(formatLoad),
    'median (min..max) of the runs; nothing left out',
  ].join('\n')
}

export const renderMarkdown = (measured: readonly Measured[]): string => {
  const table = [columns, columns.map(() => '---'), ...measured.flatMap(({ rows }) => rows.map(cells))]
  const below = [...measured.flatMap(notesOf), ...measured.map(formatLoad)]
  return [...table.map(line => `| ${line.join(' | ')} |`), '', ...below.map(line => `- ${line}`)].join('\n')
}

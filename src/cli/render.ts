// SPDX-License-Identifier: Apache-2.0
// One value, three outputs: a table for people, JSON and YAML for programs.
import { stringify } from 'yaml'

export const outputs = ['table', 'json', 'yaml'] as const
export type Output = (typeof outputs)[number]

export interface Column<T> {
  readonly title: string
  readonly value: (row: T) => string | number
}

/** Columns two spaces apart, no line ends in blanks. */
export const table = <T>(columns: readonly Column<T>[], rows: readonly T[]): string => {
  const cells = [
    columns.map(column => column.title),
    ...rows.map(row => columns.map(column => String(column.value(row)))),
  ]
  const widths = columns.map((_, i) => Math.max(...cells.map(line => line[i]!.length)))
  return `${cells
    .map(line =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')}\n`
}

export const render = <T>(output: Output, data: T, asTable: (data: T) => string): string => {
  switch (output) {
    case 'json':
      return `${JSON.stringify(data, undefined, 2)}\n`
    case 'yaml':
      return stringify(data)
    case 'table':
      return asTable(data)
  }
}

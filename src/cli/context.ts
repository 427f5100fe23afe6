// SPDX-License-Identifier: Apache-2.0
// What a command gets: the API, and where to print.
import type { Command } from 'commander'
import { Option } from 'commander'
import type { ApiClient } from '../api/client.ts'
import { type Output, outputs, render } from './render.ts'

export interface Cli {
  /** Opened at first use, closed when the program ends. */
  api(): ApiClient
  print(text: string): void
}

export const outputOption = (): Option =>
  new Option('-o, --output <format>', 'table, json or yaml').choices(outputs).default('table')

export const show = <T>(cli: Cli, command: Command, data: T, asTable: (data: T) => string): void => {
  const { output } = command.opts<{ output: Output }>()
  cli.print(render(output, data, asTable))
}

/** A flag that may be repeated. */
export const many = (text: string, before: string[] | undefined): string[] => [...(before ?? []), text]

/** --opt a=b, repeatable, as a record. */
export const pairs = (text: string, before: Record<string, string>): Record<string, string> => {
  const equals = text.indexOf('=')
  return { ...before, [equals < 0 ? text : text.slice(0, equals)]: equals < 0 ? '' : text.slice(equals + 1) }
}

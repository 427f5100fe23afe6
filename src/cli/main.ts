// SPDX-License-Identifier: Apache-2.0
// weft: the command. Exit codes: 0 done, 1 error, 2 usage, 3 denied, 4 unknown, 5 behind.

import { Metadata } from '@grpc/grpc-js'
import { Command, CommanderError } from 'commander'
import { type ApiClient, openApiClient } from '../api/client.ts'
import { codeOf, describe, errorTable, WeftError } from '../base/errors.ts'
import { version } from '../base/version.ts'
import { endpointCommand } from './commands/endpoint.ts'
import { networkCommand } from './commands/network.ts'
import { nodeCommand } from './commands/node.ts'
import { portCommand, serviceCommand } from './commands/service.ts'
import { statusCommand } from './commands/status.ts'
import { storeCommand } from './commands/store.ts'

const run = async (argv: readonly string[]): Promise<void> => {
  const program = new Command('weft')
    .description('One network over many Docker hosts: asks the weftd of this host.')
    .version(version, '--version', 'print the version of this command')
    .option('--api <url>', "weftd's API socket", process.env['WEFT_API'] ?? 'unix:///run/weft/weft.sock')
    .showHelpAfterError('(--help lists commands and flags)')
    .exitOverride()
  let client: ApiClient | undefined
  const cli = {
    api(): ApiClient {
      const url = program.opts<{ api: string }>().api
      const path = /^unix:\/\/(\/.+)$/.exec(url)?.[1]
      if (path === undefined) throw new WeftError('INVALID', `--api ${url}: unix:///PATH`)
      client ??= openApiClient(path, new Metadata())
      return client
    },
    print: (text: string): void => void process.stdout.write(text),
  }
  statusCommand(program, cli)
  networkCommand(program, cli)
  endpointCommand(program, cli)
  serviceCommand(program, cli)
  portCommand(program, cli)
  nodeCommand(program, cli)
  storeCommand(program, cli)
  try {
    await program.parseAsync(argv as string[], { from: 'user' })
  } finally {
    client?.close()
  }
}

run(process.argv.slice(2)).catch(error => {
  if (error instanceof CommanderError) {
    // `weft node` alone prints the same help as `weft help node`, and is wrong usage
    process.exitCode =
      error.exitCode === 0 || (error.code === 'commander.help' && process.argv.includes('help')) ? 0 : 2
    return
  }
  process.stderr.write(`weft: ${describe(error)}\n`)
  process.exitCode = errorTable[codeOf(error)].exit
})

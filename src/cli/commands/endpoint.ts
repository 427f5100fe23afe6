// SPDX-License-Identifier: Apache-2.0
// weft endpoint ls: who is on the networks, on every host.
import type { Command } from 'commander'
import { type Cli, outputOption, show } from '../context.ts'
import { table } from '../render.ts'

export const endpointCommand = (program: Command, cli: Cli): void => {
  const endpoint = program.command('endpoint').description('containers on the networks')
  endpoint
    .command('ls')
    .description('list endpoints of the whole cluster')
    .option('--network <name>', 'only of this network')
    .option('--node <name>', 'only of this node')
    .addOption(outputOption())
    .action(async (flags: { network?: string; node?: string }, command: Command) => {
      const { endpoints } = await cli.api().call(client => client.listEndpoints, {
        network: flags.network ?? '',
        node: flags.node ?? '',
      })
      show(cli, command, endpoints, rows =>
        table(
          [
            { title: 'ENDPOINT', value: row => row.id.slice(0, 12) },
            { title: 'NETWORK', value: row => row.network },
            { title: 'CONTAINER', value: row => row.container || '(not told yet)' },
            { title: 'NODE', value: row => (row.unpublished ? `${row.node} (not published yet)` : row.node) },
            { title: 'ADDRESSES', value: row => row.addresses.join(' ') },
            {
              title: 'PORTS',
              value: row =>
                row.ports
                  .map(
                    port =>
                      `${port.hostIp === '' ? '' : `${port.hostIp}:`}${port.hostPort}->${port.port}/${port.proto}`,
                  )
                  .join(' ') || '-',
            },
          ],
          rows,
        ),
      )
    })
}

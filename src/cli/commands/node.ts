// SPDX-License-Identifier: Apache-2.0
// weft node: ls, show, drain, rm.
import type { Command } from 'commander'
import { type Cli, outputOption, show } from '../context.ts'
import { table } from '../render.ts'

export const nodeCommand = (program: Command, cli: Cli): void => {
  const node = program.command('node').description('hosts of the cluster')
  node
    .command('ls')
    .description('list nodes')
    .addOption(outputOption())
    .action(async (_, command: Command) => {
      const { nodes } = await cli.api().call(client => client.listNodes, {})
      show(cli, command, nodes, rows =>
        table(
          [
            { title: 'NAME', value: row => row.name },
            { title: 'STATE', value: row => row.state },
            { title: 'VTEP', value: row => row.vtep },
            { title: 'MTU', value: row => row.mtu },
            { title: 'ENDPOINTS', value: row => row.endpoints },
            { title: 'VERSION', value: row => row.version },
          ],
          rows,
        ),
      )
    })
  node
    .command('show <name>')
    .description('one node')
    .addOption(outputOption())
    .action(async (name: string, _, command: Command) => {
      const found = await cli.api().call(client => client.getNode, { name })
      show(cli, command, found, one =>
        [
          `Name:       ${one.name}`,
          `State:      ${one.state}`,
          `Number:     ${one.number}`,
          `VTEP:       ${one.vtep}`,
          `MTU:        ${one.mtu}`,
          `Version:    ${one.version}`,
          `Endpoints:  ${one.endpoints}`,
          `Applied:    ${one.applied === '' ? '-' : one.applied}`,
          ...one.addresses.map(({ dev, address }) => `Address:    ${address} dev ${dev}`),
          ...one.routes.map(route => `Route:      ${route}`),
          '',
        ].join('\n'),
      )
    })
  node
    .command('drain <name>')
    .description(
      'refuse containers that are started or restarted on weft networks there, and give its floating addresses to others; those that run stay',
    )
    .option('--undo', 'take them again')
    .action(async (name: string, flags: { undo?: boolean }) => {
      const found = await cli.api().call(client => client.drainNode, { name, undo: flags.undo === true })
      cli.print(`${found.name} ${found.state}\n`)
    })
  node
    .command('rm <name>')
    .description('fence a node that is gone for good and free what it held; refused while it lives')
    .action(async (name: string) => {
      const { endpoints } = await cli.api().call(client => client.removeNode, { name })
      cli.print(`${name} fenced, ${endpoints} endpoints freed\n`)
    })
}

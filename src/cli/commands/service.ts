// SPDX-License-Identifier: Apache-2.0
// weft service ls, show, drain; weft port: what containers publish, and by which addresses they are reached together.
import type { Command } from 'commander'
import type { Backend, Port, Service } from '../../api/gen/weft.ts'
import { WeftError } from '../../base/errors.ts'
import { type Cli, outputOption, show } from '../context.ts'
import { table } from '../render.ts'
import { optionLines, optionsCommands } from './service-options.ts'

const title = ({ project, name }: Service): string => (project === '' ? name : `${project}/${name}`)
const portsOf = ({ ports }: Service): string => ports.map(({ proto, hostPort }) => `${hostPort}/${proto}`).join(' ')

export const serviceCommand = (program: Command, cli: Cli): void => {
  const service = program
    .command('service')
    .description('containers behind a port of every host, or behind one address')
  drainCommand(service, cli)
  optionsCommands(service, cli)
  service
    .command('ls')
    .description('list the services')
    .option('--network <name>', 'only of this network')
    .addOption(outputOption())
    .action(async (flags: { network?: string }, command: Command) => {
      const { services } = await cli.api().call(client => client.listServices, { network: flags.network ?? '' })
      show(cli, command, services, rows =>
        table(
          [
            { title: 'SERVICE', value: title },
            { title: 'NETWORK', value: row => row.network },
            { title: 'PORTS', value: portsOf },
            {
              title: 'BACKENDS',
              value: row => `${row.backends.filter(({ state }) => state === 'active').length}/${row.backends.length}`,
            },
          ],
          rows,
        ),
      )
    })
  service
    .command('show <name>')
    .description('one service: its addresses and ports, and where they lead to')
    .option('--network <name>', 'where several networks have one of this name')
    .addOption(outputOption())
    .action(async (name: string, flags: { network?: string }, command: Command) => {
      const found = await cli.api().call(client => client.getService, { name, network: flags.network ?? '' })
      show(cli, command, found, one =>
        [
          `Service:  ${title(one)}`,
          `Network:  ${one.network}`,
          ...one.vips.map(vip => `VIP:      ${vip}`),
          ...one.ports.map(
            ({ proto, hostPort, problem }) =>
              `Port:     ${hostPort}/${proto}${problem === '' ? '' : `  not on this host: ${problem}`}`,
          ),
          ...optionLines(one.options),
          ...one.problems.map(problem => `Problem:  ${problem}`),
          '',
          table(
            [
              { title: 'CONTAINER', value: row => row.container },
              { title: 'NODE', value: row => row.node },
              { title: 'STATE', value: row => row.state },
              { title: 'WEIGHT', value: row => String(row.weight) },
              { title: 'ACTIVE', value: row => sum(row, 'active') },
              { title: 'TOTAL', value: row => sum(row, 'connections') },
              { title: 'IN', value: row => sum(row, 'bytesIn') },
              { title: 'OUT', value: row => sum(row, 'bytesOut') },
              { title: 'ADDRESSES', value: row => row.addresses.join(' ') },
            ],
            one.backends,
          ),
        ].join('\n'),
      )
    })
}

/** By all ports, as the host counts that was asked; '-' where it does not. */
const sum = ({ counts }: Backend, what: 'active' | 'connections' | 'bytesIn' | 'bytesOut'): string =>
  // nothing said: nftables, which counts only what is there now, has nothing there
  counts.some(count => count[what] === undefined) || (counts.length === 0 && what !== 'active')
    ? '-'
    : String(counts.reduce((total, count) => total + (count[what] ?? 0), 0))

/** weft service drain. */
const drainCommand = (service: Command, cli: Cli): void => {
  service
    .command('drain <service> <container>')
    .description('send no new connections to one container of a service; those that are there go on')
    .option('--network <name>', 'where several networks have a service of this name')
    .option('--undo', 'send them again')
    .action(async (name: string, container: string, flags: { network?: string; undo?: boolean }) => {
      const request = { service: name, container, network: flags.network ?? '', undo: flags.undo === true }
      const { backends } = await cli.api().call(client => client.drainBackend, request)
      for (const one of backends) if (one.container === container) cli.print(`${one.container} ${one.state}\n`)
    })
}

/** As `docker port`, which shows nothing of networks that are not its own. */
export const portCommand = (program: Command, cli: Cli): void => {
  program
    .command('port <container>')
    .description('what a container publishes, and where')
    .addOption(outputOption())
    .action(async (container: string, _, command: Command) => {
      const { endpoints } = await cli.api().call(client => client.listEndpoints, { network: '', node: '' })
      const meant = endpoints.filter(one => one.container === container || matches(one.containerId, container))
      if (meant.length === 0)
        throw new WeftError(
          'NOT_FOUND',
          `no container ${JSON.stringify(container)} is on a weft network: see weft endpoint ls`,
        )
      const rows = meant.flatMap(({ node, ports }) => ports.map(port => ({ node, ...port })))
      show(cli, command, rows, all => all.map(line).join(''))
    })
}

const matches = (id: string, text: string): boolean => text.length >= 4 && id.startsWith(text)
const line = ({ node, proto, port, hostPort, hostIp, local }: Port & { node: string }): string =>
  `${port}/${proto} -> ${hostIp === '' ? '0.0.0.0' : hostIp.includes(':') ? `[${hostIp}]` : hostIp}:${hostPort}  ${local ? node : 'every host'}\n`

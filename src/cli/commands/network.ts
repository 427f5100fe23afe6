// SPDX-License-Identifier: Apache-2.0
// weft network: create, ls, show, rm.
import type { Command } from 'commander'
import type { Network, Pool } from '../../api/gen/weft.ts'
import { WeftError } from '../../base/errors.ts'
import { type Address, contains, overlaps, parseAddress, parseInterface } from '../../model/address.ts'
import { type Cli, many, outputOption, pairs, show } from '../context.ts'
import { table } from '../render.ts'

interface CreateFlags {
  subnet?: string[]
  gateway?: string[]
  ipRange?: string[]
  ipv6?: boolean
  internal?: boolean
  attachable?: boolean
  opt: Record<string, string>
  label: Record<string, string>
}

export const networkCommand = (program: Command, cli: Cli): void => {
  const network = program.command('network').description('networks of the cluster')

  network
    .command('create <name>')
    .description('make a network; every host of the cluster then shows it in docker network ls')
    .option('--subnet <cidr>', 'subnet, one per family; default: chosen from the cluster pools', many)
    .option('--gateway <ip>', 'gateway of the subnet that it is in', many)
    .option('--ip-range <cidr>', 'part of the subnet that containers get addresses from', many)
    .option('--ipv6', 'IPv6 as well')
    .option('--internal', 'no way out')
    .option('--attachable', 'as in docker network create')
    .option(
      '--opt <key=value>',
      'option of the network, as -o of docker network create: docs/networks.md lists them',
      pairs,
      {},
    )
    .option('--label <key=value>', 'label', pairs, {})
    .addOption(outputOption())
    .action(async (name: string, flags: CreateFlags, command: Command) => {
      const made = await cli.api().call(client => client.createNetwork, {
        name,
        pools: poolsOf(flags),
        ipv6: flags.ipv6 === true,
        internal: flags.internal === true,
        attachable: flags.attachable === true,
        options: flags.opt,
        labels: flags.label,
      })
      show(cli, command, made, one => `${one.name}\n`)
    })

  network
    .command('ls')
    .description('list networks')
    .addOption(outputOption())
    .action(async (_, command: Command) => {
      const { networks } = await cli.api().call(client => client.listNetworks, {})
      show(cli, command, networks, rows =>
        table(
          [
            { title: 'NAME', value: row => row.name || `(unnamed) ${row.id}` },
            { title: 'VNI', value: row => row.vni },
            { title: 'SUBNETS', value: row => row.pools.map(pool => pool.prefix).join(' ') },
            { title: 'MTU', value: row => row.mtu },
            { title: 'ENDPOINTS', value: row => row.endpoints },
            {
              title: 'STATE',
              value: row => (row.problem === '' ? row.state : `${row.state}, not here: ${row.problem}`),
            },
          ],
          rows,
        ),
      )
    })

  network
    .command('show <name>')
    .description('one network, by name or id')
    .addOption(outputOption())
    .action(async (name: string, _, command: Command) => {
      const found = await cli.api().call(client => client.getNetwork, { name })
      show(cli, command, found, describeNetwork)
    })

  network
    .command('rm <name>')
    .description('remove a network from every host; refused while containers are on it')
    .option('--force', 'although silent nodes hold endpoints on it')
    .action(async (name: string, flags: { force?: boolean }) => {
      await cli.api().call(client => client.removeNetwork, { name, force: flags.force === true })
      cli.print(`${name}\n`)
    })
}

const poolsOf = ({ subnet: subnets = [], gateway, ipRange }: CreateFlags): Pool[] => {
  if (subnets.length === 0 && (gateway || ipRange))
    throw new WeftError('INVALID', '--gateway and --ip-range need --subnet beside them')
  for (const [i, subnet] of subnets.entries())
    for (const other of subnets.slice(i + 1))
      if (overlaps(parseInterface(subnet, '--subnet').prefix, parseInterface(other, '--subnet').prefix))
        throw new WeftError('INVALID', `--subnet ${subnet} and --subnet ${other} overlap: give one of them`)
  const gateways = bySubnet(subnets, '--gateway', gateway, parseAddress)
  const ranges = bySubnet(subnets, '--ip-range', ipRange, (text, flag) => parseInterface(text, flag).address)
  return subnets.map(prefix => ({
    prefix,
    gateway: gateways.get(prefix) ?? '',
    range: ranges.get(prefix) ?? '',
    aux: {},
  }))
}

/** Which of the values is whose; none is left over. */
const bySubnet = (
  subnets: readonly string[],
  flag: string,
  values: readonly string[] = [],
  parse: (text: string, field: string) => Address,
): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  for (const value of values) {
    const address = parse(value, flag)
    const subnet = subnets.find(text => contains(parseInterface(text, '--subnet').prefix, address))
    if (subnet === undefined)
      throw new WeftError(
        'INVALID',
        `${flag} ${value} is not inside --subnet ${subnets.join(' or ')}: give its --subnet too, or leave it out`,
      )
    const first = found.get(subnet)
    if (first !== undefined)
      throw new WeftError('INVALID', `${flag} ${value}: --subnet ${subnet} has ${first} already: give it one`)
    found.set(subnet, value)
  }
  return found
}

const describeNetwork = (network: Network): string => {
  const lines: [string, string | number][] = [
    ['Name', network.name],
    ['Id', network.id],
    ['VNI', network.vni],
    ...network.pools.map((pool): [string, string] => [
      'Subnet',
      `${pool.prefix}${pool.gateway === '' ? '' : ` gateway ${pool.gateway}`}${pool.range === '' ? '' : ` range ${pool.range}`}`,
    ]),
    ['MTU', network.mtu],
    ['Internal', network.internal ? 'yes' : 'no'],
    ['State', network.state],
    ['Made by', `${network.origin} on ${network.originNode}`],
    [
      'Docker id',
      network.dockerId === ''
        ? `not on this host${network.problem === '' ? '' : `: ${network.problem}`}`
        : network.dockerId,
    ],
    ['Endpoints', network.endpoints],
    ...Object.entries(network.options).map(([key, value]): [string, string] => ['Option', `${key}=${value}`]),
    ...Object.entries(network.labels).map(([key, value]): [string, string] => ['Label', `${key}=${value}`]),
  ]
  return `${lines.map(([name, value]) => `${`${name}:`.padEnd(12)}${value}`).join('\n')}\n`
}

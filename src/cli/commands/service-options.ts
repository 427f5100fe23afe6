// SPDX-License-Identifier: Apache-2.0
// weft service create, rm: how a service is served.
import type { Command } from 'commander'
import type { ServiceOptions } from '../../api/gen/weft.ts'
import { WeftError } from '../../base/errors.ts'
import { type Cli, many, outputOption, show } from '../context.ts'

interface CreateFlags {
  network: string
  scheduler?: string
  affinity?: string
  timeoutTcp?: string
  timeoutUdp?: string
  probe?: string
  probeInterval?: string
  probeTimeout?: string
  probeFailures?: string
  address?: string[]
  dev?: string
}

export const optionsCommands = (service: Command, cli: Cli): void => {
  service
    .command('create <name>')
    .description(
      'say how a service is served, before or after its first container; repeated, it changes what is named and leaves the rest',
    )
    .requiredOption('--network <name>', 'network of its containers')
    .option('--scheduler <name>', 'who gets the next connection: rr, wrr, lc, wlc, sh or mh; default: rr')
    .option('--affinity <seconds>', 'a client keeps its backend so long after its last connection; 0: off')
    .option('--timeout-tcp <seconds>', "idle connections are forgotten after it; 0: the kernel's default")
    .option('--timeout-udp <seconds>', 'the same of UDP')
    .option('--probe <what>', 'ask each backend: tcp, tcp:PORT, http:PORT/PATH[=STATUS[-STATUS]], or none')
    .option('--probe-interval <seconds>', 'how often; default: 2')
    .option('--probe-timeout <seconds>', 'how long to wait for the answer; default: 1')
    .option('--probe-failures <count>', 'so many in a row take a backend out; default: 3')
    .option(
      '--address <cidr>',
      'floating address: one live host has it and answers; repeatable, replaces all; or none',
      many,
    )
    .option('--dev <name>', 'device of the hosts that the addresses are to be on')
    .addOption(outputOption())
    .action(async (name: string, flags: CreateFlags, command: Command) => {
      const made = await cli.api().call(client => client.createService, {
        name,
        network: flags.network,
        scheduler: flags.scheduler,
        affinity: whole('--affinity', flags.affinity),
        timeoutTcp: whole('--timeout-tcp', flags.timeoutTcp),
        timeoutUdp: whole('--timeout-udp', flags.timeoutUdp),
        probe: flags.probe,
        probeIntervalMs: milliseconds('--probe-interval', flags.probeInterval),
        probeTimeoutMs: milliseconds('--probe-timeout', flags.probeTimeout),
        probeFailures: whole('--probe-failures', flags.probeFailures),
        addresses: flags.address ?? [],
        dev: flags.dev ?? '',
      })
      const note = made.backends.length === 0 ? '  no container publishes a port as this service yet' : ''
      show(cli, command, made, () => `${name}${note}\n`)
    })
  service
    .command('rm <name>')
    .description('forget what was said of a service; its containers go on with the defaults')
    .requiredOption('--network <name>', 'network of its containers')
    .action(async (name: string, { network }: { network: string }) => {
      await cli.api().call(client => client.removeService, { name, network })
      cli.print(`${name}\n`)
    })
}

/** Lines of `weft service show`: only what is not the default. */
export const optionLines = (options: ServiceOptions | undefined): string[] => {
  if (!options) return []
  const { scheduler, affinity, timeoutTcp, timeoutUdp, probe } = options
  const every = `every ${options.probeIntervalMs / 1000} s, answer within ${options.probeTimeoutMs / 1000} s, out after ${options.probeFailures}`
  return [
    `Balance:  ${scheduler}${affinity === 0 ? '' : `, affinity ${affinity} s`}`,
    ...(timeoutTcp === 0 ? [] : [`Timeout:  tcp ${timeoutTcp} s`]),
    ...(timeoutUdp === 0 ? [] : [`Timeout:  udp ${timeoutUdp} s`]),
    ...options.addresses.map(
      ({ address, dev, node, since, problem }) =>
        `Address:  ${address} dev ${dev}  ${problem === '' ? `on ${node} since ${since}` : `no holder: ${problem}`}`,
    ),
    ...(probe === '' ? [] : [`Probe:    ${probe}, ${every}`]),
  ]
}

/** What fits the message; which values make sense is weftd's to say. */
const whole = (flag: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  if (!/^\d{1,9}$/.test(text))
    throw new WeftError('INVALID', `${flag} ${JSON.stringify(text)}: give a whole number, such as 10`)
  return Number(text)
}

const milliseconds = (flag: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text))
    throw new WeftError('INVALID', `${flag} ${JSON.stringify(text)}: give seconds, such as 2 or 0.5`)
  return Math.round(Number(text) * 1000)
}

// SPDX-License-Identifier: Apache-2.0
// weft status and version: how this node is.
import type { Command } from 'commander'
import type { Status } from '../../api/gen/weft.ts'
import { version } from '../../base/version.ts'
import { type Cli, outputOption, show } from '../context.ts'

export const statusCommand = (program: Command, cli: Cli): void => {
  program
    .command('status')
    .description('how this node is; exit code 1 while there are problems')
    .addOption(outputOption())
    .action(async (_, command: Command) => {
      const status = await cli.api().call(client => client.getStatus, {})
      show(cli, command, status, describeStatus)
      if (status.problems.length > 0) process.exitCode = 1
    })

  program
    .command('version')
    .description('versions of weft, weftd and its store')
    .addOption(outputOption())
    .action(async (_, command: Command) => {
      const agent = await cli.api().call(client => client.getVersion, {})
      show(cli, command, { client: version, ...agent }, one =>
        [
          `weft:   ${one.client}`,
          `weftd:  ${one.version}`,
          `node:   ${one.nodeVersion}`,
          `store:  ${one.store}`,
          '',
        ].join('\n'),
      )
    })
}

const describeStatus = (status: Status): string => {
  const { store, reconciler } = status
  const repairs = Object.entries(reconciler?.repairs ?? {}).map(([kind, count]) => `${kind} ${count}`)
  return [
    `node       ${status.node}  vtep ${status.vtep}  weftd ${status.version}`,
    `store      ${store?.available ? 'reachable' : `NOT REACHABLE: ${store?.error}`}, revision ${store?.revision}, ${store?.records} records`,
    `docker     ${status.dockerError === '' ? 'answers' : `DOES NOT ANSWER: ${status.dockerError}`}`,
    `kernel     ${reconciler?.wanted} objects wanted, ${reconciler?.failing.length} failing, ${reconciler?.lost.length} ports lost; ${reconciler?.passes} passes, last ${reconciler?.lastPassMs.toFixed(1)} ms`,
    `repairs    ${repairs.length === 0 ? 'none' : repairs.join(', ')}`,
    `networks   ${status.networksHere} here, published ports by ${status.balancer}, ${status.dnsListening} answer DNS${status.departures > 0 ? `; ${status.departures} endpoints wait to be erased` : ''}`,
    `reserve    ${status.spares} addresses for starts without the store${status.unpublished > 0 ? `; ${status.unpublished} endpoints not published yet` : ''}`,
    ...status.problems.map(problem => `problem    ${problem}`),
    ...status.lastErrors.slice(-5).map(one => `call       ${one.at} ${one.method} ${one.code}: ${one.error}`),
    '',
  ].join('\n')
}

// SPDX-License-Identifier: Apache-2.0
// weftd: reads its flags, builds itself, runs until a signal. The data path stays as it is when it ends.
import { daemonExitOf, describe } from './base/errors.ts'
import { openLog } from './base/log.ts'
import { startDaemon } from './daemon/build.ts'
import { BadUsage, type Config, NothingToDo, parseConfig } from './daemon/config.ts'
import { purge } from './daemon/purge.ts'

const run = async (): Promise<number> => {
  let config: Config
  try {
    config = parseConfig(process.argv.slice(2))
  } catch (error) {
    if (error instanceof NothingToDo) return 0
    if (error instanceof BadUsage) return 2
    throw error
  }
  const log = openLog(config.logLevel)
  if (process.getuid?.() !== 0) {
    process.stderr.write('weftd: needs root: it makes namespaces and interfaces\n')
    return 1
  }
  if (config.purge) {
    const removed = await purge(config.dataDir, {
      sockets: [config.pluginSocket, config.apiSocket],
      warn: text => process.stderr.write(`weftd: ${text}\n`),
    })
    process.stdout.write(`weftd: removed ${removed.length} objects\n${removed.map(line => `  ${line}\n`).join('')}`)
    return 0
  }
  const daemon = await startDaemon(config, log)
  const signal = await new Promise<string>(resolve => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name))
  })
  log.info({ signal }, 'stopping')
  await daemon.close()
  log.info({}, 'stopped')
  return Number(process.exitCode ?? 0)
}

run().then(
  code => process.exit(code),
  error => {
    process.stderr.write(`weftd: ${describe(error)}\n`)
    process.exit(daemonExitOf(error))
  },
)

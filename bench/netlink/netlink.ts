// SPDX-License-Identifier: Apache-2.0
// Section netlink: what is written to the kernel by ourselves and by the tools, and how long that takes.
import { silentLog } from '../../src/base/log.ts'
import { loadModules } from '../../src/daemon/modules.ts'
import type { Run } from '../frame/section.ts'
import { measureEndpoint } from './endpoint.ts'
import { measureFdb } from './fdb.ts'
import { measureIpvs } from './ipvs.ts'
import { measureMap } from './map.ts'

export const run: Run = async (options, report) => {
  await loadModules(silentLog)
  report.say('fdb rows')
  await measureFdb(options, report)
  report.say('nft map')
  await measureMap(options, report)
  report.say('one endpoint')
  await measureEndpoint(options, report)
  report.say('balancer')
  await measureIpvs(options, report)
}

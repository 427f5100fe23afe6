// SPDX-License-Identifier: Apache-2.0
// The table of a balancer: services with ten backends each, by our planner and kernel layer, and by ipvsadm. Only on a
// kernel with IPVS (scripts/vm).
import { readFileSync } from 'node:fs'
import { NotSupportedError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { probeIpvs } from '../../src/kernel/ipvs.ts'
import type { Operation } from '../../src/kernel/kernel.ts'
import { openLinuxKernel } from '../../src/kernel/linux.ts'
import type { KernelObject } from '../../src/kernel/objects.ts'
import { engines } from '../../src/mesh/engines.ts'
import { interleave, timed } from '../frame/interleave.ts'
import type { Options, Report } from '../frame/section.ts'
import { fileOf, quote, sh, timedScript } from '../frame/tool.ts'

const gateway = '169.254.1.2'
const backendsEach = 10
const firstPort = 20_000
const address = (service: number, backend: number): string => `10.${service >> 8}.${service & 255}.${backend + 1}`

/** The objects of one service, as the planner of published ports has them. */
const objectsOf = (service: number, backends = backendsEach): KernelObject[] => {
  const to = Array.from({ length: backends }, (_, i) => ({ address: address(service, i), weight: 1 }))
  const families = [{ family: 4, at: gateway, to } as const]
  const port = firstPort + service
  return engines.ipvs.plan({ ns: '', proto: 'tcp', port, families, options: undefined }).map(({ object }) => object)
}
const isRow = ({ kind }: KernelObject): boolean => kind === 'ipvs-service' || kind === 'ipvs-destination'

/** What the kernel keeps for itself, in KiB. */
const kernelKiB = (): number => {
  const info = readFileSync('/proc/meminfo', 'utf8')
  return ['Slab', 'Percpu'].reduce((sum, name) => sum + Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(info)?.[1]), 0)
}

export const measureIpvs = async ({ runs, quick }: Options, report: Report): Promise<void> => {
  try {
    await probeIpvs()
  } catch (error) {
    if (!(error instanceof NotSupportedError)) throw error
    return report.say('this kernel has no IPVS: its rows are measured by scripts/vm')
  }
  const services = quick ? 50 : 1000
  const rows = services * (1 + backendsEach)
  const numbers = Array.from({ length: services }, (_, i) => i)
  const objects = numbers.flatMap(service => objectsOf(service).filter(isRow))
  const kernel = openLinuxKernel(silentLog)
  const apply = async (operations: readonly Operation[]): Promise<void> => {
    for (const { error } of await kernel.apply(operations)) if (error) throw error
  }
  const add = (object: KernelObject): Operation => ({ kind: 'add', object })
  const expect = async (count: number): Promise<void> => {
    const lines = (await sh('ipvsadm -S -n')).split('\n').filter(Boolean).length
    if (lines !== count) throw new Error(`IPVS has ${lines} services and destinations instead of ${count}`)
  }
  const table = fileOf(
    numbers.flatMap(service => {
      const at = `-t ${gateway}:${firstPort + service}`
      const backends = Array.from({ length: backendsEach }, (_, i) => address(service, i))
      return [`-A ${at} -s rr`, ...backends.map(ip => `-a ${at} -r ${ip}:${firstPort + service} -m -w 1`)]
    }),
  )
  const restore = fileOf([`exec ipvsadm -R < ${quote(table)}`])
  const kib: number[] = []
  const whole = (write: () => Promise<number>, note?: (kib: number) => void) => async (): Promise<number> => {
    const before = kernelKiB()
    const ms = await write()
    note?.(kernelKiB() - before)
    await expect(rows)
    await sh('ipvsadm -C')
    return ms
  }
  const all = await interleave(runs, {
    ours: whole(
      () => timed(() => apply(objects.map(add))),
      grown => kib.push(grown),
    ),
    ipvsadm: whole(() => timedScript(restore)),
  })
  const size = `${services.toLocaleString('en-US')} IPVS services of ${backendsEach} backends`
  const row = { section: 'netlink', unit: 'ms', better: 'less' } as const
  report.row({
    ...row,
    name: size,
    ours: all.ours,
    peer: { name: 'ipvsadm -R', values: all.ipvsadm },
    goal: { kind: 'ratio', atLeast: 10 },
  })
  report.row({ ...row, name: `kernel memory of ${size}`, unit: 'KiB', ours: kib })

  await apply(objects.map(add))
  let next = backendsEach
  const one = await interleave(runs, {
    ours: async () => {
      const backend = next++
      const change = objectsOf(0, backend + 1)
        .filter(isRow)
        .slice(-1)
      return timed(() => apply(change.map(add)))
    },
    ipvsadm: async () => {
      const command = `ipvsadm -a -t ${gateway}:${firstPort} -r ${address(0, next++)}:${firstPort} -m -w 1`
      return timedScript(fileOf([command]))
    },
  })
  await expect(rows + 2 * runs)
  report.row({
    ...row,
    name: `one backend more beside them`,
    ours: one.ours,
    peer: { name: 'ipvsadm -a', values: one.ipvsadm },
    note: 'one row written, whatever the size of the table',
  })
  await sh('ipvsadm -C')
  await kernel.close()
}

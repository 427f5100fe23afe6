// SPDX-License-Identifier: Apache-2.0
// A container's endpoint as the planner wants it, put into the kernel by the agent's way and by the commands that do the
// same. Both are looked at afterwards: every object of the plan is there, whoever made it.
import { silentLog } from '../../src/base/log.ts'
import type { Kernel, Operation } from '../../src/kernel/kernel.ts'
import { openLinuxKernel } from '../../src/kernel/linux.ts'
import { format, type KernelObject, keyOf, sameObject } from '../../src/kernel/objects.ts'
import { gatewayNs, switchNs } from '../../src/plan/names.ts'
import { allUnits } from '../../src/plan/unit.ts'
import { inOrder } from '../../src/reconcile/order.ts'
import { plan } from '../../src/reconcile/plan.ts'
import { wantedObjects } from '../../src/reconcile/wanted.ts'
import { testCluster, testHost } from '../../test/overlay/cluster.ts'
import { interleave, timed } from '../frame/interleave.ts'
import { underlay } from '../frame/own-host.ts'
import type { Options, Report } from '../frame/section.ts'
import { fileOf, quote, timedScript } from '../frame/tool.ts'
import { type Command, commandsOf } from './commands.ts'

const network = 'n1'

export const measureEndpoint = async ({ runs, quick }: Options, report: Report): Promise<void> => {
  const perRun = quick ? 2 : 20
  const snapshot = testCluster()
  snapshot.putNode({ name: 'a', vtep: underlay })
  snapshot.putNetwork({ id: network })
  const { vni } = snapshot.networks.get(network)!.record
  const inputs = { snapshot, host: testHost(new Map([[network, { slot: 0 }]])) }
  const kernel = openLinuxKernel(silentLog)

  const wanted = wantedObjects()
  for (const unit of allUnits(snapshot, inputs.host)) wanted.update(JSON.stringify(unit), plan(unit, inputs))
  await apply(
    kernel,
    [...wanted.keys()].map(key => ({ kind: 'add', object: wanted.get(key)! })),
  )

  const endpoints = Array.from({ length: perRun }, (_, i): readonly KernelObject[] => {
    const id = String(i).padStart(10, '0').padEnd(12, 'e')
    snapshot.putEndpoint({ id, network, node: 'a' })
    const objects = plan({ kind: 'endpoint', network, endpoint: id }, inputs).wanted.map(({ object }) => object)
    return inOrder(objects.map(object => ({ kind: 'add', object }))).map(({ object }) => object)
  })
  const places = [switchNs(vni), gatewayNs(vni)]
  /** Sees that everything is there, and takes it away. */
  const checked = (make: () => Promise<number>) => async (): Promise<number> => {
    const ms = await make()
    const found = new Map<string, KernelObject>()
    for (const ns of places) for (const object of await kernel.observe(ns)) found.set(keyOf(object), object)
    for (const object of endpoints.flat()) {
      const there = found.get(keyOf(object))
      if (!there || !sameObject(object, there))
        throw new Error(`wanted ${format(object)}, found ${there ? format(there) : 'nothing'}`)
    }
    await apply(
      kernel,
      endpoints.flat().map(object => ({ kind: 'remove', object })),
    )
    return ms / perRun
  }
  const script = (lines: (commands: readonly Command[]) => readonly string[]) => {
    const path = fileOf(endpoints.flatMap(objects => lines(objects.flatMap(commandsOf))))
    return checked(() => timedScript(path))
  }
  const values = await interleave(runs, {
    ours: checked(() =>
      timed(async () => {
        for (const objects of endpoints)
          await apply(
            kernel,
            objects.map(object => ({ kind: 'add', object })),
          )
      }),
    ),
    batches: script(batches),
    singles: script(commands => commands.map(single)),
  })
  const objects = endpoints[0]!
  const commands = objects.flatMap(commandsOf)
  const row = {
    section: 'netlink',
    name: `one endpoint's plumbing, ${objects.length} kernel objects`,
    unit: 'ms',
    better: 'less',
    ours: values.ours,
  } as const
  report.row({
    ...row,
    peer: { name: `${commands.length} ip, bridge and nft commands`, values: values.singles },
    goal: { kind: 'ratio', atLeast: 5 },
  })
  report.row({ ...row, peer: { name: `as ${batches(commands).length} batches`, values: values.batches } })
  await kernel.close()
}

const apply = async (kernel: Kernel, operations: readonly Operation[]): Promise<void> => {
  for (const { error } of await kernel.apply(inOrder(operations))) if (error) throw error
}

/** In its namespace, as a process of its own. */
const started = ({ tool, ns }: Command, words: string): string => {
  if (tool === 'nft') return ns === '' ? `nft ${words}` : `nsenter --net=/run/netns/${ns} nft ${words}`
  return ns === '' ? `${tool} ${words}` : `${tool} -n ${ns} ${words}`
}

const single = (command: Command): string =>
  started(command, command.tool === 'nft' ? quote(command.words) : command.words)

/** Neighbouring commands of one tool and namespace by one process. */
const batches = (commands: readonly Command[]): readonly string[] => {
  const groups: Command[][] = []
  for (const command of commands) {
    const last = groups.at(-1)?.[0]
    if (last && last.tool === command.tool && last.ns === command.ns) groups.at(-1)!.push(command)
    else groups.push([command])
  }
  return groups.map(group => {
    const path = quote(fileOf(group.map(({ words }) => words)))
    return started(group[0]!, group[0]!.tool === 'nft' ? `-f ${path}` : `-batch ${path}`)
  })
}

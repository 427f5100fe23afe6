// SPDX-License-Identifier: Apache-2.0
// The double of the kernel for tests: keeps objects, and refuses what the real one refuses: a device that is not
// there, a namespace that is gone, a nexthop or set nobody made. Others' doings are played with `meddle`.
import { WeftError } from '../base/errors.ts'
import type { Kernel, KernelEvent, Operation, OperationResult } from './kernel.ts'
import {
  format,
  type IpvsDestinationObject,
  type IpvsServiceObject,
  type KernelObject,
  keyOf,
  type Ns,
  nsOf,
  type ObjectKey,
  tagged,
} from './objects.ts'

export interface MemoryKernel extends Kernel {
  readonly objects: ReadonlyMap<ObjectKey, KernelObject>
  /** Operations applied so far. */
  readonly writes: number
  /** Somebody else removes or puts something; followed as the real kernel's notifications are. */
  meddle(key: ObjectKey, object: KernelObject | undefined): void
  /** The next operations fail while this says so. */
  failWhen(test: ((operation: Operation) => boolean | WeftError) | undefined): void
}

const serviceOf = ({ ns, service }: IpvsDestinationObject): IpvsServiceObject => ({
  kind: 'ipvs-service',
  ns,
  scheduler: '',
  ...service,
})

export const openMemoryKernel = (): MemoryKernel => {
  const objects = new Map<ObjectKey, KernelObject>()
  let tell: (event: KernelEvent) => void = () => {}
  let fails: ((operation: Operation) => boolean | WeftError) | undefined
  let writes = 0

  const there = (key: ObjectKey): boolean => objects.has(key)
  const needs = (o: KernelObject): ObjectKey[] => {
    const ns = nsOf(o)
    const needed: ObjectKey[] = ns === '' || o.kind === 'netns' ? [] : [`netns ${ns}`]
    const device = (dev: string): void => {
      // far ends of veths are no objects of their own
      if (!dev.startsWith('gw0') && !dev.startsWith('up0') && ns !== '') needed.push(`link ${ns} ${dev}`)
    }
    if ('dev' in o) device(o.dev)
    if ('master' in o && o.master !== undefined) device(o.master)
    if (o.kind === 'veth' && o.peer.ns !== '') needed.push(`netns ${o.peer.ns}`)
    if (o.kind === 'fdb-remote') needed.push(`nexthop ${o.nexthop}`)
    if (o.kind === 'nexthop' && 'group' in o.to) needed.push(`nexthop ${o.to.group}`)
    if (o.kind === 'nft-set' || o.kind === 'nft-timeout' || o.kind === 'nft-chain')
      needed.push(`nft ${ns} ${o.family} ${o.table}`)
    if (o.kind === 'nft-chain') {
      if (o.hook?.device !== undefined) device(o.hook.device)
      for (const rule of o.rules) {
        for (const [, set] of rule.matchAll(/@([a-z_]+\w*)/g))
          if (set !== 'th') needed.push(`nft ${ns} ${o.family} ${o.table} set ${set}`)
        for (const [, name] of rule.matchAll(/ct timeout set "(\w+)"/g))
          needed.push(`nft ${ns} ${o.family} ${o.table} timeout ${name}`)
        for (const [, chain] of rule.matchAll(/(?:goto|jump) (\w+)/g))
          needed.push(`nft ${ns} ${o.family} ${o.table} chain ${chain}`)
      }
    }
    if (o.kind === 'nft-element') needed.push(keyOf(o.set))
    if (o.kind === 'ipvs-destination') needed.push(keyOf(serviceOf(o)))
    return needed
  }
  /** What goes with it: contents of a namespace, everything on a device, contents of a table. */
  const hangsOn = (gone: KernelObject, o: KernelObject): boolean => {
    if (gone.kind === 'netns') return nsOf(o) === gone.ns || (o.kind === 'veth' && o.peer.ns === gone.ns)
    if (gone.kind === 'bridge' || gone.kind === 'vxlan' || gone.kind === 'veth')
      return nsOf(o) === gone.ns && 'dev' in o && o.dev === gone.name
    if (gone.kind === 'ipvs-service') return o.kind === 'ipvs-destination' && keyOf(serviceOf(o)) === keyOf(gone)
    if (gone.kind === 'nft-table') return keyOf(o).startsWith(`${keyOf(gone)} `)
    return false
  }
  const remove = (object: KernelObject): void => {
    objects.delete(keyOf(object))
    for (const [key, other] of objects) if (hangsOn(object, other)) objects.delete(key)
  }

  const run = (operation: Operation): void => {
    const why = fails?.(operation)
    if (why) throw why === true ? new WeftError('KERNEL', `${format(operation.object)}: EBUSY`) : why
    const { kind, object } = operation
    if (kind === 'remove') return remove(object)
    if (kind === 'add' && there(keyOf(object)) && 'peer' in object)
      throw new WeftError('KERNEL', `${format(object)}: EEXIST`)
    for (const key of needs(object)) if (!there(key)) throw new WeftError('KERNEL', `${format(object)}: ENOENT, ${key}`)
    objects.set(keyOf(object), object)
  }

  return {
    objects,
    get writes() {
      return writes
    },
    async namespaces() {
      return ['', ...[...objects.values()].flatMap(object => (object.kind === 'netns' ? [object.ns] : []))]
    },
    async observe(ns: Ns) {
      return [...objects.values()].filter(object => nsOf(object) === ns).map(tagged)
    },
    async apply(operations): Promise<OperationResult[]> {
      return operations.map(operation => {
        writes++
        try {
          run(operation)
          return { operation }
        } catch (error) {
          return { operation, error: error as Error }
        }
      })
    },
    forgetFlows: async () => 0,
    counters: async () => [],
    follow(listener) {
      tell = listener
    },
    meddle(key, object) {
      const before = objects.get(key)
      if (before) remove(before)
      if (object) objects.set(key, object)
      const ns = object ? nsOf(object) : before ? nsOf(before) : ''
      const whole = before !== undefined && !object && ('mtu' in before || before.kind === 'nft-table')
      tell(whole ? { kind: 'lost', ns } : { kind: 'changed', observations: [{ key, object }] })
    },
    failWhen(test) {
      fails = test
    },
    async close() {
      tell = () => {}
    },
  }
}

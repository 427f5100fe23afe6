// SPDX-License-Identifier: Apache-2.0
// Makes the kernel match: units whose records changed are planned again, the difference to what the kernel says goes to
// the kernel. One pass at a time; a failure is kept, reported and tried again with backoff; nothing is forgotten.
import { backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import type { Closeable } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { type Metrics, noMetrics } from '../base/metrics.ts'
import type { Converger } from '../control/converger.ts'
import type { Kernel, KernelEvent, Operation } from '../kernel/kernel.ts'
import {
  format,
  isSetting,
  isSettingOf,
  type KernelObject,
  keyOf,
  type Ns,
  nsOf,
  nsOfKey,
  type ObjectKey,
  sameObject,
} from '../kernel/objects.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Host } from '../plan/host.ts'
import { type Unit, type UnitKey, unitKey, unitsOfEndpoint } from '../plan/unit.ts'
import type { ChangedKey, Mirror } from '../store/mirror.ts'
import { openDirtyUnits } from './dirty-units.ts'
import { type Failure, failureOf } from './failure.ts'
import { objectTable } from './object-table.ts'
import { inOrder, withoutOrphans } from './order.ts'
import { plan } from './plan.ts'
import type { BreakOff, ReconcilerStatus } from './status.ts'
import { openSuspicion } from './suspicion.ts'
import { wantedObjects } from './wanted.ts'

export interface ReconcilerParts {
  readonly mirror: Mirror
  readonly kernel: Kernel
  /** Facts of this host, read anew at every plan. */
  readonly host: () => Host
  readonly clock: Clock
  readonly log: Log
  readonly metrics?: Metrics
  /**
   * Called after each pass with the units that were planned since they were last told, and reached. What cannot be made
   * for one holds up no other; only the first time all are told, as who listens needs to know everything.
   */
  readonly reached?: (units: Iterable<Unit>) => void
}

export interface Reconciler extends Converger, Closeable {
  /** Observes the kernel, plans everything, resolves after the first pass. */
  start(): Promise<void>
  status(): ReconcilerStatus
  /** The kernel has the wanted object of this key. */
  has(key: ObjectKey): boolean
  /** Facts of this host that a unit is planned from have changed. */
  touch(units: Iterable<Unit>): void
  /** A network is shown by this engine from now on, or no longer. */
  networkChanged(network: NetworkId): void
  /** Full pass from a new observation, as in the background audit. */
  audit(): Promise<void>
  close(): Promise<void>
}

const isSame = (a: KernelObject | undefined, b: KernelObject | undefined): boolean =>
  a && b ? sameObject(a, b) : a === b

const auditEveryMs = 5 * 60_000

export const openReconciler = ({
  mirror,
  kernel,
  host,
  clock,
  log,
  metrics = noMetrics,
  reached: onReached,
}: ReconcilerParts): Reconciler => {
  const wanted = wantedObjects()
  const observed = objectTable<KernelObject>()
  const planned = new Map<UnitKey, Unit>()
  const dirty = openDirtyUnits(mirror.snapshot, host, planned)
  const untold = new Map<UnitKey, { readonly unit: Unit; readonly touched: Set<ObjectKey> }>()
  let told = false
  const dirtyKeys = new Set<ObjectKey>()
  const replanned = new Set<ObjectKey>() // since the last whole pass
  const dirtyNs = new Set<Ns>()
  const failing = new Map<ObjectKey, Failure>()
  const permits = new Set<ObjectKey>() // ports that a driver call wants made
  const lost = new Set<ObjectKey>()
  let heard: Set<ObjectKey> | undefined // of which the kernel said something while we looked or wrote
  const repairs: Record<string, number> = {}
  const waiters = new Set<{ check: () => boolean; resolve: () => void; giveUp: () => void }>()
  const retry = backoff(50, 2000)
  const planSeconds = metrics.timings('weft_reconciler_plan_seconds', 'Planning of changed units, once per pass.')
  const applySeconds = metrics.timings('weft_reconciler_apply_seconds', 'Writing to the kernel, of passes that do.')
  let passes = 0
  let operations = 0
  let lastPassMs = 0
  let reached = 0n
  let running: Promise<void> | undefined
  let again = false
  let started = false
  let closed = false
  let retryTimer: Timer | undefined
  let auditTimer: Timer | undefined
  let brokenOff: BreakOff | undefined

  const onStore = (changed: readonly ChangedKey[] | 'all'): void => {
    if (changed === 'all') dirty.all()
    else if (changed.every(([table]) => table === 'presence'))
      return // each tells what it has reached
    else dirty.changed(changed)
    schedule()
  }

  const suspicion = openSuspicion(clock, (keys, namespaces) => {
    for (const key of keys) {
      if (carries(wanted.get(key))) dirtyNs.add(nsOfKey(key))
      else dirtyKeys.add(key)
    }
    for (const ns of namespaces) dirtyNs.add(ns)
    schedule()
  })

  const onKernel = (event: KernelEvent): void => {
    if (event.kind === 'lost') suspicion.sayOf(event.ns)
    else if (event.kind === 'device') {
      const { ns, name } = event
      if (wanted.keys(ns).some(key => isSettingOf(key, name))) suspicion.sayOf(ns)
    } else
      for (const { key, object } of event.observations) {
        const desired = wanted.get(key)
        if (!desired && object && isSetting(object)) continue // the namespace has many
        if (object) observed.set(key, object)
        else observed.delete(key)
        // the rows that led to it went without a word
        if (desired?.kind === 'nexthop' && !object) for (const ns of observed.namespaces()) suspicion.sayOf(ns)
        heard?.add(key)
        suspicion.say(key, !isSame(desired, object))
      }
  }

  const replan = (): void => {
    const inputs = { snapshot: mirror.snapshot, host: host() }
    for (const [key, unit] of dirty.units) {
      const result = plan(unit, inputs)
      if (result.wanted.length > 0) planned.set(key, unit)
      else planned.delete(key)
      const fresh = wanted.update(key, result)
      for (const touched of fresh) {
        dirtyKeys.add(touched)
        replanned.add(touched)
      }
      for (const before of untold.get(key)?.touched ?? []) fresh.add(before)
      untold.set(key, { unit, touched: fresh })
    }
    dirty.clear()
  }

  /** Looks at a namespace anew; what differs from before becomes dirty. */
  const observe = async (ns: Ns): Promise<void> => {
    const hints: KernelObject[] = []
    for (const key of wanted.keys(ns)) {
      const object = wanted.get(key)
      if (object && isSetting(object)) hints.push(object)
    }
    heard = new Set()
    const found = new Map((await kernel.observe(ns, hints)).map(object => [keyOf(object), object]))
    // told while we looked: the look may be of before
    for (const key of heard) if (nsOfKey(key) === ns && !isSame(observed.get(key), found.get(key))) suspicion.doubt(key)
    heard = undefined
    for (const key of observed.keys(ns))
      if (!found.has(key)) {
        observed.delete(key)
        dirtyKeys.add(key)
      }
    for (const [key, object] of found) {
      observed.set(key, object)
      dirtyKeys.add(key)
    }
    for (const key of wanted.keys(ns)) if (!found.has(key)) dirtyKeys.add(key)
  }

  const difference = (): Operation[] => {
    const todo: Operation[] = []
    const gone = (ns: Ns): boolean => ns !== '' && !wanted.get(`netns ${ns}`)
    for (const key of dirtyKeys) {
      const desired = wanted.get(key)
      const actual = observed.get(key)
      failing.delete(key)
      lost.delete(key)
      if (desired && !actual) {
        if (desired.kind === 'veth' && desired.port && !permits.has(key)) lost.add(key)
        else todo.push({ kind: 'add', object: desired })
      } else if (desired && actual && !sameObject(desired, actual)) {
        todo.push({ kind: 'replace', object: desired, old: actual })
      } else if (desired && actual) {
        observed.adopt(key, desired)
      } else if (!desired && actual) {
        // what is inside a namespace goes with it; a setting stays as it is, and may go with its link
        if (!isSetting(actual) && (actual.kind === 'netns' || !gone(nsOf(actual))))
          todo.push({ kind: 'remove', object: actual })
        else observed.delete(key)
      }
    }
    dirtyKeys.clear()
    return withoutOrphans(todo, lost)
  }

  const count = (todo: readonly Operation[]): void => {
    for (const operation of todo) {
      const { kind, object } = operation
      repairs[object.kind] = (repairs[object.kind] ?? 0) + 1
      const was = operation.kind === 'replace' ? { was: format(operation.old) } : {}
      log.warn({ repair: kind, object: format(object), ...was }, 'somebody changed an object of ours')
    }
  }

  const tellReached = (): void => {
    const isFailing = (key: ObjectKey): boolean => failing.has(key)
    const units: Unit[] = []
    for (const [key, { unit, touched }] of untold) {
      const waits = failing.size > 0 && ([...touched].some(isFailing) || wanted.keysOf(key).some(isFailing))
      if (!waits || !told) units.push(unit)
      if (!waits) untold.delete(key)
    }
    told = true
    if (units.length > 0) onReached?.(units)
  }

  const pass = async (): Promise<void> => {
    const from = clock.monotonic()
    const revision = mirror.snapshot.revision
    replan()
    planSeconds.observe({}, (clock.monotonic() - from) / 1000)
    for (const ns of [...dirtyNs]) {
      dirtyNs.delete(ns) // before: what changes meanwhile is to be seen too
      await observe(ns).catch(error => {
        dirtyNs.add(ns)
        throw error
      })
    }
    const failedBefore = new Map(failing)
    const todo = inOrder(difference())
    // neither a new plan nor a second attempt: others' doing
    if (started) count(todo.filter(({ object }) => !replanned.has(keyOf(object)) && !failedBefore.has(keyOf(object))))
    for (const { kind, object } of todo) log.debug({ kind, object: format(object) }, 'operation')
    const applyFrom = clock.monotonic()
    heard = new Set()
    const results =
      todo.length === 0
        ? []
        : await kernel.apply(todo).catch(error => {
            for (const { object } of todo) dirtyKeys.add(keyOf(object))
            throw error
          })
    if (todo.length > 0) applySeconds.observe({}, (clock.monotonic() - applyFrom) / 1000)
    let failed = 0
    for (const { operation, error } of results) {
      const key = keyOf(operation.object)
      if (error) {
        failed++
        const since = failedBefore.get(key)?.since ?? new Date(clock.now()).toISOString()
        failing.set(key, failureOf(error, since))
        dirtyKeys.add(key)
        // a device refuses addresses by a setting, and of most settings nobody tells
        if (operation.object.kind === 'address' && !failedBefore.has(key)) dirtyNs.add(nsOf(operation.object))
      } else {
        failing.delete(key)
        const now = operation.kind === 'remove' ? undefined : operation.object
        if (heard?.has(key) && !isSame(now, observed.get(key))) suspicion.doubt(key)
        if (now) observed.set(key, now)
        else observed.delete(key)
        if (operation.kind === 'add') permits.delete(key)
      }
    }
    heard = undefined
    replanned.clear()
    brokenOff = undefined
    passes++
    operations += results.length
    lastPassMs = clock.monotonic() - from
    if (results.length > 0)
      log.info(
        {
          operations: results.length,
          failed,
          ms: Math.round(lastPassMs),
          ...(failed > 0 ? { first: failing.values().next().value?.error } : {}),
        },
        'pass',
      )
    if (failed > 0) {
      retryTimer?.cancel()
      retryTimer = clock.after(retry.next(), schedule)
    } else {
      retry.reset()
      reached = revision
    }
    tellReached()
    for (const waiter of waiters) {
      if (waiter.check()) waiter.resolve()
      else waiter.giveUp()
    }
  }

  const loop = async (): Promise<void> => {
    do {
      again = false
      await pass()
    } while (again && !closed)
  }

  function schedule(): void {
    if (!started || closed) return
    if (running) {
      again = true
      return
    }
    running = new Promise<void>(resolve => setImmediate(resolve))
      .then(loop)
      .catch(error => {
        log.error({ err: error }, 'pass broke off')
        brokenOff = { error: describe(error), since: brokenOff?.since ?? new Date(clock.now()).toISOString() }
        retryTimer?.cancel()
        retryTimer = clock.after(retry.next(), schedule)
      })
      .finally(() => {
        running = undefined
        if (again) schedule()
      })
  }

  const missing = (unit: UnitKey): KernelObject[] => {
    const absent: KernelObject[] = []
    for (const key of wanted.keysOf(unit)) {
      const desired = wanted.get(key)
      const actual = observed.get(key)
      if (desired && !(actual && sameObject(desired, actual))) absent.push(desired)
    }
    return absent
  }

  const until = (unit: Unit, signal: AbortSignal, what: string): Promise<void> => {
    const key = unitKey(unit)
    dirty.mark([unit])
    schedule()
    // a port may lead nowhere from here: another service has it; a service may have no virtual address yet
    const optional = unit.kind === 'port' || unit.kind === 'vip'
    const check = (): boolean => !dirty.units.has(key) && (planned.has(key) || optional) && missing(key).length === 0
    return new Promise((resolve, reject) => {
      const waiter = {
        check,
        resolve: () => {
          waiters.delete(waiter)
          signal.removeEventListener('abort', onAbort)
          resolve()
        },
        giveUp: () => {
          if (failing.size === 0) return
          const final = missing(key).flatMap(object => failing.get(keyOf(object))?.final ?? [])[0]
          if (final) refuse(final)
        },
      }
      const refuse = (why: Error): void => {
        waiters.delete(waiter)
        signal.removeEventListener('abort', onAbort)
        reject(why)
      }
      const onAbort = (): void => {
        const first = missing(key)[0]
        const error = (first && failing.get(keyOf(first))?.error) ?? brokenOff?.error
        const why = first
          ? `${format(first)} is missing${error === undefined ? '' : `: ${error}`}`
          : 'its record has not arrived here'
        refuse(new WeftError('NOT_REACHED', `${what} is not in the kernel yet: ${why}`))
      }
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      waiters.add(waiter)
    })
  }

  const scheduleAudit = (): void => {
    auditTimer = clock.after(auditEveryMs * (0.9 + Math.random() / 5), () => {
      void reconciler
        .audit()
        .catch(error => log.error({ err: error }, 'audit failed'))
        .finally(() => closed || scheduleAudit())
    })
  }

  const reconciler: Reconciler = {
    async start() {
      await mirror.ready()
      mirror.subscribe(onStore)
      dirty.all()
      replan()
      kernel.follow(onKernel)
      for (const ns of await kernel.namespaces()) await observe(ns)
      await pass()
      started = true
      scheduleAudit()
      schedule()
    },
    async audit() {
      for (const ns of [...(await kernel.namespaces()), ...observed.namespaces()]) dirtyNs.add(ns)
      dirty.all()
      schedule()
      await running
    },
    async attach(network, endpoint, signal) {
      const unit: Unit = { kind: 'endpoint', network, endpoint }
      // the plan names the port; permit it before the pass that may make it
      for (const { object } of plan(unit, { snapshot: mirror.snapshot, host: host() }).wanted)
        if (object.kind === 'veth' && object.port) {
          const key = keyOf(object)
          if (!observed.has(key)) permits.add(key)
          dirtyKeys.add(key)
          lost.delete(key)
        }
      await until(unit, signal, `endpoint ${endpoint.slice(0, 12)}`)
    },
    async endpointReached(network, endpoint, signal) {
      const [own, ...ports] = unitsOfEndpoint(network, endpoint, mirror.snapshot)
      await until(own, signal, `endpoint ${endpoint.slice(0, 12)}`)
      for (const unit of ports) await until(unit, signal, unitKey(unit))
    },
    networkReached: (network, signal) => until({ kind: 'network', network }, signal, `network ${network}`),
    has: key => wanted.get(key) !== undefined && observed.has(key),
    touch(units) {
      dirty.mark(units)
      schedule()
    },
    networkChanged(network) {
      dirty.network(network)
      schedule()
    },
    hostChanged() {
      dirty.all()
      schedule()
    },
    status: () => ({
      passes,
      operations,
      repairs: { ...repairs },
      failing: [...failing].map(([key, failure]) => {
        const object = wanted.get(key) ?? observed.get(key)
        return { object: object ? format(object) : key, ...failure }
      }),
      ...(brokenOff ? { brokenOff } : {}),
      lost: [...lost].map(key => key.slice('link '.length)),
      wanted: wanted.size,
      observed: observed.size,
      lastPassMs,
      reached: String(reached),
    }),
    async close() {
      closed = true
      retryTimer?.cancel()
      auditTimer?.cancel()
      suspicion.close()
      await running
    },
  }
  return reconciler
}

/** To make it anew takes along what it carries. So one looks first: what was told of it may be of before we made it. */
const carries = (object: KernelObject | undefined): boolean =>
  object?.kind === 'bridge' || object?.kind === 'vxlan' || (object?.kind === 'veth' && !object.port)

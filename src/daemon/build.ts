// SPDX-License-Identifier: Apache-2.0
// Which implementation stands behind each contract, and in which order they start. The plugin socket opens before the
// store is reached, so that dockerd never waits for us longer than a handler's deadline.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { apiHandlers } from '../api/handlers.ts'
import { openApiServer } from '../api/server.ts'
import { type Clock, sleep, systemClock } from '../base/clock.ts'
import { codeOf, describe, WeftError } from '../base/errors.ts'
import { readState, writeDurably } from '../base/file.ts'
import { type Lifecycle, openLifecycle } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { version } from '../base/version.ts'
import { openAddresses } from '../control/addresses.ts'
import { type Bindings, openBindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import { checkCopy } from '../control/copy.ts'
import { openDepartures } from '../control/departures.ts'
import { openEndpoints } from '../control/endpoints.ts'
import { openNetworks } from '../control/networks.ts'
import { type NodeFacts, type Nodes, openNodes } from '../control/nodes.ts'
import { openPools } from '../control/pools.ts'
import { openSilence } from '../control/silence.ts'
import { openSweeper } from '../control/sweeper.ts'
import { openDirectory, throughHost } from '../dns/directory.ts'
import { openResolver } from '../dns/resolver.ts'
import { type DnsServer, type NamespaceSockets, openDnsServer } from '../dns/server.ts'
import { openEngine } from '../docker/engine.ts'
import { openIdentity } from '../docker/identity.ts'
import { ipamDriver } from '../docker/ipam-driver.ts'
import { networkDriver } from '../docker/network-driver.ts'
import { openReplicas } from '../docker/replicas.ts'
import { openSandboxes } from '../docker/sandboxes.ts'
import { openPluginServer } from '../docker/server.ts'
import { openStarts } from '../docker/starts.ts'
import { openWorkloads, type Workloads } from '../docker/workloads.ts'
import { acceptsConnection } from '../health/accepts.ts'
import { openReadiness } from '../health/readiness.ts'
import { bootId, type HostFacts, probeKernel, readHostFacts } from '../kernel/host-facts.ts'
import { openLinuxKernel } from '../kernel/linux.ts'
import { pathOf } from '../kernel/namespaces.ts'
import { openFlows } from '../mesh/flows.ts'
import { openPortHolder } from '../mesh/holder.ts'
import { portsHere } from '../mesh/plan.ts'
import { familyOf } from '../model/address.ts'
import { type EndpointId, type NetworkId, newId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { netnsInode, netnsSocket } from '../netlink/netns.ts'
import type { Host } from '../plan/host.ts'
import { slots } from '../plan/links.ts'
import { containerEnd, gatewayLink, gatewayNs, resolverLink } from '../plan/names.ts'
import { unitsOfEndpoint } from '../plan/unit.ts'
import { openReconciler } from '../reconcile/reconciler.ts'
import { keys } from '../store/keys.ts'
import { openMirror } from '../store/mirror.ts'
import type { Config } from './config.ts'
import { lockDataDir } from './lock.ts'
import { loadModules } from './modules.ts'
import { openStore } from './open-store.ts'
import { dialSocket, holdSocket } from './sockets.ts'

/** Kept on disk beside the store: who this host is. */
interface Identity {
  readonly instance: string
  /** Did the host forward IPv6 before weft switched it on, in this boot? */
  readonly boot: string
  readonly closed6: boolean
}

export const startDaemon = async (config: Config, log: Log): Promise<Lifecycle> => {
  const clock = systemClock
  const parts = openLifecycle(log)
  try {
    await assemble(config, log, clock, parts)
    return parts
  } catch (error) {
    await parts.close()
    throw error
  }
}

const assemble = async (config: Config, log: Log, clock: Clock, parts: Lifecycle): Promise<void> => {
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 })
  parts.add('lock', await lockDataDir(config.dataDir))
  await loadModules(log)
  await probeKernel()
  const choice = {
    ...(config.vtep === undefined ? {} : { vtep: config.vtep }),
    ...(config.underlayDev === undefined ? {} : { dev: config.underlayDev }),
  }
  let facts = await readHostFacts(choice)
  const boot = await bootId()
  const identity = await readIdentity(join(config.dataDir, 'identity.json'), boot, facts)

  const store = parts.add('store', await openStore(config, log, clock))
  const mirror = parts.add('mirror', openMirror(store, log, config.node))
  const kernel = parts.add('kernel', openLinuxKernel(log))
  const context: Context = { store, mirror, node: config.node, boot, clock, log }

  let onBound = (): void => {}
  const bindings: Bindings = await openBindings(join(config.dataDir, 'bindings.json'), slots, network => {
    reconciler.networkChanged(network)
    onBound()
  })
  const departures = parts.add(
    'departures',
    await openDepartures(join(config.dataDir, 'departures.json'), clock, log, departed =>
      reconciler.touch(departed.flatMap(([endpoint, network]) => unitsOfEndpoint(network, endpoint, mirror.snapshot))),
    ),
  )
  const holder = parts.add(
    'holder',
    openPortHolder({
      bind: holdSocket,
      clock,
      log,
      changed: ({ proto, port }) => reconciler.touch([{ kind: 'port', proto, port }]),
    }),
  )
  const host = (): Host => ({
    node: config.node,
    underlay: facts.underlay,
    bound: bindings.bound,
    departed: endpoint => departures.has(endpoint),
    holds: (proto, port, address) => holder.holds(proto, port, address),
    closed4: !facts.forwards4,
    closed6: identity.closed6,
    acceptsRa: facts.acceptsRa,
    resolver: config.resolver,
    dockerUser: facts.dockerUser,
  })
  const reconciler = parts.add(
    'reconciler',
    openReconciler({ mirror, kernel, host, clock, log, reached: () => flows.look() }),
  )
  const flows = openFlows({
    snapshot: mirror.snapshot,
    host,
    forget: (ns, which) => kernel.forgetFlows(ns, which),
    log,
  })
  const pools = openPools(context)
  const addresses = openAddresses(context, bindings, pools)
  const networks = openNetworks(context, bindings, pools)
  const endpoints = openEndpoints(context, bindings, addresses, departures, mapping => holder.hold(mapping))
  const nodes = parts.add('nodes', openNodes(context))
  const engine = openEngine(config.docker, text => plugin.lastErrors.findLast(({ error }) => error === text)?.code)
  const identityOf = openIdentity(engine)
  const starts = openStarts(engine, identityOf, clock)
  const replicas = parts.add('replicas', openReplicas(context, engine, bindings, networks))

  const nodeFacts = (): NodeFacts => ({
    instance: identity.instance,
    vtep: facts.underlay.address,
    mtu: facts.underlay.mtu,
    routes: facts.routes,
    version,
  })
  /** The host has changed: routes, Docker's chains. Read again, tell the cluster and the planners. */
  const refresh = async (): Promise<void> => {
    const before = JSON.stringify(facts)
    facts = await readHostFacts(choice)
    if (JSON.stringify(facts) === before) return
    reconciler.hostChanged()
    if (mirror.status.available) await nodes.update(nodeFacts(), AbortSignal.timeout(5000))
  }

  const dnsSockets: NamespaceSockets = {
    open: (ns, type, address, port) => netnsSocket(pathOf(ns), { type, address, port, reuseAddr: true }),
    async identity(ns) {
      // a socket bound before its address is there would answer from another: the kernel leaves the source open
      const address = `address ${ns} ${ns === '' ? resolverLink : gatewayLink} ${config.resolver}/32`
      if (!reconciler.has(address)) throw new WeftError('NOT_REACHED', `${address} is not there yet`)
      return netnsInode(pathOf(ns))
    },
  }
  const resolver = openResolver(openDirectory(mirror), () => facts.resolvers)
  const plugin = parts.add(
    'plugin',
    await openPluginServer({
      path: config.pluginSocket,
      clock,
      log,
      handlers: {
        ...networkDriver({
          networks,
          endpoints,
          bindings,
          converger: reconciler,
          sandboxes: await openSandboxes(join(config.dataDir, 'sandboxes.json'), log),
          onDeleted: docker => replicas.deleted(docker),
          onCreated: () => replicas.poke(),
          containerEnd,
          resolver: config.resolver,
          startingService: (docker, ports) => {
            const name = mirror.snapshot.networks.get(bindings.byDocker(docker)?.network ?? '')?.record.name
            return starts.service([docker, ...(name === undefined ? [] : [name])], ports)
          },
        }),
        ...ipamDriver({
          pools,
          addresses,
          replicating: () => replicas.inFlight,
          makeWay: name => replicas.makeWay(name),
          forsake: (pool, signal) => networks.forsake(pool, signal),
        }),
      },
    }),
  )
  log.info({ node: config.node, vtep: facts.underlay.address, version, pid: process.pid }, 'ready')

  let dns: DnsServer | undefined
  let workloads: Workloads | undefined
  parts.add(
    'api',
    await openApiServer(
      config.apiSocket,
      apiHandlers({
        node: config.node,
        version,
        vtep: () => facts.underlay.address,
        snapshot: mirror.snapshot,
        networks,
        nodes,
        bindings,
        reconciler: () => reconciler.status(),
        store: () => mirror.status,
        storeVersion: async () => (await store.identity()).version,
        acceptStore: () => store.accept(),
        copyStore: () => store.copy(),
        async restoreStore(records) {
          checkCopy(records)
          await store.restore(records)
        },
        createNetwork: (request, signal) => replicas.create(request, signal),
        removeNetwork: (id, signal) => replicas.remove(id, signal),
        networkProblems: () => replicas.problems,
        dockerError: () => (workloads ? workloads.engineError : 'not asked yet'),
        lastErrors: () => plugin.lastErrors,
        dnsListening: () => dns?.listening ?? 0,
        dnsProblems: () => dns?.problems ?? new Map(),
        drain: endpoints.drain,
        portProblems: () => holder.refused,
        departures: () => departures.size,
      }),
      log,
    ),
  )
  /** Without a store that can be believed, the state of before is served if it has this node; else joining comes first. */
  const knownHere = async (joined: Promise<void>): Promise<void> => {
    await Promise.race([joined, mirror.ready(stop.signal)])
    const own = mirror.snapshot.nodes.get(config.node)?.record
    if (own?.instance !== identity.instance || own.fenced !== undefined) await joined
  }
  const holdPorts = (): Promise<void> =>
    holder.want(portsHere(mirror.snapshot, { node: config.node, bound: bindings.bound }))
  /** After a boot no container of before lives; whoever still sends to one should stop at once. */
  const buryThePast = async (): Promise<void> => {
    const past: [EndpointId, NetworkId][] = []
    for (const network of mirror.snapshot.networks.keys())
      for (const { record } of mirror.snapshot.endpoints(network).values())
        if (record.node === config.node && record.boot !== boot) past.push([record.id, network])
    await departures.addAll(past)
  }
  const stop = new AbortController()
  parts.add('start', { close: () => stop.abort(new WeftError('CANCELLED', 'weftd is stopping')) })
  const startAll = async (): Promise<void> => {
    const late = Promise.withResolvers<void>()
    const joined = joinCluster(nodes, config, nodeFacts(), log, clock, stop.signal, late.resolve)
    await Promise.race([joined, late.promise.then(() => knownHere(joined))])
    await buryThePast()
    await holdPorts()
    await reconciler.start()
    log.info({ ...reconciler.status() }, 'reconciled')
    joined.then(() => {
      nodes.startPresence(identity.instance, () => BigInt(reconciler.status().reached))
      departures.start((network, endpoint, signal) => endpoints.erase(network, endpoint, signal))
      parts.add('sweeper', openSweeper(context, pools))
      parts.add('silence', openSilence(context, nodes))
    }, fail)
    workloads = parts.add(
      'workloads',
      openWorkloads({
        context,
        engine,
        endpoints,
        departures,
        identity: identityOf,
        starts,
        onNetworks: () => {
          replicas.poke()
          void refresh().catch(error => log.warn({ err: describe(error) }, 'host facts not refreshed'))
        },
      }),
    )
    const readiness = parts.add(
      'readiness',
      openReadiness({
        snapshot: mirror.snapshot,
        node: config.node,
        clock,
        log,
        ready: endpoints.ready,
        accepts: (ns, address, port, signal) => acceptsConnection(() => dialSocket(ns, address), address, port, signal),
      }),
    )
    const allEndpoints = function* (): Generator<readonly [NetworkId, string]> {
      for (const network of mirror.snapshot.networks.keys())
        for (const endpoint of mirror.snapshot.endpoints(network).keys()) yield [network, endpoint]
    }
    readiness.look(allEndpoints())
    replicas.poke()
    dns = parts.add('dns', openDnsServer({ resolver, sockets: dnsSockets, address: config.resolver, clock, log }))
    const serve = (): void => dns?.serve(gatewaysHere(bindings, mirror.snapshot))
    onBound = () => {
      serve()
      void holdPorts()
    }
    mirror.subscribe(changed => {
      readiness.look(
        changed === 'all'
          ? allEndpoints()
          : changed.filter(key => key[0] === 'endpoints').map(key => [key[1]!, key[2]!] as const),
      )
      if (changed === 'all' || changed.some(key => key[0] === 'networks')) serve()
      if (changed === 'all' || changed.some(key => key[0] === 'nodes')) rejoin()
      if (changed === 'all' || changed.some(key => key[0] === 'ports' || key[0] === 'networks')) void holdPorts()
    })
    rejoin()
    serve()
  }
  const fail = (error: unknown): void => {
    if (stop.signal.aborted) return
    log.error({ err: describe(error) }, 'cannot start')
    process.exitCode = 1
    process.kill(process.pid, 'SIGTERM')
  }
  /**
   * Fenced while it was cut off, so that all it held is gone; or its record was overwritten by another of its name, or
   * removed, or cannot be read.
   */
  let rejoining = false
  const rejoin = (): void => {
    const own = mirror.snapshot.nodes.get(config.node)?.record
    const damage = mirror.status.damaged.get(keys.node(config.node))
    const ours = own?.fenced === undefined && own?.instance === identity.instance
    if (rejoining || (ours && damage === undefined)) return
    rejoining = true
    log.warn(
      { node: config.node, fenced: own?.fenced, instance: own?.instance, damage },
      'the record of this node is not ours: joining again',
    )
    joinCluster(nodes, config, nodeFacts(), log, clock, stop.signal)
      .catch(fail)
      .finally(() => {
        rejoining = false
      })
  }
  const starting = startAll().catch(fail)
  parts.add('starting', { close: () => Promise.race([starting, sleep(clock, 1000)]) })
}

/** Where DNS is answered: in H, and in the gateway of every network that this engine shows. */
const gatewaysHere = (bindings: Bindings, { networks }: Snapshot): ReadonlyMap<NetworkId, string> =>
  new Map([
    [throughHost, ''] as const,
    ...[...bindings.bound.keys()].flatMap(id => {
      const network = networks.get(id)?.record
      return network ? [[id, gatewayNs(network.vni)] as const] : []
    }),
  ])

/** The store may come later than we do, or not be believed yet (`late` is called then); a refusal (name or VTEP alive elsewhere) ends the program. */
const joinCluster = async (
  nodes: Nodes,
  config: Config,
  facts: NodeFacts,
  log: Log,
  clock: Clock,
  signal: AbortSignal,
  late: () => void = () => {},
): Promise<void> => {
  const defaults = { pools: config.pools, vxlanPort: config.vxlanPort, underlayFamily: familyOf(facts.vtep) }
  for (let waits = 0; ; waits++) {
    try {
      await nodes.join(facts, defaults, signal)
      return
    } catch (error) {
      const wait = ['STORE_UNAVAILABLE', 'STORE_SUSPECT', 'TIMEOUT'].includes(codeOf(error))
      if (!wait || signal.aborted) throw error
      late()
      if (waits % 10 === 0) log.warn({ err: describe(error) }, 'waiting for the store')
      await sleep(clock, 1000, signal)
    }
  }
}

const readIdentity = async (path: string, boot: string, facts: HostFacts): Promise<Identity> => {
  const known = await readState(
    path,
    'restore it, or remove it and reboot this host: it joins as a new one',
    isIdentity,
  )
  if (known?.boot === boot) return known
  const identity = { instance: known?.instance ?? newId(), boot, closed6: !facts.forwards6 }
  await writeDurably(path, JSON.stringify(identity))
  return identity
}

const isIdentity = (json: unknown): json is Identity => {
  const { instance, boot, closed6 } = Object(json) as Record<keyof Identity, unknown>
  return typeof instance === 'string' && typeof boot === 'string' && typeof closed6 === 'boolean'
}

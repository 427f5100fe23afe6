// SPDX-License-Identifier: Apache-2.0
// Which implementation stands behind each contract, and in which order they start. The plugin socket opens before the
// store is reached, so that dockerd never waits for us longer than a handler's deadline.
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { apiHandlers } from '../api/handlers.ts'
import { openApiServer } from '../api/server.ts'
import { type Clock, sleep, systemClock } from '../base/clock.ts'
import { lockDir } from '../base/dir-lock.ts'
import { codeOf, daemonExitOf, describe, WeftError } from '../base/errors.ts'
import { settleHeap } from '../base/heap.ts'
import { type Lifecycle, openLifecycle } from '../base/lifecycle.ts'
import type { Log } from '../base/log.ts'
import { version } from '../base/version.ts'
import { openAddresses } from '../control/addresses.ts'
import { type Bindings, openBindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import { checkCopy } from '../control/copy.ts'
import { openDepartures } from '../control/departures.ts'
import { openEndpoints } from '../control/endpoints.ts'
import { openHoldings } from '../control/holdings.ts'
import { openNetworks } from '../control/networks.ts'
import { type NodeFacts, openNodes } from '../control/nodes.ts'
import { openPools } from '../control/pools.ts'
import { openReserve } from '../control/reserve.ts'
import { openServices } from '../control/services.ts'
import { openSilence } from '../control/silence.ts'
import { openSpares } from '../control/spares.ts'
import { openSweeper } from '../control/sweeper.ts'
import { openDirectory, throughHost } from '../dns/directory.ts'
import { openForward } from '../dns/forward.ts'
import { openResolver } from '../dns/resolver.ts'
import { type DnsServer, type NamespaceSockets, openDnsServer, type Place } from '../dns/server.ts'
import { openBridges } from '../docker/bridges.ts'
import { openDeserted } from '../docker/deserted.ts'
import { keepsQueries, openEngine } from '../docker/engine.ts'
import { openIdentity } from '../docker/identity.ts'
import { ipamDriver } from '../docker/ipam-driver.ts'
import { networkDriver } from '../docker/network-driver.ts'
import { openReplicas } from '../docker/replicas.ts'
import { openSandboxes } from '../docker/sandboxes.ts'
import { openPluginServer } from '../docker/server.ts'
import { openStarts } from '../docker/starts.ts'
import { openWorkloads, type Workloads } from '../docker/workloads.ts'
import { startPeerThread } from '../health/peer-thread.ts'
import { openPeers } from '../health/peers.ts'
import { openChainWatch } from '../kernel/chain-watch.ts'
import { legacyFilters } from '../kernel/guest-chains.ts'
import { acceptingRa, bootId, type HostFacts, probeKernel, readHostFacts } from '../kernel/host-facts.ts'
import { listening, readSettings } from '../kernel/host-settings.ts'
import { openHostWatch } from '../kernel/host-watch.ts'
import type { BalanceCount } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux.ts'
import { measuredKernel } from '../kernel/measured.ts'
import { pathOf } from '../kernel/namespaces.ts'
import { engines } from '../mesh/engines.ts'
import { openFlows } from '../mesh/flows.ts'
import { openPortHolder } from '../mesh/holder.ts'
import { portsHere } from '../mesh/plan.ts'
import { type Family, linkLocalOf, single } from '../model/address.ts'
import type { EndpointId, NetworkId } from '../model/ids.ts'
import type { Snapshot } from '../model/snapshot.ts'
import { netnsInode, netnsSocket } from '../netlink/netns.ts'
import { resolversOf } from '../overlay/switch-plan.ts'
import type { Host } from '../plan/host.ts'
import { linkMeets, linkProblems, slots } from '../plan/links.ts'
import { nodeMac } from '../plan/macs.ts'
import {
  containerEnd,
  containerPort,
  gatewayLink,
  gatewayNs,
  resolverLink,
  resolverPort,
  switchNs,
} from '../plan/names.ts'
import { unitsOfEndpoint } from '../plan/unit.ts'
import { openReconciler } from '../reconcile/reconciler.ts'
import { keys } from '../store/keys.ts'
import { type ChangedKey, openMirror } from '../store/mirror.ts'
import { awaitHost } from './await-host.ts'
import { chooseBalancer } from './balancer.ts'
import type { Config } from './config.ts'
import { openFloatingHere } from './floating.ts'
import { openForwarding } from './forwarding.ts'
import { type Health, startHealth } from './health.ts'
import { lastVtep, readIdentity } from './identity.ts'
import { joinCluster } from './join.ts'
import { startMetrics } from './metrics.ts'
import { measureMesh } from './metrics-mesh.ts'
import { measureState } from './metrics-state.ts'
import { loadModules } from './modules.ts'
import { openStore } from './open-store.ts'
import { holdSocket } from './sockets.ts'

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
  parts.add('lock', await lockDir(config.dataDir))
  await loadModules(log)
  await probeKernel()
  const balancer = await chooseBalancer(config.balancer)
  const choice = {
    ...(config.vtep === undefined ? {} : { vtep: config.vtep }),
    ...(config.underlayDev === undefined ? {} : { dev: config.underlayDev }),
  }
  const last = await lastVtep(config.dataDir)
  const engine = openEngine(config.docker, text => plugin.lastErrors.findLast(({ error }) => error === text)?.code)
  const bridges = await openBridges(join(config.dataDir, 'bridges.json'), engine, log)
  const first = { ...choice, ...(last === undefined ? {} : { last }), bridges: bridges.names }
  let facts = await awaitHost(() => readHostFacts(first), clock, log)
  const boot = await bootId()
  const found = await readSettings(facts.underlay.dev, facts.advertised)
  const identity = await readIdentity(config.dataDir, boot, found, facts.underlay.address)
  const readAgain = (): Promise<HostFacts> =>
    readHostFacts({ chosen: facts.underlay, listening: listening(identity.before), bridges: bridges.names })
  facts = { ...facts, acceptsRa: await acceptingRa(listening(identity.before)) }
  const onForwarding = (family: Family, on: boolean): void => {
    if (family === 4) facts = { ...facts, forwards4: on }
    reconciler.hostChanged()
  }
  const switching = { dataDir: config.dataDir, identity, dev: facts.underlay.dev, changed: onForwarding, log }
  const forwarding = parts.add('forwarding', openForwarding(switching))
  const metrics = await startMetrics(config.metrics, log, parts)
  const store = parts.add('store', await openStore(config, log, clock, metrics))
  const mirror = parts.add('mirror', openMirror(store, log, config.node))
  const kernel = parts.add('kernel', measuredKernel(openLinuxKernel(log), metrics))
  const context: Context = { store, mirror, node: config.node, boot, clock, log }

  let onBound = (): void => {}
  const bindings: Bindings = await openBindings(
    join(config.dataDir, 'bindings.json'),
    slots,
    network => {
      reconciler.networkChanged(network)
      onBound()
    },
    slot => linkMeets(slot, facts.onLinks) !== undefined,
  )
  const holdings = parts.add('holdings', openHoldings({ mirror, node: config.node }))
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
    balancer,
    silent: (network, node) => peers.silent(network, node),
    dead: (network, node) => peers.dead(network, node),
    closed4: !facts.forwards4,
    closed6: forwarding.closed6,
    acceptsRa: facts.acceptsRa,
    resolvers: config.resolvers,
    guestChains: facts.guestChains,
    dockerBridges: facts.dockerBridges,
    otherBridges: facts.otherBridges,
  })
  const reconciler = parts.add(
    'reconciler',
    openReconciler({ mirror, kernel, host, clock, log, metrics, reached: units => flows.look(units) }),
  )
  const peers = parts.add(
    'peers',
    openPeers({
      snapshot: mirror.snapshot,
      host: () => ({ node: config.node, bound: bindings.bound }),
      addressOf: node => linkLocalOf(nodeMac(node)),
      pathOf: ns => pathOf(ns)!,
      start: startPeerThread,
      changed: leads => reconciler.touch(leads),
      clock,
      log,
    }),
  )
  const flows = openFlows({
    snapshot: mirror.snapshot,
    host,
    forget: (ns, which) => kernel.forgetFlows(ns, which),
    log,
  })
  const pools = openPools(context, () => facts.halves)
  const reserve = await openReserve(join(config.dataDir, 'reserve.json'), clock, mirror)
  const addresses = openAddresses(context, bindings, pools, reserve, departures)
  const networks = openNetworks(context, bindings, pools)
  const endpoints = openEndpoints(context, bindings, addresses, departures, port => holder.hold(port), reserve)
  const nodes = parts.add('nodes', openNodes(context))
  const identityOf = openIdentity(engine, context, holdings)
  const starts = openStarts(engine, identityOf, clock)
  const replicas = parts.add('replicas', openReplicas(context, engine, bindings, networks, departures))

  const nodeFacts = (): NodeFacts => ({
    instance: identity.instance,
    vtep: facts.underlay.address,
    mtu: facts.underlay.mtu,
    routes: facts.routes,
    addresses: facts.addresses,
    ...(bridges.pools ? { dockerPools: bridges.pools } : {}),
    version,
  })
  /** The host has changed, or what the cluster knows of it: facts are read again, planners and cluster told. */
  const refresh = async (): Promise<void> => {
    const before = planned(facts)
    facts = await readAgain()
    if (planned(facts) !== before) reconciler.hostChanged()
    const own = mirror.snapshot.nodes.get(config.node)?.record
    if (!member || !mirror.status.available || own?.instance !== identity.instance || own.fenced !== undefined) return
    const record = { ...own, ...nodeFacts() }
    if (JSON.stringify(record) !== JSON.stringify(own)) await nodes.update(nodeFacts(), AbortSignal.timeout(5000))
  }

  const dnsSockets: NamespaceSockets = {
    open: (ns, type, address, port) => netnsSocket(pathOf(ns), { type, address, port, reuseAddr: true }),
    async identity(ns, address) {
      // a socket bound before its address is there would answer from another: the kernel leaves the source open
      const object = `address ${ns} ${ns === '' ? resolverLink : gatewayLink} ${single(address)}`
      if (!reconciler.has(object)) throw new WeftError('NOT_REACHED', `${object} is not there yet`)
      return netnsInode(pathOf(ns))
    },
  }
  const sandboxes = await openSandboxes(join(config.dataDir, 'sandboxes.json'), log)
  // resolv.conf may name ourselves
  const upstreams = (): string[] => facts.resolvers.filter(address => !config.resolvers.includes(address))
  const resolver = openResolver(openDirectory(mirror, sandboxes.beside, departures.has), openForward(upstreams))
  const plugin = parts.add(
    'plugin',
    await openPluginServer({
      path: config.pluginSocket,
      clock,
      log,
      metrics,
      handlers: {
        ...networkDriver({
          networks,
          endpoints,
          bindings,
          converger: reconciler,
          sandboxes,
          onDeleted: docker => replicas.deleted(docker),
          onCreated: () => replicas.poke(),
          replicating: () => replicas.inFlight,
          containerEnd,
          resolvers: config.resolvers,
          startingService: (docker, ports) => {
            const name = mirror.snapshot.networks.get(bindings.byDocker(docker)?.network ?? '')?.record.name
            return starts.service([docker, ...(name === undefined ? [] : [name])], ports)
          },
        }),
        ...ipamDriver({
          pools,
          addresses,
          makeWay: (pool, name) => replicas.makeWay(pool, name),
          forsake: (pool, signal) => networks.forsake(pool, signal),
        }),
      },
    }),
  )
  log.info({ node: config.node, vtep: facts.underlay.address, balancer, version, pid: process.pid }, 'ready')

  const floating = parts.add('floating', openFloatingHere(context, identity.instance))
  let member = false
  let dns: DnsServer | undefined
  let health: Health | undefined
  let workloads: Workloads | undefined
  const counters = async (network: NetworkId): Promise<readonly BalanceCount[]> => {
    const vni = mirror.snapshot.networks.get(network)?.record.vni
    return vni === undefined ? [] : kernel.counters(gatewayNs(vni))
  }
  measureState(metrics, {
    ...{ balancer, snapshot: mirror.snapshot, reconciler: () => reconciler.status(), store: () => mirror.status },
    ...{ verdicts: () => peers.verdicts, now: () => clock.now(), unpublished: () => reserve.endpoints().length },
  })
  measureMesh(metrics, { snapshot: mirror.snapshot, silent: peers.silent, counters })
  parts.add(
    'api',
    await openApiServer(
      config.apiSocket,
      apiHandlers({
        node: config.node,
        version,
        vtep: () => facts.underlay.address,
        balancer,
        schedulers: engines[balancer].schedulers,
        snapshot: mirror.snapshot,
        networks,
        nodes,
        services: openServices(context, floating.askWire),
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
        removeNetwork: (id, force, signal) => replicas.remove(id, force, signal),
        networkProblems: () => replicas.problems,
        keepsQueries: () => {
          const engineVersion = workloads?.engineVersion
          return engineVersion !== undefined && keepsQueries(engineVersion) ? engineVersion : undefined
        },
        dockerError: () => (workloads ? workloads.engineError : 'not asked yet'),
        lastErrors: () => plugin.lastErrors,
        dnsListening: () => dns?.listening ?? 0,
        dnsProblems: () => dns?.problems ?? new Map(),
        drain: endpoints.drain,
        portProblems: () => holder.refused,
        counters,
        probeFailures: () => health?.failures ?? new Map(),
        silences: () => peers.silences,
        departures: () => departures.size,
        reserve,
        floatingProblems: () => floating.problems(),
        underlayProblem: () => facts.underlay.problem,
        linkProblems: () => linkProblems(bindings.bound, facts.onLinks),
        legacyFilters,
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
    const isPast = ([id, network]: readonly [EndpointId, NetworkId]): boolean =>
      mirror.snapshot.endpoints(network).get(id)?.record.boot !== boot
    const past = [...holdings.endpoints()].filter(isPast)
    await departures.addAll(past)
    // their addresses serve again, also while the store is away
    for (const [id] of past) await reserve.drop(id)
  }
  const stop = new AbortController()
  parts.add('start', { close: () => stop.abort(new WeftError('CANCELLED', 'weftd is stopping')) })
  const startAll = async (): Promise<void> => {
    const late = Promise.withResolvers<void>()
    /** What etcd refuses now has to be seen by who starts us; while we run it may be put right. */
    const onLate = (error: unknown): void => {
      const { cause } = error as Error
      if (codeOf(cause) === 'INVALID') late.reject(cause)
      else late.resolve()
    }
    const joined = joinCluster(nodes, config, nodeFacts, log, clock, stop.signal, onLate)
    await Promise.race([joined, late.promise.then(() => knownHere(joined))])
    floating.start()
    await buryThePast()
    const isDeserted = openDeserted({
      inUse({ id, network }) {
        const vni = mirror.snapshot.networks.get(network)?.record.vni
        if (vni === undefined || reconciler.status().passes === 0) return true // not looked at yet
        // its other end is in the host until Docker takes it, and again after Leave
        const here = existsSync(`/proc/sys/net/ipv4/conf/${containerEnd(id)}`)
        return !here && reconciler.has(`link ${switchNs(vni)} ${containerPort(id)}`)
      },
      joined: id => sandboxes.beside(id).length > 0,
      stopped: starts.stopped,
      isYoung: endpoints.isYoung,
    })
    joined.then(() => departures.start(endpoints.erase, isDeserted)).catch(() => {}) // containers that start ask for what they had
    peers.look('all')
    await Promise.all([holdPorts(), peers.settled()]) // who is dead stays out of the first plan
    stop.signal.throwIfAborted()
    await reconciler.start()
    log.info({ ...reconciler.status() }, 'reconciled')
    const { switched } = forwarding
    const watch = parts.add('host-watch', await openHostWatch({ look: refresh, forwarding: switched, clock, log }))
    mirror.onAvailability(available => available && watch.poke())
    joined.then(() => {
      member = true
      watch.poke()
      nodes.startPresence(identity.instance, () => BigInt(reconciler.status().reached))
      parts.add('sweeper', openSweeper(context, pools, bindings))
      // the embedded store is of this process: never away
      if (config.store.kind === 'etcd')
        parts.add('spares', openSpares(context, bindings, reserve, departures, holdings))
      parts.add('silence', openSilence(context, nodes))
    }, fail)
    workloads = parts.add(
      'workloads',
      openWorkloads({
        context,
        engine,
        endpoints,
        departures,
        holdings,
        bindings,
        identity: identityOf,
        starts,
        onNetworks: () => {
          replicas.poke()
          void bridges.look().then(() => watch.poke())
        },
      }),
    )
    const started = startHealth(context, endpoints, parts)
    health = started
    const look = (changed: readonly ChangedKey[] | 'all'): void => {
      started.look(changed)
      peers.look(changed)
    }
    look('all')
    replicas.poke()
    const known = () => facts.guestChains
    parts.add('chain-watch', await openChainWatch({ known, changed: () => watch.poke(), clock }))
    dns = parts.add('dns', openDnsServer({ resolver, sockets: dnsSockets, clock, log }))
    const serve = (): void => dns?.serve(answeredHere(bindings, mirror.snapshot, config.resolvers))
    onBound = () => {
      serve()
      void holdPorts()
      peers.look('all')
    }
    mirror.subscribe(changed => {
      look(changed)
      if (changed === 'all' || changed.some(key => key[0] === 'networks')) serve()
      if (changed === 'all' || changed.some(key => key[0] === 'nodes')) rejoin()
      if (changed === 'all' || changed.some(key => key[0] === 'ports' || key[0] === 'networks')) void holdPorts()
    })
    rejoin()
    serve()
    settleHeap()
  }
  const fail = (error: unknown): void => {
    if (stop.signal.aborted) return
    log.error({ err: describe(error) }, 'cannot start')
    process.exitCode = daemonExitOf(error)
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
    joinCluster(nodes, config, nodeFacts, log, clock, stop.signal)
      .catch(fail)
      .finally(() => {
        rejoining = false
      })
  }
  const starting = startAll().catch(fail)
  parts.add('starting', { close: () => Promise.race([starting, sleep(clock, 1000)]) })
}

/** What plans are made from; the rest is for the cluster and for DNS. */
const planned = ({ underlay, forwards4, acceptsRa, guestChains, dockerBridges, otherBridges }: HostFacts): string =>
  JSON.stringify({ underlay, forwards4, acceptsRa, guestChains, dockerBridges, otherBridges })

/** Where DNS is answered: in H, and in the gateway of every network that this engine shows. */
const answeredHere = (bindings: Bindings, { networks }: Snapshot, resolvers: readonly string[]): readonly Place[] => [
  ...resolvers.map(address => ({ network: throughHost, ns: '', address, port: resolverPort })),
  ...[...bindings.bound.keys()].flatMap(id => {
    const network = networks.get(id)?.record
    if (!network) return []
    return resolversOf(network, { resolvers }).map(address => ({ network: id, ns: gatewayNs(network.vni), address }))
  }),
]

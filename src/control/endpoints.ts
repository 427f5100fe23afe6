// SPDX-License-Identifier: Apache-2.0
// Endpoints: created with their addresses and MAC bound in one transaction, made real by the reconciler, given their
// name and labels by Docker's events. Deleting is written to a journal on disk and answered at once, so that
// `docker stop` never waits for the store.
import { createHash } from 'node:crypto'
import { sleep } from '../base/clock.ts'
import { describe, WeftError } from '../base/errors.ts'
import { refusal } from '../ipam/allocate.ts'
import {
  addressOf,
  contains,
  formatAddress,
  macFrom,
  macOf,
  parseAddress,
  parseMac,
  parsePrefix,
} from '../model/address.ts'
import { type Endpoint, restFrom, type Withheld, type Workload } from '../model/endpoint.ts'
import { type EndpointId, identity, type NetworkId } from '../model/ids.ts'
import { tooSmall } from '../model/mtu.ts'
import type { Network } from '../model/network.ts'
import { vipService } from '../model/service.ts'
import { decode, encode } from '../store/codec.ts'
import { keys } from '../store/keys.ts'
import { isAway } from '../store/mirror.ts'
import type { Compare, Write } from '../store/store.ts'
import { type Addresses, strikeOut, takenByService } from './addresses.ts'
import { attempt } from './attempt.ts'
import type { Bindings } from './bindings.ts'
import type { Context } from './context.ts'
import type { Departures } from './departures.ts'
import { joinedHere } from './joining.ts'
import { untilErased } from './leaving.ts'
import { choosePorts, type HoldPort, type PortRequest, releasePorts, settlePorts } from './ports.ts'
import { publishEndpoint } from './publication.ts'
import type { Reserve } from './reserve.ts'
import { claimVip } from './vips.ts'

export interface EndpointRequest {
  readonly docker: string
  readonly endpoint: EndpointId
  /** Plain addresses that RequestAddress gave. */
  readonly addresses: readonly string[]
  /** Only if the user chose one. */
  readonly mac?: string
}

export interface Endpoints {
  create(request: EndpointRequest, signal: AbortSignal): Promise<Endpoint>
  get(docker: string, endpoint: EndpointId, signal: AbortSignal): Promise<{ endpoint: Endpoint; network: Network }>
  /** Docker made it the container's way out: its ports are claimed and published. */
  publish(
    docker: string,
    endpoint: EndpointId,
    ports: readonly PortRequest[],
    /** Key of the container's service, where that is sure already. */
    service: string | undefined,
    signal: AbortSignal,
  ): Promise<void>
  /** It is that no longer. Unknown ones: nothing happens. */
  unpublish(docker: string, endpoint: EndpointId, signal: AbortSignal): Promise<void>
  /** Who it is, and whether it gets connections. */
  identify(
    network: NetworkId,
    endpoint: EndpointId,
    workload: Workload,
    withheld: Withheld | undefined,
    signal: AbortSignal,
  ): Promise<void>
  withhold(network: NetworkId, endpoint: EndpointId, why: Withheld, signal: AbortSignal): Promise<void>
  /** It accepts connections. */
  ready(network: NetworkId, endpoint: EndpointId, signal: AbortSignal): Promise<void>
  /** It does not answer its probe, or does again. */
  fail(network: NetworkId, endpoint: EndpointId, failing: boolean, signal: AbortSignal): Promise<void>
  /** By an operator's word, and back. */
  drain(network: NetworkId, endpoint: EndpointId, drained: boolean, signal: AbortSignal): Promise<void>
  /** Journalled; done when the store is there. Unknown ones: nothing happens. */
  delete(docker: string, endpoint: EndpointId): Promise<void>
  /** Was it made here, by this weftd, within half a minute? */
  isYoung(endpoint: EndpointId): boolean
  /** Removes record and claims; for the journal and for the sweeper of dead endpoints. */
  erase(network: NetworkId, endpoint: EndpointId, signal: AbortSignal): Promise<void>
}

/** Docker, which got no answer to its next call, has given up by then. */
const youngMs = 30_000

export const openEndpoints = (
  context: Context,
  bindings: Bindings,
  addresses: Addresses,
  departures: Departures,
  hold: HoldPort,
  reserve: Reserve,
): Endpoints => {
  const { store, mirror, node, boot, clock, log } = context

  const networkOf = (docker: string): Network => {
    const binding = bindings.byDocker(docker)
    const network = binding && mirror.snapshot.networks.get(binding.network)?.record
    if (!network)
      throw new WeftError(
        'NOT_FOUND',
        `Docker network ${docker.slice(0, 12)} is no network of the cluster (any more): remove and create it again`,
      )
    return network
  }

  const fetch = async (network: NetworkId, endpoint: EndpointId, signal: AbortSignal) => {
    const known = mirror.snapshot.endpoints(network).get(endpoint)
    if (known) return known
    const entry = await store.get(keys.endpoint(network, endpoint), { signal })
    return entry && { record: decode('endpoint', entry.key, entry.value), revision: entry.revision }
  }

  /** `again`: what this node remembers of the claim is not so. */
  const bindAddress = async (
    network: Network,
    address: string,
    again: boolean,
    signal: AbortSignal,
  ): Promise<Compare> => {
    const pool = network.pools.find(({ prefix }) => contains(parsePrefix(prefix), parseAddress(address)))
    const why = pool ? refusal(pool, parseAddress(address)) : `${address} is outside the network's subnets`
    if (why) throw new WeftError('TAKEN', `${why}: choose another --ip`)
    const key = keys.address(network.id, address)
    const here = again ? undefined : addresses.reservedAt(network.id, address)
    if (here !== undefined) return { key, is: 'at', revision: here }
    const entry = await store.get(key, { signal })
    const claim = entry && decode('addressClaim', key, entry.value)
    if (!entry || claim!.kind === 'resting')
      // Docker holds an address that we freed (its own store was restored, or it took over a minute): take it again
      return entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' }
    if (claim!.kind === 'vip') throw takenByService(address, claim!.service)
    if (claim!.kind === 'bound') await untilErased(context, departures, network.id, claim!, signal)
    if (claim!.kind === 'bound' || claim!.node !== node)
      throw new WeftError('TAKEN', `address ${address} is in use on host ${claim!.node}: choose another --ip`)
    if (claim!.kind === 'spare') {
      const mine = await reserve.forgo(network.id, [address], ['taken'])
      if (mine.length === 0) await strikeOut(context, reserve, departures, network.id, address, signal)
    }
    return { key, is: 'at', revision: entry.revision }
  }

  const chooseMac = async (
    network: Network,
    request: EndpointRequest,
    signal: AbortSignal,
  ): Promise<{ mac: string; compare: Compare; others?: readonly Compare[] }> => {
    if (request.mac !== undefined) {
      const mac = parseMac(request.mac)
      if (/^02:7[ef]:/.test(mac))
        throw new WeftError(
          'INVALID',
          `mac address ${mac} is in weft's own range 02:7e, 02:7f: choose another --mac-address`,
        )
      if (Number.parseInt(mac.slice(0, 2), 16) & 1)
        throw new WeftError('INVALID', `mac address ${mac} is a multicast address: choose another --mac-address`)
      if (mac === '00:00:00:00:00:00')
        throw new WeftError(
          'INVALID',
          `mac address ${mac} is all zeros, no interface takes it: choose another --mac-address`,
        )
      return {
        mac,
        compare: await freeMac(network, mac, signal),
        others: await unreserved(network, request, mac, signal),
      }
    }
    const mac = macFrom(request.addresses)
    if (mac !== undefined) {
      try {
        return { mac, compare: await freeMac(network, mac, signal) }
      } catch (error) {
        if (!(error instanceof WeftError && error.code === 'TAKEN')) throw error
      }
    }
    for (let salt = 0; salt < 16; salt++) {
      const hash = createHash('sha256').update(`${request.endpoint} ${salt}`).digest().readUInt32BE()
      const mac = macOf('02:77', (hash | 0xf0000000) >>> 0) // 240/4: no container's IPv4 address
      const entry = await store.get(keys.mac(network.id, mac), { signal })
      if (!entry) return { mac, compare: { key: keys.mac(network.id, mac), is: 'absent' } }
    }
    throw new WeftError('FULL', 'no free MAC address was found: give --mac-address')
  }

  /** A MAC that an address gives is kept with it, for a container that starts while its node cannot ask. */
  const unreserved = async (
    network: Network,
    { addresses }: EndpointRequest,
    mac: string,
    signal: AbortSignal,
  ): Promise<readonly Compare[]> => {
    const address = addressOf(mac)
    if (!address || addresses.includes(formatAddress(address))) return []
    if (!network.pools.some(({ prefix }) => contains(parsePrefix(prefix), address))) return []
    const key = keys.address(network.id, formatAddress(address))
    const entry = await store.get(key, { signal })
    if (entry && decode('addressClaim', key, entry.value).kind === 'spare')
      throw new WeftError(
        'TAKEN',
        `mac address ${mac} is kept for address ${formatAddress(address)}: choose another --mac-address`,
      )
    return [entry ? { key, is: 'at', revision: entry.revision } : { key, is: 'absent' }]
  }

  const freeMac = async (network: Network, mac: string, signal: AbortSignal): Promise<Compare> => {
    const key = keys.mac(network.id, mac)
    const entry = await store.get(key, { signal })
    if (!entry) return { key, is: 'absent' }
    const claim = decode('macClaim', key, entry.value)
    if (claim.kind === 'bound') await untilErased(context, departures, network.id, claim, signal)
    if (claim.kind === 'bound')
      throw new WeftError('TAKEN', `mac address ${mac} is in use on host ${claim.node}: choose another --mac-address`)
    return { key, is: 'at', revision: entry.revision }
  }

  /**
   * The network once it has its name: until then it may have to give way to one of the same name that was made on
   * another host at the same moment, or be joined to it. After 2 s without Docker's answer it is taken as it is.
   */
  const introduced = async (docker: string, signal: AbortSignal): Promise<Network> => {
    for (let first = true; ; first = false) {
      const id = bindings.byDocker(docker)?.network
      const record = id === undefined ? undefined : mirror.snapshot.networks.get(id)?.record
      if (record && (record.name !== undefined || addresses.isTakenAsItIs(record.id))) return record
      // the binding follows at once
      const moves = !record && id !== undefined && !addresses.isTakenAsItIs(id) && joinedHere(context).has(docker)
      if (!record && !moves) {
        if (first) networkOf(docker)
        throw new WeftError(
          'CONFLICT',
          'another host made a network of this name at the same moment, and this one gave way to it: repeat the command',
        )
      }
      await sleep(clock, 10, signal)
    }
  }

  const changed = (
    network: NetworkId,
    endpoint: EndpointId,
    signal: AbortSignal,
    next: (now: Endpoint) => Endpoint,
  ): Promise<Endpoint> =>
    attempt(context, signal, async () => {
      const here = await reserve.change(endpoint, next)
      if (here) return here
      const key = keys.endpoint(network, endpoint)
      const entry = await store.get(key, { signal })
      if (!entry) throw new WeftError('NOT_FOUND', `endpoint ${endpoint.slice(0, 12)} is gone`)
      const record = next(decode('endpoint', key, entry.value))
      const value = encode('endpoint', record)
      const ports = await settlePorts(context, record, signal)
      if (value === entry.value && ports.writes.length === 0) return record
      const revision = await store.commit(
        [{ key, is: 'at', revision: entry.revision }, ...ports.compares],
        [{ kind: 'put', key, value }, ...ports.writes],
        { signal },
      )
      await mirror.reached(revision, signal)
      return record
    })

  const change = async (...args: Parameters<typeof changed>): Promise<void> => {
    await changed(...args)
  }

  /** The sweeper does it where this could not. */
  const withVip = async (endpoint: Endpoint, returning: boolean, signal: AbortSignal): Promise<void> => {
    if (reserve.has(endpoint.id)) return // who publishes it does it
    await claimVip(context, endpoint, returning, signal).catch(error =>
      log.warn({ endpoint: endpoint.id.slice(0, 12), err: describe(error) }, 'no virtual address for its service yet'),
    )
  }

  /** All its addresses are from the reserve: this host decides alone, and the store has it later. */
  const createAlone = async (network: Network, { endpoint, addresses }: EndpointRequest): Promise<Endpoint> => {
    const mac = macFrom(addresses)
    if (mac === undefined)
      throw new WeftError('STORE_UNAVAILABLE', 'a container with IPv6 alone needs the store: repeat when it is back')
    const record = begun(network.id, endpoint, addresses, mac)
    await reserve.bind(record)
    return record
  }

  /** Ports are the whole cluster's. */
  const published = (endpoint: EndpointId, signal: AbortSignal): Promise<void> => {
    if (!isAway(mirror.status)) return publishEndpoint(context, reserve, endpoint, signal)
    throw new WeftError(
      'STORE_UNAVAILABLE',
      `no port is published without the store (${mirror.status.error}): start the container without -p, or when weft status shows the store again`,
    )
  }

  const begun = (network: NetworkId, id: EndpointId, addresses: readonly string[], mac: string): Endpoint => ({
    ...{ id, network, node, boot, addresses, mac },
    ...{ ports: [], gateway: false, identity: identity.unlabelled },
  })

  /** What this node takes no new container for. */
  const refuseHere = (network: Network): void => {
    const why = tooSmall(mirror.snapshot, node, network)
    if (why !== undefined) throw new WeftError('NOT_SUPPORTED', why)
    if (mirror.snapshot.nodes.get(node)?.record.drained)
      throw new WeftError(
        'DRAINED',
        `node ${node} is drained, no container is started or restarted there: start it elsewhere, or weft node drain --undo ${node}`,
      )
  }

  const births = new Map<EndpointId, number>() // to monotonic ms, oldest first
  const isYoung = (endpoint: EndpointId): boolean => clock.monotonic() - (births.get(endpoint) ?? -youngMs) < youngMs
  const noteBirth = (endpoint: EndpointId): void => {
    for (const old of births.keys()) {
      if (isYoung(old)) break
      births.delete(old)
    }
    births.set(endpoint, clock.monotonic())
  }

  return {
    create: (request, signal) =>
      attempt(context, signal, async again => {
        const network = await introduced(request.docker, signal)
        const taken = request.addresses.filter(one => reserve.held(network.id, one)?.state === 'taken')
        const alone = taken.length > 0 && taken.length === request.addresses.length && request.mac === undefined
        if (alone && !mirror.snapshot.endpoints(network.id).has(request.endpoint)) {
          refuseHere(network)
          return createAlone(network, request)
        }
        const key = keys.endpoint(network.id, request.endpoint)
        const known = await fetch(network.id, request.endpoint, signal)
        if (known) {
          if (known.record.node === node) return known.record // Docker repeats its calls
          throw new WeftError('TAKEN', `endpoint ${request.endpoint.slice(0, 12)} lives on host ${known.record.node}`)
        }
        refuseHere(network)
        if (request.addresses.length === 0)
          throw new WeftError('INVALID', 'an endpoint needs an address: create the network with --ipam-driver weft')
        const held = await Promise.all(request.addresses.map(address => bindAddress(network, address, again, signal)))
        const { mac, compare, others = [] } = await chooseMac(network, request, signal)
        const record = begun(network.id, request.endpoint, request.addresses, mac)
        const bound = encode('addressClaim', { kind: 'bound', node, boot, endpoint: request.endpoint })
        const revision = await store.commit(
          [{ key, is: 'absent' }, { key: keys.network(network.id), is: 'present' }, ...held, compare, ...others],
          [
            { kind: 'put', key, value: encode('endpoint', record) },
            ...held.map((claim): Write => ({ kind: 'put', key: claim.key, value: bound })),
            {
              kind: 'put',
              key: compare.key,
              value: encode('macClaim', { kind: 'bound', node, endpoint: request.endpoint }),
            },
          ],
          { signal },
        )
        for (const address of request.addresses) addresses.settled(network.id, address)
        await mirror.reached(revision, signal)
        noteBirth(request.endpoint)
        return record
      }),
    isYoung,
    async get(docker, endpoint, signal) {
      const network = networkOf(docker)
      const known = await fetch(network.id, endpoint, signal)
      if (!known)
        throw new WeftError('NOT_FOUND', `endpoint ${endpoint.slice(0, 12)} is not known: start the container again`)
      return { endpoint: known.record, network }
    },
    publish: (docker, endpoint, requests, service, signal) =>
      attempt(context, signal, async () => {
        const network = networkOf(docker)
        if (reserve.has(endpoint)) {
          const named = service === undefined ? {} : { service }
          if (requests.length > 0) await published(endpoint, signal)
          // undefined: it came into the store just now
          else if (await reserve.change(endpoint, now => ({ ...now, ...named, gateway: true }))) return
        }
        const key = keys.endpoint(network.id, endpoint)
        const entry = await store.get(key, { signal })
        if (!entry) throw new WeftError('NOT_FOUND', `endpoint ${endpoint.slice(0, 12)} is gone`)
        const record = decode('endpoint', key, entry.value)
        if (record.gateway) return // Docker repeats its calls
        const choice = await choosePorts(context, network, endpoint, service, requests, hold, signal)
        const value = encode('endpoint', {
          ...record,
          ...(service === undefined ? {} : { service }),
          ...(choice.ports.some(({ proto }) => proto === 'tcp') ? { unready: true } : {}),
          gateway: true,
          ports: choice.ports,
        })
        const revision = await store.commit(
          [{ key, is: 'at', revision: entry.revision }, ...choice.compares],
          [{ kind: 'put', key, value }, ...choice.writes],
          { signal },
        )
        await mirror.reached(revision, signal)
      }),
    unpublish: (docker, endpoint, signal) =>
      attempt(context, signal, async () => {
        if (await reserve.change(endpoint, ({ unready: _, failing: __, ...now }) => ({ ...now, gateway: false })))
          return
        const network = bindings.byDocker(docker)?.network
        const key = network === undefined ? undefined : keys.endpoint(network, endpoint)
        const entry = key === undefined ? undefined : await store.get(key, { signal })
        if (!entry) return
        const record = decode('endpoint', entry.key, entry.value)
        if (!record.gateway) return
        const { unready: _, failing: __, ...rest } = record
        const value = encode('endpoint', { ...rest, gateway: false, ports: [] })
        const released = await releasePorts(context, record, signal)
        await store.commit(
          [{ key: entry.key, is: 'at', revision: entry.revision }, ...released.compares],
          [{ kind: 'put', key: entry.key, value }, ...released.writes],
          { signal },
        )
      }),
    async identify(network, endpoint, workload, withheld, signal) {
      let service: string | undefined
      const record = await changed(network, endpoint, signal, ({ withheld: _, ...now }) => {
        service = vipService(now)
        return { ...now, workload, ...(withheld === undefined ? {} : { withheld }) }
      })
      await withVip(record, vipService(record) !== service, signal)
    },
    withhold: (network, endpoint, withheld, signal) => change(network, endpoint, signal, now => ({ ...now, withheld })),
    async ready(network, endpoint, signal) {
      await withVip(await changed(network, endpoint, signal, ({ unready: _, ...now }) => now), false, signal)
    },
    fail: (network, endpoint, failing, signal) =>
      change(network, endpoint, signal, ({ failing: _, ...now }) => (failing ? { ...now, failing } : now)),
    drain: (network, endpoint, drained, signal) =>
      change(network, endpoint, signal, ({ drained: _, ...now }) => (drained ? { ...now, drained } : now)),
    async delete(docker, endpoint) {
      const network = bindings.byDocker(docker)?.network
      if (network === undefined) return
      await departures.add(network, endpoint)
      // one that the store never had waits for nothing; if this fails its erasing does it
      void reserve.drop(endpoint).catch(error => log.warn({ err: describe(error) }, 'reserve not written'))
    },
    erase: (network, endpoint, signal) =>
      attempt(context, signal, async () => {
        await reserve.drop(endpoint)
        const key = keys.endpoint(network, endpoint)
        const entry = await store.get(key, { signal })
        if (!entry) return
        const record = decode('endpoint', key, entry.value)
        if (record.node !== node) return
        const resting = encode('addressClaim', restFrom(clock.now()))
        const claims = [
          ...record.addresses.map(address => keys.address(network, address)),
          keys.mac(network, record.mac),
        ]
        const held = await Promise.all(claims.map(claim => store.get(claim, { signal })))
        const own = held.filter(
          claim => claim !== undefined && (JSON.parse(claim.value) as { endpoint?: string }).endpoint === endpoint,
        )
        const released = await releasePorts(context, record, signal)
        const revision = await store.commit(
          [
            { key, is: 'at', revision: entry.revision },
            ...released.compares,
            ...own.map((claim): Compare => ({ key: claim!.key, is: 'at', revision: claim!.revision })),
          ],
          [
            { kind: 'delete', key },
            ...own.map((claim): Write => ({ kind: 'put', key: claim!.key, value: resting })),
            ...released.writes,
          ],
          { signal },
        )
        await mirror.reached(revision, signal) // or a plan would have it again when it is no longer noted as departed
      }),
  }
}

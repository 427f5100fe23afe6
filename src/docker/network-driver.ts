// SPDX-License-Identifier: Apache-2.0
// Docker's NetworkDriver contract over the control verbs. Every method may be repeated, may name what is long gone, and
// never calls Docker's API. What fields mean: moby daemon/libnetwork/docs/remote.md and the drivers/remote code.
import { WeftError } from '../base/errors.ts'
import type { Bindings } from '../control/bindings.ts'
import type { Converger } from '../control/converger.ts'
import type { Endpoints } from '../control/endpoints.ts'
import type { Networks } from '../control/networks.ts'
import { refuseEndpointOptions } from '../control/options.ts'
import {
  bits,
  contains,
  familyOf,
  formatAddress,
  formatPrefix,
  parseAddress,
  parseInterface,
  parsePrefix,
} from '../model/address.ts'
import type { Endpoint } from '../model/endpoint.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network, Pool } from '../model/network.ts'
import { forAMoment } from './patience.ts'
import type { Sandboxes } from './sandboxes.ts'
import {
  type CreateEndpoint,
  type CreateNetwork,
  decodePorts,
  decodeRequest,
  type IpamData,
  label,
  type RequestedPort,
  requests,
} from './wire.ts'

export type Handler = (body: string, signal: AbortSignal) => Promise<object>

export interface NetworkDriverParts {
  readonly networks: Networks
  readonly endpoints: Endpoints
  readonly bindings: Bindings
  readonly converger: Converger
  readonly sandboxes: Sandboxes
  /** Docker deleted a network of this engine (by command, or because we asked it to). */
  readonly onDeleted: (docker: string) => Promise<void>
  /** Docker made a network whose name only its API tells. */
  readonly onCreated: (docker: string) => void
  /** The cluster network that our own Docker API request is creating on this engine just now. */
  readonly replicating: () => NetworkId | undefined
  /** Names of the container's end, from the overlay's planner. */
  readonly containerEnd: (endpoint: string) => string
  /** Key of the service of what is about to start with these ports on this network, where that is sure. */
  readonly startingService: (docker: string, ports: readonly RequestedPort[]) => Promise<string | undefined>
  /** Addresses that answer DNS, one of each family. */
  readonly resolvers: readonly string[]
}

export const addressSpace = 'weft'

/** 169.254.0.0/17 for the sixteenth network of a container: none covers the clouds' 169.254.169.254. */
const mostRoutes = 16

/** Answers by method name, as in 'NetworkDriver.Join'. */
export const networkDriver = (parts: NetworkDriverParts): Readonly<Record<string, Handler>> => {
  const { networks, endpoints, bindings, converger, sandboxes } = parts

  /**
   * To the resolvers of the endpoint's families, /32 and /128 with a sandbox's first endpoint, /31 and /127 around them
   * with the second and so on: they stand beside each other, and when the network of one is disconnected the next serves.
   */
  const resolverRoutes = async (sandbox: string, { id, addresses }: Endpoint): Promise<string[]> => {
    const number = await sandboxes.number(sandbox, id)
    if (number >= mostRoutes) return []
    const families = new Set(addresses.map(familyOf))
    return parts.resolvers
      .filter(resolver => families.has(familyOf(resolver)))
      .map(resolver => parseInterface(`${resolver}/${bits(familyOf(resolver)) - number}`))
      .map(({ prefix }) => formatPrefix(prefix))
  }

  return {
    'NetworkDriver.GetCapabilities': async () => ({ Scope: 'local', ConnectivityScope: 'global' }),

    'NetworkDriver.CreateNetwork': async (body, signal) => {
      const request = decodeRequest('CreateNetwork', requests.createNetwork, body)
      const replicaOf = parts.replicating()
      const network = await networks.create(
        {
          docker: request.NetworkID,
          pools: [...request.IPv4Data, ...request.IPv6Data].map(poolOf),
          options: genericOptions(request),
          internal: request.Options[label.internal] === true,
          ipv6: request.Options[label.enableIpv6] === true,
          ...(replicaOf === undefined ? {} : { replicaOf }),
        },
        signal,
      )
      parts.onCreated(request.NetworkID)
      await converger.networkReached(network.id, signal)
      return {}
    },

    'NetworkDriver.DeleteNetwork': async body => {
      const { NetworkID } = decodeRequest('DeleteNetwork', requests.deleteNetwork, body)
      await parts.onDeleted(NetworkID)
      return {}
    },

    'NetworkDriver.CreateEndpoint': async (body, signal) => {
      const request = decodeRequest('CreateEndpoint', requests.createEndpoint, body)
      refuseEndpointOptions(request.Options)
      const given = request.Interface
      const endpoint = await endpoints.create(
        {
          docker: request.NetworkID,
          endpoint: request.EndpointID,
          addresses: addressesOf(request),
          ...(given.MacAddress === '' ? {} : { mac: given.MacAddress }),
        },
        signal,
      )
      // only what was empty may be filled, or the engine refuses the whole endpoint
      return { Interface: given.MacAddress === '' ? { MacAddress: endpoint.mac } : {} }
    },

    'NetworkDriver.EndpointOperInfo': async body => {
      decodeRequest('EndpointOperInfo', requests.endpoint, body)
      return { Value: {} }
    },

    'NetworkDriver.DeleteEndpoint': async body => {
      const { NetworkID, EndpointID } = decodeRequest('DeleteEndpoint', requests.endpoint, body)
      await sandboxes.left(EndpointID)
      await endpoints.delete(NetworkID, EndpointID)
      return {}
    },

    'NetworkDriver.Join': async (body, signal) => {
      const request = decodeRequest('Join', requests.join, body)
      const { endpoint, network } = await endpoints.get(request.NetworkID, request.EndpointID, signal)
      await converger.attach(network.id, endpoint.id, signal)
      return {
        InterfaceName: { SrcName: parts.containerEnd(endpoint.id), DstPrefix: 'eth' },
        ...gatewaysOf(network, endpoint.addresses),
        StaticRoutes: [
          ...(await resolverRoutes(request.SandboxKey, endpoint)),
          ...otherSubnets(network, endpoint.addresses),
        ].map(Destination => ({ Destination, RouteType: 1 })),
        DisableGatewayService: true,
      }
    },

    'NetworkDriver.Leave': async body => {
      const { EndpointID } = decodeRequest('Leave', requests.endpoint, body)
      await sandboxes.left(EndpointID)
      return {}
    },

    'NetworkDriver.ProgramExternalConnectivity': async (body, signal) => {
      const request = decodeRequest('ProgramExternalConnectivity', requests.external, body)
      const ports = decodePorts(request.Options)
      const service = await parts.startingService(request.NetworkID, ports)
      await endpoints.publish(request.NetworkID, request.EndpointID, ports, service, signal)
      const network = bindings.byDocker(request.NetworkID)?.network
      if (network !== undefined) await converger.endpointReached(network, request.EndpointID, signal)
      return {}
    },

    'NetworkDriver.RevokeExternalConnectivity': async (body, signal) => {
      const { NetworkID, EndpointID } = decodeRequest('RevokeExternalConnectivity', requests.endpoint, body)
      await forAMoment(endpoints.unpublish(NetworkID, EndpointID, signal))
      return {}
    },

    'NetworkDriver.DiscoverNew': async () => ({}),
    'NetworkDriver.DiscoverDelete': async () => ({}),
    'NetworkDriver.AllocateNetwork': async () => notInSwarm(),
    'NetworkDriver.FreeNetwork': async () => ({}),
  }
}

const notInSwarm = (): never => {
  throw new WeftError(
    'NOT_SUPPORTED',
    'weft networks are not swarm networks: leave --scope swarm out, every host of the cluster shows them anyway',
  )
}

const genericOptions = ({ Options }: CreateNetwork): Record<string, string> => {
  const generic = Options[label.generic]
  if (generic === undefined || generic === null) return {}
  return Object.fromEntries(
    Object.entries(generic as Record<string, unknown>).map(([key, value]) => [key, String(value)]),
  )
}

const plain = (cidr: string): string => formatAddress(parseInterface(cidr).address)

const poolOf = ({ AddressSpace, Pool, Gateway, AuxAddresses }: IpamData): Pool => {
  if (AddressSpace !== addressSpace)
    throw new WeftError(
      'INVALID',
      'weft networks need the weft IPAM driver, another cannot keep addresses unique across hosts: ' +
        'type docker network create -d weft --ipam-driver weft NAME, or in a compose file "driver: weft" with "ipam: {driver: weft}"',
    )
  const aux = Object.entries(AuxAddresses).map(([name, address]) => [name, plain(address)] as const)
  return {
    prefix: Pool,
    ...(Gateway === '' ? {} : { gateway: plain(Gateway) }),
    ...(aux.length === 0 ? {} : { aux: Object.fromEntries(aux) }),
  }
}

const addressesOf = ({ Interface }: CreateEndpoint): string[] =>
  [Interface.Address, Interface.AddressIPv6].filter(text => text !== '').map(plain)

/** The container's way out, unless the network has none. */
const gatewaysOf = (network: Network, addresses: readonly string[]): { Gateway?: string; GatewayIPv6?: string } => {
  if (network.internal) return {}
  const gateway = (family: 4 | 6): string | undefined => {
    const own = addresses.map(address => parseAddress(address)).find(address => address.family === family)
    return own && network.pools.find(pool => contains(parsePrefix(pool.prefix), own))?.gateway
  }
  const v4 = gateway(4)
  const v6 = gateway(6)
  return { ...(v4 === undefined ? {} : { Gateway: v4 }), ...(v6 === undefined ? {} : { GatewayIPv6: v6 }) }
}

/** On the link too, though none of the container's addresses is in them: a network may have several subnets of a family. */
const otherSubnets = (network: Network, addresses: readonly string[]): string[] => {
  const own = addresses.map(address => parseAddress(address))
  const isOther = ({ prefix }: Pool): boolean =>
    own.some(({ family }) => family === familyOf(prefix)) &&
    !own.some(address => contains(parsePrefix(prefix), address))
  return network.pools.filter(isOther).map(({ prefix }) => prefix)
}

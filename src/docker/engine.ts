// SPDX-License-Identifier: Apache-2.0
// Docker's API of this host, as little of it as weft needs (API 1.41 and later): never called inside a driver call,
// because the engine may be waiting for that very call. Every request has a time limit.
import { request as httpRequest } from 'node:http'
import { type ErrorCode, WeftError } from '../base/errors.ts'

export interface EngineNetwork {
  readonly Id: string
  readonly Name: string
  readonly Driver: string
  readonly Labels: Readonly<Record<string, string>> | null
  readonly Attachable: boolean
  readonly Internal: boolean
  readonly EnableIPv6: boolean
  readonly Options: Readonly<Record<string, string>> | null
  readonly IPAM: { readonly Driver: string; readonly Options: Readonly<Record<string, string>> | null }
}

export interface EngineEndpoint {
  readonly NetworkID: string
  readonly EndpointID: string
  readonly Aliases: readonly string[] | null
}

export interface EngineContainer {
  readonly Id: string
  readonly Name: string
  readonly Image: string
  readonly Config: {
    readonly Hostname: string
    readonly Labels: Readonly<Record<string, string>> | null
    /** 'SIGWINCH', '28', or empty; of the image or the user. */
    readonly StopSignal?: string
  }
  readonly State: {
    readonly Running: boolean
    readonly Paused?: boolean
    /** Of a HEALTHCHECK: starting, healthy, unhealthy, none. */
    readonly Health?: { readonly Status: string } | null
  }
  readonly HostConfig: {
    /** '80/tcp' → where. */
    readonly PortBindings: Readonly<Record<string, readonly { HostIp: string; HostPort: string }[] | null>> | null
    readonly PublishAllPorts: boolean
  }
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, EngineEndpoint>> | null }
}

export interface ListedContainer {
  readonly Id: string
  /** null of one that is just being removed. */
  readonly Names: readonly string[] | null
  readonly ImageID: string
  readonly Labels: Readonly<Record<string, string>> | null
  readonly State: string
  /** For people: 'Up 2 minutes (healthy)'. */
  readonly Status: string
  readonly NetworkSettings?: { readonly Networks?: Readonly<Record<string, EngineEndpoint>> | null }
}

export interface EngineEvent {
  readonly Type: string
  readonly Action: string
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> }
}

export interface CreateNetworkBody {
  readonly Name: string
  readonly CheckDuplicate: true
  readonly Driver: string
  readonly Internal: boolean
  readonly Attachable: boolean
  /** Docker 28 and later; before, every network has IPv4. */
  readonly EnableIPv4?: false
  readonly EnableIPv6: boolean
  readonly IPAM: {
    readonly Driver: string
    readonly Options?: Readonly<Record<string, string>>
    readonly Config: readonly {
      Subnet: string
      IPRange?: string
      Gateway?: string
      AuxiliaryAddresses?: Record<string, string>
    }[]
  }
  readonly Options: Readonly<Record<string, string>>
  readonly Labels: Readonly<Record<string, string>>
}

export interface Engine {
  /** Does it answer at all? Waits for nothing that it is doing. */
  ping(signal: AbortSignal): Promise<void>
  /** '20.10.24+dfsg1' */
  version(): Promise<string>
  networks(): Promise<readonly EngineNetwork[]>
  /** CIDRs of daemon.json's default-address-pools; none: Docker's built-in ones. */
  addressPools(): Promise<readonly string[]>
  createNetwork(body: CreateNetworkBody): Promise<string>
  /** Removing one that is gone is success. */
  removeNetwork(id: string): Promise<void>
  /** Running and stopped ones. */
  containers(filters?: Readonly<Record<string, readonly string[]>>): Promise<readonly ListedContainer[]>
  container(id: string): Promise<EngineContainer>
  imageLabels(image: string): Promise<Readonly<Record<string, string>>>
  /** Whether somebody removed this network, as far as the engine remembers: its last events, none of before its start. */
  destroyed(network: string): Promise<boolean>
  /** Yields until the signal aborts or the engine closes the stream, then ends or throws DOCKER_UNAVAILABLE. */
  events(signal: AbortSignal): AsyncIterable<EngineEvent>
}

const limitMs = 10_000

/**
 * Does this engine keep all DNS queries of containers without a gateway to itself? From the answer to CVE-2024-29018
 * (moby #47538: 23.0.11, 25.0.5, 26.0) until resolvers that are asked from within the container were let out (#47832: 26.1.3).
 */
export const keepsQueries = (version: string): boolean => {
  const [major = 0, minor = 0, patch = 0] = version.split(/[.+~-]/).map(Number)
  if (major === 23) return minor > 0 || patch >= 11
  if (major === 25) return minor > 0 || patch >= 5
  return major === 26 && (minor === 0 || (minor === 1 && patch < 3))
}

/** `ownCode`: of an error of our own driver that the engine passes on. */
export const openEngine = (
  socketPath: string,
  ownCode: (text: string) => ErrorCode | undefined = () => undefined,
): Engine => {
  const call = <T>(method: string, path: string, body?: object, signals: readonly AbortSignal[] = []): Promise<T> =>
    new Promise((resolve, reject) => {
      const unavailable = (cause: unknown): void =>
        reject(
          new WeftError('DOCKER_UNAVAILABLE', `docker ${method} ${path.split('?')[0]} at ${socketPath}`, { cause }),
        )
      const text = body === undefined ? undefined : JSON.stringify(body)
      const request = httpRequest(
        {
          socketPath,
          method,
          path,
          headers: {
            Host: 'docker',
            ...(text === undefined
              ? {}
              : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }),
          },
          signal: AbortSignal.any([AbortSignal.timeout(limitMs), ...signals]),
        },
        response => {
          const chunks: Buffer[] = []
          response.on('data', chunk => chunks.push(chunk as Buffer))
          response.on('error', unavailable)
          response.on('end', () => {
            const answer = Buffer.concat(chunks).toString('utf8')
            const status = response.statusCode ?? 0
            if (status >= 200 && status < 300) return resolve((answer === '' ? undefined : parse(answer)) as T)
            const message = (parse(answer) as { message?: string } | undefined)?.message ?? answer
            const own = /\b(?:NetworkDriver|IpamDriver)\.\w+: (.+)/s.exec(message)?.[1]?.trim()
            if (own !== undefined) return reject(new WeftError(ownCode(own) ?? 'INVALID', own))
            const code = codeOfStatus(status, method)
            reject(new WeftError(code, `docker ${method} ${path.split('?')[0]}: ${message.trim()}`))
          })
        },
      )
      request.on('error', unavailable)
      request.end(text)
    })

  const query = (filters: object | undefined): string =>
    filters === undefined ? '' : `&filters=${encodeURIComponent(JSON.stringify(filters))}`

  return {
    ping: signal => call('GET', '/_ping', undefined, [signal]),
    version: async () => (await call<{ Version: string }>('GET', '/version')).Version,
    networks: () => call('GET', '/networks'),
    async addressPools() {
      const info = await call<{ DefaultAddressPools?: readonly { Base: string }[] | null }>('GET', '/info')
      return (info.DefaultAddressPools ?? []).map(({ Base }) => Base)
    },
    async createNetwork(body) {
      return (await call<{ Id: string }>('POST', '/networks/create', body)).Id
    },
    async removeNetwork(id) {
      try {
        await call('DELETE', `/networks/${id}`)
      } catch (error) {
        if (!(error instanceof WeftError && error.code === 'NOT_FOUND')) throw error
      }
    },
    containers: filters => call('GET', `/containers/json?all=1${query(filters)}`),
    container: id => call('GET', `/containers/${encodeURIComponent(id)}/json`),
    async imageLabels(image) {
      const { Config } = await call<{ Config?: { Labels?: Record<string, string> | null } | null }>(
        'GET',
        `/images/${encodeURIComponent(image)}/json`,
      )
      return Config?.Labels ?? {}
    },
    async destroyed(network) {
      const now = Math.floor(Date.now() / 1000)
      const path = `/events?since=${now - 3600}&until=${now}${query({ type: ['network'], event: ['destroy'] })}`
      for await (const { Actor } of stream(socketPath, path, AbortSignal.timeout(limitMs)))
        if (Actor.ID === network) return true
      return false
    },
    events: signal => stream(socketPath, `/events?${query({ type: ['container', 'network'] }).slice(1)}`, signal),
  }
}

/** Did the engine give no answer at all? One that says that it cannot is an answer. */
export const isSilent = (error: unknown): boolean =>
  error instanceof WeftError && error.code === 'DOCKER_UNAVAILABLE' && error.cause !== undefined

/** Docker forbids (403) the removal of what is used. */
const codeOfStatus = (status: number, method: string): ErrorCode => {
  if (status === 404) return 'NOT_FOUND'
  if (status === 409) return 'EXISTS'
  if (status === 403 && method === 'DELETE') return 'IN_USE'
  return status >= 400 && status < 500 ? 'INVALID' : 'DOCKER_UNAVAILABLE'
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Newline-separated JSON until the engine closes it. */
const stream = async function* (socketPath: string, path: string, signal: AbortSignal): AsyncGenerator<EngineEvent> {
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    const request = httpRequest({ socketPath, path, headers: { Host: 'docker' }, signal }, resolve)
    request.on('error', cause =>
      reject(new WeftError('DOCKER_UNAVAILABLE', `docker events at ${socketPath}`, { cause })),
    )
    request.end()
  })
  let rest = ''
  try {
    for await (const chunk of response) {
      rest += String(chunk)
      const lines = rest.split('\n')
      rest = lines.pop()!
      for (const line of lines) {
        const event = parse(line)
        if (event !== undefined) yield event as EngineEvent
      }
    }
  } catch (cause) {
    if (!signal.aborted) throw new WeftError('DOCKER_UNAVAILABLE', 'docker events broke off', { cause })
  }
}

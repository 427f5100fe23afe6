// SPDX-License-Identifier: Apache-2.0
// Flags of weftd, from the command line and from --config (YAML, same names). The command line wins. Whatever is wrong
// is said with the flag's name before anything is opened.
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { Command, CommanderError, Option } from 'commander'
import { parse as parseYaml } from 'yaml'
import { WeftError } from '../base/errors.ts'
import { type LogLevel, logLevels } from '../base/log.ts'
import { version } from '../base/version.ts'
import { canonical, familyOf, formatPrefix, parsePrefix, refuseSubnet, unusableForUs } from '../model/address.ts'
import { defaultVxlanPort } from '../model/cluster.ts'
import type { Balancer } from '../plan/host.ts'
import { type MetricsAddress, parseMetricsAddress } from './metrics-server.ts'

export interface Config {
  readonly store: { readonly kind: 'embedded' } | { readonly kind: 'etcd'; readonly endpoints: readonly string[] }
  readonly etcdTls?: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly prefix: string
  readonly dataDir: string
  readonly node: string
  readonly vtep?: string
  readonly underlayDev?: string
  readonly pluginSocket: string
  readonly docker: string
  readonly apiSocket: string
  readonly pools: readonly string[]
  /** One of each family. */
  readonly resolvers: readonly string[]
  readonly vxlanPort: number
  readonly balancer: 'auto' | Balancer
  /** Absent: nobody is told. */
  readonly metrics?: MetricsAddress
  readonly logLevel: LogLevel
  readonly purge: boolean
}

/** Outside of the link networks (plan/links). */
const defaultResolvers = ['169.254.77.53', 'fd69:7765:6674:ffff::53']

const balancers = ['auto', 'ipvs', 'nft'] as const

const command = (): Command =>
  new Command('weftd')
    .description('The agent of weft: one network over many Docker hosts. Runs on every host, as root, before Docker.')
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .option('--store <url>', 'embedded, or etcd://HOST:PORT[,HOST:PORT…]; with TLS when --etcd-ca is given', 'embedded')
    .option('--etcd-ca <file>', 'certificate authority of etcd, PEM')
    .option('--etcd-cert <file>', 'client certificate for etcd, PEM')
    .option('--etcd-key <file>', 'its key, PEM')
    .option('--prefix <prefix>', 'prefix of all keys in etcd', '/weft/v1/')
    .option('--data-dir <dir>', 'state of this host', '/var/lib/weft')
    .option('--node <name>', 'name of this node in the cluster', hostname())
    .option('--vtep <ip>', "this node's address on the underlay; default: of the underlay device")
    .option('--underlay-dev <dev>', 'device of the underlay; default: that of the default route')
    .option('--plugin-socket <path>', "where Docker looks for the driver's socket", '/run/docker/plugins/weft.sock')
    .option('--docker <url>', "Docker's API", 'unix:///run/docker.sock')
    .option('--api-socket <path>', "socket of weft's own API", '/run/weft/weft.sock')
    .option(
      '--pools <cidrs>',
      'where automatic subnets are cut from, comma-separated; default 10.224.0.0/12 and a random ULA; of a family that is not given the default; first node of a cluster only',
    )
    .option(
      '--resolver <ips>',
      'addresses that answer DNS in every network, one of each family, comma-separated; of a family that is not given the default',
      defaultResolvers.join(','),
    )
    .option('--vxlan-port <port>', 'UDP port of the overlay; first node of a cluster only', String(defaultVxlanPort))
    .addOption(
      new Option('--lb <balancer>', 'what balances published ports; auto: ipvs where the kernel has it')
        .choices(balancers)
        .default('auto'),
    )
    .option(
      '--metrics <address>',
      'answer Prometheus at /metrics (docs/metrics.md) on IP:PORT, :PORT (loopback only) or unix:///PATH; default: not at all',
    )
    .addOption(new Option('--log-level <level>', 'least level that is logged').choices(logLevels).default('info'))
    .option('--config <file>', 'flags from a YAML file, same names without dashes in front')
    .option('--purge', 'remove everything of weft from this host and exit', false)
    .showHelpAfterError('(weftd --help lists the flags)')
    .exitOverride()
    .allowExcessArguments(false)

/** Thrown when help or version was asked for and printed. */
export class NothingToDo extends Error {}
/** Thrown when the command line is wrong, and that has been printed. */
export class BadUsage extends Error {}

export const parseConfig = (argv: readonly string[]): Config => {
  const program = command()
  try {
    program.parse(argv as string[], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) throw new NothingToDo()
    throw new BadUsage() // commander has said it
  }
  const flags = program.opts<Record<string, string | boolean | undefined>>()
  const file = typeof flags['config'] === 'string' ? fromFile(flags['config'], program) : {}
  const value = (name: string): string | undefined => {
    const given = program.getOptionValueSource(name) === 'cli' ? flags[name] : (file[name] ?? flags[name])
    return given === undefined ? undefined : String(given)
  }
  const optional = <K extends string>(key: K, text: string | undefined): Partial<Record<K, string>> =>
    text === undefined ? {} : ({ [key]: text } as Record<K, string>)
  const tls = tlsFiles(value('etcdCa'), value('etcdCert'), value('etcdKey'))
  const vtep = value('vtep')
  const metrics = value('metrics')
  return {
    store: parseStore(value('store')!, tls !== undefined),
    ...(tls ? { etcdTls: tls } : {}),
    prefix: parsePrefixOfKeys(value('prefix')!),
    dataDir: value('dataDir')!,
    node: parseNode(value('node')!),
    ...optional('vtep', vtep === undefined ? undefined : canonical(vtep, '--vtep')),
    ...optional('underlayDev', value('underlayDev')),
    pluginSocket: parseSocket('--plugin-socket', value('pluginSocket')!),
    docker: parseUnix('--docker', value('docker')!),
    apiSocket: parseSocket('--api-socket', value('apiSocket')!),
    pools: parsePools(value('pools') ?? ''),
    resolvers: parseResolvers(value('resolver')!),
    vxlanPort: parsePort('--vxlan-port', value('vxlanPort')!),
    balancer: oneOf('--lb', value('lb')!, balancers),
    ...(metrics === undefined ? {} : { metrics: parseMetricsAddress(metrics) }),
    logLevel: oneOf('--log-level', value('logLevel')!, logLevels),
    purge: value('purge') === 'true',
  }
}

const fromFile = (path: string, program: Command): Record<string, unknown> => {
  let content: unknown
  try {
    content = parseYaml(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new WeftError('INVALID', `--config ${path}`, { cause: error })
  }
  if (content === null) return {}
  if (typeof content !== 'object' || Array.isArray(content))
    throw new WeftError('INVALID', `--config ${path}: a mapping of flags is wanted`)
  const known = new Map(program.options.map(option => [option.long!.slice(2), option.attributeName()]))
  return Object.fromEntries(
    Object.entries(content).map(([name, value]) => {
      const attribute = known.get(name)
      if (attribute === undefined || name === 'config')
        throw new WeftError('UNKNOWN_OPTION', `--config ${path}: ${name} is no flag of weftd`)
      return [attribute, Array.isArray(value) ? value.join(',') : value]
    }),
  )
}

const parseStore = (text: string, tls: boolean): Config['store'] => {
  if (text === 'embedded') {
    if (tls)
      throw new WeftError(
        'INVALID',
        '--etcd-ca, --etcd-cert and --etcd-key are for --store etcd://HOST:PORT, which is not given: on its embedded store this host would be a cluster of its own',
      )
    return { kind: 'embedded' }
  }
  const match = /^etcd:\/\/(.+)$/.exec(text)
  if (!match) throw new WeftError('INVALID', `--store ${text}: embedded or etcd://HOST:PORT[,HOST:PORT…]`)
  const scheme = tls ? 'https' : 'http'
  const endpoints = match[1]!.split(',').map(host => {
    const [, , port] = /^(\[[0-9a-fA-F:]+\]|[^:/\s]+):(\d+)$/.exec(host) ?? []
    if (port === undefined) throw new WeftError('INVALID', `--store: ${host} is not HOST:PORT`)
    parsePort(`--store ${host}:`, port)
    return `${scheme}://${host}`
  })
  return { kind: 'etcd', endpoints }
}

const tlsFiles = (ca?: string, cert?: string, key?: string): Config['etcdTls'] => {
  const given = [ca, cert, key].filter(file => file !== undefined)
  if (given.length === 0) return undefined
  if (ca === undefined || cert === undefined || key === undefined)
    throw new WeftError('INVALID', '--etcd-ca, --etcd-cert and --etcd-key belong together: give all three')
  return { ca, cert, key }
}

const parsePrefixOfKeys = (text: string): string => {
  if (!/^\/[^\s]*\/$/.test(text)) throw new WeftError('INVALID', `--prefix ${text}: it begins and ends with a slash`)
  return text
}

const parseNode = (text: string): string => {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}$/.test(text))
    throw new WeftError('INVALID', `--node ${JSON.stringify(text)}: a host name of letters, digits, dots and dashes`)
  return text
}

const parseUnix = (flag: string, text: string): string => {
  const match = /^unix:\/\/(\/.+)$/.exec(text)
  if (!match) throw new WeftError('INVALID', `${flag} ${text}: unix:///PATH`)
  return match[1]!
}

const parsePort = (flag: string, text: string): number => {
  const port = Number(text)
  if (!/^\d+$/.test(text) || port < 1 || port > 65535)
    throw new WeftError('INVALID', `${flag} ${text}: a port from 1 to 65535`)
  return port
}

/** The kernel's room for the path of a socket and the zero behind it (unix(7)). */
const sunPath = 108

const parseSocket = (flag: string, path: string): string => {
  if (Buffer.byteLength(path) >= sunPath)
    throw new WeftError('INVALID', `${flag} ${path}: the path of a socket has at most ${sunPath - 1} bytes`)
  return path
}

const parsePools = (text: string): readonly string[] =>
  text.split(',').flatMap(part => {
    if (part.trim() === '') return []
    const prefix = parsePrefix(part.trim(), '--pools')
    refuseSubnet(prefix, `--pools ${part.trim()}`)
    return [formatPrefix(prefix)]
  })

/** Of a family that is not given, the default. */
const parseResolvers = (text: string): readonly string[] => {
  const given = text.split(',').map(part => canonical(part.trim(), '--resolver'))
  for (const address of given) {
    const reason = unusableForUs(address)
    if (reason !== undefined)
      throw new WeftError(
        'INVALID',
        `--resolver ${address} is in ${reason}: give one that containers can have a route to`,
      )
  }
  return ([4, 6] as const).map(family => {
    const own = given.filter(address => familyOf(address) === family)
    if (own.length > 1) throw new WeftError('INVALID', `--resolver ${text}: give at most one address of each family`)
    return own[0] ?? defaultResolvers.find(address => familyOf(address) === family)!
  })
}

/** In a --config nobody has looked at it yet. */
const oneOf = <T extends string>(flag: string, text: string, known: readonly T[]): T => {
  const one = known.find(name => name === text)
  if (one === undefined) throw new WeftError('INVALID', `${flag} ${text}: one of ${known.join(', ')}`)
  return one
}

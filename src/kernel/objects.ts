// SPDX-License-Identifier: Apache-2.0
// Kernel objects as plain data: what planners produce and what observation gives. One object = one thing that can be
// added, replaced and removed by itself; `keyOf` names it, `format` writes it in the words of ip, bridge and nft.
// Two objects with one key are equal exactly when their format is equal, rules compared by their tags.
import { createHash } from 'node:crypto'

/** A network namespace: '' is the one weftd runs in (H), else a name under /run/netns. */
export type Ns = string

export interface NetnsObject {
  readonly kind: 'netns'
  readonly ns: Ns
}

interface LinkBase {
  readonly ns: Ns
  readonly name: string
  readonly mtu: number
  /** Absent: the kernel's choice, not compared. */
  readonly mac?: string
  readonly master?: string
  /** Only observed: somebody took it down. Ours are up. */
  readonly down?: true
  /** Only observed: somebody let it neither ask nor answer. */
  readonly mute?: true
}

export interface BridgeObject extends LinkBase {
  readonly kind: 'bridge'
  /** Only observed: what somebody else set otherwise, in ip's words. */
  readonly otherwise?: string
}

/** Made in H, moved to ns: its UDP socket stays in H. */
export interface VxlanObject extends LinkBase {
  readonly kind: 'vxlan'
  readonly vni: number
  readonly local: string
  readonly port: number
  /** Only observed: somebody let it learn. */
  readonly learning?: true
  /** Only observed: what somebody else set otherwise, in ip's words. */
  readonly otherwise?: string
}

export interface VethObject extends LinkBase {
  readonly kind: 'veth'
  readonly peer: {
    readonly ns: Ns
    readonly name: string
    readonly mtu: number
    readonly mac?: string
    readonly down?: true
    readonly mute?: true
  }
  /**
   * A container's port: the peer travels into a sandbox under a name that is not ours, so the peer is not compared,
   * and drift repair never makes it again (`design.md` 4): only an explicit permit does.
   */
  readonly port?: true
}

export type LinkObject = BridgeObject | VxlanObject | VethObject

/** Flags of a bridge port; what is not named is the kernel's default and compared as such. */
export interface PortObject {
  readonly kind: 'port'
  readonly ns: Ns
  readonly dev: string
  readonly hairpin: boolean
  /** Unknown unicast. */
  readonly flood: boolean
  /** Broadcast and multicast. */
  readonly spread: boolean
  readonly suppress: boolean
  /** Only observed: what somebody else set otherwise, in bridge's words. */
  readonly otherwise?: string
}

export interface AddressObject {
  readonly kind: 'address'
  readonly ns: Ns
  readonly dev: string
  /** With prefix length: 10.1.0.1/24. IPv6 is added nodad. */
  readonly address: string
  /** Only observed: somebody took the kernel's route to its prefix. */
  readonly unrouted?: true
}

export interface RouteObject {
  readonly kind: 'route'
  readonly ns: Ns
  /** CIDR; 0.0.0.0/0 and ::/0 are the default routes. */
  readonly to: string
  readonly dev: string
  readonly via?: string
}

/** Permanent. */
export interface NeighbourObject {
  readonly kind: 'neighbour'
  readonly ns: Ns
  readonly dev: string
  readonly ip: string
  readonly mac: string
}

/** bridge fdb … dev PORT master static */
export interface FdbPortObject {
  readonly kind: 'fdb-port'
  readonly ns: Ns
  readonly dev: string
  readonly mac: string
}

/** bridge fdb … dev VX self static, to a nexthop group. */
export interface FdbRemoteObject {
  readonly kind: 'fdb-remote'
  readonly ns: Ns
  readonly dev: string
  readonly mac: string
  /** Observed as 0: somebody's row, to an address. */
  readonly nexthop: number
}

/** One FDB leg (via) or one group of a single leg. In H, protocol 44. */
export interface NexthopObject {
  readonly kind: 'nexthop'
  readonly id: number
  readonly to: { readonly via: string } | { readonly group: number }
}

export interface SysctlObject {
  readonly kind: 'sysctl'
  readonly ns: Ns
  /** net/ipv4/conf/br0/forwarding: slashes, relative to /proc/sys. */
  readonly path: string
  readonly value: string
}

export type NftFamily = 'ip' | 'ip6' | 'inet' | 'netdev'

export interface NftTableObject {
  readonly kind: 'nft-table'
  readonly ns: Ns
  readonly family: NftFamily
  readonly table: string
  /** Only observed: somebody made it so. */
  readonly dormant?: true
}

/** Words of nft for the fields of a key or of a value. */
export type NftType =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'ifname'
  | 'ct_zone'
  | 'verdict'

export interface NftSetObject {
  readonly kind: 'nft-set'
  readonly ns: Ns
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly key: readonly NftType[]
  /** Present: a map. */
  readonly value?: readonly NftType[]
  readonly interval?: true
}

/** A chain with its rules as one unit: a rule that differs replaces all rules of the chain in one transaction. */
export interface NftChainObject {
  readonly kind: 'nft-chain'
  readonly ns: Ns
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  readonly hook?: NftHook
  /** Each one rule in nft's own language, the subset of netlink/nft/rule. */
  readonly rules: readonly string[]
}

export interface NftHook {
  readonly type: 'filter' | 'nat' | 'route'
  readonly hook: 'ingress' | 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting'
  readonly priority: number
  readonly policy: 'accept' | 'drop'
  /** Ingress chains of netdev tables. */
  readonly device?: string
}

export interface NftElementObject {
  readonly kind: 'nft-element'
  readonly set: NftSetObject
  /** One word per field: ['02:77:0a:01:00:0b', 'tcp', '8080']. */
  readonly key: readonly string[]
  readonly value?: readonly string[]
}

/** A timeout of conntrack that rules give to new connections; its name tells all of it, so that it never changes. */
export interface NftTimeoutObject {
  readonly kind: 'nft-timeout'
  readonly ns: Ns
  readonly family: NftFamily
  readonly table: string
  readonly proto: 'tcp' | 'udp'
  /** Of an established connection; of UDP in any state. */
  readonly seconds: number
  /** TCP: when one side has closed, s. */
  readonly halfClosed?: number
}
export const timeoutName = (o: Pick<NftTimeoutObject, 'proto' | 'seconds' | 'halfClosed'>): string =>
  [o.proto, o.seconds, ...(o.halfClosed === undefined ? [] : [o.halfClosed])].join('_')

/** One rule of ours in somebody else's chain (Docker's), known by its comment; observed, it is that comment's tag. */
export interface NftGuestObject {
  readonly kind: 'nft-guest'
  readonly ns: Ns
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  readonly rule: string
  readonly place: GuestPlace
}
/**
 * behind: after what users have to say, which is Docker's jump to their chain, or, without it, all rules of others but one
 * that ends the chain; midst: not so; several: is there more than once.
 */
export type GuestPlace = 'head' | 'behind' | 'midst' | 'several'

/** A port of the namespace's own that IPVS balances: `ipvsadm -A`. */
export interface IpvsServiceObject {
  readonly kind: 'ipvs-service'
  readonly ns: Ns
  readonly proto: 'tcp' | 'udp' | 'sctp'
  /** Plain. */
  readonly address: string
  readonly port: number
  /** With its flags, as ipvsadm writes them: 'sh', 'mh -b mh-port'. */
  readonly scheduler: string
  /** Seconds that a client keeps its destination after its last connection; absent: each connection for itself. */
  readonly affinity?: number
}

/** `ipvsadm -a … -m`: the port is kept. */
export interface IpvsDestinationObject {
  readonly kind: 'ipvs-destination'
  readonly ns: Ns
  readonly service: Pick<IpvsServiceObject, 'proto' | 'address' | 'port'>
  /** Plain address. */
  readonly to: string
  /** 0: only the connections that it has. */
  readonly weight: number
  /** What somebody else made otherwise, in ipvsadm's words; ours have none. */
  readonly otherwise?: string
}

/** When IPVS forgets idle connections of a namespace: `ipvsadm --set`. */
export interface IpvsTimeoutObject {
  readonly kind: 'ipvs-timeout'
  readonly ns: Ns
  /** tcpFin: once one side has closed. */
  readonly of: 'tcp' | 'tcpFin' | 'udp'
  readonly seconds: number
}

export type IpvsObject = IpvsServiceObject | IpvsDestinationObject | IpvsTimeoutObject

export type KernelObject =
  | NetnsObject
  | LinkObject
  | PortObject
  | AddressObject
  | RouteObject
  | NeighbourObject
  | FdbPortObject
  | FdbRemoteObject
  | NexthopObject
  | SysctlObject
  | NftTableObject
  | NftSetObject
  | NftChainObject
  | NftElementObject
  | NftTimeoutObject
  | NftGuestObject
  | IpvsObject

/** Always there with some value: found only by who knows what to look for, changed and never removed. */
export const isSetting = (o: KernelObject): boolean => o.kind === 'sysctl' || o.kind === 'ipvs-timeout'

export type ObjectKey = string

/** The key of a setting of that device. */
export const isSettingOf = (key: ObjectKey, dev: string): boolean =>
  key.startsWith('sysctl ') && key.includes(`/conf/${dev}/`)

export const keyOf = (o: KernelObject): ObjectKey => {
  switch (o.kind) {
    case 'netns':
      return `netns ${o.ns}`
    case 'bridge':
    case 'vxlan':
    case 'veth':
      return `link ${o.ns} ${o.name}`
    case 'port':
      return `port ${o.ns} ${o.dev}`
    case 'address':
      return `address ${o.ns} ${o.dev} ${o.address}`
    case 'route':
      return `route ${o.ns} ${o.to}`
    case 'neighbour':
      return `neighbour ${o.ns} ${o.dev} ${o.ip}`
    case 'fdb-port':
      return `fdb ${o.ns} ${o.mac}`
    case 'fdb-remote':
      return `fdb-remote ${o.ns} ${o.dev} ${o.mac}`
    case 'nexthop':
      return `nexthop ${o.id}`
    case 'sysctl':
      return `sysctl ${o.ns} ${o.path}`
    case 'nft-table':
      return `nft ${o.ns} ${o.family} ${o.table}`
    case 'nft-set':
      return `nft ${o.ns} ${o.family} ${o.table} set ${o.set}`
    case 'nft-chain':
      return `nft ${o.ns} ${o.family} ${o.table} chain ${o.chain}`
    case 'nft-element':
      return `nft ${o.set.ns} ${o.set.family} ${o.set.table} element ${o.set.set} ${o.key.join(' . ')}`
    case 'nft-timeout':
      return `nft ${o.ns} ${o.family} ${o.table} timeout ${timeoutName(o)}`
    case 'nft-guest':
      return `nft ${o.ns} ${o.family} ${o.table} guest ${o.chain} ${ruleTag(o.rule)}`
    case 'ipvs-service':
      return `ipvs ${o.ns} ${ipvsService(o)}`
    case 'ipvs-destination':
      return `ipvs ${o.ns} ${ipvsService(o.service)} -> ${o.to}`
    case 'ipvs-timeout':
      return `ipvs ${o.ns} timeout ${o.of}`
  }
}

const ipvsService = ({ proto, address, port }: IpvsDestinationObject['service']): string =>
  `${proto} ${address.includes(':') ? `[${address}]` : address}:${port}`

/** The namespace an object lives in; nexthops live in H. */
export const nsOf = (o: KernelObject): Ns => (o.kind === 'nft-element' ? o.set.ns : o.kind === 'nexthop' ? '' : o.ns)

/** The same, told by the key: its second word; keys of nexthops have none. */
export const nsOfKey = (key: ObjectKey): Ns => {
  if (key.startsWith('nexthop ')) return ''
  const from = key.indexOf(' ') + 1
  const to = key.indexOf(' ', from)
  return to < 0 ? key.slice(from) : key.slice(from, to)
}

const word = (name: string, value: string | number | undefined): string =>
  value === undefined ? '' : ` ${name} ${value}`
const flag = (name: string, on: boolean): string => ` ${name} ${on ? 'on' : 'off'}`
const flags = ({ down, mute }: { down?: true; mute?: true }): string =>
  `${down ? ' down' : ''}${mute ? ' arp off' : ''}`
const link = (o: LinkObject): string =>
  `link ${o.name}${flags(o)}${word('mtu', o.mtu)}${word('address', o.mac)}${word('master', o.master)}`

const body = (o: KernelObject): string => {
  switch (o.kind) {
    case 'netns':
      return 'netns'
    case 'bridge':
      return `${link(o)} type bridge${o.otherwise ?? ' ageing_time 0 mcast_snooping 0'}`
    case 'vxlan':
      return `${link(o)} type vxlan id ${o.vni} local ${o.local} dstport ${o.port} ${o.learning ? 'learning' : 'nolearning'} gbp${o.otherwise ?? ''}`
    case 'veth':
      if (o.port) return `${link(o)} type veth`
      return `${link(o)} type veth peer ${o.peer.ns === '' ? '' : `netns ${o.peer.ns} `}name ${o.peer.name} mtu ${o.peer.mtu}${word('address', o.peer.mac)}${flags(o.peer)}`
    case 'port':
      return `bridge link dev ${o.dev} learning off${flag('hairpin', o.hairpin)}${flag('flood', o.flood)}${flag('mcast_flood', o.spread)}${flag('bcast_flood', o.spread)}${flag('neigh_suppress', o.suppress)}${o.otherwise ?? ''}`
    case 'address':
      return `address ${o.address} dev ${o.dev}${o.unrouted ? ' without its route' : ''}`
    case 'route':
      return `route ${o.to}${word('via', o.via)} dev ${o.dev}`
    case 'neighbour':
      return `neigh ${o.ip} lladdr ${o.mac} dev ${o.dev} permanent`
    case 'fdb-port':
      return `fdb ${o.mac} dev ${o.dev} master static`
    case 'fdb-remote':
      return `fdb ${o.mac} dev ${o.dev} nhid ${o.nexthop} self`
    case 'nexthop':
      return 'via' in o.to ? `nexthop id ${o.id} via ${o.to.via} fdb` : `nexthop id ${o.id} group ${o.to.group} fdb`
    case 'sysctl':
      return `sysctl ${o.path}=${o.value}`
    case 'nft-table':
      return `table ${o.family} ${o.table}${o.dormant ? ' flags dormant' : ''}`
    case 'nft-set':
      return `table ${o.family} ${o.table} ${o.value ? 'map' : 'set'} ${o.set} { type ${o.key.join(' . ')}${o.value ? ` : ${o.value.join(' . ')}` : ''};${o.interval ? ' flags interval;' : ''} }`
    case 'nft-chain': {
      const h = o.hook
      const head = h
        ? `type ${h.type} hook ${h.hook}${h.device ? ` device "${h.device}"` : ''} priority ${h.priority}; policy ${h.policy}; `
        : ''
      return `table ${o.family} ${o.table} chain ${o.chain} { ${head}${o.rules.join('; ')} }`
    }
    case 'nft-element':
      return `table ${o.set.family} ${o.set.table} element ${o.set.set} { ${o.key.join(' . ')}${o.value ? ` : ${o.value.join(' . ')}` : ''} }`
    case 'nft-timeout':
      return `table ${o.family} ${o.table} ct timeout ${timeoutName(o)}`
    case 'nft-guest':
      return `table ${o.family} ${o.table} chain ${o.chain} ${o.place} ${o.rule.startsWith('#') ? `comment "${guestComment(o)}"` : o.rule}`
    case 'ipvs-service':
      return `ipvs ${ipvsService(o)} scheduler ${o.scheduler}${word('persistent', o.affinity)}`
    case 'ipvs-destination':
      return `ipvs ${ipvsService(o.service)} to ${o.to} weight ${o.weight}${o.otherwise ?? ''}`
    case 'ipvs-timeout':
      return `ipvs timeout ${o.of} ${o.seconds}`
  }
}

/** One line in the words of ip, bridge and nft, the namespace first (`H` for the host's own). */
export const format = (o: KernelObject): string => {
  const ns = nsOf(o)
  return `${ns === '' ? 'H' : ns}: ${body(o)}`
}

/** Stands for a rule in its comment in the kernel: what is observed of a rule is its tag. Idempotent. */
export const ruleTag = (rule: string): string =>
  /^#[0-9a-f]{12}$/.test(rule) ? rule : `#${createHash('sha256').update(rule).digest('hex').slice(0, 12)}`

export const guestComment = ({ rule }: Pick<NftGuestObject, 'rule'>): string => `weft ${ruleTag(rule)}`
/** The tag in the comment of a rule of ours in a foreign chain. */
export const guestTag = (comment = ''): string | undefined => /^weft (#[0-9a-f]{12})$/.exec(comment)?.[1]

/** As the kernel says it. */
export const tagged = (o: KernelObject): KernelObject => {
  if (o.kind === 'nft-guest') return { ...o, rule: ruleTag(o.rule) }
  return o.kind === 'nft-chain' ? { ...o, rules: o.rules.map(ruleTag) } : o
}

/** A desired object against an observed one: what the desired leaves to the kernel is not compared. */
export const sameObject = (desired: KernelObject, observed: KernelObject): boolean => {
  if (desired === observed) return true
  return body(tagged(desired)) === body(tagged(blind(desired, observed)))
}

/** The observed object without what the desired one does not ask for. */
const blind = (desired: KernelObject, observed: KernelObject): KernelObject => {
  if (desired.kind !== 'veth' || observed.kind !== 'veth') return observed
  const { mac: _, ...peer } = observed.peer
  return { ...observed, peer: desired.peer.mac === undefined ? peer : observed.peer }
}

/**
 * Which tracked connections: by plain addresses that they are translated to, marks that they have, as nft writes them
 * ('0x0a500002'), and who began those that are masqueraded ('from 10.80.0.2').
 */
export type FlowsOf =
  | { readonly to: readonly string[] }
  | { readonly toOthersThan: ReadonlySet<string> }
  | { readonly led: readonly LedPort[] }

/** UDP to a port at an address of this host. */
export interface LedPort {
  readonly port: number
  /** Absent: every address. */
  readonly at?: readonly string[]
  /** Translated to one of these it is right. */
  readonly to: readonly string[]
}

// SPDX-License-Identifier: Apache-2.0
// What a cluster must look like, by docker inspect, and what bridge, ip, nft, docker and etcdctl show: both as lines of
// text, one fact each, so that a difference can be read. Nothing of weft is used, neither its programs nor its sources.

// As the tools print them; what is not read is left out.
type Joined = { EndpointID: string; MacAddress: string; IPAddress: string; GlobalIPv6Address: string }
type Settings = { Networks: Record<string, Joined> }
type Inspected = { Id: string; Name: string; State: { Pid: number }; NetworkSettings: Settings }
type Member = { EndpointID: string; MacAddress: string; IPv4Address: string; IPv6Address: string }
type InspectedNetwork = { Name: string; Containers: Record<string, Member> }
type Fdb = { mac: string; ifname: string; state: string; flags: string[]; dst?: string; nhid?: number }
type Neighbour = { dst: string; dev: string; lladdr?: string; state: string[] }
type Link = { ifname: string; ifindex: number; link_index?: number; master?: string; address: string }
type Address = Link & { addr_info: { local: string; scope: string }[] }
type Nexthop = { id: number; gateway?: string; group?: { id: number }[] }
type Payload = { protocol?: string; field?: string; base?: string; offset?: number }
type Expression = { match?: { op: string; left: { payload?: Payload }; right: string } }
type Chain = { family: string; name: string; policy?: string }
type Nft = {
  chain?: Chain
  rule?: { family: string; chain: string; expr: Expression[] }
  set?: { name: string; elem?: string[] }
  map?: { name: string; elem?: [unknown, unknown][] }
}
type Namespace = { ns: string; fdb: Fdb[]; neigh: Neighbour[]; link: Link[]; nft: { nftables?: Nft[] } }

/** A host as its own tools show it; `insides` by container id. */
export interface View {
  readonly host: string
  readonly containers: readonly Inspected[]
  readonly networks: readonly InspectedNetwork[]
  readonly links: readonly Link[]
  readonly nexthops: readonly Nexthop[]
  readonly namespaces: readonly Namespace[]
  readonly insides: ReadonlyMap<string, readonly Address[]>
}

/** A shell script for a host; its output is for `parseView`. */
export const viewScript = `
show() { printf '%s\\t' "$1"; shift; "$@" | tr -d '\\n'; echo; }
ids=$(docker ps -q --no-trunc)
for id in $ids; do show container docker inspect -f '{{json .}}' $id; done
for id in $(docker network ls -q -f driver=weft); do show network docker network inspect -f '{{json .}}' $id; done
show links ip -j link; show nexthops ip -j nexthop
for ns in $(ls /run/netns | grep ^weft-); do
  show "fdb $ns" ip netns exec $ns bridge -j fdb show
  show "neigh $ns" ip netns exec $ns ip -j neigh show nud all
  show "link $ns" ip netns exec $ns ip -j link
  show "nft $ns" ip netns exec $ns nft -j list ruleset
done
[ -z "$ids" ] || docker inspect -f '{{.Id}} {{.State.Pid}}' $ids | while read -r id pid; do
  show "inside $id" nsenter -t $pid -n ip -j addr
done`

export const parseView = (host: string, text: string): View => {
  const rows = text.split('\n').map(line => line.split('\t') as [string, string])
  const all = <T>(name: string): T[] => rows.flatMap(([key, json]) => (key === name ? [JSON.parse(json || '[]')] : []))
  const named = (kind: string): string[] =>
    rows.flatMap(([key]) => (key.startsWith(`${kind} `) ? [key.slice(kind.length + 1)] : []))
  const namespace = (ns: string): Namespace => {
    const [fdb = [], neigh = [], link = [], nft] = ['fdb', 'neigh', 'link', 'nft'].map(kind => all(`${kind} ${ns}`)[0])
    return { ns, fdb, neigh, link, nft } as Namespace
  }
  return {
    host,
    containers: all('container'),
    networks: all('network'),
    links: all<Link[]>('links').flat(),
    nexthops: all<Nexthop[]>('nexthops').flat(),
    namespaces: named('link').map(namespace),
    insides: new Map(named('inside').map(id => [id, all<Address[]>(`inside ${id}`).flat()])),
  }
}

type Network = {
  id: string
  name: string
  vni: number
  internal: boolean
  pools: { prefix: string; gateway?: string }[]
}
/** The store: key after /weft/v1/, as its decoded parts → record. */
export type Store = readonly { readonly key: readonly string[]; readonly record: Record<string, unknown> }[]

/** Of `etcdctl get --prefix /weft/v1/ -w json`. */
export const parseStore = (text: string): Store => {
  const plain = (base64: string): string => Buffer.from(base64, 'base64').toString()
  const { kvs = [] } = JSON.parse(text) as { kvs?: { key: string; value: string }[] }
  return kvs.flatMap(({ key, value }) => {
    const parts = plain(key).slice('/weft/v1/'.length).split('/').map(decodeURIComponent)
    return plain(value).startsWith('{') ? [{ key: parts, record: JSON.parse(plain(value)) }] : []
  })
}
const records = <T>(store: Store, table: string): T[] =>
  store.filter(({ key }) => key[0] === table).map(({ record }) => record as T)

type Stored = {
  network: string
  workload?: { labels: Record<string, string>; project?: string; service?: string }
}
/** Virtual addresses in the store, and whether a container of the service is there too. */
const vipsOf = (store: Store) =>
  store.flatMap(({ key: [table, network, service], record }) => {
    if (table !== 'vips') return []
    const used = records<Stored>(store, 'endpoints').some(({ network: its, workload }) => {
      const label = workload?.labels['weft.service']
      const words = label === undefined ? ['compose', workload?.project, workload?.service] : ['label', label]
      return its === network && words.map(word => encodeURIComponent(word ?? '')).join(' ') === service
    })
    return [{ network: network!, service: service!, addresses: record['addresses'] as string[], used }]
  })

/** An endpoint as docker inspect has it. */
export interface Attachment {
  readonly host: string
  readonly container: string
  readonly id: string
  readonly network: string
  readonly endpoint: string
  readonly mac: string
  readonly addresses: readonly string[]
}

export const attachmentsOf = (views: readonly View[]): Attachment[] =>
  views.flatMap(({ host, containers }) =>
    containers.flatMap(({ Id: id, Name, NetworkSettings: { Networks } }) =>
      Object.entries(Networks).map(([network, { EndpointID: endpoint, MacAddress: mac, ...its }]) => {
        const addresses = [its.IPAddress, its.GlobalIPv6Address].filter(Boolean)
        return { host, container: Name.slice(1), id, network, endpoint, mac, addresses }
      }),
    ),
  )

const isV4 = (address: string): boolean => !address.includes(':')
const vtepOf = (host: string): string => `10.9.0.${host.slice(1)}` // as scripts/lab numbers them
const nodeMac = (number: number): string => `02:7e:${number.toString(16).padStart(8, '0').match(/../g)!.join(':')}`
const linkLocal = (mac: string): string => {
  const [a, b, c, d, e, f] = mac.split(':') as [string, string, string, string, string, string]
  const first = (Number.parseInt(a, 16) ^ 2).toString(16).padStart(2, '0')
  return new URL(`http://[fe80::${first}${b}:${c}ff:fe${d}:${e}${f}]`).hostname.slice(1, -1)
}
/** As nft shows a raw payload: fd80::1 → 0xfd800000000000000000000000000001. */
const hex = (v6: string): string => {
  const [high = [], low = []] = v6.split('::').map(side => side.split(':').filter(Boolean))
  const middle = Array<string>(8 - high.length - low.length).fill('0')
  return `0x${[...high, ...middle, ...low].map(group => group.padStart(4, '0')).join('')}`
}

/** What a port's filter has to say of senders, in the words of `filterOf`. */
const filterFor = ({ mac, addresses }: Attachment): string[] => {
  const targets = [...addresses.filter(ip => !isV4(ip)), linkLocal(mac)].map(ip => `th 64 != ${hex(ip)}`)
  const four = addresses.filter(isV4)
  const senders = four.length > 0 ? [...four, '0.0.0.0'] : []
  return [
    'policy drop',
    `ether saddr != ${mac} drop`,
    `${targets.sort().join(' ')} drop`,
    `${['ip6 saddr == ::', ...targets].sort().join(' ')} drop`,
    'ip6 saddr == :: goto',
    `ip6 saddr == ${linkLocal(mac)} goto`,
    ...addresses.map(ip => `${isV4(ip) ? 'ip' : 'ip6'} saddr == ${ip} accept`),
    ...senders.map(ip => `arp saddr ether == ${mac} arp saddr ip == ${ip} accept`),
  ]
}

/** Every fact that must be seen, given what docker inspect says runs. */
export const expected = (views: readonly View[], store: Store): string[] => {
  const all = attachmentsOf(views)
  // a container that was caught while it started: to be looked at again
  const early = all.filter(({ mac }) => !mac)
  const attachments = all.filter(({ mac }) => mac)
  const networks = records<Network>(store, 'networks')
  const nodes = records<{ name: string; number: number }>(store, 'nodes')
  const facts = attachments.flatMap(({ host, network, endpoint, mac, addresses }) => [
    `etcd ${network}: endpoint ${endpoint} on ${host}: ${mac} ${addresses.join(' ')}`,
    `etcd ${network}: mac ${mac} of ${endpoint} on ${host}`,
    ...addresses.map(ip => `etcd ${network}: address ${ip} of ${endpoint} on ${host}`),
  ])
  facts.push(
    ...early.map(({ host, container, network }) => `${host} docker: ${container} has an endpoint in ${network}`),
  )
  for (const { network, service, addresses } of vipsOf(store)) {
    const name = networks.find(({ id }) => id === network)?.name ?? network
    facts.push(...addresses.map(ip => `etcd ${name}: address ${ip} of service ${service}`))
  }
  for (const { host, insides } of views) {
    for (const link of ['lo', 'eth0', 'docker0', 'weftdns']) facts.push(`${host} ip link: ${link}`)
    for (const { name, vni, internal, pools } of networks) {
      const at = `${host} ${name}`
      const own = nodeMac(nodes.find(node => node.name === host)!.number)
      const families = new Set(pools.map(({ prefix }) => isV4(prefix)))
      const resolvers = ['169.254.77.53', 'fd69:7765:6674:ffff::53'].filter(ip => families.has(isV4(ip)))
      const gateways = [...resolvers, ...pools.flatMap(({ gateway = [] }) => gateway)]
      facts.push(
        ...(internal ? [] : [`${host} ip link: weft#`, `${at} M ip link: up0`]),
        ...['lo', 'br0', 'vx0', 'gw'].map(link => `${at} N ip link: ${link}`),
        ...['lo', 'gw0'].map(link => `${at} M ip link: ${link}`),
        ...['n', 'm'].map(which => `${host} netns: weft-${which}${vni}`),
        ...gateways.map(ip => `${at} N ip neigh: ${ip} ${own} br0`),
        `${at} bridge fdb: ${own} gw`,
      )
      for (const { network, addresses, used } of vipsOf(store))
        for (const ip of addresses)
          if (used && networks.find(({ id }) => id === network)?.name === name)
            facts.push(`${at} N ip neigh: ${ip} ${own} br0`, `${at} nft: vips${isV4(ip) ? 4 : 6} ${ip}`)
      for (const peer of nodes.filter(node => node.name !== host)) {
        const mac = nodeMac(peer.number)
        facts.push(`${at} bridge fdb: ${mac} vx0`, `${at} bridge fdb: ${mac} to ${vtepOf(peer.name)}`)
        facts.push(`${at} M ip neigh: ${linkLocal(mac)} ${mac} gw0`)
      }
      for (const attachment of attachments.filter(({ network }) => network === name)) {
        const { mac, addresses } = attachment
        for (const ip of addresses)
          facts.push(`${at} N ip neigh: ${ip} ${mac} br0`, `${at} M ip neigh: ${ip} ${mac} gw0`)
        if (attachment.host !== host) {
          facts.push(`${at} bridge fdb: ${mac} vx0`, `${at} bridge fdb: ${mac} to ${vtepOf(attachment.host)}`)
          continue
        }
        const end = insides.get(attachment.id)?.find(({ address }) => address === mac)
        facts.push(
          `${at} bridge fdb: ${mac} its port`,
          `${at} N ip link: port of ${mac}, ${end?.link_index} to ${end?.ifindex}`,
          ...filterFor(attachment).map(rule => `${at} nft: port of ${mac}: ${rule}`),
          `${at} nft: local_macs ${mac}`,
          ...addresses.map(ip => `${at} nft: returning${isV4(ip) ? 4 : 6} ${ip}`),
          `${at} docker network: ${attachment.endpoint} ${mac} ${addresses.join(' ')}`,
          `${host} ${attachment.container} ip addr: ${mac} ${addresses.join(' ')}`,
        )
      }
    }
  }
  return facts
}

/** What a filter says of senders, rule by rule. */
const filterOf = (nft: readonly Nft[], { name, policy }: Chain): string[] => {
  const rules = nft.flatMap(({ rule }) => (rule?.family === 'netdev' && rule.chain === name ? [rule.expr] : []))
  const said = rules.flatMap(expr => {
    const verdict = ['accept', 'drop', 'goto'].find(word => expr.some(one => word in one))
    const tests = expr.flatMap(({ match }) => {
      const { protocol, field, base, offset } = match?.left.payload ?? {}
      if (field === 'taddr') return [`th 64 ${match!.op} ${hex(match!.right)}`] // nft 1.1 knows what stands there
      if (base === undefined && !field?.startsWith('saddr')) return []
      return [`${base ?? protocol} ${offset ?? field} ${match!.op} ${match!.right}`]
    })
    return tests.length > 0 ? [`${tests.sort().join(' ')} ${verdict}`] : []
  })
  return [`policy ${policy}`, ...said]
}

/** Every fact of a switch N. */
const switchFacts = (at: string, { fdb, link, nft: { nftables: nft = [] } }: Namespace, view: View): string[] => {
  const ports = new Map(
    link.flatMap(({ ifname, master }) => (master && !/^(vx0|gw)$/.test(ifname) ? [[ifname, '']] : [])),
  )
  // permanent: the devices' own addresses and multicast; what is neither that nor static was learned
  const rows = fdb.filter(({ state }) => state !== 'permanent')
  for (const { ifname, mac } of rows) if (ports.has(ifname)) ports.set(ifname, mac)
  const vtep = (id: number | undefined): string | undefined => {
    const hop = view.nexthops.find(one => one.id === id)
    return hop?.group ? hop.group.map(leg => vtep(leg.id)).join('+') : hop?.gateway
  }
  const elements = nft.flatMap(({ set, map }) =>
    set ? (set.elem ?? []).map(one => [set.name, one]) : (map?.elem ?? []).map(([one]) => [map!.name, one]),
  )
  const filters = nft.flatMap(({ chain }) =>
    chain?.family === 'netdev' && /^in_(?!vx0$|gw$)/.test(chain.name) ? [chain] : [],
  )
  return [
    ...rows.map(({ mac, ifname, flags, dst, nhid, state }) => {
      const where = flags.includes('self') ? `to ${dst ?? vtep(nhid)}` : ports.has(ifname) ? 'its port' : ifname
      return `${at} bridge fdb: ${mac} ${where}${state === 'static' ? '' : ` ${state} learned`}`
    }),
    ...link.map(({ ifname, ifindex, link_index }) => {
      const port = ports.get(ifname)
      return `${at} N ip link: ${port ? `port of ${port}, ${ifindex} to ${link_index}` : ifname}`
    }),
    ...filters.flatMap(chain => {
      const port = ports.get(chain.name.slice('in_'.length)) || `unknown (${chain.name})`
      return filterOf(nft, chain).map(rule => `${at} nft: port of ${port}: ${rule}`)
    }),
    ...elements
      .filter(([name]) => !/zone|choice|backends|self_calls/.test(String(name)))
      .map(([name, one]) => `${at} nft: ${name} ${one}`),
  ]
}

const storeFacts = (store: Store, nameOf: (network: string) => string): string[] =>
  store.flatMap(({ key: [table, network, name], record }) => {
    const { kind, node, endpoint, mac, addresses } = record
    const at = `etcd ${nameOf(network!)}:`
    if (table === 'endpoints') return [`${at} endpoint ${name} on ${node}: ${mac} ${(addresses as string[]).join(' ')}`]
    if ((table !== 'addresses' && table !== 'macs') || kind === 'resting' || kind === 'spare') return []
    if (kind === 'vip') return [`${at} address ${name} of service ${record['service']}`]
    return [
      `${at} ${table === 'macs' ? 'mac' : 'address'} ${name} ${kind === 'bound' ? `of ${endpoint}` : kind} on ${node}`,
    ]
  })

/** Every fact that the tools show. */
export const seen = (views: readonly View[], store: Store): string[] => {
  const networks = records<Network>(store, 'networks')
  const facts = storeFacts(store, id => networks.find(network => network.id === id)?.name ?? id)
  for (const view of views) {
    const { host } = view
    facts.push(...view.links.map(({ ifname }) => `${host} ip link: ${ifname.replace(/^weft\d+$/, 'weft#')}`))
    for (const { Name, Containers } of view.networks)
      for (const { EndpointID, MacAddress, IPv4Address, IPv6Address } of Object.values(Containers)) {
        const addresses = [IPv4Address, IPv6Address].filter(Boolean).map(text => text.split('/')[0])
        facts.push(`${host} ${Name} docker network: ${EndpointID} ${MacAddress} ${addresses.join(' ')}`)
      }
    for (const { Id, Name } of view.containers)
      for (const { ifname, address, addr_info } of view.insides.get(Id) ?? []) {
        const global = addr_info.filter(({ scope }) => scope === 'global').map(({ local }) => local)
        if (ifname !== 'lo') facts.push(`${host} ${Name.slice(1)} ip addr: ${address} ${global.join(' ')}`)
      }
    for (const its of view.namespaces) {
      const [, which, vni] = /^weft-([nm])(\d+)$/.exec(its.ns) ?? []
      const at = `${host} ${networks.find(network => String(network.vni) === vni)?.name ?? its.ns}`
      const links = (): string[] => its.link.map(({ ifname }) => `${at} M ip link: ${ifname}`)
      facts.push(`${host} netns: ${its.ns}`, ...(which === 'n' ? switchFacts(at, its, view) : links()))
      for (const { dst, dev, lladdr, state } of its.neigh) {
        // a gateway is a host of its own and may ask; a switch is told everything
        const ours = which === 'n' ? !state.includes('NOARP') : state.includes('PERMANENT')
        const extra = state.includes('PERMANENT') ? '' : ` ${state}`
        if (ours) facts.push(`${at} ${which?.toUpperCase()} ip neigh: ${dst} ${lladdr} ${dev}${extra}`)
      }
    }
  }
  return facts
}

/** Both as multisets; empty when they agree. */
export const differences = (wanted: readonly string[], shown: readonly string[]): string[] => {
  const left = [...shown]
  const missing = wanted.filter(fact => {
    const i = left.indexOf(fact)
    if (i >= 0) left.splice(i, 1)
    return i < 0
  })
  return [...missing.map(fact => `missing: ${fact}`), ...left.map(fact => `unexpected: ${fact}`)].sort()
}

// SPDX-License-Identifier: Apache-2.0
// The ways from host 1 to host 2 that are compared: a sender and a receiver each, in namespaces of their own but for the
// raw underlay.
import { type Hosts, overlayNetwork, weftNetwork } from '../hosts/hosts.ts'

export interface Path {
  /** Where the receiver is. */
  readonly address: string
  /** A command of the sender's host; resolves with what it prints. */
  send(...command: string[]): Promise<string>
  /** A server on the receiver's; runs until the lab goes. */
  serve(...command: string[]): void
}

export type PathName = 'weft' | 'published' | 'overlay' | 'made by hand' | 'raw'

const containers = async (
  { lab, idle, address }: Hosts,
  network: string,
  name: string,
  ...options: string[]
): Promise<Path> => {
  await idle('h1', `${name}1`, network, ...options)
  await idle('h2', `${name}2`, network, ...options)
  const pid = await lab.docker('h2', 'inspect', '-f', '{{.State.Pid}}', `${name}2`)
  return {
    address: await address('h2', `${name}2`, network),
    send: (...command) => lab.within('h1', `${name}1`, ...command),
    serve: (...command) => void lab.background('exec', 'h2', 'nsenter', '-t', pid, '-n', ...command),
  }
}

const raw = ({ lab }: Hosts): Path => ({
  address: '10.9.0.2',
  send: (...command) => lab.exec('h1', ...command),
  serve: (...command) => void lab.background('exec', 'h2', ...command),
})

/** What any overlay has at least: a bridge, a veth and a VXLAN device, everything known ahead, no rule of anybody. */
const madeByHand = async ({ lab }: Hosts): Promise<Path> => {
  const mac = (host: number): string => `02:00:00:00:00:0${host}`
  const make = (own: number, other: number): string => `
ip netns add hand-switch
ip netns add hand
ip link add hand-vx type vxlan id 4242 dstport 14789 local 10.9.0.${own} dev eth0 nolearning
ip link set hand-vx netns hand-switch
ip -n hand-switch link add name switch type bridge
ip -n hand-switch link add name port type veth peer name eth0 netns hand
ip -n hand-switch link set port master switch up mtu 1450
ip -n hand-switch link set hand-vx master switch up mtu 1450
ip -n hand-switch link set switch up
bridge -n hand-switch fdb add ${mac(other)} dev hand-vx dst 10.9.0.${other}
ip -n hand link set eth0 address ${mac(own)} up mtu 1450
ip -n hand address add 10.204.0.${own}/24 dev eth0
ip -n hand neighbour add 10.204.0.${other} lladdr ${mac(other)} dev eth0
`
  await Promise.all([lab.exec('h1', 'sh', '-ec', make(1, 2)), lab.exec('h2', 'sh', '-ec', make(2, 1))])
  return {
    address: '10.204.0.2',
    send: (...command) => lab.exec('h1', 'ip', 'netns', 'exec', 'hand', ...command),
    serve: (...command) => void lab.background('exec', 'h2', 'ip', 'netns', 'exec', 'hand', ...command),
  }
}

/** Another network than weft's first: there nobody is tracked. */
const published = async (hosts: Hosts): Promise<Path> => {
  await hosts.lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'pub')
  await hosts.lab.shows('h2', 'pub')
  return containers(hosts, 'pub', 'pub', '-p', '8080')
}

export const openPaths = async (hosts: Hosts): Promise<Readonly<Record<PathName, Path>>> => ({
  weft: await containers(hosts, weftNetwork, 'weft'),
  published: await published(hosts),
  overlay: await containers(hosts, overlayNetwork, 'overlay'),
  'made by hand': await madeByHand(hosts),
  raw: raw(hosts),
})
